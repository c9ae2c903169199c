"""Exact vectors: rows of one raw file, read from disk by row and scored by inner product."""

import mmap
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.paging import read_pages
from compactds.datastore.scoring import (
    Rows,
    Scores,
    in_order,
    inner_products,
    merged,
    ordered,
    shortlist_of,
    view_of,
)

EXACT_DTYPES = {"float16": "<f2", "float32": "<f4"}
SUFFIXES = {"float16": "f16", "float32": "f32"}
SCAN_BYTES = 2 << 20
"""How many bytes of float32 rows an exhaustive scan holds at once."""
VIEW_BYTES = 16 << 20
"""How many bytes of half floats an exhaustive scan asks for ahead, and searches in one call."""
SCAN_FROM_SHARE = 0.3
"""Where more of the rows are asked for, passing over the others costs less than choosing them."""

PROBED_ROWS = 8
"""How many rows of a request are looked at, to tell whether its rows are in memory."""
ASKING_REQUESTS = 4
"""For how many requests pages go on being asked for, once one had to read from disk."""
WARM_REQUESTS = 100
"""So many requests in a row that found all they needed in memory tell that the next will, too."""
FEW_ROWS = 512
"""For so few rows, a request that comes after those does not look at some of them first."""


def widen(numbers: NDArray[np.floating]) -> Vectors:
    """Return finite float16 or float32 numbers as float32, exactly.

    NumPy converts half floats one at a time. Here their bits are moved to where float32 has them, for a
    whole array at once, and the difference of the two exponents' biases, 127 - 15, is multiplied in.
    """
    if numbers.dtype != np.float16:
        return numbers.astype(np.float32)
    bits = numbers.view(np.int16).astype(np.int32)  # extends the sign through the upper half
    bits <<= 13
    bits &= ~0x7000_0000  # three copies of the sign, where the exponent begins
    wide = bits.view(np.float32)
    wide *= np.float32(2.0**112)
    return wide


