"""Search an IVF index under a filter: lists further and further out, until they hold none of the best.

How many lists a filter takes nobody knows beforehand. One that leaves few rows near a query, or those of
other topics, makes it look where it would not without. So a search begins with as many lists as the filter
leaves rows near the query. If it leaves fewer there than elsewhere, the search looks at where the best rows
were found: unless they are among the nearest of the allowed rows met, others are likely beyond, and more
lists are searched. Where that would be most of them, all are, or every allowed row is scored if that costs
less.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import faiss
import numpy as np

from compactds.datastore.ann.base import NO_ROW, AnnIndex
from compactds.datastore.ann.ivf import CANDIDATES_POWER, IvfIndex
from compactds.datastore.ann.list_map import ListCounts, ListMap
from compactds.datastore.ann.narrowed import NarrowedIndexes, limit_bytes
from compactds.datastore.asking import Asking, Calls, calls_on
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.plan import Plan
from compactds.datastore.queries import MAX_CANDIDATES
from compactds.datastore.scoring import Rows, Scores, in_order, refining_once
from compactds.datastore.vectors import ExactVectors, reads_so_far

NEAR_LISTS = 8
"""How many of a query's nearest lists tell what a filter leaves around it."""
ALIKE = 0.5
"""A filter leaves as much near a query as elsewhere if it leaves so much of its average in each of them."""
SPARSE = 0.3
"""A filter is not taken to leave less near a query than this part of what it leaves on average."""
LOOKED_AT = 0.5
"""The nearest lists are found for a filter that leaves this part of its average near the query."""
EXPECTED_MISSES = 0.03
"""So many of the best rows may be expected further out for each that may be missed: where a filter goes
against a query, they thin out later than expected."""
OF_DEEPEST = 0.25
"""The best rows are taken to lie no less deep on average than this part of the deepest one's depth."""
LEAST_MISSES = 1e-9
SURE = 2.0
"""The next step searches so many times as many lists as would do if the best rows stayed where they are."""
LEAST_FURTHER, MOST_FURTHER = 1.5, 4.0
"""It searches so many times as many lists as the last, at least and at most."""
MOST_SCORED = 0.5
"""Rather than so great a part of the allowed rows, here and there, all of them are scored as they lie."""
CANDIDATES_STEP = 16
"""Numbers of candidates are rounded up to these, so that few kinds of parameters are kept."""
MOST_ASKINGS = 8
"""Ways of asking are kept for so many kinds of search under a filter."""
MOST_OF_LISTS = 0.7
"""Where more lists than this part of them would have to be searched, all are, or every allowed row is scored
if that costs less."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold the best rows with their scores, and `nearest`, those best by the encoder that made the lists."""

    scores: Scores
    rows: Rows
    nearest: Rows


@dataclass(frozen=True, slots=True)
class Around:
    """Hold a query's nearest lists, nearest first, and about which share of the rows near it a filter leaves.

    `alike` tells whether that is no less than elsewhere.
    """

    nearest: Rows
    share: float
    alike: bool


