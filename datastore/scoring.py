"""Score half floats exactly, with the vector instructions of faiss.

faiss scores the half floats of its own scalar-quantiser index well, and of no other memory. So rows of a
mapped file are shown to it as the codes of such an index, without being copied. Searched, a view scores all
its rows. To score chosen rows only, they are copied next to each other, and the copies are viewed: rows
scattered over memory are each waited for if they are scored where they lie, which takes twice as long.

faiss orders equal scores in its own way, and leaves out those that are no numbers (of a damaged row). So one
result more than needed is asked for. Equal scores are put in the order of their rows; where it is open which
of them belong to the best, the result is made again from all scores: rows without a score come nowhere.
"""

import operator
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.encoders.base import Vectors

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]

FEW = 50
"""So few scores are compared in less time one by one than by NumPy."""
SHORTLIST_BYTES = 512 << 10
"""Copies take so many bytes at once, and hold one row at least: more would leave the processor's caches."""

_own = threading.local()


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


def view_of(rows: NDArray[np.float16]) -> Any:
    """Return a faiss index that scores `rows`, shape (n, d), where they are; they live as long as it."""
    count, dimension = rows.shape
    index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True  # half floats have nothing to be trained
    memory = rows.view(np.uint8).reshape(-1)
    looking, _ = _looking_index()
    index.codes = faiss.MaybeOwnedVectorUInt8.create_view(
        faiss.swig_ptr(memory), memory.size, looking.codes.owner
    )
    index.ntotal = count
    index.referenced_objects = [rows]
    return index


class Shortlist:
    """Score chosen rows of arrays of half floats, shape (n, dimension); for one thread at a time."""

    def __init__(self, dimension: int) -> None:
        self._capacity = max(1, SHORTLIST_BYTES // (2 * dimension))
        self._copies = np.empty((self._capacity, dimension), np.float16)
        self._view = view_of(self._copies)

    def best(self, array: NDArray[np.float16], query: Vectors, rows: Rows, k: int) -> tuple[Scores, Rows]:
        """Return the min(k, n) best of n different rows of an array, best first, and their inner products.

        `query` is float32 of shape (dimension,). Equal scores order by row.
        """
        count, step = len(rows), self._capacity
        if count > step:
            blocks = (rows[start : start + step] for start in range(0, count, step))
            return merged([self.best(array, query, block, k) for block in blocks], k)
        array.take(rows, axis=0, out=self._copies[:count], mode="clip")  # else NumPy copies twice
        self._view.ntotal = count
        best = in_order(*self._search(query, rows, min(k + 1, count)), k)
        return ordered(*self._search(query, rows, count), k) if best is None else best

    def _search(self, query: Vectors, rows: Rows, k: int) -> tuple[Scores, Rows]:
        """Return the `k` best of the rows copied as faiss orders them, fewer if some have no score."""
        scores, places = np.empty(k, np.float32), np.empty(k, np.int64)
        if not k:
            return scores, places
        self._view.search_c(1, faiss.swig_ptr(query), k, faiss.swig_ptr(scores), faiss.swig_ptr(places))
        if places[-1] < 0:
            found = places >= 0
            scores, places = scores[found], places[found]
        return scores, rows.take(places)


def shortlist_of(dimension: int) -> Shortlist:
    """Return the calling thread's own, one for all arrays of a dimension."""
    shortlists: dict[int, Shortlist] = _own.__dict__.setdefault("shortlists", {})
    if dimension not in shortlists:
        shortlists[dimension] = Shortlist(dimension)
    return shortlists[dimension]


def settled(scores: Scores) -> NDArray[np.bool_]:
    """Tell for each row of scores, shape (n, k), whether they strictly descend, and none of them is NaN.

    Then their order is beyond doubt.
    """
    if scores.shape[1] < 2:
        return np.asarray(~np.isnan(scores).any(axis=1))
    return np.asarray((scores[:, :-1] > scores[:, 1:]).all(axis=1))


def in_order(scores: Scores, rows: Rows, k: int) -> tuple[Scores, Rows] | None:
    """Return the `k` best of one query's results as faiss gives them; equal scores order by row.

    None if which they are is open: for a score that is not a number, and for a k-th one that the next, which
    was asked for to tell, equals.
    """
    count = len(scores)
    if count < 2:
        return None if np.isnan(scores).any() else (scores, rows)
    if count <= FEW:
        values = scores.tolist()
        descents = sum(map(operator.gt, values, values[1:]))
    else:
        descents = np.count_nonzero(scores[:-1] > scores[1:])
    if descents == count - 1:  # no number is above what is none
        return scores[:k], rows[:k]
    ties = np.count_nonzero(scores[:-1] == scores[1:])
    if descents + ties < count - 1 or (count > k and scores[k - 1] == scores[k]):
        return None
    order = np.lexsort((rows, -scores))[:k]
    return scores[order], rows[order]


def ordered(scores: Scores, rows: Rows, k: int) -> tuple[Scores, Rows]:
    """Return the `k` best (score, row) pairs, highest score first; equal scores order by row.

    Pairs whose score is not a number are left out.
    """
    if np.isnan(scores).any():
        scores, rows = scores[~np.isnan(scores)], rows[~np.isnan(scores)]
    if len(scores) > k:
        # Everything that ties with the k-th score stays in, so that ties break by row, not by chance.
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = scores >= threshold
        scores, rows = scores[kept], rows[kept]
    order = np.lexsort((rows, -scores))[:k]
    return scores[order], rows[order]


def merged(parts: Sequence[tuple[Scores, Rows]], k: int) -> tuple[Scores, Rows]:
    """Return the `k` best of several results, as `ordered` does."""
    scores, rows = zip(*parts, strict=True)
    return ordered(np.concatenate(scores), np.concatenate(rows), k)


@lru_cache(maxsize=1)
def _looking_index() -> tuple[Any, Any]:
    """Return an index whose codes are a view already, and the buffer it looks at.

    A view has to name an owner of its memory, and none can be made from Python; the one named here has
    nothing to care for.
    """
    index = faiss.IndexScalarQuantizer(1, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.add(np.zeros((1, 1), np.float32))
    buffer = faiss.serialize_index(index)
    return faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(buffer), buffer.size)), buffer
