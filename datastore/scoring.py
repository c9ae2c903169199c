"""Score half floats exactly where they lie, in a mapped file, with the vector instructions of faiss.

faiss scores the half floats of its own scalar-quantiser index well, and of no other memory. So rows of a file
are shown to it as the codes of such an index, without being copied. Searched, a view scores all its rows. To
score chosen rows only, a second index proposes exactly those, and faiss refines what it proposes: one call
into the library for any number of rows, without Python's lock.

faiss orders equal scores in its own way, and a score that is no number (of a damaged row) spoils its order.
So one result more than needed is asked for. Equal scores are put in the order of their rows; where it is
open which of them belong to the best, or a score is missing, the result is made again from all scores: rows
without a score come nowhere.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.encoders.base import Vectors

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]

SHORTLIST_ROWS = 4096
"""How many chosen rows are handed to faiss at once."""


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
    """Score chosen rows of a view; for one thread at a time."""

    def __init__(self, view: Any) -> None:
        dimension, rows = int(view.d), int(view.ntotal)
        capacity = min(SHORTLIST_ROWS, max(1, rows))
        one_number = faiss.RemapDimensionsTransform(dimension, 1, False)
        self._flat = faiss.IndexFlat(
            1, faiss.METRIC_INNER_PRODUCT
        )  # proposes all it holds, whatever is asked
        self._narrow = faiss.IndexPreTransform(one_number, self._flat)
        self._chosen = faiss.IndexIDMap(self._narrow)
        self._flat.add(np.zeros((capacity, 1), np.float32))
        self._narrow.ntotal = capacity
        faiss.copy_array_to_vector(np.arange(capacity), self._chosen.id_map)
        self._chosen.ntotal = rows
        self._refine = faiss.IndexRefine(self._chosen, view)
        self._rows: Rows = faiss.rev_swig_ptr(self._chosen.id_map.data(), capacity)
        self._count = capacity
        self._view = view

    def best(self, query: Vectors, rows: Rows, k: int) -> tuple[Scores, Rows]:
        """Return the min(k, n) best of n different rows, best first, and their inner products.

        `query` is float32 of shape (d,). Equal scores order by row.
        """
        if len(rows) > len(self._rows):
            step = len(self._rows)
            parts = [self.best(query, rows[start : start + step], k) for start in range(0, len(rows), step)]
            return merged(parts, k)
        best = in_order(*self._ask(query, rows, min(k + 1, len(rows))), k)
        return ordered(*self._ask(query, rows, len(rows)), k) if best is None else best

    def _ask(self, query: Vectors, rows: Rows, k: int) -> tuple[Scores, Rows]:
        count = len(rows)
        scores, found = np.empty(k, np.float32), np.empty(k, np.int64)
        if not count:
            return scores, found
        self._rows[:count] = rows
        if count != self._count:
            self._flat.ntotal = self._narrow.ntotal = self._count = count
        pointers = faiss.swig_ptr(query), k, faiss.swig_ptr(scores), faiss.swig_ptr(found)
        self._refine.search_c(1, *pointers, refining(k, count))
        return scores, found


@lru_cache(maxsize=4096)
def refining(k: int, candidates: int, proposing: Any = None) -> Any:
    """Return `refining_once`, made once for all searches: none changes it."""
    return refining_once(k, candidates, proposing)


def refining_once(k: int, candidates: int, proposing: Any = None) -> Any:
    """Return the parameters of a search that refines so many candidates, found with those of the index."""
    return faiss.IndexRefineSearchParameters(
        k_factor=(candidates + 0.5) / k,  # faiss rounds the product down
        **({} if proposing is None else {"base_index_params": proposing}),
    )


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
