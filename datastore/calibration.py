"""Measure what each effort of an index gives in recall, so that a search can ask for recall instead."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.ann.base import AnnIndex, Rows
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.manifest import CalibrationPoint
from compactds.datastore.parallel import share_out
from compactds.datastore.plan import CALIBRATION_K
from compactds.datastore.search import rescore
from compactds.datastore.vectors import ExactVectors

CALIBRATION_QUERIES = 1_000
QUERIES_PER_ROW = 0.1
"""At most this share of a small store's rows is held out."""
CANDIDATE_LADDER = (
    32,
    40,
    48,
    56,
    64,
    80,
    96,
    112,
    128,
    160,
    192,
    224,
    256,
    320,
    384,
    512,
    768,
    1024,
    1536,
    2048,
)
ENOUGH_RECALL = 0.999
MISS_MARGIN = 0.3
"""How much more a query never seen may miss than rows of the store do: up to 0.35 was measured."""
NEAR_ENOUGH = 1.03
"""Of points whose costs differ by no more than this, the one that promises more is enough."""
TIMED_QUERIES = 64
MAPPED_ROWS = 8_192
MAPPED_BYTES = 512 << 20
"""Of vectors that take more, pages are given back after so many rows: with each, the system maps what lies
around it, up to 64 kB."""
MICROSECONDS_PER_EXACT_BYTE = 4e-4


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Hold queries with the rows they should find, shape (n, 10).

    `own` is the row that a query is itself, which does not count as found; -1 for queries from elsewhere.
    """

    proposing: Vectors
    deciding: Vectors
    truth: Rows
    own: Rows


def held_out_rows(rows: int, *, seed: int = 0) -> Rows:
    """Return the rows of a store that calibrate its index, and that it is not trained on, in order."""
    count = min(CALIBRATION_QUERIES, int(rows * QUERIES_PER_ROW)) or min(rows, 2)
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def hold_out(proposing: ExactVectors, deciding: ExactVectors, rows: Rows) -> HeldOut:
    """Take `rows` of a store as queries, and find their true neighbours by scoring every row."""
    if not len(rows):
        return HeldOut(proposing.gather(rows), deciding.gather(rows), np.empty((0, 0), np.int64), rows)
    queries = deciding.gather(rows)
    ranked = true_neighbours(deciding, queries, CALIBRATION_K + 1)
    others = [found[found != own][: ranked.shape[1] - 1] for found, own in zip(ranked, rows, strict=True)]
    return HeldOut(proposing.gather(rows), queries, np.stack(others), rows)


def queries_from_elsewhere(proposing: Vectors, deciding: Vectors, vectors: ExactVectors) -> HeldOut:
    """Take a user's own queries, and find their true neighbours by scoring every row."""
    truth = true_neighbours(vectors, deciding, CALIBRATION_K)
    return HeldOut(proposing, deciding, truth, np.full(len(deciding), -1))


def true_neighbours(vectors: ExactVectors, queries: Vectors, k: int) -> Rows:
    """Return the min(k, rows) best rows of every query, shape (n, k), found by scoring every row."""
    best = faiss.ResultHeap(len(queries), min(k, vectors.rows), keep_max=True)
    for numbers, block in vectors.blocks(release=True):
        scores, places = faiss.knn(queries, block, min(best.k, len(block)), faiss.METRIC_INNER_PRODUCT)
        best.add_result(scores, numbers[places])
    best.finalize()
    rows: Rows = best.I
    return rows


def calibrate(index: AnnIndex, deciding: ExactVectors, held_out: HeldOut) -> tuple[CalibrationPoint, ...]:
    """Return recall@10 after exact scoring for the efforts and candidates that are worth their cost.

    Each effort of the index is tried with every number of candidates K; a pair stays if no cheaper one
    finds as much. Costs are compared by the index's own model, so that the outcome does not depend on
    how busy the machine is; the milliseconds of what stays are measured. The curve ends where recall
    reaches 0.999 or the index's efforts end.
    """
    if index.exact or not len(held_out.truth) or not held_out.truth.shape[1]:
        return ()
    tried = _thinned(_tried(index, deciding, held_out))
    return tuple(
        CalibrationPoint(
            effort=point.effort,
            candidates=point.candidates,
            recall=round(point.recall, 4),
            promised=round(point.promised, 4),
            milliseconds=round(_milliseconds(index, deciding, held_out, point), 4),
        )
        for point in tried
    )


