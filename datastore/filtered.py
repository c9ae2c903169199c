"""Search an IVF index under a filter: lists further and further out, until they hold none of the best.

How many lists a filter takes nobody knows beforehand. One that leaves few rows near a query, or those of
other topics, makes it look where it would not without. So a search begins with as many lists as the filter
leaves rows near the query. If it leaves fewer there than elsewhere, the search looks at where the best rows
were found: unless they are among the nearest of the allowed rows met, others are likely beyond, and more
lists are searched. Where that would be a large part of them, all are, or every allowed row is scored if
that costs less; in a small index at once.
"""

import math
import threading

import numpy as np

from compactds.datastore.ann.base import AnnIndex
from compactds.datastore.ann.ivf import IvfIndex, parameters_for
from compactds.datastore.ann.list_map import ListCounts, ListMap
from compactds.datastore.ann.narrowed import NarrowedIndexes, limit_bytes
from compactds.datastore.ann.probe import Probe
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.plan import Plan
from compactds.datastore.queries import MAX_CANDIDATES
from compactds.datastore.scoring import Rows, Scores, merged, ordered
from compactds.datastore.vectors import ExactVectors

NEAR_LISTS = 8
"""How many of a query's nearest lists tell what a filter leaves around it."""
ALIKE = 0.5
"""A filter leaves as much near a query as elsewhere if it leaves so much of its average in each of them."""
SPARSE = 0.3
"""A filter is not taken to leave less near a query than this part of what it leaves on average."""
EXPECTED_MISSES = 0.03
"""So many of the best rows may be expected further out for each that may be missed: where a filter goes
against a query, they thin out later than expected."""
LEAST_MISSES = 1e-9
OF_DEEPEST = 0.34
"""The best rows are taken to lie no less deep on average than this part of how deep the deepest lies: of ten
that thin out evenly, that is 2.9 times their mean."""
FURTHER = 4
"""The next step searches so many times as many lists as the last."""
MOST_SCORED = 0.3
"""Rather than so great a part of the allowed rows, here and there, all of them are scored as they lie."""
MOST_OF_LISTS = 0.3
"""Where more lists than this part of them would have to be searched, all are, or every allowed row is scored
if that costs less."""
SMALL_ROWS = 100_000
SMALL_SHARE = 0.3
"""In an index of so few rows that is done at once, under a filter that leaves no more than this share of
them, and less near the query than elsewhere: to look further later would cost as much again. As few such
queries need all lists, candidates grow by no more than the root of what they grow by in steps."""


class Found:
    """Gather the `k` best rows for a query, shape (d,), from lists further and further out.

    So many `lists` were looked at, and so many rows `scored`. With `two` encoders at work, the query is of
    the one that did not make the lists.
    """

    def __init__(self, query: Vectors, k: int, vectors: ExactVectors, *, two: bool) -> None:
        self.scores: Scores = np.empty(0, np.float32)
        self.rows: Rows = np.empty(0, np.int64)
        self.lists = self.scored = 0
        self._query, self._k, self._vectors, self._two = query, k, vectors, two
        self._by_code = self.scores, self.rows

    @property
    def nearest(self) -> Rows:
        """Return the rows that are nearest to the query as far as the lists' encoder can tell."""
        return ordered(*self._by_code, self._k)[1] if self._two else self.rows

    def take(self, proposed: tuple[Scores, Rows], candidates: int, lists: int) -> None:
        """Score what further lists proposed, unless it is not among so many best of all proposed so far."""
        scores, rows = by_code = proposed
        if self.lists:
            by_code = np.append(self._by_code[0], scores), np.append(self._by_code[1], rows)
            beyond = len(by_code[0]) - candidates
            if beyond > 0:
                rows = rows[scores >= np.partition(by_code[0], beyond)[beyond]]
        best = self._vectors.best(self._query, rows, self._k)
        self.scored += len(rows)
        if self.lists:
            best = merged([(self.scores, self.rows), best], self._k)
        self.scores, self.rows = best
        self._by_code, self.lists = by_code, lists


