"""What is asked of all systems: queries with filters in buckets, and the exact answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from benchmarks.fanns.filters import SELECTIVITIES, SHAPES, SIGNS, Maker
from benchmarks.peers.filtered_where import Columns, Mask, Where
from benchmarks.peers.worker import K
from numpy.typing import NDArray

NEAR_ROWS = 500
TOLERANCE = 1e-6  # a row that scores as much as the tenth best is as good an answer


@dataclass(frozen=True, slots=True)
class Bucket:
    """Name a kind of filter; "unfiltered" queries have a bucket of their own."""

    selectivity: float
    shape: str
    correlation: str

    @property
    def name(self) -> str:
        return f"{self.selectivity:g} {self.shape} {self.correlation}"


UNFILTERED = Bucket(1.0, "unfiltered", "none")


@dataclass(frozen=True, slots=True)
class Case:
    """Hold one query with its filter, how many rows that allows, and the score that a found row must have.

    `near_share` is how many of the query's nearest rows are allowed.
    """

    bucket: Bucket
    query: int
    where: Where | None
    matching: int
    least_score: float
    near_share: float

    @property
    def wanted(self) -> int:
        return min(K, self.matching)


@dataclass(frozen=True, slots=True)
class Problem:
    """Hold base vectors (n, d), queries (q, d), attributes, and the cases."""

    base: NDArray[np.float16]
    queries: NDArray[np.float32]
    columns: Columns
    cases: list[Case]

    def recall(self, number: int, found: Sequence[int]) -> float:
        """Return recall@10 of the rows found for a case; a row that is not allowed counts for nothing."""
        case = self.cases[number]
        known = sorted({row for row in found[:K] if 0 <= row < len(self.base)})
        if case.where is not None and known:
            allowed = self.columns.mask(case.where)
            known = [row for row in known if allowed[row]]
        scores = self.base[known].astype(np.float32) @ self.queries[case.query]
        return int(np.count_nonzero(scores >= case.least_score - TOLERANCE)) / case.wanted

    def disallowed(self, number: int, found: Sequence[int]) -> int:
        """Return how many of the rows found for a case its filter does not allow."""
        where = self.cases[number].where
        rows = [row for row in found if row >= 0]
        return 0 if where is None or not rows else int((~self.columns.mask(where)[rows]).sum())


def make_problem(
    base: NDArray[np.float16],
    queries: NDArray[np.float32],
    records: Sequence[dict[str, Any]],
    *,
    per_bucket: int,
    unfiltered: int,
    seed: int = 0,
) -> Problem:
    """Make cases for all buckets that the attributes allow, each with another query."""
    columns = Columns(records)
    draw = np.random.default_rng(seed)
    rows = base.astype(np.float32)
    problem = Problem(base, queries, columns, [])
    order = draw.permutation(len(queries))
    every = np.ones(len(base), np.bool_)
    for number in order[:unfiltered]:
        scores = rows @ queries[number]
        problem.cases.append(make_case(UNFILTERED, int(number), None, every, scores))
    turn = 0
    for selectivity, shape, correlation in product(SELECTIVITIES, SHAPES, SIGNS):
        if selectivity * len(base) < 0.5:
            continue
        bucket, missed = Bucket(selectivity, shape, correlation), 0
        found: list[Case] = []
        while len(found) < per_bucket and missed <= per_bucket:
            number = int(order[turn % len(order)])
            turn += 1
            scores = rows @ queries[number]
            maker = Maker(columns, row_weights(scores), SIGNS[correlation], draw)
            where = maker.make(shape, selectivity)
            if where is None:
                missed += 1
            else:
                found.append(make_case(bucket, number, where, columns.mask(where), scores))
        problem.cases.extend(found)
    return problem


def row_weights(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each row's nearness: 1 for the nearest rows, and a little more the more similar a row is."""
    weights = 0.01 * (scores.astype(np.float64) + 1)
    near = min(NEAR_ROWS, len(scores) // 20)
    weights[np.argpartition(-scores, near)[:near]] += 1
    return weights


def make_case(
    bucket: Bucket, number: int, where: Where | None, allowed: Mask, scores: NDArray[np.float32]
) -> Case:
    """Return a case with its exact answer: the score of the tenth best allowed row."""
    matching = int(allowed.sum())
    wanted = min(K, matching)
    least = np.partition(scores[allowed], matching - wanted)[matching - wanted]
    near = np.argpartition(-scores, K * K)[: K * K] if len(scores) > K * K else np.arange(len(scores))
    return Case(bucket, number, where, matching, float(least), float(allowed[near].mean()))