@dataclass(frozen=True, slots=True)
class _Trial:
    effort: int
    candidates: int
    recall: float
    promised: float
    cost_us: float


def _tried(index: AnnIndex, deciding: ExactVectors, held_out: HeldOut) -> Iterable[_Trial]:
    ladder = [count for count in CANDIDATE_LADDER if count <= max(CANDIDATE_LADDER[0], deciding.rows // 4)]
    for effort in index.efforts:
        found = _candidates(index, held_out, effort, ladder[-1])
        best = 0.0
        for count in ladder:
            hits = found[:, :, :count].any(axis=2).mean(axis=1)
            recall = float(hits.mean())
            error = float(hits.std()) / len(hits) ** 0.5
            promised = max(0.0, recall - MISS_MARGIN * recall * (1 - recall) - error)
            cost = index.cost_us(effort) + count * deciding.row_bytes * MICROSECONDS_PER_EXACT_BYTE
            best = max(best, promised)
            yield _Trial(effort, count, recall, promised, cost)
        if best >= ENOUGH_RECALL:
            return


def _candidates(index: AnnIndex, held_out: HeldOut, effort: int, count: int) -> NDArray[np.bool_]:
    """Tell for every query, true neighbour and place among the candidates whether they are the same row."""

    def search(part: slice) -> list[NDArray[np.bool_]]:
        _, rows = index.search(held_out.proposing[part], count + 1, effort=effort)
        matches = []
        for found, own, truth in zip(rows, held_out.own[part], held_out.truth[part], strict=True):
            others = found[found != own][:count]
            padded = np.full(count, -2)
            padded[: len(others)] = others
            matches.append(truth[:, np.newaxis] == padded)
        return matches

    matches: list[NDArray[np.bool_]] = share_out(search, len(held_out.proposing))
    return np.stack(matches)


def _thinned(trials: Iterable[_Trial]) -> list[_Trial]:
    """Return the trials worth keeping, cheapest first: none promises less than a cheaper one."""
    kept: list[_Trial] = []
    for trial in sorted(trials, key=lambda trial: (trial.cost_us, -trial.promised)):
        if not kept or trial.promised > kept[-1].promised:
            kept.append(trial)
    return _spaced(kept)


def _spaced(trials: Sequence[_Trial]) -> list[_Trial]:
    """Leave out trials for which a dearer one stands in that costs hardly more; cheapest first.

    Whatever recall is asked for, the cheapest trial left that promises it costs at most NEAR_ENOUGH times
    the cheapest of all. The dearest stays, and as few of the others as that allows.
    """
    spaced = list(trials[-1:])
    for trial in reversed(trials[:-1]):
        if spaced[-1].cost_us > NEAR_ENOUGH * trial.cost_us:
            spaced.append(trial)
    return spaced[::-1]


def _milliseconds(index: AnnIndex, deciding: ExactVectors, held_out: HeldOut, point: _Trial) -> float:
    """Return the median time of one query, one at a time, exact scoring included."""
    spent: list[float] = []
    mapped, large = 0, deciding.rows * deciding.row_bytes > MAPPED_BYTES
    for proposing, exact in zip(
        held_out.proposing[:TIMED_QUERIES], held_out.deciding[:TIMED_QUERIES], strict=True
    ):
        start = time.perf_counter()
        _, rows = index.search(proposing[np.newaxis], point.candidates, effort=point.effort)
        rescore(deciding, exact, rows[0], CALIBRATION_K)
        spent.append(time.perf_counter() - start)
        mapped += point.candidates
        if mapped > MAPPED_ROWS and large:
            deciding.release()
            mapped = 0
    if large:
        deciding.release()
    return 1000 * float(np.median(spent))
