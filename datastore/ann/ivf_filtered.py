"""Search the lists of an IVF index under a filter, as far as the filter leaves rows near the query.

A filter that allows one row in a hundred makes the same lists hold a hundredth of the rows, and a filter
that goes with the query, or against it, leaves many or few of them exactly where the query looks. So the
lists are walked from the nearest outwards until enough allowed rows were met: lists without any are
skipped, and how far a walk goes depends on what the filter allows around this very query.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.bitmaps import Bitmap

DENSITY_POWER = 0.7
"""Where a filter allows a share s of the rows around a query, the same recall takes about s ** 0.7 times as
many allowed rows as rows without a filter: measured at shares of 0.01 to 0.9."""
COUNTED_EXACTLY_ROWS = 65_536
SAMPLED_ROWS = 65_536
REMEMBERED_FILTERS = 16


@dataclass(frozen=True, slots=True)
class ListCounts:
    """Hold how many rows of each list a filter allows; `exact` says whether they were counted one by one."""

    allowed: NDArray[np.float64]
    exact: bool


class ListMap:
    """Know which list holds each row, and how many allowed rows each list holds under a filter.

    Made when an index is first searched under a filter; it takes two bytes a row, four from 65,536 lists on.
    """

    def __init__(self, ivf: Any) -> None:
        lists, rows = int(ivf.nlist), int(ivf.ntotal)
        self.sizes: NDArray[np.float64] = np.zeros(lists)
        self._list_of_row = np.zeros(rows, np.uint16 if lists <= 1 << 16 else np.uint32)
        for number in range(lists):
            size = int(ivf.get_list_size(number))
            if size:
                ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)
                self._list_of_row[ids] = number
                self.sizes[number] = size
        drawn = np.random.default_rng(0).choice(rows, min(rows, SAMPLED_ROWS), replace=False)
        self._sample = np.sort(drawn)
        self._sample_lists = self._list_of_row[self._sample]
        self._known: OrderedDict[int, tuple[NDArray[np.uint8], ListCounts]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def ram_bytes(self) -> int:
        """Return the bytes of the map."""
        return self._list_of_row.nbytes + self._sample.nbytes + self._sample_lists.nbytes + self.sizes.nbytes

    def counts(self, allowed: Bitmap) -> ListCounts:
        """Return the allowed rows of each list: counted if they are few, else estimated from a sample.

        The last few filters are remembered, by the identity of their bits, which are kept for that.
        """
        key = id(allowed.bits)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known[1]
        counts = self._counted(allowed)
        with self._lock:
            self._known[key] = (allowed.bits, counts)
            while len(self._known) > REMEMBERED_FILTERS:
                self._known.popitem(last=False)
        return counts

    def _counted(self, allowed: Bitmap) -> ListCounts:
        lists = len(self.sizes)
        if allowed.count <= COUNTED_EXACTLY_ROWS:
            met = np.bincount(self._list_of_row[allowed.rows()], minlength=lists)
            return ListCounts(met.astype(np.float64), exact=True)
        bits = allowed.bits[self._sample >> 3] >> (self._sample & 7).astype(np.uint8)
        met = np.bincount(self._sample_lists[(bits & 1).astype(np.bool_)], minlength=lists)
        scale = len(self._list_of_row) / len(self._sample)
        return ListCounts((met * scale).astype(np.float64), exact=False)


@dataclass(frozen=True, slots=True)
class Walk:
    """Hold the lists that a query's walk scans, nearest first, and the rows in them, allowed or not."""

    lists: NDArray[np.int64]
    rows: float


def walk(
    nearest: NDArray[np.int64], counts: ListCounts, sizes: NDArray[np.float64], worth: float
) -> Walk | None:
    """Return how far a walk along the `nearest` lists goes until it is worth as much as `worth` open rows.

    How many allowed rows that takes depends on how densely they lie where they lie: the share of allowed
    rows in a list, averaged over the allowed rows met. A filter that allows few rows anywhere needs fewer
    than one that allows as many in all, but densely and elsewhere. None if the lists end before that.
    """
    met = counts.allowed[nearest]
    if counts.exact:
        held = met > 0
        nearest, met = nearest[held], met[held]
    held_rows = sizes[nearest]
    found = met.cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):  # a sample may have met none so far
        density = np.minimum((met * met / held_rows).cumsum() / found, 1.0)
        enough = found >= worth * np.exp(DENSITY_POWER * np.log(density))
    stop = int(enough.argmax()) + 1
    if not len(enough) or not enough[stop - 1]:
        return None
    return Walk(nearest[:stop], float(held_rows[:stop].sum()))


def expected_rows(worth: float, share: float, rows: int) -> float:
    """Return how many rows a walk meets under a filter that allows `share` of the rows everywhere alike."""
    return float(min(rows, worth * max(share, 1e-9) ** (DENSITY_POWER - 1)))