class FilteredSearch:
    """Search one index and its vectors under filters; for any threads."""

    def __init__(self, index: IvfIndex, vectors: ExactVectors) -> None:
        self._index = index
        self._vectors = vectors
        make = partial(calls_on, index, vectors)
        self._calls = make(index.ivf)
        self._narrowed = NarrowedIndexes(index.ivf, limit_bytes(index.ram_bytes), make)

    @property
    def ram_bytes(self) -> int:
        """Return the bytes of the lists copied for filters in steady use."""
        return self._narrowed.ram_bytes

    def best(
        self, query: Vectors, k: int, plan: Plan, allowed: Bitmap, *, deciding: Vectors | None = None
    ) -> tuple[Scores, Rows, int] | None:
        """Return the `k` best allowed rows for one query, shape (1, d), and how many were scored.

        They are as `ExactVectors.best` orders them, by the scores of `deciding` if another encoder's query
        decides. None if all allowed rows had better be scored, and if there are fewer than `k`.
        """
        known = self._index.list_map()
        counts = known.counts(allowed)
        looked_at = self._index.effort_at(LOOKED_AT * counts.share, plan.effort)
        around = self._around(query, known, counts, looked_at)
        lists = self._index.effort_at(around.share, plan.effort)
        settled = around.alike or plan.misses is None
        wanted_depth = None if plan.misses is None else _depth_for(plan.misses / k)
        power = CANDIDATES_POWER if deciding is None else 1.0
        while True:
            candidates = _candidates(plan, lists, power)
            if plan.grows and candidates >= MOST_SCORED * allowed.count:
                return None
            asking = self._asking(counts, lists, k, min(candidates, allowed.count))
            answer = self._answer(query, k, asking, deciding)
            if lists >= self._index.lists:
                break
            further = MOST_FURTHER
            if len(answer.rows) == k:
                if settled or wanted_depth is None:
                    break
                depth = self._depth(query, known, counts, around, lists, answer)
                if depth <= wanted_depth:
                    break
                further = min(max(SURE * depth / wanted_depth, LEAST_FURTHER), MOST_FURTHER)
            settled = False
            lists = self._index.effort_from(further * lists)
            if wanted_depth is not None and lists > MOST_OF_LISTS * self._index.lists:
                if self._index.rows > plan.most_rows:
                    return None
                lists = self._index.lists
        self._narrowed.searched(counts.use, allowed.bits, counts.allowed)
        found = len(answer.rows) == k
        return (answer.scores, answer.rows, asking.candidates) if found else None

    def _around(self, query: Vectors, known: ListMap, counts: ListCounts, lists: int) -> Around:
        """Find a query's nearest lists, and what a filter leaves in them."""
        nearest = self._index.nearest_lists(query, min(max(lists, NEAR_LISTS), self._index.lists))
        near = nearest[:NEAR_LISTS]
        held, left = known.sizes[near].tolist(), counts.allowed[near].tolist()
        share = max(sum(left) / max(sum(held), 1), SPARSE * counts.share)
        least = ALIKE * counts.share
        alike = all(allowed >= least * rows for allowed, rows in zip(left, held, strict=True))
        return Around(nearest, min(1.0, share), alike)

    def _depth(
        self, query: Vectors, known: ListMap, counts: ListCounts, around: Around, lists: int, answer: Answer
    ) -> float:
        """Return how deep among the allowed rows met the best ones lie, from 0 to 1: about the average.

        The depth of a row is the share of the allowed rows met that lie in lists nearer to the query.
        """
        enough = len(around.nearest) >= lists
        nearest = around.nearest[:lists] if enough else self._index.nearest_lists(query, lists)
        allowed = counts.allowed[nearest]
        met = allowed.cumsum()
        depths = np.ones(self._index.lists)
        depths[nearest] = (met - allowed / 2) / max(float(met[-1]), 1.0)
        theirs = depths[known.list_of_row[answer.nearest]]
        return max(float(theirs.mean()), OF_DEEPEST * float(theirs.max()))

    def _asked_at_once(self, query: Vectors, asking: Asking) -> tuple[Scores, Rows]:
        """Return scores and rows of one query's best as faiss orders them."""
        scores, rows = np.empty((1, asking.wanted), np.float32), np.empty((1, asking.wanted), np.int64)
        before = reads_so_far()
        asking.answer_into(scores, rows, query)
        self._vectors.learn(before)
        return scores[0], rows[0]

    def _answer(self, query: Vectors, k: int, asking: Asking, deciding: Vectors | None) -> Answer:
        """Return the best of the candidates: in one step, if they are in memory and their order is clear."""
        if deciding is None and asking.calls.ask is not None and not self._vectors.cold:
            scores, rows = self._asked_at_once(query, asking)
            best = None if rows[-1] == NO_ROW else in_order(scores, rows, k)
            if best is not None:
                return Answer(*best, best[1])
        proposed = asking.proposed(query)
        scores, rows = self._vectors.best((query if deciding is None else deciding)[0], proposed, k)
        return Answer(scores, rows, rows if deciding is None else proposed[:k])

    def _asking(self, counts: ListCounts, lists: int, k: int, candidates: int) -> Asking:
        """Return how so many lists are searched under a filter."""
        narrowed = counts.use.narrowed
        askings = counts.use.askings if narrowed is None else narrowed.askings
        wanted = min(k + 1, candidates)  # one more tells whether the others are the best
        key = wanted, candidates, lists
        asking: Asking | None = askings.get(key)
        if asking is None:
            selector = {"sel": counts.selector} if narrowed is None else {}
            calls = self._calls if narrowed is None else narrowed.calls
            asking = _keep(askings, key, _asked(calls, wanted, candidates, lists, selector))
        return asking


def filtered_for(index: AnnIndex, vectors: ExactVectors) -> FilteredSearch | None:
    """Return what searches an index under filters list by list, None for kinds without lists."""
    return FilteredSearch(index, vectors) if isinstance(index, IvfIndex) else None


def _depth_for(misses: float) -> float:
    """Return how deep the best rows may lie on average if so many of each are to be missed further out.

    They thin out about evenly with depth: of those whose mean depth is u, exp(-1 / u) lie beyond.
    """
    return -1 / math.log(max(LEAST_MISSES, EXPECTED_MISSES * min(misses, 1.0)))


def _candidates(plan: Plan, lists: int, power: float) -> int:
    """Return how many rows are scored where a filter has so many lists searched."""
    if not plan.grows or lists <= plan.effort:
        return plan.candidates
    grown: float = plan.candidates * (lists / max(1, plan.effort)) ** power
    most = max(plan.candidates, MAX_CANDIDATES)
    return min(most, CANDIDATES_STEP * math.ceil(grown / CANDIDATES_STEP))


def _asked(calls: Calls, wanted: int, candidates: int, lists: int, selector: dict[str, Any]) -> Asking:
    under = faiss.SearchParametersIVF(nprobe=lists, **selector)
    probing = faiss.SearchParametersPreTransform(index_params=under)
    return Asking(calls, wanted, candidates, probing, refining_once(wanted, candidates, probing))


def _keep(askings: dict[tuple[Any, ...], Asking], key: tuple[Any, ...], asking: Asking) -> Asking:
    while len(askings) >= MOST_ASKINGS:
        askings.pop(next(iter(askings), key), None)  # the oldest, unless another thread was faster
    askings[key] = asking
    return asking
