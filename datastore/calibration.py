"""Measure what each effort of an index gives in recall, so that a search can ask for recall instead."""

import time

import numpy as np

from compactds.datastore.ann.base import AnnIndex, Rows
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.manifest import CalibrationPoint
from compactds.datastore.plan import DEFAULT_CANDIDATES
from compactds.datastore.search import Ranking, rescore, scan
from compactds.datastore.vectors import ExactVectors

CALIBRATION_QUERIES = 256
CALIBRATION_K = 10
ENOUGH_RECALL = 0.999


def calibrate(
    index: AnnIndex, proposing: ExactVectors, deciding: ExactVectors, *, seed: int = 0
) -> tuple[CalibrationPoint, ...]:
    """Return recall@10 after exact scoring and milliseconds a query, for each effort of the index.

    Queries are rows of the store itself, drawn at random, each left out of its own results.
    `proposing` are the vectors the index was built from, `deciding` those of the exact stage. The
    ladder ends where recall reaches 0.999 or stops at the index's last effort; recall never falls
    along it.
    """
    if index.exact or deciding.rows < 2:
        return ()
    draw = np.random.default_rng(seed)
    rows = np.sort(draw.choice(deciding.rows, min(CALIBRATION_QUERIES, deciding.rows), replace=False))
    queries, exact_queries = proposing.gather(rows), deciding.gather(rows)
    truth = [
        _without(ranking, row) for ranking, row in zip(_truth(deciding, exact_queries), rows, strict=True)
    ]
    points: list[CalibrationPoint] = []
    recall = 0.0
    for effort in index.efforts:
        found, elapsed_ms = _search(index, deciding, queries, exact_queries, effort)
        hits = [
            len(np.intersect1d(_without(ranking, row), expected)) / max(1, len(expected))
            for ranking, row, expected in zip(found, rows, truth, strict=True)
        ]
        recall = max(recall, float(np.mean(hits)))
        points.append(CalibrationPoint(effort, round(recall, 4), round(elapsed_ms, 4)))
        if recall >= ENOUGH_RECALL:
            break
    return tuple(points)


def _truth(deciding: ExactVectors, queries: Vectors) -> list[Ranking]:
    return scan(deciding, queries, CALIBRATION_K + 1, None)


def _without(ranking: Ranking, row: int) -> Rows:
    others: Rows = ranking.rows[ranking.rows != row]
    return others[:CALIBRATION_K]


def _search(
    index: AnnIndex, deciding: ExactVectors, queries: Vectors, exact_queries: Vectors, effort: int
) -> tuple[list[Ranking], float]:
    start = time.perf_counter()
    _, candidates = index.search(queries, DEFAULT_CANDIDATES, effort=effort)
    found = [
        rescore(deciding, query, rows, CALIBRATION_K + 1)
        for query, rows in zip(exact_queries, candidates, strict=True)
    ]
    return found, 1000 * (time.perf_counter() - start) / len(queries)
