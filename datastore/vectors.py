"""Exact vectors: rows of one raw file, read from disk by row and scored by inner product."""

import mmap
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.encoders.base import Vectors

EXACT_DTYPES = {"float16": "<f2", "float32": "<f4"}
SUFFIXES = {"float16": "f16", "float32": "f32"}
SCAN_BYTES = 2 << 20
"""How many bytes of float32 rows an exhaustive scan holds at once."""
GATHER_BYTES = 256 << 10
"""How many bytes of half-float rows are gathered before they are scored: they stay in the nearest cache."""


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


def inner_products(query: Vectors, vectors: Vectors) -> NDArray[np.float32]:
    """Return the inner products of one query, shape (d,), with float32 vectors, shape (n, d).

    A score depends on nothing but its two vectors, unlike those of a matrix product, which change in the
    last bits with the number of queries. And it takes one thread: BLAS starts a team for every call, and
    the teams of many searches at once keep each other from the cores.
    """
    scores = np.empty(len(vectors), dtype=np.float32)
    pointers = (faiss.swig_ptr(array) for array in (scores, query, vectors))
    if len(vectors):
        faiss.fvec_inner_products_ny(*pointers, vectors.shape[1], len(vectors))
    return scores


class HalfFloatScorer:
    """Score half-float rows with the vector instructions of faiss, one query at a time, in one thread.

    Rows are gathered right into the memory of a small scalar-quantiser index, whose codes are half floats,
    and searched there. One scorer serves one thread.
    """

    def __init__(self, dimension: int) -> None:
        self._step = max(1, GATHER_BYTES // (2 * dimension))
        kind = faiss.ScalarQuantizer.QT_fp16
        self._index: Any = faiss.IndexScalarQuantizer(dimension, kind, faiss.METRIC_INNER_PRODUCT)
        empty = np.zeros((self._step, dimension), np.float32)
        self._index.train(empty)
        self._index.add(empty)
        self._count = self._step
        memory = faiss.rev_swig_ptr(self._index.codes.data(), self._step * dimension * 2)
        self._rows: NDArray[np.float16] = memory.view(np.float16).reshape(self._step, dimension)
        self._scores = np.empty(self._step, np.float32)
        self._places = np.empty(self._step, np.int64)
        self._results = faiss.swig_ptr(self._scores), faiss.swig_ptr(self._places)

    def score(
        self, query: Vectors, vectors: NDArray[np.floating], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the inner products of a query with the given rows of a half-float array, in order."""
        query = np.ascontiguousarray(query, np.float32)
        scores = np.full(len(rows), -np.inf, np.float32)  # what a damaged row, not a number, keeps
        for start in range(0, len(rows), self._step):
            part = rows[start : start + self._step]
            count = len(part)
            vectors.take(part, axis=0, out=self._rows[:count], mode="clip")
            if count != self._count:
                self._index.ntotal = self._count = count
            self._index.search_c(1, faiss.swig_ptr(query), count, *self._results)
            scores[start : start + count][self._places[:count]] = self._scores[:count]
        return scores


class ExactVectors:
    """Read rows of a vector file that may be far larger than memory.

    The file is mapped and advised as randomly read, so that a row costs its own pages only. While rows
    have to be read from disk, the pages of a request are asked for together before the first of them is
    touched; once a request finds all its pages in memory, the next ones save themselves the asking, until
    the kernel reports that it had to read again.
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
        self._cold = True
        self._local = threading.local()

    def gather(self, rows: NDArray[np.int64]) -> Vectors:
        """Return the vectors at `rows` as float32, shape (len(rows), dimension)."""
        before = self._prepare(rows)
        found = self._array.take(rows, axis=0)
        self._learn(before)
        return widen(found)

    def score(self, query: Vectors, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the inner products of one query, shape (dimension,), with the vectors at `rows`.

        A score depends on nothing but its two vectors, not on the other rows of a request.
        """
        if self._array.dtype != np.float16:
            return inner_products(query, self.gather(rows))
        scorer: HalfFloatScorer | None = getattr(self._local, "scorer", None)
        if scorer is None:
            scorer = self._local.scorer = HalfFloatScorer(self.dimension)
        before = self._prepare(rows)
        scores = scorer.score(query, self._array, rows)
        self._learn(before)
        return scores

    def blocks(self, rows: NDArray[np.int64] | None = None) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        """Yield (row numbers, float32 vectors) over all rows, or the given ones, in bounded memory."""
        step = max(1, SCAN_BYTES // (4 * self.dimension))
        total = self.rows if rows is None else len(rows)
        for start in range(0, total, step):
            if rows is None:
                numbers = np.arange(start, min(start + step, total))
                self._advise(start * self.row_bytes, len(numbers) * self.row_bytes)
                yield numbers, widen(self._array[start : start + step])
            else:
                numbers = rows[start : start + step]
                yield numbers, self.gather(numbers)

    def _prepare(self, rows: NDArray[np.int64]) -> int:
        """Ask for the pages of `rows` if the last request had to read; return this thread's reads so far."""
        before = _reads()
        if self._cold:
            self._prefetch(rows)
        return before

    def _learn(self, before: int) -> None:
        """Note whether the kernel had to read from disk since this thread had made `before` reads."""
        self._cold = _reads() > before

    def _prefetch(self, rows: NDArray[np.int64]) -> None:
        """Ask the kernel for the pages of `rows`, neighbouring rows as one range."""
        if not len(rows):
            return
        page = mmap.PAGESIZE
        offsets = np.sort(rows) * self.row_bytes
        first, last = offsets // page, (offsets + self.row_bytes - 1) // page
        breaks = np.flatnonzero(first[1:] > last[:-1] + 1)
        starts = first[np.concatenate(([0], breaks + 1))]
        ends = last[np.concatenate((breaks, [len(rows) - 1]))]
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            self._map.madvise(
                mmap.MADV_WILLNEED, start * page, min((end - start + 1) * page, len(self._map) - start * page)
            )

    def _advise(self, start: int, length: int) -> None:
        aligned = start - start % mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, aligned, start - aligned + length)

    def close(self) -> None:
        """Let go of the file; the map itself goes when no array refers to it any more."""
        self._array = np.empty((0, self.dimension), dtype=np.float32)


def _reads() -> int:
    """Return how often the calling thread has had the kernel read from disk: blocks asked for, and faults."""
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_inblock + usage.ru_majflt
