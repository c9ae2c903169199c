"""The search over one segment, as plain functions over arrays: mask, candidates, exact scores."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from compactds.datastore.ann.base import NO_ROW, AnnIndex, Rows, Scores
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.parallel import share_out
from compactds.datastore.plan import Plan, choose_plan
from compactds.datastore.queries import Effort
from compactds.datastore.refining import Refiner
from compactds.datastore.scoring import ordered
from compactds.datastore.segment import Segment
from compactds.datastore.timing import Clock
from compactds.datastore.vectors import ExactVectors

MATRIX_FROM_QUERIES = 8
"""From so many queries on, a scan multiplies matrices: faster, but with the threads of BLAS."""

PROPOSING_PLANS = frozenset({"ann", "lists", "codes", "open"})

_matrix_turn = threading.Lock()


@dataclass(frozen=True, slots=True)
class Ranking:
    """Hold the best rows of one query, best first, with their exact scores."""

    scores: Scores
    rows: Rows
    scored: int


EMPTY = Ranking(np.empty(0, np.float32), np.empty(0, np.int64), 0)


def scan(vectors: ExactVectors, queries: Vectors, k: int, allowed: Bitmap | None) -> list[Ranking]:
    """Score every allowed row exactly, in bounded memory, for a batch of queries."""
    total = vectors.rows if allowed is None else allowed.count
    if len(queries) < MATRIX_FROM_QUERIES:
        return [Ranking(*vectors.best_of_all(query, k, allowed), total) for query in queries]
    rankings = [EMPTY] * len(queries)
    for numbers, block in vectors.blocks(None if allowed is None else allowed.rows()):
        with _matrix_turn:
            products = queries @ block.T
        for place, ranking in enumerate(rankings):
            scores = np.concatenate((ranking.scores, products[place]))
            rankings[place] = Ranking(*ordered(scores, np.concatenate((ranking.rows, numbers)), k), total)
    return [  # with the scores that every other way of finding them gives
        replace(rescore(vectors, query, ranking.rows, k), scored=total)
        for query, ranking in zip(queries, rankings, strict=True)
    ]


def rescore(vectors: ExactVectors, query: Vectors, rows: Rows, k: int) -> Ranking:
    """Score candidate rows of one query exactly; places without a row are dropped."""
    if len(rows) and rows[-1] == NO_ROW:
        rows = rows[rows != NO_ROW]
    return Ranking(*vectors.best(query, rows, k), len(rows))


def propose(index: AnnIndex, queries: Vectors, plan: Plan, allowed: Bitmap | None) -> Rows:
    """Return candidate rows for every query, shape (n, plan.candidates), filled up with NO_ROW."""
    if plan.name != "open":
        _, rows = index.search(
            queries, plan.candidates, effort=plan.effort, allowed=allowed, bounds=plan.bounds
        )
        return rows
    _, rows = index.search(queries, plan.candidates, effort=plan.effort)
    if allowed is None:
        return rows
    kept = rows != NO_ROW
    kept[kept] = allowed.mask()[rows[kept]]
    rows[~kept] = NO_ROW
    rows = np.take_along_axis(rows, np.argsort(~kept, axis=1, kind="stable"), axis=1)
    if plan.instead is not None:
        wanted = min(plan.instead.candidates, rows.shape[1])
        for place in np.flatnonzero(kept.sum(axis=1) < wanted):
            rows[place] = NO_ROW
            (rows[place, :wanted],) = propose(index, queries[place : place + 1], plan.instead, allowed)
    return rows


def complete(
    vectors: ExactVectors,
    queries: Vectors,
    rankings: list[Ranking],
    k: int,
    *,
    allowed: Bitmap | None,
    matching: int,
) -> list[Ranking]:
    """Score all allowed rows exactly for every query that got fewer than min(k, matching) of them."""
    short = [place for place, ranking in enumerate(rankings) if len(ranking.rows) < min(k, matching)]
    if not short:
        return rankings
    completed = list(rankings)
    for place, ranking in zip(short, scan(vectors, queries[short], k, allowed), strict=True):
        completed[place] = ranking
    return completed


def search_segment(
    segment: Segment,
    allowed: Bitmap | None,
    proposing: Vectors,
    deciding: Vectors,
    effort: Effort,
    clock: Clock,
) -> tuple[Plan, list[Ranking]]:
    """Search one segment for a batch of queries; return the plan, and a ranking a query.

    `allowed` are the rows that may be returned, all if None. `proposing` are the queries as the
    index's encoder sees them, `deciding` as the exact one does.
    """
    matching = segment.rows if allowed is None else allowed.count
    plan = choose_plan(
        effort,
        matching=matching,
        rows=segment.rows,
        filtered=allowed is not None,
        index=segment.index,
        calibration=segment.record.calibration,
        costs=segment.record.costs,
    )
    if plan.name in PROPOSING_PLANS:
        refiner = segment.refiner if plan.name == "ann" and proposing is deciding else None
        spent = {"search": 0.0, "candidates": 0.0, "exact": 0.0}

        def answer(part: slice) -> list[Ranking]:
            return _answer(segment, proposing[part], deciding[part], plan, effort.k, allowed, refiner, spent)

        rankings = share_out(answer, len(proposing))
        clock.lap_shares(spent)
        rankings = complete(segment.vectors, deciding, rankings, effort.k, allowed=allowed, matching=matching)
    else:
        rankings = scan(segment.vectors, deciding, effort.k, allowed)
    clock.lap("exact")
    return plan, rankings


def _answer(
    segment: Segment,
    proposing: Vectors,
    deciding: Vectors,
    plan: Plan,
    k: int,
    allowed: Bitmap | None,
    refiner: Refiner | None,
    spent: dict[str, float],
) -> list[Ranking]:
    """Return a ranking a query, in one step where there is a refiner that settles it, else in two."""
    start = time.perf_counter()
    rankings: list[Ranking | None] = [None] * len(proposing)
    if refiner is not None:
        found = refiner.best(proposing, k, candidates=plan.candidates, effort=plan.effort)
        rankings = [None if one is None else Ranking(*one, plan.candidates) for one in found]
    middle = time.perf_counter()
    spent["search"] += middle - start
    left = [place for place, ranking in enumerate(rankings) if ranking is None]
    if left:
        some = len(left) < len(rankings)
        proposed = propose(segment.index, proposing[left] if some else proposing, plan, allowed)
        late = time.perf_counter()
        for place, rows in zip(left, proposed, strict=True):
            rankings[place] = rescore(segment.vectors, deciding[place], rows, k)
        spent["candidates"] += late - middle
        spent["exact"] += time.perf_counter() - late
    return rankings  # type: ignore[return-value]  # every place left open has been filled


def merge(parts: Sequence[tuple[Ranking, int]], k: int) -> Ranking:
    """Merge what the segments found for one query; row numbers become global."""
    scores = np.concatenate([ranking.scores for ranking, _ in parts])
    rows = np.concatenate([ranking.rows + offset for ranking, offset in parts])
    return Ranking(*ordered(scores, rows, k), sum(ranking.scored for ranking, _ in parts))
