"""Search the lists of an IVF index under a filter, as far as the filter leaves rows near the query.

A filter that allows one row in a hundred makes the same lists hold a hundredth of the rows, and a filter
that goes with the query, or against it, leaves many or few of them exactly where the query looks. So the
lists are walked from the nearest outwards, those without allowed rows skipped. A first stretch ends when
enough allowed rows were met; the tenth best of them then tells how many better ones are to be expected in
each list further out (`reach`), and the walk goes on until too few are left to matter, and none of the best
rows were found in the last lists.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.ann.base import NO_ROW, Bounds, Rows, Scores
from compactds.datastore.ann.list_map import ListCounts, ListMap
from compactds.datastore.ann.reach import Reach
from compactds.datastore.encoders.base import Vectors

DENSITY_POWER = 0.7
"""Where a filter allows a share s of the rows around a query, the same recall takes about s ** 0.7 times as
many allowed rows as rows without a filter: measured at shares of 0.01 to 0.9."""
LEAST_DENSITY = 0.01
FIRST_STRETCH = 0.6
"""Which part of the rows that an open search of the same effort is worth a first stretch goes for."""
LEAST_FOUND = 2.0
"""A first stretch meets at least so many times the rows that are wanted."""
NEARER = 0.35
"""The best rows are to be in this part of the allowed rows that were met, the nearest: if none of the others
is among the best, those further out will not be, either."""
SPARE_HITS = 4
"""So many of the best rows may be further out than that for each that may be missed."""
FURTHER = 2
"""So many times as many lists are searched at the next step."""


@dataclass(frozen=True, slots=True)
class Way:
    """Hold the lists with allowed rows, from a query's nearest on: their centroids' scores, and rows."""

    lists: NDArray[np.int64]
    scores: NDArray[np.float32]
    allowed: NDArray[np.float32]
    sizes: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.lists)

    def rows(self, stop: int) -> float:
        """Return how many rows the lists before a place hold."""
        return float(self.sizes[:stop].sum())


def way_from(closeness: Scores, known: ListMap, counts: ListCounts) -> Way:
    """Return the way through all lists from a query's nearest on, without those that hold no allowed row."""
    lists = np.argsort(-closeness)
    allowed = counts.allowed[lists]
    if counts.exact:
        held = allowed > 0
        lists, allowed = lists[held], allowed[held]
    return Way(lists, closeness[lists], allowed, known.sizes[lists])


def first_stop(way: Way, worth: float, least: float) -> int:
    """Return how far a walk goes until it is worth `worth` rows of an open search, and met `least` rows.

    How many allowed rows that takes depends on how densely they lie where they lie: the share of allowed
    rows in a list, averaged over the allowed rows met. A filter that allows few rows anywhere needs fewer
    than one that allows as many in all, but densely and elsewhere.
    """
    found = way.allowed.cumsum()
    enough = found >= np.maximum(worth * _densities(way, found) ** DENSITY_POWER, least)
    return int(enough.argmax()) + 1 if enough.any() else len(way)


def last_stop(way: Way, stop: int, reach: Reach, threshold: float, k: int, misses: float) -> int:
    """Return how far a walk goes on until no more than `misses` better rows are expected further out.

    `threshold` is the score of the k-th best row before `stop`.
    """
    found = way.allowed[:stop].cumsum()
    rank = k / max(float(_densities(way, found)[-1]), LEAST_DENSITY)
    expected = way.allowed[stop:] * reach.share_above(threshold - way.scores[stop:], rank)
    enough = expected[::-1].cumsum() <= misses  # from the far end on
    return len(way) - int(np.count_nonzero(enough))


def hits_far_out(rows: Rows, nearest: NDArray[np.int64], allowed: NDArray[np.float32], known: ListMap) -> int:
    """Return how many rows are in none of the lists that hold the nearer of the allowed rows met.

    `nearest` are the lists that were searched, nearest first, and `allowed` how many allowed rows each holds.
    """
    met = allowed.cumsum()
    nearer = set(nearest[: np.searchsorted(met, met[-1] * NEARER, side="right")].tolist())
    return sum(number not in nearer for number in known.list_of_row[rows].tolist())


def _densities(way: Way, found: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the share of allowed rows around the allowed rows met, after each list of a way's beginning."""
    allowed, sizes = way.allowed[: len(found)], way.sizes[: len(found)]
    density = (allowed * allowed / np.maximum(sizes, 1)).cumsum() / np.maximum(found, 1e-9)
    smaller: NDArray[np.float32] = np.minimum(density, 1.0)
    return smaller


class ListScanner(Protocol):
    """Name what a walk asks of an index of lists."""

    def scan_lists(
        self, rotated: Vectors, lists: Rows, closeness: Scores, parameters: Any, scores: Scores, rows: Rows
    ) -> None:
        """Search lists, whose centroids score `closeness`, for one query, into `scores` and `rows`."""
        ...


@dataclass(frozen=True, slots=True)
class Walk:
    """Walk the lists of an index under one filter, for one query after another.

    `worth` is how many rows an open search of the same effort meets.
    """

    index: ListScanner
    reach: Reach | None
    known: ListMap
    counts: ListCounts
    worth: float
    bounds: Bounds

    def search(self, rotated: Vectors, scores: Scores, rows: Rows) -> None:
        """Put the best allowed rows of one query, shape (d,), into `scores` and `rows`."""
        bounds = self.bounds
        reach = None if bounds.misses is None else self.reach
        way = way_from(self.known.closeness(rotated), self.known, self.counts)
        worth = self.worth * (1.0 if reach is None else FIRST_STRETCH)
        stop = first_stop(way, worth, LEAST_FOUND * bounds.k)
        if not stop or way.rows(stop) > bounds.most_rows:
            return
        parameters = faiss.SearchParametersIVF(sel=self.counts.selector)
        self.index.scan_lists(rotated, way.lists[:stop], way.scores[:stop], parameters, scores, rows)
        while reach is not None and bounds.misses is not None and stop < len(way):
            best = rows[: bounds.k]
            if best[-1] != NO_ROW:
                threshold = float(scores[len(best) - 1])
                end = last_stop(way, stop, reach, threshold, bounds.k, bounds.misses)
                if end <= stop:
                    lists, allowed = way.lists[:stop], way.allowed[:stop]
                    if hits_far_out(best, lists, allowed, self.known) <= SPARE_HITS * bounds.misses:
                        return
                    end = FURTHER * stop
            else:
                end = FURTHER * stop
            end = min(end, len(way))
            if way.rows(end) > bounds.most_rows:
                scores[:], rows[:] = -np.inf, NO_ROW
                return
            more_scores, more_rows = np.empty_like(scores), np.empty_like(rows)
            self.index.scan_lists(
                rotated, way.lists[stop:end], way.scores[stop:end], parameters, more_scores, more_rows
            )
            both = np.concatenate((scores, more_scores))
            order = np.argsort(-both, kind="stable")[: len(scores)]
            scores[:], rows[:] = both[order], np.concatenate((rows, more_rows))[order]
            stop = end
