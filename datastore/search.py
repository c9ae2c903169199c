"""The search over one segment, as plain functions over arrays: mask, candidates, exact scores."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compactds.datastore.ann.base import NO_ROW, Rows, Scores
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.filtered import FilteredSearch
from compactds.datastore.parallel import alone, share_out
from compactds.datastore.plan import Plan, choose_plan
from compactds.datastore.queries import Effort
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
        return _one_by_one(vectors, queries, k, allowed)
    rankings = [EMPTY] * len(queries)
    for numbers, block in vectors.blocks(None if allowed is None else allowed.rows()):
        with _matrix_turn:
            products = queries @ block.T
        for place, ranking in enumerate(rankings):
            scores = np.concatenate((ranking.scores, products[place]))
            rankings[place] = Ranking(*ordered(scores, np.concatenate((ranking.rows, numbers)), k), total)

    def rescored_part(part: slice) -> list[Ranking]:
        return [  # with the scores that every other way of finding them gives
            replace(rescore(vectors, query, ranking.rows, k), scored=total)
            for query, ranking in zip(queries[part], rankings[part], strict=True)
        ]

    rescored = alone(rescored_part, slice(0, len(queries)))
    # Damaged rows, which hold no numbers, may have taken the places of others.
    short = [place for place, ranking in enumerate(rescored) if len(ranking.rows) < min(k, total)]
    for place, ranking in zip(short, _one_by_one(vectors, queries[short], k, allowed), strict=True):
        rescored[place] = ranking
    return rescored


def _one_by_one(vectors: ExactVectors, queries: Vectors, k: int, allowed: Bitmap | None) -> list[Ranking]:
    total = vectors.rows if allowed is None else allowed.count

    def answer(part: slice) -> list[Ranking]:
        return [Ranking(*vectors.best_of_all(query, k, allowed), total) for query in queries[part]]

    return alone(answer, slice(0, len(queries)))


def rescore(vectors: ExactVectors, query: Vectors, rows: Rows, k: int) -> Ranking:
    """Score candidate rows of one query exactly; places without a row are dropped."""
    if len(rows) and rows[-1] == NO_ROW:
        rows = rows[rows != NO_ROW]
    return Ranking(*vectors.best(query, rows, k), len(rows))


def propose(
    segment: Segment, proposing: Vectors, deciding: Vectors | None, plan: Plan, k: int, allowed: Bitmap | None
) -> list[Ranking]:
    """Have the index propose candidates, and rank them by their exact scores; return a ranking a query.

    `deciding` are the queries of the exact stage's encoder, None if there is but one.
    """
    _, rows = segment.index.search(
        proposing,
        plan.candidates,
        effort=plan.effort,
        allowed=None if plan.name == "open" else allowed,
    )
    queries = proposing if deciding is None else deciding
    return [rescore(segment.vectors, query, found, k) for query, found in zip(queries, rows, strict=True)]


def passing(ranking: Ranking, allowed: Bitmap, k: int, least: float) -> Ranking | None:
    """Return the `k` best allowed rows of a ranking; None if fewer than `least` are allowed."""
    kept = allowed.holds(ranking.rows)
    if np.count_nonzero(kept) < least:
        return None
    return Ranking(ranking.scores[kept][:k], ranking.rows[kept][:k], ranking.scored)


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


def planned(segment: Segment, effort: Effort, matching: int | None) -> Plan:
    """Return how a segment is searched under a filter that allows `matching` rows, without one if None."""
    return choose_plan(
        effort,
        matching=segment.rows if matching is None else matching,
        rows=segment.rows,
        filtered=matching is not None,
        index=segment.index,
        calibration=segment.record.calibration,
        costs=segment.record.costs,
    )


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
    plan = planned(segment, effort, None if allowed is None else matching)
    if plan.name in PROPOSING_PLANS:
        same = proposing is deciding

        def answer(part: slice) -> list[Ranking]:
            return _answer(
                segment, proposing[part], None if same else deciding[part], plan, effort.k, allowed
            )

        rankings = share_out(answer, len(proposing))
        rankings = complete(segment.vectors, deciding, rankings, effort.k, allowed=allowed, matching=matching)
    else:
        rankings = scan(segment.vectors, deciding, effort.k, allowed)
    clock.lap("search")
    return plan, rankings


def _answer(
    segment: Segment, proposing: Vectors, deciding: Vectors | None, plan: Plan, k: int, allowed: Bitmap | None
) -> list[Ranking]:
    """Return a ranking a query; `deciding` is None if one encoder does both.

    An empty one is completed by scoring all that is allowed.
    """
    if plan.name == "lists" and allowed is not None and segment.filtered is not None:
        return _in_lists(segment.filtered, proposing, deciding, plan, k, allowed)
    wanted = plan.results if plan.name == "open" else k
    rankings: list[Ranking | None] = [None] * len(proposing)
    if segment.refiner is not None and plan.name != "codes" and deciding is None:
        found = segment.refiner.best(proposing, wanted, candidates=plan.candidates, effort=plan.effort)
        rankings = [None if one is None else Ranking(*one, plan.candidates) for one in found]

    def fill(ways: Callable[[Vectors, Vectors | None], list[Ranking]]) -> None:
        """Answer the queries that have no ranking yet."""
        left = [place for place, ranking in enumerate(rankings) if ranking is None]
        if left:
            found = ways(proposing[left], None if deciding is None else deciding[left])
            for place, ranking in zip(left, found, strict=True):
                rankings[place] = ranking

    fill(lambda queries, exact: propose(segment, queries, exact, plan, wanted, allowed))
    if plan.name == "open" and allowed is not None:
        rankings = [one and passing(one, allowed, k, plan.least) for one in rankings]
        instead = plan.instead
        if instead is not None:
            fill(lambda queries, exact: _answer(segment, queries, exact, instead, k, allowed))
    return [one or EMPTY for one in rankings]


def _in_lists(
    filtered: FilteredSearch,
    proposing: Vectors,
    deciding: Vectors | None,
    plan: Plan,
    k: int,
    allowed: Bitmap,
) -> list[Ranking]:
    found = []
    for place in range(len(proposing)):
        one = slice(place, place + 1)
        decided = None if deciding is None else deciding[one]
        found.append(filtered.best(proposing[one], k, plan, allowed, deciding=decided))
    return [EMPTY if one is None else Ranking(*one) for one in found]


def merge(parts: Sequence[tuple[Ranking, int]], k: int) -> Ranking:
    """Merge what the segments found for one query; row numbers become global."""
    scores = np.concatenate([ranking.scores for ranking, _ in parts])
    rows = np.concatenate([ranking.rows + offset for ranking, offset in parts])
    return Ranking(*ordered(scores, rows, k), sum(ranking.scored for ranking, _ in parts))