class FilteredSearch:
    """Search one index and its vectors under filters; for any threads."""

    def __init__(self, index: IvfIndex, vectors: ExactVectors) -> None:
        self._index = index
        self._vectors = vectors
        self._narrowed = NarrowedIndexes(index.ivf, limit_bytes(index.ram_bytes))
        self._local = threading.local()

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
        probe = self._probe
        probe.find(query, max(NEAR_LISTS, self._index.effort_at(counts.share, plan.effort)))
        share, alike = _around(probe.lists[:NEAR_LISTS], known, counts)
        lists = self._index.effort_at(share, plan.effort)
        most_depth = None if plan.misses is None else _depth_for(plan.misses / k)
        first = lists
        usual: float = first if deciding is None else max(1, plan.effort)
        small = self._index.rows <= SMALL_ROWS and counts.share <= SMALL_SHARE
        if small and not alike and most_depth is not None and self._is_large_part(first):
            lists = self._index.lists
            if deciding is None:
                usual = math.sqrt(first * lists)
            if self._is_dearer(plan, lists, usual):
                return None
        exact = query if deciding is None else deciding
        found = Found(exact[0], k, self._vectors, two=deciding is not None)
        while True:
            candidates = _candidates(plan, lists, usual)
            if plan.grows and candidates >= MOST_SCORED * allowed.count:
                return None
            if len(probe.lists) < lists:
                probe.find_further(lists)
            self._look(found, probe, counts, lists, min(candidates, allowed.count))
            if lists >= self._index.lists:
                break
            if len(found.rows) == k and (
                most_depth is None
                or (alike and lists == first)
                or _depth(probe.lists[:lists], known, counts, found.nearest) <= most_depth
            ):
                break
            lists = self._index.effort_from(FURTHER * lists)
            if most_depth is not None and self._is_large_part(lists):
                lists = self._index.lists
            if self._is_dearer(plan, lists, usual):
                return None
        self._narrowed.searched(counts.use, allowed.bits, counts.allowed)
        return (found.scores, found.rows, found.scored) if len(found.rows) == k else None

    def _is_large_part(self, lists: int) -> bool:
        """Tell whether so many lists are so large a part that all had better be searched."""
        return lists > MOST_OF_LISTS * self._index.lists

    def _is_dearer(self, plan: Plan, lists: int, usual: float) -> bool:
        """Tell whether to search so many lists costs more than to score every allowed row."""
        scoring = plan.score_rows * _candidates(plan, lists, usual)
        return self._index.worth(lists) + scoring > plan.most_rows

    def _look(self, found: Found, probe: Probe, counts: ListCounts, lists: int, candidates: int) -> None:
        """Score what the nearest lists propose that were not looked at before: so many rows at most."""
        ivf, further = counts.use.narrowed, lists - found.lists
        if ivf is None:
            ivf, parameters = self._index.ivf, counts.parameters_for(further)
        else:
            parameters = parameters_for(further)
        proposed = probe.propose(ivf, found.lists, candidates, parameters)
        found.take(proposed, candidates, lists)

    @property
    def _probe(self) -> Probe:
        """Return what looks at lists for the calling thread."""
        probe: Probe | None = getattr(self._local, "probe", None)
        if probe is None:
            probe = self._local.probe = Probe(self._index)
        return probe


def _around(near: Rows, known: ListMap, counts: ListCounts) -> tuple[float, bool]:
    """Return about which share of the rows of some lists a filter leaves; whether no less than elsewhere."""
    held, left = known.sizes.take(near).tolist(), counts.allowed.take(near).tolist()
    share = max(sum(left) / max(sum(held), 1), SPARSE * counts.share)
    least = ALIKE * counts.share
    alike = all(allowed >= least * rows for allowed, rows in zip(left, held, strict=True))
    return min(1.0, share), alike


def _depth(lists: Rows, known: ListMap, counts: ListCounts, best: Rows) -> float:
    """Return how deep the best rows lie among the allowed ones met in `lists`, nearest first, on average.

    The depth of a row is the share of the allowed rows met that lie in nearer lists, from 0 to 1.
    """
    met = counts.allowed.take(lists).cumsum()  # `take` costs half of what brackets do
    order = np.empty(len(known.sizes), np.int64)
    order[lists] = np.arange(len(lists))
    theirs = known.list_of_row.take(best)
    depths = (met.take(order.take(theirs)) - counts.allowed.take(theirs) / 2).tolist()
    depth: float = max(sum(depths) / len(depths), OF_DEEPEST * max(depths))
    return depth / max(float(met[-1]), 1.0)


def filtered_for(index: AnnIndex, vectors: ExactVectors) -> FilteredSearch | None:
    """Return what searches an index under filters list by list, None for kinds without lists."""
    return FilteredSearch(index, vectors) if isinstance(index, IvfIndex) else None


def _depth_for(misses: float) -> float:
    """Return how deep the best rows may lie on average if so many of each are to be missed further out.

    They thin out about evenly with depth: of those whose mean depth is u, exp(-1 / u) lie beyond.
    """
    return -1 / math.log(max(LEAST_MISSES, EXPECTED_MISSES * min(misses, 1.0)))


def _candidates(plan: Plan, lists: int, usual: float) -> int:
    """Return how many rows are scored of so many lists: of the usual number of them, as many as planned.

    What is found further out, past a crowd that the filter excludes, lies close together, so that codes tell
    it apart less well: candidates grow as lists do.
    """
    if not plan.grows or lists <= usual:
        return plan.candidates
    grown = math.ceil(plan.candidates * lists / usual)
    return min(grown, max(plan.candidates, MAX_CANDIDATES))
