"""Measure encoding against sentence-transformers' own encode, its memory, and rebuilds from the cache.

    python -m benchmarks encoding --corpus openstax.jsonl.gz --passages 2000
    python -m benchmarks encoding --corpus openstax.jsonl.gz --passages 1000 --memory
    python -m benchmarks encoding --corpus openstax.jsonl.gz --passages 5000 --rebuild

The first encodes the same passages both ways by turns in one process, with the batch size both have by
default, and compares the vectors. --memory encodes so many passages, then ten times as many, each in a
process of its own. --rebuild builds a store twice, each time in a process of its own, the second from the
vectors and models that the first kept, and compares the two byte by byte.
"""

import argparse
import gzip
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from itertools import chain, cycle, islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.builds import content, finish
from compactds.datastore.encoders import Encoder, EncoderOptions, Vectors, load_encoder
from compactds.datastore.encoders.sentence_transformer import SentenceTransformerEncoder
from compactds.indexer.documents import Document
from compactds.indexer.encoding import encode_texts
from compactds.indexer.passages import PassageOptions, Passager
from compactds.indexer.progress import LoggedProgress

BATCH_SIZE = 32  # what sentence-transformers takes, unless it is told otherwise
PASSAGES_PER_SHARD = 2048
TIMES = 10
SEED = 7
BUILD = """
import json, sys
from pathlib import Path
from compactds.configs.recipe import recipe_for
from compactds.indexer.build import build
from compactds.indexer.embedding_cache import CacheOptions
corpus, model, out, cache = sys.argv[1:]
recipe = recipe_for([corpus], {"encoder": {"model": model}})
print(json.dumps({"passages": build(recipe, Path(out), cache=CacheOptions(Path(cache))).passages}))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="JSONL with title and text, or .jsonl.gz")
    parser.add_argument("--passages", type=int, default=2000)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is measured")
    parser.add_argument("--memory", action="store_true", help="measure memory instead")
    parser.add_argument("--rebuild", action="store_true", help="measure a rebuild instead")
    parser.add_argument("--encode-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--stores", type=Path, default=Path("bench-out"), help="where stores and cache go")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    if options.encode_only:
        print(json.dumps(encode_all(options.corpus, options.model, options.passages)))
        return
    print(
        f"{options.corpus.name}, {options.model}, {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, {date.today().isoformat()}"
    )
    if options.memory:
        rows = memory_rows(options.corpus, options.model, options.passages)
        show(("passages", "peak RAM, MiB", "times the first"), map(memory_cells, rows))
    elif options.rebuild:
        rows = [rebuild_row(options.corpus, options.model, options.passages, options.stores)]
        heads = ("passages", "first build, s (CPU)", "rebuild, s (CPU)", "times (CPU)", "same store")
        show(heads, map(rebuild_cells, rows))
    else:
        rows = throughput_rows(options.corpus, options.model, options.passages, options.rounds)
        heads = ("way", "passages/s", "CPU s a passage", "times (CPU)", "mean cosine", "least cosine")
        show(heads, map(throughput_cells, rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def show(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(heads) + " |")
    print("|" + " --- |" * len(heads))
    for cells in rows:
        print("| " + " | ".join(cells) + " |", flush=True)


def throughput_rows(corpus: Path, model: str, count: int, rounds: int) -> list[dict[str, Any]]:
    """Encode the same passages both ways by turns; return the figures of each."""
    encoder = load_encoder(EncoderOptions(model=model))
    assert isinstance(encoder, SentenceTransformerEncoder)
    texts = list(islice(passages(corpus, encoder), count))
    if len(texts) < count:
        raise SystemExit(f"{corpus} holds {len(texts):,} passages only")
    ways = {"sentence-transformers, float32": plain_encode(encoder), "compactds": in_shards(encoder)}
    for encode in ways.values():  # what is prepared once is not measured
        encode(texts[:: max(1, count // 64)])
    found: dict[str, Vectors] = {}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, encode in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            found[name] = encode(texts)
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    reference, *_ = (unit(vectors) for vectors in found.values())
    best = {
        name: tuple(min(column) for column in zip(*taken, strict=True)) for name, taken in seconds.items()
    }
    first = best["sentence-transformers, float32"]
    rows = []
    for name, vectors in found.items():
        cosines = (reference * unit(vectors)).sum(axis=1)
        wall, cpu = best[name]
        rows.append(
            {
                "way": name,
                "passages_per_second": count / wall,
                "cpu_seconds_a_passage": cpu / count,
                "times": first[0] / wall,
                "cpu_times": first[1] / cpu,
                "mean_cosine": float(cosines.mean()),
                "least_cosine": float(cosines.min()),
                "rounds": seconds[name],
            }
        )
    return rows


def plain_encode(encoder: SentenceTransformerEncoder) -> Callable[[list[str]], Vectors]:
    """Return sentence-transformers' own encode of the same model with what it does by default."""
    model = encoder._model

    def encode(texts: list[str]) -> Vectors:
        vectors: Vectors = model.encode(
            texts, prompt=encoder.spec.passage_prompt, batch_size=BATCH_SIZE, show_progress_bar=False
        )
        return vectors

    return encode


def in_shards(encoder: Encoder) -> Callable[[list[str]], Vectors]:
    """Return what a build does: sort a shard by length, and hand its passages over by the hundreds."""
    return lambda texts: np.concatenate(
        [
            encode_texts(encoder, texts[start : start + PASSAGES_PER_SHARD], LoggedProgress())
            for start in range(0, len(texts), PASSAGES_PER_SHARD)
        ]
    )


