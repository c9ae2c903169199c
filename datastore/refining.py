"""Search in one call of faiss: codes in memory propose, half floats on disk decide."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import faiss
import numpy as np

from compactds.datastore.ann.base import NO_ROW, AnnIndex
from compactds.datastore.ann.ivf import IvfIndex, parameters_for
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.scoring import Rows, Scores, in_order
from compactds.datastore.vectors import ExactVectors, reads_so_far


@dataclass(frozen=True, slots=True)
class Asking:
    """Hold a call of faiss and what it is asked with: for the `wanted` best of so many candidates.

    It takes the number of queries, their address, how many results are wanted, the addresses of scores and
    rows, and parameters, which no search changes.
    """

    ask: Any
    wanted: int
    parameters: Any


class Refiner:
    """Search an IVF index and score its candidates, for any number of queries, without Python in between."""

    def __init__(self, index: IvfIndex, vectors: ExactVectors) -> None:
        self._index = index
        self._vectors = vectors
        self._ask = faiss.IndexRefine(index.whole, vectors.view).search_c

    def asking(self, k: int, *, candidates: int, effort: int) -> Asking:
        """Return how queries are asked for the `k` best of so many candidates.

        That is for one result more, if there may be one, which tells whether the others are the best.
        """
        wanted = min(k + 1, candidates)
        return Asking(self._ask, wanted, _refining(wanted, candidates, min(effort, self._index.lists)))

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
        before, at = reads_so_far(), faiss.swig_ptr
        asking.ask(len(queries), at(queries), asking.wanted, at(scores), at(rows), asking.parameters)
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
    """Return what searches an index and vectors in one step, None if they are not made for it.

    They are if the vectors are half floats of those that the index proposes by, which faiss can score.
    """
    if not isinstance(index, IvfIndex) or vectors.view is None:
        return None
    same = (int(index.whole.d), index.rows) == (vectors.dimension, vectors.rows)
    return Refiner(index, vectors) if same else None


@lru_cache(maxsize=4096)
def _refining(k: int, candidates: int, lists: int) -> Any:
    """Return the parameters of a search that refines candidates of so many lists; no search changes them."""
    return faiss.IndexRefineSearchParameters(
        k_factor=(candidates + 0.5) / k,  # faiss rounds the product down
        base_index_params=faiss.SearchParametersPreTransform(index_params=parameters_for(lists)),
    )
