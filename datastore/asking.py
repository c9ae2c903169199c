"""Calls of faiss on an index of codes and the vectors that decide, with what they are asked with."""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from compactds.datastore.ann.base import NO_ROW
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.scoring import Rows, Scores


@dataclass(frozen=True, slots=True)
class Calls:
    """Hold two calls of faiss: one that proposes rows by their codes, and one that scores those as well.

    Both take the number of queries, their address, how many results are wanted, the addresses of scores and
    rows, and parameters.
    """

    propose: Any
    ask: Any


def calls_on(transform: Any, rows: int, view: Any, index: Any) -> Calls:
    """Return the calls on an IVF index behind a transform; `view` scores `rows` vectors."""
    turned = faiss.IndexPreTransform(transform, index)
    turned.ntotal = rows  # as many as there are vectors, which faiss expects, if the index holds fewer
    return Calls(turned.search_c, faiss.IndexRefine(turned, view).search_c)


@dataclass(frozen=True, slots=True)
class Asking:
    """Hold what the calls are asked with: for `wanted` results of so many candidates.

    `probing` are the parameters of proposing, `parameters` those of both in one; no search changes them.
    """

    calls: Calls
    wanted: int
    candidates: int
    probing: Any
    parameters: Any

    def answer_into(self, scores: Scores, rows: Rows, queries: Vectors) -> None:
        """Write the best rows of every query, as faiss orders them, to arrays of shape (n, wanted)."""
        at = faiss.swig_ptr
        self.calls.ask(len(queries), at(queries), self.wanted, at(scores), at(rows), self.parameters)

    def proposed(self, query: Vectors) -> Rows:
        """Return the candidates for one query, shape (1, d)."""
        scores, rows = np.empty(self.candidates, np.float32), np.empty(self.candidates, np.int64)
        at = faiss.swig_ptr
        self.calls.propose(1, at(query), self.candidates, at(scores), at(rows), self.probing)
        found: Rows = rows[rows != NO_ROW]
        return found
