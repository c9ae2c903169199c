"""Score half floats exactly, with the vector instructions of faiss.

faiss scores the half floats of its own scalar-quantiser index well, and of no other memory. So rows of a
mapped file are shown to it as the codes of such an index, without being copied. Searched, a view scores all
its rows. To score chosen rows only, they are copied next to each other, and the copies are viewed: rows
scattered over memory are each waited for if they are scored where they lie, which takes twice as long.

faiss orders equal scores in its own way, and leaves out those that are no numbers (of a damaged row). So one
result more than needed is asked for. Equal scores are put in the order of their rows; where it is open which
of them belong to the best, the result is made again from all scores: rows without a score come nowhere.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.ann.base import NO_ROW
from compactds.datastore.encoders.base import Vectors

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]

SHORTLIST_BYTES = 4 << 20
"""Copies for one query take so many bytes at once, and hold one row at least."""
SHORTLISTS_BYTES = 640 << 10
"""Copies for several queries take so many bytes, or those of one query: more would leave the caches."""


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
    index.codes = _viewed(rows.view(np.uint8).reshape(-1))
    index.ntotal = count
    index.referenced_objects = [rows]
    return index


class Shortlist:
    """Score chosen rows of an array of half floats, shape (n, d); for one thread at a time."""

    def __init__(self, array: NDArray[np.float16]) -> None:
        self._array = array
        self.capacity = max(1, min(len(array), SHORTLIST_BYTES // (2 * array.shape[1])))
        self._copies = np.empty((self.capacity, array.shape[1]), np.float16)
        self._view = view_of(self._copies)
        self._count = self.capacity
        self.search: Any = self._view.search_c

    def load(self, rows: Rows) -> None:
        """Have `search` score these rows, no more than `capacity`: it numbers them as they come."""
        count = len(rows)
        self._array.take(rows, axis=0, out=self._copies[:count], mode="clip")
        if count != self._count:
            self._view.ntotal = self._count = count

    def best(self, query: Vectors, rows: Rows, k: int) -> tuple[Scores, Rows]:
        """Return the min(k, n) best of n different rows, best first, and their inner products.

        `query` is float32 of shape (d,). Equal scores order by row.
        """
        step = self.capacity
        if len(rows) > step:
            parts = [self.best(query, rows[start : start + step], k) for start in range(0, len(rows), step)]
            return merged(parts, k)
        self.load(rows)
        best = in_order(*self._search(query, rows, min(k + 1, len(rows))), k)
        return ordered(*self._search(query, rows, len(rows)), k) if best is None else best

    def _search(self, query: Vectors, rows: Rows, k: int) -> tuple[Scores, Rows]:
        scores, places = np.empty(k, np.float32), np.empty(k, np.int64)
        if not k:
            return scores, places
        self.search(1, faiss.swig_ptr(query), k, faiss.swig_ptr(scores), faiss.swig_ptr(places))
        if places[-1] < 0:
            found = places >= 0
            scores, places = scores[found], places[found]
        return scores, rows[places]


class Shortlists:
    """Score chosen rows of an array for several queries at once, as many for each; for one thread at a time.

    Each query has a list of an inverted file, which holds the copies of its rows.
    """

    def __init__(self, array: NDArray[np.float16], chosen: int) -> None:
        dimension = array.shape[1]
        list_bytes = 2 * dimension * chosen
        self.most = most = max(1, SHORTLISTS_BYTES // list_bytes)
        self._array, self._chosen = array, chosen
        self._copies = np.empty((most * chosen, dimension), np.float16)
        self._centroids = faiss.IndexFlatIP(dimension)
        self._lists = faiss.IndexIVFScalarQuantizer(
            self._centroids,
            dimension,
            most,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,  # what is stored are rows, not how they differ from a centroid
        )
        self._lists.is_trained = True
        self._lists.ntotal = most * chosen
        held = faiss.downcast_InvertedLists(self._lists.invlists)
        for number in range(most):
            held.resize(number, chosen)
            places = faiss.rev_swig_ptr(held.get_ids(number), chosen)
            places[:] = np.arange(number * chosen, (number + 1) * chosen)
        held.codes.clear()
        for codes in self._copies.view(np.uint8).reshape(most, list_bytes):
            held.codes.push_back(_viewed(codes))
        self._own = np.arange(most)
        self._none = np.zeros(most, np.float32)
        self._parameters = faiss.SearchParametersIVF(nprobe=1)

    def best(self, queries: Vectors, rows: Rows, scores: Scores, best: Rows) -> None:
        """Write the best of the rows chosen for each query, and their scores, as faiss orders them.

        `queries` are float32 of shape (n, d), n no more than `most`, and `rows` of shape (n, chosen). What
        is written has shape (n, k). Where fewer have a score, the last row is NO_ROW, and no score a number.
        """
        count, at = len(queries), faiss.swig_ptr
        chosen = rows.reshape(-1)
        self._array.take(chosen, axis=0, out=self._copies[: len(chosen)], mode="clip")
        where = at(self._own), at(self._none)
        found = at(scores), at(best)
        self._lists.search_preassigned_c(
            count, at(queries), scores.shape[1], *where, *found, False, self._parameters
        )
        missing = best[:, -1] < 0
        chosen.take(best, out=best, mode="clip")
        if missing.any():
            best[missing, -1], scores[missing] = NO_ROW, np.nan


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


def _viewed(memory: NDArray[np.uint8]) -> Any:
    """Return memory as faiss takes codes, without a copy; it lives as long as whoever holds the array."""
    looking, _ = _looking_index()
    return faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(memory), memory.size, looking.codes.owner)
