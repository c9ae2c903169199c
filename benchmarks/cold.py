"""Time scoring candidates whose vectors are on disk only, beside raw reads of the same rows.

    python -m benchmarks cold --dimensions 384 4096 --threads 1 4 --rounds 30

A file of random half-float rows for each dimension is kept in --folder, which has to be on the disk to
measure; a file system in memory is refused. In every round each way of reading has its turn, in another
random order, on rows drawn for that turn. Before it, pages of the file are dropped (fsync, then posix_fadvise
DONTNEED while nothing maps them), and mincore has to find none; the blocks that the kernel counted as read
during a turn (getrusage) tell that they did come from the disk.

compactds is `ExactVectors.best`: reading the rows and scoring them. Its files are opened before a turn, and
each thread has scored one row, so that it has its buffers; "after warm requests" means that it has scored it
often, so that it expects rows to be in memory; "warm" asks for the rows of a turn again, after as many
requests. With more than one thread each asks for that many rows, all at once; raw reads then read as many
rows as all of them. Raw reads only read.

Times are medians over rounds. The disk may serve other programs in some of the rounds, so times are compared
within each: "× the best raw read" is the median of what rounds gave, and the best raw read is the one beside
which compactds takes longest. The program ends with 1 if that is more than twice as long.
"""

import argparse
import json
import os
import platform
import random
import resource
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.disk.files import drop, resident_pages, write_vectors
from benchmarks.disk.reads import POOLS, Reads, Rows
from compactds.datastore.vectors import ExactVectors