class ExactVectors:
    """Read rows of a vector file that may be far larger than memory.

    The file is mapped and advised as randomly read, so that a row costs its own pages only. While rows
    have to be read from disk, the pages of a request are asked for together before the first of them is
    scored; once several requests found all their pages in memory, the next ones save themselves the asking,
    until the kernel reports that it had to read again, for a few rows that each request looks at first or
    for the others.
    """

    def __init__(self, path: Path, *, rows: int, dimension: int, dtype: str) -> None:
        self.rows = rows
        self.dimension = dimension
        self.row_bytes = dimension * np.dtype(EXACT_DTYPES[dtype]).itemsize
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._map.madvise(mmap.MADV_RANDOM)
        self._array: NDArray[np.floating] = np.frombuffer(self._map, dtype=EXACT_DTYPES[dtype]).reshape(
            rows, dimension
        )
        self._asking = 1  # one request tells
        self._views: list[tuple[int, Any]] = []
        self._whole = view_of(self._array) if self._array.dtype == np.float16 else None

    def gather(self, rows: NDArray[np.int64]) -> Vectors:
        """Return the vectors at `rows` as float32, shape (len(rows), dimension)."""
        before = self.prepare(rows)
        found = self._array.take(rows, axis=0)
        self.learn(before)
        return widen(found)

    @property
    def view(self) -> Any:
        """Return a faiss index over all rows where they lie, None if they are not half floats."""
        return self._whole

    def best(self, query: Vectors, rows: NDArray[np.int64], k: int) -> tuple[Scores, Rows]:
        """Return the `k` best of different `rows` for one query, shape (dimension,): scores and rows.

        Scores are inner products, best first; equal ones order by row; rows that hold something else than
        numbers are left out. A score depends on nothing but its two vectors.
        """
        if self._whole is None:
            return ordered(inner_products(query, self.gather(rows)), rows, k)
        before = reads_so_far() if self.warm and len(rows) <= FEW_ROWS else self.prepare(rows)
        best = shortlist_of(self.dimension).best(self._array, query, rows, k)
        self.learn(before)
        return best

    def best_of_all(self, query: Vectors, k: int, allowed: Bitmap | None = None) -> tuple[Scores, Rows]:
        """Return the `k` best of all rows, or of the allowed ones, as `best` does, in bounded memory."""
        total = self.rows if allowed is None else allowed.count
        if self._whole is not None and total >= SCAN_FROM_SHARE * self.rows:
            parts = [self._best_in_view(query, start, view, k, allowed) for start, view in self._all_views()]
        elif allowed is not None:
            parts = [self.best(query, rows, k) for rows in allowed.row_blocks()]
        else:
            parts = [ordered(inner_products(query, block), rows, k) for rows, block in self.blocks()]
        return merged(parts, k)

    def blocks(
        self, rows: NDArray[np.int64] | None = None, *, release: bool = False
    ) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        """Yield (row numbers, float32 vectors) over all rows, or the given ones, in bounded memory.

        With `release`, as for a pass that is made once, pages that were read do not stay part of the process.
        """
        step = max(1, SCAN_BYTES // (4 * self.dimension))
        total = self.rows if rows is None else len(rows)
        for start in range(0, total, step):
            if rows is None:
                numbers = np.arange(start, min(start + step, total))
                self._advise(start * self.row_bytes, len(numbers) * self.row_bytes)
                block = widen(self._array[start : start + step])
            else:
                numbers = rows[start : start + step]
                block = self.gather(numbers)
            if release:
                self.release()
            yield numbers, block

    def release(self) -> None:
        """Have pages that were read no longer be part of the process.

        The system keeps them, as long as it has room.
        """
        self._map.madvise(mmap.MADV_DONTNEED)

    def prepare(self, rows: NDArray[np.int64]) -> int:
        """Ask for the pages of `rows` if they seem to be on disk only; return this thread's reads so far."""
        before = reads_so_far()
        if self._asking <= 0:
            self._array[rows[:: max(1, len(rows) // PROBED_ROWS)], 0]
            if reads_so_far() > before:
                self.learn(before)
        if self._asking > 0:
            read_pages(self._map, rows, self.row_bytes)
        return before

    def learn(self, before: int) -> None:
        """Note whether the kernel had to read from disk since this thread had made `before` reads."""
        if reads_so_far() > before:
            self._asking = ASKING_REQUESTS
        elif self._asking > -WARM_REQUESTS:
            self._asking -= 1  # other threads count down as well

    @property
    def cold(self) -> bool:
        """Tell whether one of the last requests had to read from disk."""
        return self._asking > 0

    @property
    def warm(self) -> bool:
        """Tell whether none of many requests had to read from disk."""
        return self._asking <= -WARM_REQUESTS

    def _all_views(self) -> list[tuple[int, Any]]:
        """Return views of all rows, one block after another, each with the number of its first row."""
        if not self._views:
            step = max(8, VIEW_BYTES // self.row_bytes & ~7)  # whole bytes of a bitmap
            starts = range(0, self.rows, step)
            self._views = [(start, view_of(self._array[start : start + step])) for start in starts]
        return self._views

    def _best_in_view(
        self, query: Vectors, start: int, view: Any, k: int, allowed: Bitmap | None
    ) -> tuple[Scores, Rows]:
        count = int(view.ntotal)
        bits = None if allowed is None else allowed.bits[start // 8 : (start + count + 7) // 8]
        parameters = bits if bits is None else faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        wanted = min(k + 1, count)
        scores, found = np.empty(wanted, np.float32), np.empty(wanted, np.int64)
        before = reads_so_far()
        if self._asking > 0:
            self._advise(start * self.row_bytes, count * self.row_bytes)
        pointers = faiss.swig_ptr(query), wanted, faiss.swig_ptr(scores), faiss.swig_ptr(found)
        view.search_c(1, *pointers, parameters)
        self.learn(before)
        met = found >= 0
        scores, found = scores[met], found[met] + start
        best = in_order(scores, found, k)
        if best is not None:
            return best
        rows = np.arange(start, start + count)
        return self.best(
            query, rows if bits is None else rows[np.unpackbits(bits, count=count, bitorder="little") > 0], k
        )

    def _advise(self, start: int, length: int) -> None:
        aligned = start - start % mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, aligned, start - aligned + length)

    def close(self) -> None:
        """Let go of the file; the map itself goes when no array refers to it any more."""
        self._views, self._whole = [], None
        self._array = self._array[:0].copy()


def reads_so_far() -> int:
    """Return how often the calling thread has had the kernel read from disk: blocks asked for, and faults."""
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_inblock + usage.ru_majflt
