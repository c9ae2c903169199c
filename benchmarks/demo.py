"""Build the bundled corpus and compare all ways to ask it: a minute, and no data from elsewhere.

    python -m benchmarks demo [--encoder minilm]

The corpus is small, so the figures say that everything works, and little about large stores.
"""

import argparse
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from benchmarks import builds, parity

WHERE = "subject = 'conceptual_physics'"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="static", help="preset, path or hub id")
    parser.add_argument("--stores", type=Path, default=Path("bench-out"), help="where the store goes")
    parser.add_argument("--limit", type=int, default=100, help="so many of the 100 questions")
    options = parser.parse_args(arguments)
    data = Path(str(files("compactds.configs"))) / "demo"
    corpus = data / "corpus.jsonl"
    builds.main(["--corpus", str(corpus), "--encoders", options.encoder, "--stores", str(options.stores)])
    print()
    store = builds.store_path(corpus, options.encoder, options.stores)
    asked = ["--queries", str(data / "questions.jsonl"), "--limit", str(options.limit)]
    parity.main(["--store", str(store), *asked, "--where", WHERE])


if __name__ == "__main__":
    main()
