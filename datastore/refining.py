"""Search without a filter in one call of faiss: codes in memory propose, half floats on disk decide."""

from functools import lru_cache
from typing import Any

import faiss
import numpy as np

from compactds.datastore.ann.base import AnnIndex
from compactds.datastore.ann.ivf import IvfIndex
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.scoring import Rows, Scores, refining, settled
from compactds.datastore.vectors import ExactVectors, reads_so_far


class Refiner:
    """Search an IVF index and score its candidates, for any number of queries, without Python in between."""

    def __init__(self, index: IvfIndex, vectors: ExactVectors) -> None:
        self._lists = index.lists
        self._vectors = vectors
        self._refine = faiss.IndexRefine(index.whole, vectors.view)

    def best(
        self, queries: Vectors, k: int, *, candidates: int, effort: int
    ) -> list[tuple[Scores, Rows] | None]:
        """Return the `k` best of `candidates` rows for every query, as `ExactVectors.best` orders them.

        None for a query whose order faiss leaves open, and for all of them while rows have to be read from
        disk: such rows are better asked for together, before they are scored.
        """
        if len(queries) > 1:  # the first tells whether the rows of such queries are in memory
            first = self._best(queries[:1], k, candidates, effort)
            return first + self._best(queries[1:], k, candidates, effort)
        return self._best(queries, k, candidates, effort)

    def _best(
        self, queries: Vectors, k: int, candidates: int, effort: int
    ) -> list[tuple[Scores, Rows] | None]:
        if self._vectors.cold:
            return [None] * len(queries)
        wanted = min(k + 1, candidates)
        shape = len(queries), wanted
        scores, rows = np.empty(shape, np.float32), np.empty(shape, np.int64)
        before = reads_so_far()
        self._refine.search_c(
            len(queries),
            faiss.swig_ptr(queries),
            wanted,
            faiss.swig_ptr(scores),
            faiss.swig_ptr(rows),
            refining(wanted, candidates, _probing(min(effort, self._lists))),
        )
        self._vectors.learn(before)
        return [
            (found[:k], theirs[:k]) if settled(found) else None
            for found, theirs in zip(scores, rows, strict=True)
        ]


def refiner_for(index: AnnIndex, vectors: ExactVectors) -> Refiner | None:
    """Return what searches an index and vectors in one step, None if they are not made for it."""
    if not isinstance(index, IvfIndex) or vectors.view is None:
        return None
    if (int(index.whole.d), index.rows) != (vectors.dimension, vectors.rows):
        return None
    return Refiner(index, vectors)


@lru_cache(maxsize=1024)
def _probing(lists: int) -> Any:
    """Return the parameters of a search of so many lists; no search changes them."""
    return faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=lists))
