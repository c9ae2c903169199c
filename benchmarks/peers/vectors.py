"""What is searched and what is asked: base vectors, queries held out of them, and the exact answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmarks.peers.worker import K
from numpy.typing import NDArray

BLOCK_ROWS = 16_384
TOLERANCE = 1e-6  # a row that scores as much as the tenth best is as good an answer


@dataclass(frozen=True, slots=True)
class Problem:
    """Hold base vectors (n, d), queries (q, d), and each query's tenth best score, by inner product."""

    base: NDArray[np.float16]
    queries: NDArray[np.float32]
    tenth_best: NDArray[np.float32]

    def recall(self, query_numbers: Sequence[int], found: Sequence[Sequence[int]]) -> float:
        """Return recall@10 of the rows found; a row given twice counts once, one out of range not at all."""
        good = 0
        for number, rows in zip(query_numbers, found, strict=True):
            known = sorted({row for row in rows[:K] if 0 <= row < len(self.base)})
            scores = self.base[known].astype(np.float32) @ self.queries[number]
            good += int(np.count_nonzero(scores >= self.tenth_best[number] - TOLERANCE))
        return good / (K * len(found))


def read_problem(
    base_paths: Sequence[Path],
    query_paths: Sequence[Path],
    hold_out: Sequence[int],
    *,
    rows: int | None = None,
    queries: int | None = None,
    seed: int = 0,
) -> Problem:
    """Stack base files, take `hold_out` rows out of each for queries, and search them exactly.

    With `rows`, only so many are drawn at random from what is left; with `queries`, so many queries.
    """
    draw = np.random.default_rng(seed)
    counts = list(hold_out) * len(base_paths) if len(hold_out) == 1 else list(hold_out)
    kept, asked = [], [np.load(path).astype(np.float32) for path in query_paths]
    for path, count in zip(base_paths, counts, strict=True):
        order = draw.permutation(np.load(path, mmap_mode="r").shape[0])
        vectors = np.load(path).astype(np.float16, copy=False)
        asked.append(vectors[np.sort(order[:count])].astype(np.float32))
        kept.append(vectors[np.sort(order[count:])])
    base = np.concatenate(kept)
    if rows is not None and rows < len(base):
        base = base[np.sort(draw.permutation(len(base))[:rows])]
    wanted = np.concatenate(asked)
    if queries is not None and queries < len(wanted):
        wanted = wanted[np.sort(draw.permutation(len(wanted))[:queries])]
    if len(base) < K or not len(wanted):
        raise SystemExit(
            f"{len(base)} vectors and {len(wanted)} queries are too few; give --queries or --hold-out."
        )
    return Problem(base, wanted, tenth_best(base, wanted))


def tenth_best(base: NDArray[np.float16], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the tenth best inner product of each query with all rows, by brute force."""
    best = np.full((len(queries), K), -np.inf, np.float32)
    for start in range(0, len(base), BLOCK_ROWS):
        scores = queries @ base[start : start + BLOCK_ROWS].astype(np.float32).T
        best = np.partition(np.concatenate((best, scores), axis=1), -K, axis=1)[:, -K:]
    return best.min(axis=1)
