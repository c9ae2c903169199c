"""Answer vectors without a filter in as few steps as there are.

A search of a small index takes less time than Python needs to check its arguments, plan it, and pass it from
function to function. All that does not depend on the vector is therefore settled at the first search of its
kind, and kept. Whatever is out of the ordinary is left to the longer way, which gives the same answers.
"""

import math
import operator
import threading
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np

from compactds.datastore.ann.base import NO_ROW
from compactds.datastore.encoders.base import EncoderSpec, Vectors
from compactds.datastore.parallel import one_thread, share_out
from compactds.datastore.plan import Plan, choose_plan
from compactds.datastore.queries import Effort, at_unit_length, squared_lengths, without_direction
from compactds.datastore.records import Neighbours
from compactds.datastore.refining import Refiner
from compactds.datastore.scoring import Rows, Scores, in_order, settled
from compactds.datastore.search import Ranking, propose
from compactds.datastore.segment import Segment
from compactds.datastore.vectors import reads_so_far

MOST_PREPARED = 64
PLAN = "ann"


class Room:
    """Hold a thread's query, shape (d,), its answers, shape (1, wanted), and their addresses."""

    __slots__ = ("query", "query_at", "rows", "rows_at", "scores", "scores_at")

    def __init__(self, dimension: int, wanted: int) -> None:
        self.query = np.empty(dimension, np.float32)
        self.scores = np.empty((1, wanted), np.float32)
        self.rows = np.empty((1, wanted), np.int64)
        self.query_at, self.scores_at, self.rows_at = map(
            faiss.swig_ptr, (self.query, self.scores, self.rows)
        )


@dataclass(frozen=True, slots=True)
class PreparedSearch:
    """Search one segment, all of whose rows are allowed, by one plan, in the way `Refiner.asking` has it."""

    segment: Segment
    refiner: Refiner
    plan: Plan
    encoder: EncoderSpec
    k: int
    wanted: int
    parameters: Any
    dimension: int
    local: threading.local = field(default_factory=threading.local)

    def nearest(self, vectors: Any) -> Neighbours | None:
        """Return the best rows for vectors of shape (d,) or (n, d); None if they need the longer way."""
        if type(vectors) is not np.ndarray or vectors.dtype != np.float32:
            return None
        shape = vectors.shape
        if shape == (1, self.dimension):
            return self._nearest_of_one(vectors[0])
        if shape == (self.dimension,):
            return self._nearest_of_one(vectors)
        if len(shape) != 2 or shape[1] != self.dimension or not shape[0]:
            return None
        return self._nearest_of_many(vectors)

    def _nearest_of_one(self, vector: Vectors) -> Neighbours | None:
        """Return the best rows for one vector, shape (d,), in as few steps as there are.

        A search leaves the processor's caches full of codes and vectors, and what runs here has to be fetched
        again: of a search of 0.15 ms, the general way takes a third.
        """
        room: Room | None = getattr(self.local, "room", None)
        if room is None:
            room = self.local.room = Room(self.dimension, self.wanted)
        query, exact = room.query, self.segment.vectors
        query[:] = vector
        squared = faiss.fvec_norm_L2sqr(room.query_at, self.dimension)
        if not 0 < squared < math.inf or exact.cold:
            return None
        if self.encoder.normalized:
            np.multiply(query, np.float32(1 / math.sqrt(squared)), out=query)
        before = reads_so_far()
        asked = 1, room.query_at, self.wanted, room.scores_at, room.rows_at, self.parameters
        if faiss.omp_get_max_threads() == 1:
            self.refiner.ask(*asked)
        else:
            with one_thread():
                self.refiner.ask(*asked)
        exact.learn(before)
        scores = room.scores[0].tolist()
        if room.rows[0, -1] != NO_ROW and all(map(operator.gt, scores, scores[1:])):
            return Neighbours(room.rows[:, : self.k].copy(), room.scores[:, : self.k].copy(), PLAN)
        return self._settle(query[np.newaxis].copy(), room.scores.copy(), room.rows.copy())

    def _nearest_of_many(self, vectors: Vectors) -> Neighbours | None:
        queries = np.ascontiguousarray(vectors)
        squares = squared_lengths(queries)
        if without_direction(squares).any():
            return None
        if self.encoder.normalized:
            queries = at_unit_length(queries, squares)

        def answer(part: slice) -> list[tuple[Scores, Rows]]:
            first, others = slice(part.start, part.start + 1), slice(part.start + 1, part.stop)
            return [  # of several queries, the first tells whether the rows they need are in memory
                self.refiner.answer(queries[some], self.wanted, self.parameters)
                for some in (first, others)
                if some.start < some.stop and not self.refiner.cold
            ]

        found = share_out(answer, len(queries))
        if sum(len(rows) for _, rows in found) < len(queries):  # some are on disk only
            return None
        scores, rows = found[0] if len(found) == 1 else map(np.concatenate, zip(*found, strict=True))
        return self._settle(queries, scores, rows)

    def _settle(self, queries: Vectors, scores: Scores, rows: Rows) -> Neighbours | None:
        """Return the `k` best of each query; where those are open, from all scores."""
        open_order = np.flatnonzero(~settled(scores) | (rows[:, -1] == NO_ROW))
        for place in open_order.tolist():
            best = None if rows[place, -1] == NO_ROW else in_order(scores[place], rows[place], self.k)
            if best is None:
                ranking = self._in_two_steps(queries[place : place + 1])
                best = ranking.scores, ranking.rows
            if len(best[1]) < self.k:
                return None
            scores[place, : self.k], rows[place, : self.k] = best
        return Neighbours(rows[:, : self.k], scores[:, : self.k], PLAN)

    def _in_two_steps(self, query: Vectors) -> Ranking:
        def answer(_: slice) -> list[Ranking]:
            return propose(self.segment, query, query, self.plan, self.k, None)

        return share_out(answer, 1)[0]


