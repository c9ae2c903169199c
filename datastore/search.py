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
from compactds.datastore.segment import Segment
from compactds.datastore.timing import Clock
from compactds.datastore.vectors import ExactVectors, inner_products

MATRIX_FROM_QUERIES = 8
"""From so many queries on, a scan multiplies matrices: faster, but with the threads of BLAS."""

SCORE_AT_ONCE_ROWS = 32_768
"""Up to so many allowed rows, they are scored like candidates, which needs no merging."""

PROPOSING_PLANS = frozenset({"ann", "lists", "codes", "open"})

_matrix_turn = threading.Lock()


@dataclass(frozen=True, slots=True)
class Ranking:
    """Hold the best rows of one query, best first, with their exact scores."""

    scores: Scores
    rows: Rows
    scored: int


EMPTY = Ranking(np.empty(0, np.float32), np.empty(0, np.int64), 0)


def best(scores: Scores, rows: Rows, k: int) -> tuple[Scores, Rows]:
    """Return the `k` best (score, row) pairs, highest score first; equal scores order by row."""
    if len(scores) > k:
        # Everything that ties with the k-th score stays in, so that ties break by row, not by chance.
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = scores >= threshold
        scores, rows = scores[kept], rows[kept]
    order = np.lexsort((rows, -scores))[:k]
    return scores[order], rows[order]


def scan(vectors: ExactVectors, queries: Vectors, k: int, allowed: Bitmap | None) -> list[Ranking]:
    """Score every allowed row exactly, in bounded memory, for a batch of queries."""
    rows = None if allowed is None else allowed.rows()
    total = vectors.rows if rows is None else len(rows)
    by_matrix = len(queries) >= MATRIX_FROM_QUERIES
    if rows is not None and total <= SCORE_AT_ONCE_ROWS and not by_matrix:
        return [rescore(vectors, query, rows, k) for query in queries]
    rankings = [EMPTY] * len(queries)
    for numbers, block in vectors.blocks(rows):
        if by_matrix:
            with _matrix_turn:
                products = queries @ block.T
        for place, ranking in enumerate(rankings):
            scores = products[place] if by_matrix else inner_products(queries[place], block)
            merged = best(
                np.concatenate((ranking.scores, scores)), np.concatenate((ranking.rows, numbers)), k
            )
            rankings[place] = Ranking(*merged, total)
    return [  # with the scores that every other way of finding them gives
        replace(rescore(vectors, query, ranking.rows, k), scored=total)
        for query, ranking in zip(queries, rankings, strict=True)
    ]


def rescore(vectors: ExactVectors, query: Vectors, rows: Rows, k: int) -> Ranking:
    """Score candidate rows of one query exactly; places without a row are dropped."""
    rows = np.sort(rows if not len(rows) or rows[-1] != NO_ROW else rows[rows != NO_ROW])
    scores = vectors.score(query, rows)
    order = np.argsort(-scores, kind="stable")[:k]  # rows ascend, so that equal scores order by row
    return Ranking(scores[order], rows[order], len(rows))


def propose(index: AnnIndex, queries: Vectors, plan: Plan, allowed: Bitmap | None) -> Rows:
    """Return candidate rows for every query, shape (n, plan.candidates), filled up with NO_ROW."""
    if plan.name != "open":
        _, rows = index.search(
            queries, plan.candidates, effort=plan.effort, allowed=allowed, most_rows=plan.most_rows
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
        spent = [0.0, 0.0]

        def answer(part: slice) -> list[Ranking]:
            start = time.perf_counter()
            proposed = propose(segment.index, proposing[part], plan, allowed)
            middle = time.perf_counter()
            rankings = [
                rescore(segment.vectors, query, rows, effort.k)
                for query, rows in zip(deciding[part], proposed, strict=True)
            ]
            spent[0] += middle - start
            spent[1] += time.perf_counter() - middle
            return rankings

        rankings = share_out(answer, len(proposing))
        clock.lap_shares({"candidates": spent[0], "exact": spent[1]})
        rankings = complete(segment.vectors, deciding, rankings, effort.k, allowed=allowed, matching=matching)
    else:
        rankings = scan(segment.vectors, deciding, effort.k, allowed)
    clock.lap("exact")
    return plan, rankings


def merge(parts: Sequence[tuple[Ranking, int]], k: int) -> Ranking:
    """Merge what the segments found for one query; row numbers become global."""
    scores = np.concatenate([ranking.scores for ranking, _ in parts])
    rows = np.concatenate([ranking.rows + offset for ranking, offset in parts])
    return Ranking(*best(scores, rows, k), sum(ranking.scored for ranking, _ in parts))