def unit(vectors: Vectors) -> Vectors:
    """Return vectors scaled to length one."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def memory_rows(corpus: Path, model: str, count: int) -> list[dict[str, Any]]:
    """Encode passages, and ten times as many, in processes of their own; return their peak memory."""
    rows = []
    for passages_count in (count, TIMES * count):
        arguments = ["--corpus", str(corpus), "--model", model, "--passages", str(passages_count)]
        program = [sys.executable, "-m", "benchmarks", "encoding", *arguments, "--encode-only"]
        done = subprocess.run(program, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[1])
        rows.append(json.loads(done.stdout))
    for row in rows:
        row["times"] = row["peak_rss_bytes"] / rows[0]["peak_rss_bytes"]
    return rows


def encode_all(corpus: Path, model: str, count: int) -> dict[str, Any]:
    """Encode passages shard by shard, the corpus again if it is too small, and return the peak memory.

    As in a build no more than a shard is held at a time.
    """
    encoder = load_encoder(EncoderOptions(model=model))
    encode = in_shards(encoder)
    texts = chain.from_iterable(passages(corpus, encoder, shuffled=False) for _ in cycle([0]))
    left, history = count, []
    while left:
        shard = list(islice(texts, min(left, PASSAGES_PER_SHARD)))
        encode(shard)
        left -= len(shard)
        history.append(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return {"passages": count, "peak_rss_bytes": history[-1], "after_each_shard": history}


def passages(corpus: Path, encoder: Encoder, *, shuffled: bool = True) -> Iterator[str]:
    """Yield the passages of a corpus as a build encodes them, by default of documents in random order."""
    passager = Passager(PassageOptions(), [encoder])
    with opened(corpus) as file:
        lines: Iterator[str] | list[str] = (line for line in file if line.strip())
        if shuffled:
            lines = list(lines)
            random.Random(SEED).shuffle(lines)
        for line in lines:
            document = document_of(line)
            for span in passager.split(document):
                yield passager.encoded_text(document.title, document.text[span.start : span.end])


def opened(corpus: Path) -> IO[str]:
    """Open a file of lines, gzipped or not."""
    return (
        gzip.open(corpus, "rt", encoding="utf-8") if corpus.suffix == ".gz" else corpus.open(encoding="utf-8")
    )


def document_of(line: str) -> Document:
    """Return the document of a line of JSON."""
    record = json.loads(line)
    return Document(id="", text=record["text"], title=record.get("title") or "")


def rebuild_row(corpus: Path, model: str, count: int, stores: Path) -> dict[str, Any]:
    """Build from about so many passages, and again elsewhere from what the cache kept."""
    stores.mkdir(parents=True, exist_ok=True)
    part, cache = stores / "rebuild.jsonl", stores / "rebuild-cache"
    shutil.rmtree(cache, ignore_errors=True)
    write_part(corpus, part, count)
    results, contents = [], []
    for out in (stores / "rebuild-first", stores / "rebuild-again"):
        shutil.rmtree(out, ignore_errors=True)
        wall, cpu = time.perf_counter(), children_cpu_s()
        result = finish(command(part, model, out, cache))
        taken = {"seconds": time.perf_counter() - wall, "cpu_seconds": children_cpu_s() - cpu}
        results.append(result | taken)
        contents.append(content(out))
    return {
        "passages": results[0]["passages"],
        "first_seconds": results[0]["seconds"],
        "again_seconds": results[1]["seconds"],
        "first_cpu_seconds": results[0]["cpu_seconds"],
        "again_cpu_seconds": results[1]["cpu_seconds"],
        "same_store": contents[0] == contents[1],
    }


def children_cpu_s() -> float:
    """Return the CPU time of the processes that were started here and have ended."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def command(corpus: Path, model: str, out: Path, cache: Path) -> list[str]:
    """Return the command line of a build that keeps vectors in a folder, and prints its passages."""
    return [sys.executable, "-c", BUILD, str(corpus), model, str(out), str(cache)]


def write_part(corpus: Path, part: Path, count: int) -> None:
    """Write the first documents of a corpus that make about so many passages."""
    encoder = load_encoder(EncoderOptions(model="minilm"))
    passager = Passager(PassageOptions(), [encoder])
    with opened(corpus) as file, part.open("w", encoding="utf-8") as out:
        for line in file:
            if count <= 0:
                break
            record = json.loads(line)
            count -= len(
                passager.split(Document(id="", text=record["text"], title=record.get("title") or ""))
            )
            out.write(line)


def throughput_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table of ways to encode."""
    return (
        row["way"],
        f"{row['passages_per_second']:.1f}",
        f"{row['cpu_seconds_a_passage']:.4f}",
        f"{row['times']:.2f} ({row['cpu_times']:.2f})",
        f"{row['mean_cosine']:.6f}",
        f"{row['least_cosine']:.6f}",
    )


def memory_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table of memory."""
    return f"{row['passages']:,}", f"{row['peak_rss_bytes'] / 2**20:,.0f}", f"{row['times']:.2f}"


def rebuild_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table of rebuilds."""
    return (
        f"{row['passages']:,}",
        f"{row['first_seconds']:.1f} ({row['first_cpu_seconds']:.1f})",
        f"{row['again_seconds']:.1f} ({row['again_cpu_seconds']:.1f})",
        f"{row['first_seconds'] / row['again_seconds']:.1f} "
        f"({row['first_cpu_seconds'] / row['again_cpu_seconds']:.1f})",
        "yes" if row["same_store"] else "NO",
    )
