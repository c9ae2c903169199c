"""The IVF index of faiss: a rotation, lists of neighbours, and a 4-bit product-quantised code a row.

A code tells how a row differs from the centroid of its list.

A row costs half a byte a sub-quantiser and its eight-byte id. The codes only propose candidates; the
vectors on disk decide.
"""

import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.ann.base import NO_ROW, Bounds, Rows, Scores
from compactds.datastore.ann.ivf_filtered import Walk
from compactds.datastore.ann.ivf_shape import BLOCK_ROWS, ID_BYTES, CodeShape, fixed_ram_bytes
from compactds.datastore.ann.list_map import ListCounts, ListMap
from compactds.datastore.ann.reach import Reach
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import Vectors

NEAR_LISTS = 8
"""How many of a query's nearest lists tell what a filter leaves around it."""
ENOUGH_SHARE = 0.7
"""A filter that leaves so much leaves enough wherever a query is."""
SPARSE = 0.1
"""A filter is not taken to leave less near a query than this part of what it leaves on average."""
FILTERED_POWER = -0.5
"""Where a filter leaves a share s of the rows around a query, the same recall takes about s ** -0.5 times
as many lists: measured at shares of 0.1 to 0.9, for the buckets in which that recall is hardest to reach."""
CANDIDATES_POWER = 0.5
"""Where a filter has n times as many lists searched, n ** 0.5 times as many candidates are scored: what is
left of a crowd lies close together."""
ONE_BY_ONE = 11
"""The way of faiss to scan that takes queries one at a time, and keeps twice the results wanted before it
sorts them out. It costs a tenth less than the way faiss chooses, for single queries and batches alike, and
what a query finds does not depend on the others of its batch."""
MICROSECONDS_PER_CODE_BYTE = 1.5e-4
MICROSECONDS_PER_SEARCH = 20.0


