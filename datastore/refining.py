"""Search in as few steps as there are: codes in memory propose, half floats on disk decide.

A batch takes two calls of faiss and one of numpy for several queries together, which keep Python's lock from
none of the other threads.
"""

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import faiss
import numpy as np

from compactds.datastore.ann.base import NO_ROW, AnnIndex
from compactds.datastore.ann.ivf import IvfIndex
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.scoring import Rows, Scores, Shortlists, in_order
from compactds.datastore.vectors import ExactVectors, reads_so_far

MOST_SHORTLISTS = 4
"""A thread keeps room for so many numbers of candidates."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Hold what queries are asked for: the `wanted` best of so many candidates, which `propose` finds.

    That call of faiss takes the number of queries, their address, the number of candidates, the addresses of
    scores and rows, and parameters, which no search changes.
    """

    propose: Any
    wanted: int
    candidates: int
    parameters: Any


class Refiner:
    """Search an IVF index and score its candidates, for any number of queries and any threads."""

    def __init__(self, index: IvfIndex, vectors: ExactVectors) -> None:
        self._index = index
        self._vectors = vectors
        self._local = threading.local()

    def asking(self, k: int, *, candidates: int, effort: int) -> Asking:
        """Return how queries are asked for the `k` best of so many candidates.

        That is for one result more, if there may be one, which tells whether the others are the best.
        """
        probing = _probing(min(effort, self._index.lists))
        return Asking(self._index.whole.search_c, min(k + 1, candidates), candidates, probing)

    def best(
        self, queries: Vectors, k: int, *, candidates: int, effort: int
    ) -> list[tuple[Scores, Rows] | None]:
        """Return the `k` best of `candidates` rows for every query, as `ExactVectors.best` orders them.

        None for a query whose order faiss leaves open, and for all of them while rows have to be read from
        disk: such rows are better asked for together, before they are scored.
        """
        asking = self.asking(k, candidates=candidates, effort=effort)
        scores = np.empty((len(queries), asking.wanted), np.float32)
        rows = np.empty((len(queries), asking.wanted), np.int64)
        if not self.answer_into(scores, rows, queries, asking):
            return [None] * len(queries)
        return [
            None if theirs[-1] == NO_ROW else in_order(found, theirs, k)
            for found, theirs in zip(scores, rows, strict=True)
        ]

    def answer_into(self, scores: Scores, rows: Rows, queries: Vectors, asking: Asking) -> bool:
        """Write scores and rows of every query's best as faiss orders them to arrays of shape (n, wanted).

        The last row of a query is NO_ROW, and no score a number, if anything is missing. False if rows have
        to be read from disk, or are too many at once.
        """
        count, at = asking.candidates, faiss.swig_ptr
        if self._vectors.cold or count > self._vectors.shortlist.capacity:
            return False
        by_code = np.empty((len(queries), count), np.float32)
        proposed = np.empty((len(queries), count), np.int64)
        asking.propose(len(queries), at(queries), count, at(by_code), at(proposed), asking.parameters)
        shortlists = self._shortlists(count)
        # Of several queries, the first tells whether the rows they need are in memory.
        start, stop = 0, shortlists.most if self._vectors.warm else 1
        while start < len(queries):
            part = slice(start, stop)
            before = reads_so_far()
            shortlists.best(queries[part], proposed[part], scores[part], rows[part])
            if self._vectors.learn(before):
                return False
            start, stop = stop, stop + shortlists.most
        missing = proposed[:, -1] == NO_ROW
        if missing.any():
            rows[missing, -1], scores[missing] = NO_ROW, np.nan
        return True

    def _shortlists(self, count: int) -> Shortlists:
        """Return this thread's room for so many candidates a query."""
        kept: dict[int, Shortlists] = self._local.__dict__.setdefault("kept", {})
        if count not in kept:
            while len(kept) >= MOST_SHORTLISTS:
                kept.pop(next(iter(kept)))  # the oldest
            kept[count] = self._vectors.shortlists(count)
        return kept[count]


def refiner_for(index: AnnIndex, vectors: ExactVectors) -> Refiner | None:
    """Return what searches an index and vectors in few steps, None if they are not made for it.

    They are if the vectors are half floats of those that the index proposes by.
    """
    if not isinstance(index, IvfIndex) or not vectors.half or not vectors.rows:
        return None
    same = (int(index.whole.d), index.rows) == (vectors.dimension, vectors.rows)
    return Refiner(index, vectors) if same else None


@lru_cache(maxsize=1024)
def _probing(lists: int) -> Any:
    """Return the parameters of a search of so many lists; no search changes them."""
    return faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=lists))
