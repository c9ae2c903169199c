"""Compare ways to find near-duplicates with exact Jaccard on real text with planted copies.

    python -m benchmarks duplicates --corpus corpus.jsonl.gz [--documents 3000] [--threshold 0.8] [--words 5]
        [--level passage]

Takes the first documents of a corpus and plants a copy of every tenth of them in each of four ways, in
random order among the documents (seed 7):

- reformatted: upper case, ASCII punctuation replaced by spaces;
- edited: 0.5, 1, 2 or 4 % of the words replaced by words of other documents;
- truncated: the first 70 to 98 % of the words;
- merged: the document, then the beginning of another, 3 to 30 % as long.

With `--level passage`, all of these are split into passages of at most 256 words, as a build does where no
encoder has a limit, and passages are compared in place of documents.

The truth is exact: the sizes of all intersections of sets of word runs, as a product of sparse matrices. A
document is a true duplicate if, in order, it is at least as similar as the threshold to an earlier one
that is kept. `precision` is the share of dropped documents that any earlier one is so similar to, `recall`
the share of true duplicates that are dropped. datasketch and rensa's own deduplicator are used as their
documentation shows, 128 permutations, on the same word runs; neither compares exactly. MB/s is text per
second of processor time, all threads and steps together.
"""

import argparse
import gzip
import itertools
import json
import random
import re
import string
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from compactds.filters.corpus.duplicates import PERMUTATIONS, DuplicateSettings, sign_shard
from compactds.filters.corpus.duplicates_pairs import read_duplicates
from compactds.filters.corpus.duplicates_search import SignedShard, find_duplicates
from compactds.indexer.splitting import PassageLimits, split

SHARD_DOCUMENTS = 500
PASSAGE_WORDS, SHORTEST_TAIL = 256, 32
KINDS = ("reformatted", "edited", "truncated", "merged")
SHARES = (0.005, 0.01, 0.02, 0.04)

Finder = Callable[[list[str], DuplicateSettings], set[int]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus", type=Path, required=True, help="JSON lines, may be gzipped, with a text in each record"
    )
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--words", type=int, default=5)
    parser.add_argument("--level", choices=("document", "passage"), default="document")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    settings = DuplicateSettings(options.threshold, options.words)
    texts, kinds = planted(read_texts(options.corpus, options.documents))
    if options.level == "passage":
        texts, kinds = split_into_passages(texts, kinds)
    pairs = similar_pairs(texts, settings)
    truth = dropped_in_order(pairs)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    held = f"{megabytes:.1f} MB, {len(texts)} {options.level}s"
    print(f"{held}, {len(pairs)} pairs at {settings.threshold} or more")
    print("\n| way | dropped | precision | recall | MB/s |\n| --- | --- | --- | --- | --- |")
    rows = [measure(name, find, texts, settings, pairs, truth, megabytes) for name, find in FINDERS.items()]
    print("\n| planted | copies | true duplicates | of these found |\n| --- | --- | --- | --- |")
    found = {kind: by_kind(kind, kinds, truth, rows[0]["found"]) for kind in ("", *KINDS)}
    if options.json:
        results = [{name: value for name, value in row.items() if name != "found"} for row in rows]
        options.json.write_text(json.dumps({"ways": results, "kinds": found}, indent=2))


def read_texts(path: Path, documents: int) -> list[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in itertools.islice(lines, documents)]


