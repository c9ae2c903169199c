"""How far from a query its best rows lie: what a list of an IVF index is expected to hold, measured.

The score of a list's centroid says little about a single row in it. But over many queries, the share of a
list's rows that score above a threshold falls smoothly with how far the centroid is below it. Known that, a
search that has found ten rows can say how many better ones it has to expect in the lists it has not seen, for
any filter: the share times the rows that the filter allows in each.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from compactds.datastore.encoders.base import Vectors

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]

RANKS = (10, 30, 100, 300, 1000)
"""The thresholds are the scores at these ranks: under a filter, the tenth best is one from further down."""
MEASURED_QUERIES = 128
MEASURED_SHARE = 0.05
"""The ranks go no further than this share of the rows."""
BINS = 64
LEAST_ROWS_A_BIN = 5
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Reach:
    """Hold the logarithm of the share of a list's rows above a threshold, fitted: of its gap and its rank.

    The gap is how far the list's centroid is below the threshold, the rank how many rows of all are above it.
    """

    level: float
    slope: float
    bend: float
    spread: float

    def share_above(self, gaps: Scores, rank: float) -> Scores:
        """Return the share of the rows of lists that are expected above a threshold, for each list's gap."""
        if self.bend < 0:
            gaps = np.maximum(gaps, -self.slope / (2 * self.bend))  # the nearer, the more, however near
        logarithm = self.level + self.spread * np.log(rank) + (self.slope + self.bend * gaps) * gaps
        share: Scores = np.exp(np.minimum(logarithm, 0.0))
        return share


class Lists(Protocol):
    """Name what is asked of an index of lists to measure its reach."""

    def thresholds(self, queries: Vectors, count: int) -> list[tuple[Scores, Rows]]:
        """Return the scores of every query's `count` best rows, best first, and the lists they are in."""
        ...

    def centroid_scores(self, queries: Vectors) -> list[Scores]:
        """Return the score of every list's centroid for every query."""
        ...

    def list_sizes(self) -> NDArray[np.float32]:
        """Return how many rows each list holds."""
        ...


def measure_reach(index: Lists, queries: Vectors) -> Reach | None:
    """Fit the reach of an index to queries that it was not trained on; None if they are too few for that."""
    sizes = index.list_sizes()
    ranks = [rank for rank in RANKS if rank <= MEASURED_SHARE * sizes.sum()]
    queries = queries[:MEASURED_QUERIES]
    if not ranks or not len(queries):
        return None
    gaps: list[list[Scores]] = [[] for _ in ranks]
    above: list[list[NDArray[np.int64]]] = [[] for _ in ranks]
    for (scores, lists), centroids in zip(
        index.thresholds(queries, ranks[-1] + 1), index.centroid_scores(queries), strict=True
    ):
        for place, rank in enumerate(ranks):
            if len(scores) > rank:  # the best is the query itself
                gaps[place].append(scores[rank] - centroids)
                above[place].append(np.bincount(lists[1 : rank + 1], minlength=len(sizes)))
    return _fitted(ranks, [np.array(each) for each in gaps], [np.array(each) for each in above], sizes)


def _fitted(
    ranks: list[int], gaps: list[Scores], above: list[NDArray[np.int64]], sizes: NDArray[np.float32]
) -> Reach | None:
    """Fit a parabola to the logarithms of the shares, each bin of gaps weighing as its rows do."""
    terms, logarithms, weights = [], [], []
    for rank, gap, hits in zip(ranks, gaps, above, strict=True):
        if not len(gap):
            continue
        edges = np.linspace(gap.min(), gap.max(), BINS + 1)
        bins = np.minimum(np.digitize(gap.ravel(), edges) - 1, BINS - 1)  # the last bin holds its end
        rows = np.bincount(bins, weights=np.broadcast_to(sizes, gap.shape).ravel(), minlength=BINS)
        met = np.bincount(bins, weights=hits.ravel(), minlength=BINS)
        centres = (edges[:-1] + edges[1:]) / 2
        for centre, held, found in zip(centres, rows, met, strict=True):
            if found >= LEAST_ROWS_A_BIN:
                terms.append((1.0, centre, centre * centre, np.log(rank)))
                logarithms.append(np.log(found / held))
                weights.append(np.sqrt(found))
    if len(terms) < 2 * len(ranks):
        return None
    weight = np.array(weights)
    matrix, target = np.array(terms) * weight[:, np.newaxis], np.array(logarithms) * weight
    level, slope, bend, spread = np.linalg.lstsq(matrix, target, rcond=None)[0]
    if bend >= 0:  # no tail gets heavier
        level, slope, spread = np.linalg.lstsq(matrix[:, [0, 1, 3]], target, rcond=None)[0]
        bend = 0.0
    return Reach(*(round(float(number), DIGITS) for number in (level, slope, bend, spread)))