MOST = 2.0
BEST = 10
OFTEN = 40
"""After how many requests a store expects rows to be in memory."""
OWN = "compactds"
AFTER_WARM = "compactds, after warm requests"
WARM = "compactds, warm"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dimensions", type=int, nargs="+", default=[384, 4096])
    parser.add_argument("--candidates", type=int, default=1000, help="rows of a request")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4], help="requests at once")
    parser.add_argument("--pools", type=int, nargs="+", default=list(POOLS), help="threads of raw reads")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--megabytes", type=int, default=2048, help="least size of each file")
    parser.add_argument("--folder", type=Path, default=Path("bench-out/cold"), help="where files are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {date.today().isoformat()}")
    found = []
    for dimension in options.dimensions:
        path = options.folder / f"{dimension}.f16"
        rows = write_vectors(path, options.megabytes << 20, dimension)
        if options.candidates > rows:
            parser.error(f"--candidates {options.candidates} are more than the {rows} rows of {path}")
        for threads in options.threads:
            found.append(measure(Bench(path, rows, dimension, threads, options.candidates), options))
            print("\n" + table(found[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if any(result["times_best_raw"] > MOST for result in found):
        raise SystemExit(1)


class Bench:
    """Hold a file of vectors, and time requests for rows of it that are not in memory."""

    def __init__(self, path: Path, rows: int, dimension: int, threads: int, candidates: int) -> None:
        self.path, self.rows, self.dimension = path, rows, dimension
        self.threads, self.candidates = threads, candidates
        self.row_bytes = 2 * dimension
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.read_bytes: dict[str, list[int]] = defaultdict(list)
        self.most_resident = 0
        self._draw = np.random.default_rng(rows + threads)
        self._query = self._draw.standard_normal(dimension, dtype=np.float32)

    def raw(self, name: str, read: Callable[[Rows], None]) -> None:
        """Time one raw read of the rows of all threads."""
        rows = np.concatenate(self._requests())
        self._drop()
        with self._timed(name):
            read(rows)

    def own(self, name: str, first_requests: int) -> None:
        """Time the product, after each thread has scored one row `first_requests` times."""
        requests = self._requests()
        self._drop()
        vectors = ExactVectors(self.path, rows=self.rows, dimension=self.dimension, dtype="float16")
        barrier = threading.Barrier(self.threads)

        def begin(number: int) -> None:
            barrier.wait()
            row = np.array([number * self.rows // self.threads])
            for _ in range(first_requests):
                vectors.best(self._query, row, BEST)

        def score(rows: Rows) -> None:
            vectors.best(self._query, rows, BEST)

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(begin, range(self.threads)))
            self._check(self.threads * (2 + self.row_bytes // 4096))
            with self._timed(name):
                list(pool.map(score, requests))
            if name == OWN:
                for _ in range(OFTEN):
                    list(pool.map(score, requests))
                with self._timed(WARM):
                    list(pool.map(score, requests))
        vectors.close()

    def _requests(self) -> list[Rows]:
        chosen = [
            self._draw.choice(self.rows, self.candidates, replace=False, shuffle=True)
            for _ in range(self.threads)
        ]
        return [rows.astype(np.int64) for rows in chosen]

    def _drop(self) -> None:
        drop(self.path)
        self._check(0)

    def _check(self, most: int) -> None:
        """Refuse to time reads of a file of which more than so many pages are in memory."""
        resident = resident_pages(self.path)
        self.most_resident = max(self.most_resident, resident)
        if resident > most + self.rows * self.row_bytes // (4096 * 1000):
            raise SystemExit(
                f"{resident} pages of {self.path} stay in memory: name a --folder on a disk, which no other "
                "program uses"
            )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_inblock
        start = time.perf_counter()
        yield
        self.seconds[name].append(time.perf_counter() - start)
        self.read_bytes[name].append(512 * (resource.getrusage(resource.RUSAGE_SELF).ru_inblock - before))


def measure(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Give every way its turn in every round; return what was found."""
    shuffled = random.Random(options.seed)
    reads = Reads(bench.path, bench.row_bytes, bench.threads * bench.candidates, options.pools)
    turns: list[Callable[[], None]] = [lambda: bench.own(OWN, 1), lambda: bench.own(AFTER_WARM, OFTEN)]
    turns += [lambda name=name, read=read: bench.raw(name, read) for name, read in reads.ways.items()]
    try:
        for _ in range(options.rounds):
            for turn in shuffled.sample(turns, len(turns)):
                turn()
    finally:
        reads.close()
    asked = bench.threads * bench.candidates * bench.row_bytes
    best = max(reads.ways, key=lambda name: paired(bench.seconds[OWN], bench.seconds[name]))
    ways = {name: figures(seconds, asked) for name, seconds in bench.seconds.items()}
    for name, way in ways.items():
        way["times_best_raw"] = paired(bench.seconds[name], bench.seconds[best])
        way["read_share"] = statistics.median(bench.read_bytes[name]) / asked
    return {
        "dimension": bench.dimension,
        "threads": bench.threads,
        "candidates": bench.candidates,
        "file_bytes": bench.rows * bench.row_bytes,
        "rounds": options.rounds,
        "most_resident_pages": bench.most_resident,
        "best_raw": best,
        "times_best_raw": ways[OWN]["times_best_raw"],
        "ways": ways,
        "seconds": bench.seconds,
        "left_out": reads.left_out,
    }


def paired(seconds: Sequence[float], others: Sequence[float]) -> float:
    """Return how many times as long as others something took, in the median of rounds."""
    return statistics.median(mine / theirs for mine, theirs in zip(seconds, others, strict=True))


def figures(seconds: Sequence[float], asked_bytes: int) -> dict[str, float]:
    """Return the median, the 95th percentile, and MB of asked rows a second."""
    median = statistics.median(seconds)
    return {
        "median_ms": median * 1e3,
        "p95_ms": float(np.percentile(seconds, 95)) * 1e3,
        "megabytes_per_second": asked_bytes / median / 1e6,
    }


def table(result: dict[str, Any]) -> str:
    """Return what was found of one dimension and number of threads as a Markdown table, fastest first."""
    head = (
        f"{result['threads']} × {result['candidates']:,} rows of {result['dimension']} dimensions",
        "median, ms",
        "p95, ms",
        "MB/s of rows",
        "× the best raw read",
    )
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, way in sorted(result["ways"].items(), key=lambda pair: pair[1]["times_best_raw"]):
        times = way["times_best_raw"]
        mark = f" (more than {MOST:g})" if name == OWN and times > MOST else ""
        cells = (
            name,
            f"{way['median_ms']:.2f}",
            f"{way['p95_ms']:.2f}",
            f"{way['megabytes_per_second']:,.0f}",
        )
        lines.append("| " + " | ".join([*cells, f"{times:.2f}{mark}"]) + " |")
    cold = min(way["read_share"] for name, way in result["ways"].items() if name != WARM)
    notes = [
        f"File of {result['file_bytes'] / 1e9:.1f} GB, {result['rounds']} rounds. At most "
        f"{result['most_resident_pages']} pages of it were in memory before a turn; the disk gave {cold:.1f} "
        f"times the bytes of the rows, or more, to a cold turn, {result['ways'][WARM]['read_share']:.1f} to "
        "a warm one."
    ]
    notes += [f"Left out: {name}: {why}." for name, why in result["left_out"].items()]
    return "\n".join([*lines, "", *notes])


if __name__ == "__main__":
    main()