def planted(texts: list[str]) -> tuple[list[str], list[str]]:
    """Return texts with copies among them, in random order, and how each was made ("" if it was not)."""
    draw = random.Random(7)
    made = [(text, "") for text in texts]
    for kind in KINDS:
        originals = draw.sample(texts, len(texts) // 10)
        made.extend([(copied(text, kind, draw.choice(texts), draw), kind) for text in originals])
    draw.shuffle(made)
    return [text for text, _ in made], [kind for _, kind in made]


def copied(text: str, kind: str, other: str, draw: random.Random) -> str:
    if kind == "reformatted":
        return re.sub(f"[{re.escape(string.punctuation)}]", " ", text.upper())
    words, others = text.split(), other.split() or ["other"]
    if kind == "truncated":
        return " ".join(words[: int(len(words) * draw.uniform(0.7, 0.98))])
    if kind == "merged":
        return " ".join([*words, *others[: int(len(words) * draw.uniform(0.03, 0.3))]])
    for place in draw.sample(range(len(words)), int(len(words) * draw.choice(SHARES))):
        words[place] = draw.choice(others)
    return " ".join(words)


def split_into_passages(texts: list[str], kinds: list[str]) -> tuple[list[str], list[str]]:
    """Return the passages of texts in order, and how the text of each was made."""
    limits = PassageLimits(words=PASSAGE_WORDS, min_words=SHORTEST_TAIL, max_tokens=None)
    passages = [
        (text[span.start : span.end], kind)
        for text, kind in zip(texts, kinds, strict=True)
        for span in split(text, limits)
    ]
    return [text for text, _ in passages], [kind for _, kind in passages]


def word_runs(text: str, length: int) -> list[str]:
    """Return the word runs of a text, by a plain reading of the rule."""
    words = re.findall(r"[^\W_]+", text.casefold())
    if len(words) < length:
        return [" ".join(words)] if words else []
    return [" ".join(words[start : start + length]) for start in range(len(words) - length + 1)]


def similar_pairs(texts: list[str], settings: DuplicateSettings) -> dict[tuple[int, int], float]:
    """Return the exact similarity of all pairs (earlier, later) that reach the threshold."""
    from scipy.sparse import csr_matrix

    known: dict[str, int] = {}
    columns = [
        [known.setdefault(run, len(known)) for run in set(word_runs(text, settings.words))] for text in texts
    ]
    sizes = np.array([len(column) for column in columns])
    rows = np.repeat(np.arange(len(texts)), sizes)
    flat = np.fromiter(itertools.chain.from_iterable(columns), np.int64, sizes.sum())
    matrix = csr_matrix((np.ones(len(flat), np.int32), (rows, flat)), (len(texts), max(len(known), 1)))
    found = {}
    for start in range(0, len(texts), 500):
        shared = (matrix[start : start + 500] @ matrix.T).tocoo()
        earlier, later = shared.coords[1], shared.coords[0] + start
        similarity = shared.data / (sizes[earlier] + sizes[later] - shared.data)
        keep = (earlier < later) & (similarity >= settings.threshold)
        pairs = zip(earlier[keep].tolist(), later[keep].tolist(), strict=True)
        found.update(zip(pairs, similarity[keep].tolist(), strict=True))
    return found


def dropped_in_order(pairs: dict[tuple[int, int], float]) -> set[int]:
    dropped: set[int] = set()
    for earlier, later in sorted(pairs, key=lambda pair: (pair[1], pair[0])):
        if earlier not in dropped:
            dropped.add(later)
    return dropped


def with_compactds(texts: list[str], settings: DuplicateSettings) -> set[int]:
    numbered = list(enumerate(texts))
    with tempfile.TemporaryDirectory() as folder:
        shards = []
        for start in range(0, len(texts), SHARD_DOCUMENTS):
            path = Path(folder) / f"{start}.parquet"
            part = numbered[start : start + SHARD_DOCUMENTS]
            sign_shard(path, part, settings)
            shards.append(SignedShard(path, lambda part=part: part))
        found = find_duplicates(shards, Path(folder) / "search", settings)
        return {duplicate.ordinal for duplicate in read_duplicates(found)}


def with_datasketch(texts: list[str], settings: DuplicateSettings) -> set[int]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=settings.threshold, num_perm=PERMUTATIONS)
    dropped = set()
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([run.encode() for run in set(word_runs(text, settings.words))])
        if index.query(sketch):
            dropped.add(number)
        else:
            index.insert(number, sketch)
    return dropped


def with_rensa(texts: list[str], settings: DuplicateSettings) -> set[int]:
    from rensa import RMinHashDeduplicator

    index = RMinHashDeduplicator(threshold=settings.threshold, num_perm=PERMUTATIONS, use_lsh=True)
    kept = index.add_pairs(
        (str(number), word_runs(text, settings.words)) for number, text in enumerate(texts)
    )
    return {number for number, keep in enumerate(kept) if not keep}


FINDERS: dict[str, Finder] = {
    "compactds": with_compactds,
    "datasketch": with_datasketch,
    "rensa's deduplicator": with_rensa,
}


def measure(
    name: str,
    find: Finder,
    texts: list[str],
    settings: DuplicateSettings,
    pairs: dict[tuple[int, int], float],
    truth: set[int],
    megabytes: float,
) -> dict:
    started = time.process_time()
    found = find(texts, settings)
    seconds = time.process_time() - started
    right = len(found & {later for _, later in pairs})
    precision = right / len(found) if found else 1.0
    recall = len(found & truth) / len(truth) if truth else 1.0
    print(f"| {name} | {len(found)} | {precision:.4f} | {recall:.4f} | {megabytes / seconds:.1f} |")
    return {
        "way": name,
        "dropped": len(found),
        "precision": precision,
        "recall": recall,
        "mb_per_s": megabytes / seconds,
        "found": found,
    }


def by_kind(kind: str, kinds: list[str], truth: set[int], found: set[int]) -> dict[str, int]:
    made = {number for number, known in enumerate(kinds) if known == kind}
    counts = {"copies": len(made), "true": len(made & truth), "found": len(made & truth & found)}
    print(f"| {kind or 'nothing'} | {counts['copies']} | {counts['true']} | {counts['found']} |")
    return counts
