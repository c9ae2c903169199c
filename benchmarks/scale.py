"""Build, open and search stores of growing size: time, memory, disk, recall and cost at each size.

    python -m benchmarks scale --vectors a.npy b.npy --hold-out 1000 --rows 100000 1000000 10000000

Larger sets are grown from the real vectors, so that neighbourhoods stay as they are: a grown vector starts
at a real one and is displaced, along a random combination of the differences to its 16 nearest neighbours,
by as much as one of those neighbours is away. So it stays within the surface that the real vectors lie on,
and about as far from others as they are from each other; a table of how near neighbours are comes with the
figures. Queries are real vectors that nothing was grown from. Each build, and each opening and search, runs
in a process of its own. Memory is the process's own (resident pages that are not of a file; the mapped
vectors are the system's to take back), beside the peak of all resident pages.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 20_000
NEIGHBOURS = 16
K = 10
TARGETS = (0.9, 0.95, 0.99)
RECORDS_PER_WRITE = 10_000
HEADS = (
    "rows",
    "build, s",
    "build RAM, MiB",
    "disk, bytes a row",
    "open, s",
    "index, bytes a row",
    "serving RAM, MiB",
    *(f"recall {target:g}: got, ms" for target in TARGETS),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=Path, nargs="+", required=True, help=".npy files of real vectors")
    parser.add_argument("--hold-out", type=int, default=1000, help="rows taken out as queries")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000], help="sizes to grow to")
    parser.add_argument("--folder", type=Path, default=Path("bench-out/scale"), help="where the stores go")
    parser.add_argument("--memory", default="1GiB", help="what the index may take when searched")
    parser.add_argument("--keep", action="store_true", help="keep the stores, and use those that are there")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    real, queries = split(np.concatenate([np.load(path) for path in options.vectors]), options.hold_out)
    options.folder.mkdir(parents=True, exist_ok=True)
    np.save(options.folder / "queries.npy", queries)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {date.today().isoformat()}")
    figures = []
    for rows in options.rows:
        figures.append(measure(real, rows, options))
        print(json.dumps(figures[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print("\n| " + " | ".join(HEADS) + " |\n|" + " --- |" * len(HEADS))
    for figure in figures:
        print(table_row(figure))


def split(vectors: NDArray[np.floating], held_out: int) -> tuple[NDArray[np.floating], NDArray[np.float32]]:
    """Return the vectors without some drawn at random, and those, as float32."""
    drawn = np.random.default_rng(0).choice(len(vectors), held_out, replace=False)
    return np.delete(vectors, drawn, axis=0), vectors[np.sort(drawn)].astype(np.float32)


def measure(real: NDArray[np.floating], rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """Grow, build, open and search one size; return its figures."""
    folder = options.folder / str(rows)
    store = folder / "store"
    built_path = folder / "built.json"
    if not (options.keep and built_path.exists()):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        grow(real, rows, folder)
        built = in_process("build", folder, options.memory)
        built_path.write_text(json.dumps(built))
    built = json.loads(built_path.read_text())
    for name in ("vectors.npy", "records.jsonl"):
        if not options.keep:
            (folder / name).unlink(missing_ok=True)
    searched = in_process("search", store, options.folder / "queries.npy")
    figure = {"rows": rows, **built, **searched, "grown": len(real) < rows}
    if not options.keep:
        shutil.rmtree(folder)
    return figure


def grow(real: NDArray[np.floating], rows: int, folder: Path) -> None:
    """Write `rows` vectors and a record for each: the real ones, and as many grown ones as are missing."""
    import faiss

    dimension = real.shape[1]
    out = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float16, shape=(rows, dimension)
    )
    drawn = np.sort(np.random.default_rng(2).permutation(len(real))[:rows])  # of all files, as queries are
    out[: len(drawn)] = real[drawn]
    if rows > len(real):
        known = real.astype(np.float32)
        index = faiss.index_factory(
            dimension, f"IVF{round(2 * len(real) ** 0.5)},Flat", faiss.METRIC_INNER_PRODUCT
        )
        faiss.ParameterSpace().set_index_parameter(index, "nprobe", 32)
        index.train(known)
        index.add(known)
        near = index.search(known, NEIGHBOURS + 1)[1][:, 1:]
        draw = np.random.default_rng(1)
        for start in range(len(real), rows, BLOCK_ROWS):
            count = min(BLOCK_ROWS, rows - start)
            out[start : start + count] = grown(known, near, count, draw)
    out.flush()
    with (folder / "records.jsonl").open("w", encoding="utf-8") as file:
        for start in range(0, rows, RECORDS_PER_WRITE):
            numbers = range(start, min(start + RECORDS_PER_WRITE, rows))
            file.writelines(f'{{"id": "{number}", "text": "record {number}"}}\n' for number in numbers)


def grown(
    known: NDArray[np.float32], near: NDArray[np.int64], count: int, draw: np.random.Generator
) -> NDArray[np.float32]:
    """Return new vectors of unit length, each beside a known one, within the span of its neighbours."""
    places = draw.integers(0, len(known), count)
    made = np.empty((count, known.shape[1]), np.float32)
    for start in range(0, count, 2_000):
        part = places[start : start + 2_000]
        origin = known[part]
        differences = known[near[part]] - origin[:, np.newaxis]
        weights = draw.standard_normal((len(part), NEIGHBOURS)).astype(np.float32)
        direction = np.einsum("nk,nkd->nd", weights, differences)
        direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
        chosen = differences[np.arange(len(part)), draw.integers(0, NEIGHBOURS, len(part))]
        moved = origin + direction * np.linalg.norm(chosen, axis=1, keepdims=True)
        made[start : start + len(part)] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return made


def in_process(name: str, *arguments: Any) -> dict[str, Any]:
    """Run a step of this module in a fresh process, and return what it prints."""
    code = f"from benchmarks import scale; scale.{name}_step(*{[str(argument) for argument in arguments]!r})"
    result = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


def build_step(folder: str, memory: str) -> None:
    from compactds.configs.recipe import recipe_for
    from compactds.indexer.build import build

    started = time.perf_counter()
    records, vectors, store = (Path(folder) / name for name in ("records.jsonl", "vectors.npy", "store"))
    recipe = recipe_for(
        [str(records)], {"vectors": str(vectors), "index.memory": memory, "index.kind": "ivf"}
    )
    result = build(recipe, store)
    seconds = time.perf_counter() - started
    disk = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    status = memory_status()
    print(
        json.dumps(
            {
                "build_seconds": seconds,
                "build_peak_mib": result.peak_rss_bytes / 2**20,
                "build_end": status,
                "disk_bytes_a_row": disk / result.passages,
            }
        )
    )


def search_step(store: str, queries_path: str) -> None:
    import faiss

    from compactds.datastore import Datastore

    base = memory_status()["RssAnon"]
    started = time.perf_counter()
    with Datastore.open(store) as opened:
        seconds = time.perf_counter() - started
        queries = np.load(queries_path)
        (segment,) = opened._open_segments
        truth = true_rows(segment.vectors, queries)[1]
        answer: dict[str, Any] = {
            "open_seconds": seconds,
            "index_bytes_a_row": segment.index.ram_bytes / segment.rows,
            "parameters": dict(segment.record.index.parameters),
            "near": nearness(segment.vectors),
        }
        faiss.omp_set_num_threads(1)
        for target in TARGETS:
            found = opened.nearest(queries, k=K, recall=target).rows
            spent = []
            for query in queries:
                began = time.perf_counter()
                opened.nearest(query, k=K, recall=target)
                spent.append(time.perf_counter() - began)
            answer[f"recall_{target:g}"] = {
                "recall": overlap(found, truth),
                "milliseconds": 1000 * float(np.median(spent)),
                "p99_milliseconds": 1000 * float(np.quantile(spent, 0.99)),
            }
        answer["serving_mib"] = memory_status()["RssAnon"]
        answer["base_mib"] = base
    print(json.dumps(answer))


def true_rows(vectors: Any, queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scores and rows of the exact 10 best rows of every query."""
    import faiss

    best = faiss.ResultHeap(len(queries), K, keep_max=True)
    for numbers, block in vectors.blocks():
        scores, places = faiss.knn(queries, block, min(K, len(block)), faiss.METRIC_INNER_PRODUCT)
        best.add_result(scores, numbers[places])
    best.finalize()
    return best.D, best.I


def nearness(vectors: Any) -> dict[str, float]:
    """Return the mean cosine of the best and the tenth best row to 500 rows drawn from the store."""
    draw = np.sort(np.random.default_rng(5).choice(vectors.rows, min(500, vectors.rows), replace=False))
    scores = true_rows(vectors, vectors.gather(draw))[0]
    return {"first": float(scores[:, 1].mean()), "tenth": float(scores[:, K - 1].mean())}


def overlap(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, truth, strict=True)]))


def memory_status() -> dict[str, float]:
    """Return what the system counts for this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmHWM", "RssAnon", "RssFile")}


def table_row(figure: dict[str, Any]) -> str:
    cells = [
        f"{figure['rows']:,}",
        f"{figure['build_seconds']:,.0f}",
        f"{figure['build_peak_mib']:,.0f}",
        f"{figure['disk_bytes_a_row']:,.0f}",
        f"{figure['open_seconds']:.2f}",
        f"{figure['index_bytes_a_row']:.1f}",
        f"{figure['serving_mib']:,.0f}",
    ]
    for target in TARGETS:
        point = figure[f"recall_{target:g}"]
        cells.append(f"{point['recall']:.3f}, {point['milliseconds']:.2f}")
    return "| " + " | ".join(cells) + " |"
