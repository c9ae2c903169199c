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

from compactds.datastore.ann.base import NO_ROW, Rows, Scores
from compactds.datastore.ann.ivf_shape import BLOCK_ROWS, ID_BYTES, CodeShape, fixed_ram_bytes
from compactds.datastore.ann.list_map import ListMap
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import Vectors

FILTERED_POWER = -0.35
"""Where a filter leaves a share s of the rows around a query, the same recall takes about s ** -0.35 times
as many lists: measured at shares of 0.1 to 0.9."""
ONE_BY_ONE = 11
"""The way of faiss to scan that takes queries one at a time, and keeps twice the results wanted before it
sorts them out. It costs a tenth less than the way faiss chooses, for single queries and batches alike, and
what a query finds does not depend on the others of its batch."""
MICROSECONDS_PER_CODE_BYTE = 1.5e-4
MICROSECONDS_PER_SEARCH = 20.0


@dataclass(frozen=True, slots=True)
class IvfIndex:
    """Search the lists nearest to a query; effort is how many lists.

    `whole` is the index of faiss: `transform`, then `ivf`.
    """

    transform: Any
    ivf: Any
    whole: Any
    rows: int
    lists: int
    shape: CodeShape
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
    ) -> tuple[Scores, Rows]:
        """Return the `count` best allowed rows of the `effort` nearest lists, for every query.

        Under a filter these may be few, wherever it leaves rows; `filtered` finds how many lists it takes.
        """
        rotated = self._rotated(queries)
        found = min(count, max(1, self.rows))
        scores = np.empty((len(rotated), found), np.float32)
        rows = np.empty((len(rotated), found), np.int64)
        probes = min(max(1, effort), self.lists)
        ways = parameters_for if allowed is None else self.list_map().counts(allowed).parameters_for
        # The plain call of the wrapped library: its Python wrapper costs a tenth of such a search.
        pointers = [faiss.swig_ptr(array) for array in (rotated, scores, rows)]
        self.ivf.search_c(len(rotated), pointers[0], found, *pointers[1:], ways(probes))
        if found == count:
            return scores, rows
        missing = ((0, 0), (0, count - found))
        return (
            np.pad(scores, missing, constant_values=-np.inf),
            np.pad(rows, missing, constant_values=NO_ROW),
        )

    def effort_from(self, lists: float) -> int:
        """Return the least of the efforts that is no less than so many lists."""
        efforts = _efforts(self.lists)
        return efforts[min(bisect_left(efforts, lists), len(efforts) - 1)]

    def effort_at(self, share: float, effort: int) -> int:
        """Return how many lists to search where a filter leaves a share of the rows, one of the efforts."""
        efforts = _efforts(self.lists)
        wanted = effort * share**FILTERED_POWER
        above = min(bisect_left(efforts, wanted), len(efforts) - 1)
        below = max(above - 1, 0)
        nearest = efforts[below if efforts[above] * efforts[below] > wanted * wanted else above]
        return max(nearest, min(effort, self.lists))

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
        if self.list_maps:
            return self.list_maps[0]
        with self.map_lock:
            if not self.list_maps:
                self.list_maps.append(ListMap(self.ivf))
            return self.list_maps[0]


def open_ivf(path: Path) -> IvfIndex:
    """Read an IVF index into memory; raise RuntimeError for a file that is not one."""
    whole = faiss.read_index(str(path))
    transform = faiss.downcast_VectorTransform(whole.chain.at(0))
    ivf = faiss.downcast_index(faiss.extract_index_ivf(whole))
    ivf.implem = ONE_BY_ONE
    return IvfIndex(
        transform=transform,
        ivf=ivf,
        whole=whole,
        rows=int(ivf.ntotal),
        lists=int(ivf.nlist),
        shape=CodeShape(int(ivf.pq.M), int(transform.d_out)),
    )


@lru_cache(maxsize=64)
def _efforts(lists: int) -> tuple[int, ...]:
    steps = {min(lists, round(2 ** (step / 4))) for step in range(4, 4 * lists.bit_length() + 1)}
    return tuple(sorted(steps))


@lru_cache(maxsize=1024)
def parameters_for(lists: int) -> Any:
    """Return the parameters of a search of so many lists; none changes them, and making them takes time."""
    return faiss.SearchParametersIVF(nprobe=lists)
