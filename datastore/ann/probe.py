"""Look at the lists of an IVF index for one query, nearest first, a few at a time."""

from typing import Any

import faiss
import numpy as np

from compactds.datastore.ann.base import NO_ROW, Rows, Scores
from compactds.datastore.ann.ivf import IvfIndex
from compactds.datastore.encoders.base import Vectors

LISTS_AT_ONCE = 1024
"""All of so few lists are found at once, which costs little more than some of them."""
ROOM_ROWS = 4096
"""So many rows are proposed in memory kept for that."""


class Probe:
    """Find the lists nearest to a query, and have them propose rows; one query at a time, for one thread.

    `lists` are those found: nearest first, and those that were found further after them. They hold until the
    next query comes, and what was proposed of the first of them until that is done again. What a search needs
    is allocated once, and its addresses are kept: anew, they would cost a fifth of it.
    """

    def __init__(self, index: IvfIndex) -> None:
        self._index = index
        self._turned = np.empty((1, index.shape.rotated), np.float32)
        self._scores, self._lists = np.empty(index.lists, np.float32), np.empty(index.lists, np.int64)
        self._by_code, self._rows = np.empty(ROOM_ROWS, np.float32), np.empty(ROOM_ROWS, np.int64)
        self._turned_at = faiss.swig_ptr(self._turned)
        self._found_at = faiss.swig_ptr(self._scores), faiss.swig_ptr(self._lists)
        self._proposed_at = faiss.swig_ptr(self._by_code), faiss.swig_ptr(self._rows)
        self._turn: Any = index.transform.apply_noalloc
        quantizer = faiss.downcast_index(index.ivf.quantizer)
        self._find: Any = quantizer.search_c
        self._find_surely: Any = getattr(quantizer, "refine_index", quantizer).search_c
        self.lists: Rows = self._lists[:0]

    def find(self, query: Vectors, count: int) -> None:
        """Find the `count` lists nearest to a query, shape (1, d), or all if they are few."""
        lists = self._index.lists
        count = lists if lists <= LISTS_AT_ONCE else min(count, lists)
        self._turn(1, faiss.swig_ptr(query), self._turned_at)
        self._nearest(count, self._lists[:count], *self._found_at)
        self.lists = self._lists[:count]

    def find_further(self, count: int) -> None:
        """Find `count` lists in all for the same query: those found before, then others."""
        held, count = len(self.lists), min(count, self._index.lists)
        scores, lists = np.empty(count, np.float32), np.empty(count, np.int64)
        self._nearest(count, lists, faiss.swig_ptr(scores), faiss.swig_ptr(lists))
        others = np.flatnonzero(~np.isin(lists, self.lists))[: count - held]
        self._scores[held : held + len(others)] = scores[others]
        self._lists[held : held + len(others)] = lists[others]
        self.lists = self._lists[: held + len(others)]

    def _nearest(self, count: int, lists: Rows, scores_at: Any, lists_at: Any) -> None:
        """Write the `count` nearest lists: all there are, if so many are asked for.

        Coded centroids leave out lists whose code promises nothing; without codes none is left out.
        """
        self._find(1, self._turned_at, count, scores_at, lists_at)
        if lists[-1] < 0:
            self._find_surely(1, self._turned_at, count, scores_at, lists_at)

    def propose(self, ivf: Any, start: int, count: int, parameters: Any) -> tuple[Scores, Rows]:
        """Return the `count` best rows, or fewer, of `lists` from `start` on by their codes, best first.

        `ivf` holds the lists, or parts of them. `parameters` say how many it is, those of `parameters_for`.
        """
        if start == 0 and count <= ROOM_ROWS:
            scores, rows = self._by_code[:count], self._rows[:count]
            (scores_at, lists_at), proposed_at = self._found_at, self._proposed_at
        else:
            scores, rows = np.empty(count, np.float32), np.empty(count, np.int64)
            proposed_at = faiss.swig_ptr(scores), faiss.swig_ptr(rows)
            scores_at, lists_at = faiss.swig_ptr(self._scores[start:]), faiss.swig_ptr(self._lists[start:])
        asked = 1, self._turned_at, count, lists_at, scores_at, *proposed_at, False, parameters
        ivf.search_preassigned_c(*asked)
        if rows[-1] == NO_ROW:
            found = rows != NO_ROW
            return scores[found], rows[found]
        return scores, rows