@dataclass(frozen=True, slots=True)
class IvfIndex:
    """Search the lists nearest to a query; effort is how many lists.

    `whole` is the index of faiss: `transform`, then `ivf`. `centroids` finds the lists nearest to a query.
    """

    transform: Any
    ivf: Any
    whole: Any
    centroids: Any
    rows: int
    lists: int
    shape: CodeShape
    reach: Reach | None = None
    list_maps: list[ListMap] = field(default_factory=list, repr=False)
    map_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    exact: bool = False
    filters: bool = True

    @property
    def efforts(self) -> tuple[int, ...]:
        """Return powers of the fourth root of two, from two up to all lists."""
        return _efforts(self.lists)

    @property
    def ram_bytes(self) -> int:
        """Return the size of everything the index holds: codes with their padding, ids, centroids."""
        sizes = (int(self.ivf.get_list_size(number)) for number in range(self.lists))
        blocks = sum(-(-size // BLOCK_ROWS) for size in sizes)
        fixed = fixed_ram_bytes(int(self.transform.d_in), self.lists, self.shape)
        return blocks * BLOCK_ROWS * self.shape.bytes + self.rows * ID_BYTES + fixed

    def cost_us(self, effort: int) -> float:
        """Return about how many microseconds a search of this effort takes: a model, not a measurement."""
        return MICROSECONDS_PER_SEARCH + self.worth(effort) * self.shape.bytes * MICROSECONDS_PER_CODE_BYTE

    def search(
        self,
        queries: Vectors,
        count: int,
        *,
        effort: int,
        allowed: Bitmap | None = None,
        bounds: Bounds | None = None,
    ) -> tuple[Scores, Rows]:
        """Return the `count` best allowed rows of the nearest lists, for every query.

        Without a filter, these are `effort` lists. With one, lists are walked until no more better rows are
        to be expected in others than `bounds` let a search miss, or else until the allowed rows in them are
        worth as much as those of `effort` lists are without (see `ivf_filtered`).
        """
        rotated = self._rotated(queries)
        found = min(count, max(1, self.rows))
        if allowed is None:
            scores, rows = self._search_open(rotated, found, effort)
        else:
            scores, rows = self._search_filtered(rotated, found, effort, allowed, bounds or Bounds())
        if found == count:
            return scores, rows
        missing = ((0, 0), (0, count - found))
        return (
            np.pad(scores, missing, constant_values=-np.inf),
            np.pad(rows, missing, constant_values=NO_ROW),
        )

    def _search_open(self, rotated: Vectors, count: int, effort: int) -> tuple[Scores, Rows]:
        scores = np.empty((len(rotated), count), np.float32)
        rows = np.empty((len(rotated), count), np.int64)
        # The plain call of the wrapped library: its Python wrapper costs a tenth of such a search.
        self.ivf.search_c(
            len(rotated),
            faiss.swig_ptr(rotated),
            count,
            faiss.swig_ptr(scores),
            faiss.swig_ptr(rows),
            _unfiltered(min(max(1, effort), self.lists)),
        )
        return scores, rows

    def _search_filtered(
        self, rotated: Vectors, count: int, effort: int, allowed: Bitmap, bounds: Bounds
    ) -> tuple[Scores, Rows]:
        scores = np.full((len(rotated), count), -np.inf, np.float32)
        rows = np.full((len(rotated), count), NO_ROW, np.int64)
        known = self.list_map()
        counts = known.counts(allowed)
        walk = Walk(self, self.reach, known, counts, self.worth(effort), bounds)
        for place, query in enumerate(rotated):
            walk.search(query, scores[place], rows[place])
        return scores, rows

    def effort_under(self, query: Vectors, effort: int, counts: ListCounts) -> int:
        """Return how many lists are searched under a filter at first, for one query, in place of `effort`."""
        density = counts.share
        if not counts.even and density < ENOUGH_SHARE:
            lists = self.nearest_lists(query, min(NEAR_LISTS, self.lists))
            held = self.list_map().sizes[lists].sum()
            left = counts.allowed[lists].sum()
            density = min(1.0, max(float(left / held), SPARSE * density))
        return self.effort_at(density, effort)

    def nearest_lists(self, query: Vectors, count: int) -> Rows:
        """Return the numbers of the lists nearest to a query, nearest first."""
        scores, lists = np.empty(count, np.float32), np.empty(count, np.int64)
        pointers = faiss.swig_ptr(query), count, faiss.swig_ptr(scores), faiss.swig_ptr(lists)
        self.centroids.search_c(1, *pointers)
        return lists

    def effort_at(self, share: float, effort: int) -> int:
        """Return how many lists to search where a filter leaves a share of the rows, one of the efforts."""
        efforts = _efforts(self.lists)
        wanted = effort * share**FILTERED_POWER
        above = min(bisect_left(efforts, wanted), len(efforts) - 1)
        below = max(above - 1, 0)
        nearest = efforts[below if efforts[above] * efforts[below] > wanted * wanted else above]
        return max(nearest, min(effort, self.lists))

    def scan_lists(
        self, rotated: Vectors, lists: Rows, closeness: Scores, parameters: Any, scores: Scores, rows: Rows
    ) -> None:
        """Search lists for one query, into `scores` and `rows`; sets the parameters' list count.

        `closeness` holds the scores of the lists' centroids.
        """
        parameters.nprobe = len(lists)
        arrays = [np.ascontiguousarray(lists), np.ascontiguousarray(closeness), scores, rows]
        pointers = [faiss.swig_ptr(array) for array in arrays]
        self.ivf.search_preassigned_c(1, faiss.swig_ptr(rotated), len(rows), *pointers, False, parameters)

    def thresholds(self, queries: Vectors, count: int) -> list[tuple[Scores, Rows]]:
        """Return the scores of every query's `count` best rows, best first, and the lists they are in."""
        scores, rows = self.search(queries, count, effort=self.lists)
        numbers = self.list_map().list_of_row
        return [
            (found[theirs != NO_ROW], numbers[theirs[theirs != NO_ROW]])
            for found, theirs in zip(scores, rows, strict=True)
        ]

    def centroid_scores(self, queries: Vectors) -> list[Scores]:
        """Return the score of every list's centroid for every query."""
        return [self.list_map().closeness(rotated) for rotated in self._rotated(queries)]

    def list_sizes(self) -> NDArray[np.float32]:
        """Return how many rows each list holds."""
        return self.list_map().sizes

    def _rotated(self, queries: Vectors) -> Vectors:
        queries = np.ascontiguousarray(queries, np.float32)
        rotated = np.empty((len(queries), self.shape.rotated), np.float32)
        self.transform.apply_noalloc(len(queries), faiss.swig_ptr(queries), faiss.swig_ptr(rotated))
        return rotated

    def worth(self, effort: int) -> float:
        """Return how many rows a search of this effort meets without a filter."""
        return min(effort, self.lists) * self.rows / self.lists

    def list_map(self) -> ListMap:
        """Return which list holds each row; found out once, at the first search under a filter."""
        with self.map_lock:
            if not self.list_maps:
                self.list_maps.append(ListMap(self.ivf))
            return self.list_maps[0]


def open_ivf(path: Path, *, reach: Reach | None = None) -> IvfIndex:
    """Read an IVF index into memory; raise RuntimeError for a file that is not one.

    Without its `reach`, searches under a filter go as far as their effort says.
    """
    whole = faiss.read_index(str(path))
    transform = faiss.downcast_VectorTransform(whole.chain.at(0))
    ivf = faiss.downcast_index(faiss.extract_index_ivf(whole))
    ivf.implem = ONE_BY_ONE
    return IvfIndex(
        transform=transform,
        ivf=ivf,
        whole=whole,
        centroids=faiss.IndexPreTransform(transform, ivf.quantizer),
        rows=int(ivf.ntotal),
        lists=int(ivf.nlist),
        shape=CodeShape(int(ivf.pq.M), int(transform.d_out)),
        reach=reach,
    )


@lru_cache(maxsize=64)
def _efforts(lists: int) -> tuple[int, ...]:
    steps = {min(lists, round(2 ** (step / 4))) for step in range(4, 4 * lists.bit_length() + 1)}
    return tuple(sorted(steps))


@lru_cache(maxsize=1024)
def _unfiltered(probes: int) -> Any:
    """Return search parameters that no search changes: making them costs as much as a fast search saves."""
    return faiss.SearchParametersIVF(nprobe=probes)
