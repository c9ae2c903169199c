"""Measure what filters make of a noisy corpus: noise removed, documents lost, memory, and retrieval.

    python -m benchmarks coverage --beir scifact [--split validation] [--encoder static] [--json out.json]

The corpus is a test collection's (a folder in BEIR's layout); `benchmarks.coverage_noise` says how noise is
made for it, with a seed. The noise is a second source after the corpus, so that of copies the first stays,
which is the one that the judgements know. Four stores are built, one passage a document:

- clean: the corpus alone;
- noisy: corpus and noise, no filters;
- rules: both, with `garbled`, `language`, C4's and Gopher's rules set for abstracts, and [duplicates];
- learned: the same, and `learned_quality`, trained on 300 documents of the corpus and 300 of spam,
  boilerplate and garbled text made with another seed. It knows the makers of the noise, if not the noise:
  real spam is more varied, and a model of it would do worse.

Vectors are kept in --stores, so that each text is encoded once. nDCG@10 is of exact search, in brackets its
95 % bootstrap interval. Memory is the index's, of one kind for all; disk is the segments', without an encoder
that the store may carry. `of these judged` counts the documents lost that a judgement of the split calls for.
The rules were set by looking at this corpus and this noise.
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.coverage_noise import SEED, Record, noise, read_corpus, write_records
from compactds.clients.evaluation import Asking, Collection, evaluate_retrieval, read_collection
from compactds.configs.recipe import Duplicates, EncoderConfig, FilterTable, Index, Passages, Recipe, Source
from compactds.datastore import Datastore
from compactds.datastore.encoders import Encoder
from compactds.filters.corpus.quality_training import train_quality_model
from compactds.indexer.build import build
from compactds.indexer.embedding_cache import CacheOptions

MEASURE = "nDCG@10"
EXAMPLES = 300
LEARNED = ("spam", "boilerplate", "garbled")
RULES: tuple[dict[str, Any], ...] = (
    {"filter": "garbled"},
    {"filter": "language", "min_confidence": 0.4},
    {"filter": "c4_quality", "min_sentences": 1, "ended_lines": False},
    {"filter": "gopher_quality", "min_words": 20, "max_ellipsis_lines": False},
    {"filter": "gopher_repetition"},
)
HEADS = (
    *("store", "documents", "noise removed", "corpus lost", "of these judged"),
    *("index RAM, kB", "disk, MB", MEASURE, "to clean"),
)


def main(arguments: Sequence[str] | None = None, encoder: Encoder | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beir", type=Path, required=True, help="folder with corpus, queries and judgements")
    parser.add_argument(
        "--split", default="validation", help="score the queries of this split; all: every one"
    )
    parser.add_argument("--encoder", default="minilm", help="preset, path or hub id")
    parser.add_argument("--dtype", default="auto", help="what documents are encoded in, such as float32")
    parser.add_argument("--share", type=float, default=1.0, help="documents of noise for one of the corpus")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument(
        "--stores", type=Path, default=Path("bench-out") / "coverage", help="where stores are kept"
    )
    parser.add_argument("--index", default="ivf", help="the kind of index; with auto it differs by size")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    collection = read_collection(options.beir, None if options.split == "all" else options.split)
    inputs = prepare(options.beir, options.stores / options.beir.resolve().name, options.share, options.seed)
    config = EncoderConfig(model=options.encoder, dtype=options.dtype)
    rows = []
    print("| " + " | ".join(HEADS) + " |\n|" + " --- |" * len(HEADS), flush=True)
    for recipe in recipes(inputs, config, options.index):
        out = inputs.parent / f"{Path(config.model).name}-{config.dtype}-{options.index}-{recipe.name}"
        rows.append(measure(recipe, out, collection, encoder, options.stores / "cache"))
        print(table_row(rows[-1], rows[0]), flush=True)
    print("\n| noise | made | left by rules | left by learned |\n| --- | --- | --- | --- |")
    for kind, made in sorted(rows[1]["kinds"].items()):
        left = (row["kinds"].get(kind, 0) for row in rows[2:])
        print(f"| {kind} | {made:,} | " + " | ".join(f"{count / made:.1%}" for count in left) + " |")
    print("\n| filter | corpus lost to it | noise removed by it |\n| --- | --- | --- |")
    for name, counts in rows[-1]["removed_by"].items():
        print(f"| {name} | {counts['corpus']:,} | {counts['noise']:,} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def prepare(beir: Path, folder: Path, share: float, seed: int) -> Path:
    """Write corpus, noise and model into a folder, which is returned as its path `inputs`."""
    inputs = (folder / f"inputs-{share:g}-{seed}").resolve()
    inputs.mkdir(parents=True, exist_ok=True)
    paths = [beir / f"corpus.jsonl{suffix}" for suffix in ("", ".gz")]
    found = read_corpus(next((path for path in paths if path.exists()), paths[0]))
    corpus = [{key: record.get(key, "") for key in ("_id", "title", "text")} for record in found]
    write_records(inputs / "corpus.jsonl", corpus)
    write_records(inputs / "noise.jsonl", noise(corpus, share, seed))
    if not (inputs / "model").exists():
        train(corpus, seed, inputs / "model")
    return inputs


def train(corpus: Sequence[Record], seed: int, folder: Path) -> None:
    draw = random.Random(seed)
    good = draw.sample(corpus, min(EXAMPLES, len(corpus)))
    examples = [one for one in noise(corpus, 1.0, seed + 1) if kind_of(one["_id"]) in LEARNED]
    unwanted = draw.sample(examples, min(EXAMPLES, len(examples)))
    train_quality_model([one["text"] for one in good], [one["text"] for one in unwanted]).save(folder)


def recipes(inputs: Path, config: EncoderConfig, index: Any) -> list[Recipe]:
    corpus, more = (
        Source(path=str(inputs / f"{name}.jsonl"), name=name, fields={"id": "_id"}, attributes=[])
        for name in ("corpus", "noise")
    )
    learned = {"filter": "learned_quality", "model": str(inputs / "model"), "threshold": 0.5}
    filters = {"clean": (), "noisy": (), "rules": RULES, "learned": (*RULES, learned)}
    return [
        Recipe(
            name=name,
            sources=[corpus] if name == "clean" else [corpus, more],
            filters=[FilterTable(**table) for table in tables],
            duplicates=Duplicates() if tables else None,
            passages=Passages(split=False),
            encoder=config,
            index=Index(kind=index),
            skip_invalid=True,
        )
        for name, tables in filters.items()
    ]


def measure(
    recipe: Recipe, out: Path, collection: Collection, encoder: Encoder | None, cache: Path
) -> dict[str, Any]:
    """Build a store and return what it holds and takes, and how well it retrieves."""
    out.parent.mkdir(parents=True, exist_ok=True)
    build(recipe, out, encoder=encoder, cache=CacheOptions(cache))
    with Datastore.open(out, encoder=encoder) as store:
        about = store.describe()
        (ledger,) = store.ledgers()
        report = evaluate_retrieval(store, collection, [MEASURE], asking=Asking(recall=1.0))
    removed = removals(out)
    judged = {
        document for each in collection.judgements.values() for document, grade in each.items() if grade > 0
    }
    lost = [name for name, _ in removed if not kind_of(name)]
    made = Counter(kind_of(record["_id"]) for record in noise_of(recipe))
    gone = Counter(kind_of(name) for name, _ in removed)
    (found,) = report.measures
    return {
        "store": recipe.name,
        "documents": about["documents"],
        "noise": made.total(),
        "noise_removed": gone.total() - gone[""],
        "corpus": ledger["sources"][0]["documents"],
        "corpus_lost": len(lost),
        "judged_lost": len(judged.intersection(lost)),
        "ram_bytes": about["ram_bytes"]["index"],
        "disk_bytes": sum(about["disk_bytes"].values()),
        "measure": found.mean,
        "low": found.interval.low if found.interval else None,
        "high": found.interval.high if found.interval else None,
        "kinds": {kind: made[kind] - gone[kind] for kind in made},
        "removed_by": by_filter(removed),
    }


def noise_of(recipe: Recipe) -> list[Record]:
    return [record for source in recipe.sources[1:] for record in read_corpus(Path(source.path))]


def removals(store: Path) -> list[tuple[str, str]]:
    """Return the id of every document that is left out, and the filter that did it."""
    tables = [pq.read_table(path) for path in store.glob("segments/*/removed.parquet")]
    return [(row["document_id"], row["filter"]) for table in tables for row in table.to_pylist()]


def by_filter(removed: Sequence[tuple[str, str]]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for name, made in removed:
        count = counts.setdefault(made, {"corpus": 0, "noise": 0})
        count["noise" if kind_of(name) else "corpus"] += 1
    return counts


def kind_of(document_id: str) -> str:
    """Return the kind of noise that a document is, "" for one of the corpus."""
    parts = document_id.split("-")
    return parts[1] if parts[0] == "noise" and len(parts) == 3 else ""


def table_row(row: Mapping[str, Any], clean: Mapping[str, Any]) -> str:
    cells = (
        row["store"],
        f"{row['documents']:,}",
        f"{row['noise_removed'] / row['noise']:.1%}" if row["noise"] else "",
        f"{row['corpus_lost'] / row['corpus']:.2%}",
        f"{row['judged_lost']:,}",
        f"{row['ram_bytes'] / 1e3:,.0f}",
        f"{row['disk_bytes'] / 1e6:,.1f}",
        f"{row['measure']:.4f} ({row['low']:.3f}–{row['high']:.3f})",
        f"{row['measure'] - clean['measure']:+.4f}",
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
