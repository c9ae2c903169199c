"""Search in one call of faiss: codes in memory propose, half floats on disk decide."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import faiss
import numpy as np

from compactds.datastore.ann.base import NO_ROW, AnnIndex
from compactds.datastore.ann.ivf import CANDIDATES_POWER, IvfIndex
from compactds.datastore.ann.list_map import ListCounts
from compactds.datastore.ann.narrowed import NarrowedIndexes, limit_bytes
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.plan import Plan
from compactds.datastore.scoring import Rows, Scores, in_order, ordered, refining, refining_once
from compactds.datastore.vectors import ExactVectors, reads_so_far

CANDIDATES_STEP = 16
"""Numbers of candidates are rounded up to these, so that few kinds of parameters are kept."""
MOST_ASKINGS = 8
"""Ways of asking are kept for so many kinds of search under a filter."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Hold a call of faiss itself, and what it is asked with.

    `ask` takes the number of queries, their address, how many results are `wanted`, the addresses of scores
    and rows, and `parameters`, which no search changes. Of the results, `candidates` are scored.
    """

    ask: Any
    wanted: int
    candidates: int
    parameters: Any


class Refiner:
    """Search an IVF index and score its candidates, for any number of queries, without Python in between."""

    def __init__(self, index: IvfIndex, vectors: ExactVectors) -> None:
        self._index = index
        self._vectors = vectors
        self._ask = faiss.IndexRefine(index.whole, vectors.view).search_c
        self._narrowed = NarrowedIndexes(index.ivf, limit_bytes(index.ram_bytes), self._asking_narrowed)

    def _asking_narrowed(self, index: Any) -> Any:
        """Return the call of faiss that searches an index that holds the rows only that a filter allows."""
        turned = faiss.IndexPreTransform(self._index.transform, index)
        turned.ntotal = self._index.rows  # as many as there are vectors, which faiss expects
        return faiss.IndexRefine(turned, self._vectors.view).search_c

    def asking(self, k: int, *, candidates: int, effort: int) -> Asking:
        """Return how queries are asked for the `k` best of so many candidates.

        That is for one result more, if there may be one, which tells whether the others are the best.
        """
        wanted = min(k + 1, candidates)
        parameters = refining(wanted, candidates, _probing(min(effort, self._index.lists)))
        return Asking(self._ask, wanted, candidates, parameters)

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

    def best_allowed(
        self, queries: Vectors, k: int, plan: Plan, allowed: Bitmap
    ) -> list[tuple[Scores, Rows, int] | None]:
        """Return the `k` best allowed rows for every query as `best` does, and how many were scored.

        None also for a query near which next to nothing is allowed: a walk finds the rest.
        """
        counts = self.counts(allowed)
        found: list[tuple[Scores, Rows, int] | None] = []
        for place in range(len(queries)):
            query = queries[place : place + 1]
            best = self._best_allowed(query, k, plan, counts, everything=False)
            if best is None:  # copies, say, of which not all are among the best
                best = self._best_allowed(query, k, plan, counts, everything=True)
            found.append(best)
            self.searched(counts, allowed)
        return found

    def _best_allowed(
        self, query: Vectors, k: int, plan: Plan, counts: ListCounts, *, everything: bool
    ) -> tuple[Scores, Rows, int] | None:
        """Return the `k` best rows of one query if they tell; of all candidates with `everything`."""
        asking = self.asking_under(counts, query[0], k, plan, everything=everything)
        if asking is None or self._vectors.cold:
            return None
        scores, rows = (found[0] for found in self.answer(query, asking))
        if everything:
            scores, rows = scores[rows != NO_ROW], rows[rows != NO_ROW]
        if len(rows) < k or rows[-1] == NO_ROW:
            return None
        best = ordered(scores, rows, k) if everything else in_order(scores, rows, k)
        return None if best is None or len(best[1]) < k else (*best, asking.candidates)

    def counts(self, allowed: Bitmap) -> ListCounts:
        """Return what a filter leaves of each list."""
        return self._index.list_map().counts(allowed)

    def searched(self, counts: ListCounts, allowed: Bitmap) -> None:
        """Note that a filter was searched under; one in steady use gets lists of its own."""
        self._narrowed.searched(counts.use, allowed.bits, counts.allowed)

    def asking_under(
        self, counts: ListCounts, query: Vectors, k: int, plan: Plan, *, everything: bool = False
    ) -> Asking | None:
        """Return how one query, shape (d,), is asked under a filter; with `everything`, for all candidates.

        None if next to nothing is allowed near the query.
        """
        narrowed = counts.use.narrowed
        lists = self._index.effort_under(query, plan.effort, counts)
        if lists is None:
            return None
        candidates = plan.candidates
        if plan.grows and lists > plan.effort:
            further = (lists / max(1, plan.effort)) ** CANDIDATES_POWER
            candidates = CANDIDATES_STEP * math.ceil(candidates * further / CANDIDATES_STEP)
        wanted = candidates if everything else min(k + 1, candidates)
        key = wanted, candidates, lists, narrowed is None
        asking = counts.use.askings.get(key)
        if asking is None:
            if len(counts.use.askings) >= MOST_ASKINGS:
                counts.use.askings.clear()
            if narrowed is None:
                under = faiss.SearchParametersIVF(nprobe=lists, sel=counts.selector)
                probing = faiss.SearchParametersPreTransform(index_params=under)
            else:
                probing = _probing(lists)
            parameters = refining_once(wanted, candidates, probing)
            asking = counts.use.askings[key] = Asking(narrowed or self._ask, wanted, candidates, parameters)
        return asking

    def answer(self, queries: Vectors, asking: Asking) -> tuple[Scores, Rows]:
        """Return scores and rows of every query's best as faiss orders them, shape (n, wanted)."""
        scores = np.empty((len(queries), asking.wanted), np.float32)
        rows = np.empty((len(queries), asking.wanted), np.int64)
        self.answer_into(scores, rows, queries, asking)
        return scores, rows

    def answer_into(self, scores: Scores, rows: Rows, queries: Vectors, asking: Asking) -> None:
        """Write what `answer` returns to arrays of that shape."""
        before = reads_so_far()
        at = faiss.swig_ptr
        asking.ask(len(scores), at(queries), asking.wanted, at(scores), at(rows), asking.parameters)
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
    if not isinstance(index, IvfIndex) or vectors.view is None:
        return None
    if (int(index.whole.d), index.rows) != (vectors.dimension, vectors.rows):
        return None
    return Refiner(index, vectors)


@lru_cache(maxsize=1024)
def _probing(lists: int) -> Any:
    """Return the parameters of a search of so many lists; no search changes them."""
    return faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=lists))