def prepare(segment: Segment, effort: Effort, encoder: EncoderSpec) -> PreparedSearch | None:
    """Return what answers searches of this effort over a segment; None if they need the longer way."""
    if segment.live is not None or segment.refiner is None:
        return None
    plan = choose_plan(
        effort,
        matching=segment.rows,
        rows=segment.rows,
        filtered=False,
        index=segment.index,
        calibration=segment.record.calibration,
        costs=segment.record.costs,
    )
    if plan.name != PLAN:
        return None
    wanted, parameters = segment.refiner.asking(effort.k, candidates=plan.candidates, effort=plan.effort)
    return PreparedSearch(
        segment, segment.refiner, plan, encoder, effort.k, wanted, parameters, encoder.dimension
    )


class PreparedSearches:
    """Keep the searches prepared for a store, by the arguments they were asked for with; for any threads.

    Arguments that are equal are kept apart by their types, as they may not be equally valid.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], PreparedSearch | None] = {}

    def get(self, k: Any, candidates: Any, recall: Any, effort: Any) -> tuple[bool, PreparedSearch | None]:
        """Tell whether searches with these arguments were considered before, and return what answers them."""
        try:
            return True, self._kept[_key(k, candidates, recall, effort)]
        except KeyError:
            return False, None
        except TypeError:  # something that no dictionary takes, and no search either
            return True, None

    def keep(
        self, prepared: PreparedSearch | None, k: Any, candidates: Any, recall: Any, effort: Any
    ) -> None:
        """Keep what answers searches with these arguments, None if they need the longer way."""
        if len(self._kept) >= MOST_PREPARED:
            self._kept.clear()
        self._kept[_key(k, candidates, recall, effort)] = prepared


def _key(k: Any, candidates: Any, recall: Any, effort: Any) -> tuple[Any, ...]:
    return k, candidates, recall, effort, type(k), type(candidates), type(recall), type(effort)
