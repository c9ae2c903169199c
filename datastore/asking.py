"""Calls of faiss on an index of codes and the vectors that decide, with what they are asked with."""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from compactds.datastore.ann.base import NO_ROW
from compactds.datastore.ann.ivf import IvfIndex
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.scoring import Rows, Scores
from compactds.datastore.vectors import ExactVectors


@dataclass(frozen=True, slots=True)
class Calls:
    """Hold two calls of faiss: one that proposes rows by their codes, and one that scores those as well.

    Both take the number of queries, their address, how many results are wanted, the addresses of scores and
    rows, and parameters. The second is None where an index and vectors do not `fit_together`.
    """

    propose: Any
    ask: Any


def fit_together(index: IvfIndex, vectors: ExactVectors) -> bool:
    """Tell whether the vectors are half floats of those that the index proposes by, which faiss can score."""
    same = (int(index.whole.d), index.rows) == (vectors.dimension, vectors.rows)
    return same and vectors.view is not None


def calls_on(index: IvfIndex, vectors: ExactVectors, ivf: Any) -> Calls:
    """Return the calls on the lists of `ivf`, which are those of an index, or parts of them."""
    turned = faiss.IndexPreTransform(index.transform, ivf)
    turned.ntotal = index.rows  # which faiss expects, if the lists hold fewer
    if not fit_together(index, vectors):
        return Calls(turned.search_c, None)
    return Calls(turned.search_c, faiss.IndexRefine(turned, vectors.view).search_c)


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
