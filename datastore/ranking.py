"""Rank the rows of all segments for a batch of queries, each under its own where expression."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compactds.datastore.ann.base import NO_ROW, Rows, Scores
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.queries import Effort, Queries
from compactds.datastore.search import EMPTY, Ranking, merge, search_segment
from compactds.datastore.segment import Segment
from compactds.datastore.timing import Clock
from compactds.filters import Expression

Allowed = list[tuple[Segment, Bitmap | None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold the best rows of one query, numbered over the whole store, and how they were found."""

    ranking: Ranking
    plan: str
    predicted_ms: float
    matching: int


def allowed_rows(segments: Sequence[Segment], expression: Expression | None) -> Allowed:
    """Return the rows of every segment that an expression allows and nobody deleted, None for all."""
    return [(segment, segment.allowed(expression)) for segment in segments]


def count_rows(allowed: Allowed) -> int:
    """Return how many rows are allowed in all segments together."""
    return sum(segment.rows if rows is None else rows.count for segment, rows in allowed)


def rank(
    segments: Sequence[Segment],
    offsets: Sequence[int],
    queries: Queries,
    effort: Effort,
    expressions: Sequence[Expression | None],
    clock: Clock,
) -> list[Answer]:
    """Return an answer for every query; `expressions` holds one for all, or one for each.

    Queries with equal expressions are searched together. `offsets` are the numbers of the segments' first
    rows.
    """
    if len(expressions) == 1:
        return _rank_alike(segments, offsets, queries, effort, expressions[0], clock)
    places: dict[Expression | None, list[int]] = {}
    for place, expression in enumerate(expressions):
        places.setdefault(expression, []).append(place)
    answers: dict[int, Answer] = {}
    for expression, group in places.items():
        found = _rank_alike(segments, offsets, queries.at(group), effort, expression, clock)
        answers.update(zip(group, found, strict=True))
    return [answers[place] for place in range(len(expressions))]


def _rank_alike(
    segments: Sequence[Segment],
    offsets: Sequence[int],
    queries: Queries,
    effort: Effort,
    expression: Expression | None,
    clock: Clock,
) -> list[Answer]:
    allowed = allowed_rows(segments, expression)
    clock.lap("filter")
    plans, found = [], []
    for (segment, rows), offset in zip(allowed, offsets, strict=False):
        plan, rankings = search_segment(segment, rows, queries.proposing, queries.deciding, effort, clock)
        plans.append(plan)
        found.append([(ranking, offset) for ranking in rankings])
    if len(found) == 1:
        merged = [ranking for ranking, _ in found[0]]
    elif found:
        merged = [merge(per_segment, effort.k) for per_segment in zip(*found, strict=True)]
    else:
        merged = [EMPTY] * len(queries.proposing)
    name = "+".join(sorted({plan.name for plan in plans})) or "none"
    predicted_ms = sum(plan.predicted_us for plan in plans) / 1000
    matching = count_rows(allowed)
    return [Answer(ranking, name, predicted_ms, matching) for ranking in merged]


def fill(answers: Sequence[Answer], k: int) -> tuple[Rows, Scores]:
    """Return rows and scores of shape (n, k); places without a row hold NO_ROW and a score of -inf."""
    rows = np.full((len(answers), k), NO_ROW, np.int64)
    scores = np.full(rows.shape, -np.inf, np.float32)
    for place, answer in enumerate(answers):
        found = len(answer.ranking.rows)
        rows[place, :found] = answer.ranking.rows
        scores[place, :found] = answer.ranking.scores
    return rows, scores
