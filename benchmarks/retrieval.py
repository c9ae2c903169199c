"""Measure retrieval on a test collection with exact search, set up as published figures are.

    python -m benchmarks retrieval --beir scifact --split validation [--json out.json]

Each document of the collection (a folder in BEIR's layout) is one passage, title and text together, cut
where the encoder stops reading: after 256 tokens for MiniLM, whose published nDCG@10 on SciFact is 0.645.
Documents without text are left out and counted.
The store is kept in --stores, and used again while collection and encoder stay the same.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from compactds.clients.evaluation import (
    Asking,
    Evaluation,
    evaluate_retrieval,
    read_collection,
    retrieval_result,
    to_json,
    to_markdown,
)
from compactds.clients.evaluation.measures import DEFAULT_MEASURES
from compactds.configs.recipe import EncoderConfig, Passages, Recipe, Source
from compactds.datastore import Datastore
from compactds.datastore.encoders import Encoder
from compactds.indexer.build import build
from compactds.indexer.build_result import BuildResult


def main(arguments: Sequence[str] | None = None, encoder: Encoder | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beir", type=Path, required=True, help="folder with corpus, queries and judgements")
    parser.add_argument("--split", help="score only the queries of this split")
    parser.add_argument("--encoder", default="minilm", help="preset, path or hub id")
    parser.add_argument("--dtype", default="auto", help="what documents are encoded in, such as float32")
    parser.add_argument("--measures", nargs="+", default=DEFAULT_MEASURES)
    parser.add_argument("--stores", type=Path, default=Path("bench-out"), help="where the store is kept")
    parser.add_argument("--json", type=Path, help="write figures, settings and each query's values here")
    options = parser.parse_args(arguments)

    collection = read_collection(options.beir, options.split)
    config = EncoderConfig(model=options.encoder, dtype=options.dtype)
    built = build_store(options.beir, config, options.stores, encoder)
    with Datastore.open(built.path, encoder=encoder) as store:
        report = evaluate_retrieval(store, collection, options.measures, asking=Asking(recall=1.0))
        settings = {
            "recall": 1.0,
            "passages": "one per document",
            "dtype": options.dtype,
            "truncated": built.truncated,
            "without text": built.rejected,
            "split": options.split,
        }
        evaluation = Evaluation(
            str(built.path), store.describe(), settings, (retrieval_result(collection.name, report),)
        )
    print(to_markdown(evaluation), end="")
    print(f"built in {built.seconds:.0f} s" if not built.unchanged else "the store was up to date")
    if options.json:
        build_record = asdict(built) | {"path": str(built.path)}
        record = to_json(evaluation, items=True) | {"build": build_record}
        options.json.write_text(json.dumps(record, indent=1))


def build_store(folder: Path, config: EncoderConfig, stores: Path, encoder: Encoder | None) -> BuildResult:
    """Build a store of a collection's corpus, one passage per document, or keep the one that is there."""
    corpora = [folder / f"corpus.jsonl{suffix}" for suffix in ("", ".gz", ".zst")]
    corpus = next((path for path in corpora if path.exists()), corpora[0])
    name = folder.resolve().name
    recipe = Recipe(
        name=name,
        sources=[Source(path=str(corpus.resolve()), fields={"id": "_id"}, attributes=[])],
        passages=Passages(split=False),
        encoder=config,
        skip_invalid=True,
    )
    out = stores / f"{name}-{Path(config.model).name}-{config.dtype}"
    out.parent.mkdir(parents=True, exist_ok=True)
    return build(recipe, out, encoder=encoder)


if __name__ == "__main__":
    main()
