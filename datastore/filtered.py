"""Search an IVF index under a filter: lists further and further out, until they hold none of the best.

How many lists a filter takes nobody knows beforehand. One that leaves few rows near a query, or those of
other topics, makes it look where it would not without. So a search begins with as many lists as the filter
leaves rows near the query, and looks at where the best rows were found: if one of them comes from the further
two thirds of the allowed rows met, others are likely beyond, and twice as many lists are searched. Where
that would be most of them, all are, or every allowed row is scored if that costs less.
"""

import math
from functools import partial
from typing import Any

import faiss
import numpy as np

from compactds.datastore.ann.base import NO_ROW
from compactds.datastore.ann.ivf import CANDIDATES_POWER, IvfIndex
from compactds.datastore.ann.ivf_filtered import FURTHER, SPARE_HITS, hits_far_out
from compactds.datastore.ann.list_map import ListCounts
from compactds.datastore.ann.narrowed import NarrowedIndexes, limit_bytes
from compactds.datastore.asking import Asking, Calls, calls_on
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.plan import Plan
from compactds.datastore.scoring import Rows, Scores, in_order, refining_once
from compactds.datastore.vectors import ExactVectors, reads_so_far

CANDIDATES_STEP = 16
"""Numbers of candidates are rounded up to these, so that few kinds of parameters are kept."""
MOST_ASKINGS = 16
"""Ways of asking are kept for so many kinds of search under a filter."""
MOST_OF_LISTS = 0.5
"""Where more lists than this part of them would have to be searched, all are, or every allowed row is scored
if that costs less."""


class FilteredSearch:
    """Search one index and its vectors under filters; for any threads."""

    def __init__(self, index: IvfIndex, vectors: ExactVectors, calls: Calls) -> None:
        self._index = index
        self._vectors = vectors
        self._calls = calls
        make = partial(calls_on, index.transform, index.rows, vectors.view)
        self._narrowed = NarrowedIndexes(index.ivf, limit_bytes(index.ram_bytes), make)

    @property
    def ram_bytes(self) -> int:
        """Return the bytes of the lists copied for filters in steady use."""
        return self._narrowed.ram_bytes

    def best(self, query: Vectors, k: int, plan: Plan, allowed: Bitmap) -> tuple[Scores, Rows, int] | None:
        """Return the `k` best allowed rows for one query, shape (1, d), and how many were scored.

        They are as `ExactVectors.best` orders them. None if all allowed rows had better be scored, and if
        there are fewer than `k`.
        """
        counts = self._index.list_map().counts(allowed)
        lists = self._index.effort_under(query, plan.effort, counts)
        misses = None if plan.bounds is None else plan.bounds.misses
        while True:
            asking = self._asking(counts, lists, k, plan)
            scores, rows = self._answer(query, k, asking)
            if lists >= self._index.lists:
                break
            if len(rows) == k and (
                misses is None or self._hits_far_out(query, rows, lists, counts) <= SPARE_HITS * misses
            ):
                break
            lists = min(self._index.lists, FURTHER * lists)
            if misses is not None and lists > MOST_OF_LISTS * self._index.lists:
                if plan.bounds is not None and self._index.rows > plan.bounds.most_rows:
                    return None
                lists = self._index.lists
        self._narrowed.searched(counts.use, allowed.bits, counts.allowed)
        return (scores, rows, asking.candidates) if len(rows) == k else None

    def _hits_far_out(self, query: Vectors, rows: Rows, lists: int, counts: ListCounts) -> int:
        nearest = self._index.nearest_lists(query, lists)
        return hits_far_out(rows, nearest, counts.allowed[nearest], self._index.list_map())

    def _answer(self, query: Vectors, k: int, asking: Asking) -> tuple[Scores, Rows]:
        """Return the best of the candidates: in one step, if they are in memory and their order is clear."""
        if not self._vectors.cold:
            scores = np.empty((1, asking.wanted), np.float32)
            rows = np.empty((1, asking.wanted), np.int64)
            before = reads_so_far()
            asking.answer_into(scores, rows, query)
            self._vectors.learn(before)
            best = None if rows[0, -1] == NO_ROW else in_order(scores[0], rows[0], k)
            if best is not None:
                return best
        return self._vectors.best(query[0], asking.proposed(query), k)

    def _asking(self, counts: ListCounts, lists: int, k: int, plan: Plan) -> Asking:
        """Return how so many lists are searched under a filter."""
        candidates = plan.candidates
        if plan.grows and lists > plan.effort:
            further = (lists / max(1, plan.effort)) ** CANDIDATES_POWER
            candidates = CANDIDATES_STEP * math.ceil(candidates * further / CANDIDATES_STEP)
        narrowed = counts.use.narrowed
        askings = counts.use.askings if narrowed is None else narrowed.askings
        key = k, candidates, lists
        asking: Asking | None = askings.get(key)
        if asking is None:
            if len(askings) >= MOST_ASKINGS:
                askings.clear()
            selector = {"sel": counts.selector} if narrowed is None else {}
            calls = self._calls if narrowed is None else narrowed.calls
            asking = askings[key] = _asked(calls, k, candidates, lists, selector)
        return asking


def _asked(calls: Calls, k: int, candidates: int, lists: int, selector: dict[str, Any]) -> Asking:
    wanted = min(k + 1, candidates)  # one more tells whether the others are the best
    under = faiss.SearchParametersIVF(nprobe=lists, **selector)
    probing = faiss.SearchParametersPreTransform(index_params=under)
    return Asking(calls, wanted, candidates, probing, refining_once(wanted, candidates, probing))
