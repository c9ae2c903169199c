"""Search in one call of faiss: codes in memory propose, half floats on disk decide."""

from functools import lru_cache
from typing import Any

import faiss
import numpy as np

from compactds.datastore.ann.base import NO_ROW, AnnIndex
from compactds.datastore.ann.ivf import IvfIndex
from compactds.datastore.asking import Asking, Calls, fit_together
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.scoring import Rows, Scores, in_order, refining
from compactds.datastore.vectors import ExactVectors, reads_so_far


class Refiner:
    """Search an IVF index and score its candidates, for any number of queries, without Python in between."""

    def __init__(self, index: IvfIndex, vectors: ExactVectors) -> None:
        self._index = index
        self._vectors = vectors
        self._calls = Calls(index.whole.search_c, faiss.IndexRefine(index.whole, vectors.view).search_c)

    def asking(self, k: int, *, candidates: int, effort: int) -> Asking:
        """Return how queries are asked for the `k` best of so many candidates.

        That is for one result more, if there may be one, which tells whether the others are the best.
        """
        wanted = min(k + 1, candidates)
        probing = _probing(min(effort, self._index.lists))
        return Asking(self._calls, wanted, candidates, probing, refining(wanted, candidates, probing))

    def best(
        self, queries: Vectors, k: int, *, candidates: int, effort: int
    ) -> list[tuple[Scores, Rows] | None]:
        """Return the `k` best of `candidates` rows for every query, as `ExactVectors.best` orders them.

        None for a query whose order faiss leaves open, and for all of them while rows have to be read from
        disk: such rows are better asked for together, before they are scored.
        """
        asking = self.asking(k, candidates=candidates, effort=effort)
        found: list[tuple[Scores, Rows] | None] = []
        # Of several queries, the first tells whether the rows they need are in memory.
        for part in (queries[:1], queries[1:]):
            if not len(part) or self._vectors.cold:
                found += [None] * len(part)
                continue
            found += [
                None if rows[-1] == NO_ROW else in_order(scores, rows, k)
                for scores, rows in zip(*self.answer(part, asking), strict=True)
            ]
        return found

    def answer(self, queries: Vectors, asking: Asking) -> tuple[Scores, Rows]:
        """Return scores and rows of every query's best as faiss orders them, shape (n, wanted)."""
        scores = np.empty((len(queries), asking.wanted), np.float32)
        rows = np.empty((len(queries), asking.wanted), np.int64)
        self.answer_into(scores, rows, queries, asking)
        return scores, rows

    def answer_into(self, scores: Scores, rows: Rows, queries: Vectors, asking: Asking) -> None:
        """Write what `answer` returns to arrays of that shape."""
        before = reads_so_far()
        asking.answer_into(scores, rows, queries)
        self._vectors.learn(before)

    @property
    def warm(self) -> bool:
        """Tell whether rows were in memory for so long that the next are taken to be."""
        return self._vectors.warm

    @property
    def cold(self) -> bool:
        """Tell whether rows have to be read from disk at present."""
        return self._vectors.cold


def refiner_for(index: AnnIndex, vectors: ExactVectors) -> Refiner | None:
    """Return what searches an index and vectors in one step, None if they are not made for it."""
    return Refiner(index, vectors) if isinstance(index, IvfIndex) and fit_together(index, vectors) else None


@lru_cache(maxsize=1024)
def _probing(lists: int) -> Any:
    """Return the parameters of a search of so many lists; no search changes them."""
    return faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=lists))
