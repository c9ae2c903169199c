"""Answer vectors in as few steps as there are.

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
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import EncoderSpec, Vectors
from compactds.datastore.filtered import FilteredSearch
from compactds.datastore.parallel import alone, one_thread, share_out
from compactds.datastore.plan import Plan
from compactds.datastore.queries import Effort, at_unit_length, have_directions, squared_lengths
from compactds.datastore.records import Neighbours
from compactds.datastore.refining import Asking, Refiner
from compactds.datastore.scoring import Rows, Scores, in_order, settled
from compactds.datastore.search import Ranking, planned, propose
from compactds.datastore.segment import Segment
from compactds.datastore.vectors import reads_so_far

MOST_PREPARED = 64
MOST_PLANS = 256
PLAN = "ann"
ONE = slice(0, 1)


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

    @property
    def settled(self) -> bool:
        """Tell whether the scores strictly descend, so that their order is beyond doubt."""
        scores = self.scores[0].tolist()
        found = self.rows[0, -1] != NO_ROW and not math.isnan(scores[-1])
        return bool(found) and all(map(operator.gt, scores, scores[1:]))

    def answer(self, k: int, plan: str) -> Neighbours:
        """Return the `k` best as they are."""
        return Neighbours(self.rows[:, :k].copy(), self.scores[:, :k].copy(), plan)


@dataclass(frozen=True, slots=True)
class PreparedSearch:
    """Search one segment, none of whose rows is deleted, in the way `Refiner.asking` has it.

    `plan` is that of searches without a filter.
    """

    segment: Segment
    refiner: Refiner
    filtered: FilteredSearch
    plan: Plan
    encoder: EncoderSpec
    k: int
    asking: Asking
    dimension: int
    effort: Effort
    plans: dict[int, Plan] = field(default_factory=dict)
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

    def takes(self, vectors: Any) -> bool:
        """Tell whether `nearest_allowed` is made for what was given: one vector, shape (d,) or (1, d)."""
        if type(vectors) is not np.ndarray or vectors.dtype != np.float32:
            return False
        return vectors.shape in ((self.dimension,), (1, self.dimension))

    def nearest_allowed(self, vectors: Any, allowed: Bitmap) -> Neighbours | None:
        """Return the best allowed rows for one vector that `takes`; None if it needs the longer way."""
        room = self._room_for(vectors.reshape(self.dimension))
        if room is None:
            return None
        plan = self.plan_under(allowed.count)
        if plan.name == "exact":
            return alone(lambda _: [self._exact(room, allowed, plan)], ONE)[0]
        if plan.name == "lists":
            return alone(lambda _: [self._in_lists(room, allowed, plan)], ONE)[0]
        return None

    def _exact(self, room: Room, allowed: Bitmap, plan: Plan) -> Neighbours:
        scores, rows = self.segment.vectors.best_of_all(room.query, self.k, allowed)
        missing = self.k - len(rows)
        if missing:
            scores = np.append(scores, np.full(missing, -np.inf, np.float32))
            rows = np.append(rows, np.full(missing, NO_ROW))
        return Neighbours(rows[np.newaxis], scores[np.newaxis], plan.name)

    def _in_lists(self, room: Room, allowed: Bitmap, plan: Plan) -> Neighbours:
        found = self.filtered.best(room.query[np.newaxis], self.k, plan, allowed)
        if found is None:
            return self._exact(room, allowed, plan)
        return Neighbours(found[1][np.newaxis], found[0][np.newaxis], plan.name)

    def plan_under(self, matching: int) -> Plan:
        """Return the plan of searches under a filter that allows so many rows."""
        plan = self.plans.get(matching)
        if plan is None:
            if len(self.plans) >= MOST_PLANS:
                self.plans.clear()
            plan = self.plans[matching] = planned(self.segment, self.effort, matching)
        return plan

    def _nearest_of_one(self, vector: Vectors) -> Neighbours | None:
        """Return the best rows for one vector, shape (d,), in as few steps as there are.

        A search leaves the processor's caches full of codes and vectors, and what runs here has to be fetched
        again: of a search of 0.15 ms, the general way takes a third.
        """
        room = self._room_for(vector)
        if room is None:
            return None
        self._ask(room)
        if room.settled:
            return room.answer(self.k, PLAN)
        return self._settle(room.query[np.newaxis].copy(), room.scores.copy(), room.rows.copy())

    def _room_for(self, vector: Vectors) -> Room | None:
        """Return this thread's room with a query in it; None for one without a direction, or rows on disk."""
        room: Room | None = getattr(self.local, "room", None)
        if room is None:
            room = self.local.room = Room(self.dimension, self.asking.wanted)
        query = room.query
        query[:] = vector
        squared = faiss.fvec_norm_L2sqr(room.query_at, self.dimension)
        if not 0 < squared < math.inf or self.segment.vectors.cold:
            return None
        if self.encoder.normalized:
            faiss.fvec_renorm_L2(self.dimension, 1, room.query_at)
        return room

    def _ask(self, room: Room) -> None:
        before, asking = reads_so_far(), self.asking
        asked = 1, room.query_at, asking.wanted, room.scores_at, room.rows_at, asking.parameters
        if faiss.omp_get_max_threads() == 1:
            asking.ask(*asked)
        else:
            with one_thread():
                asking.ask(*asked)
        self.segment.vectors.learn(before)

    def _nearest_of_many(self, vectors: Vectors) -> Neighbours | None:
        queries = np.ascontiguousarray(vectors)
        if not have_directions(squared_lengths(queries)):
            return None
        if self.encoder.normalized:
            queries = at_unit_length(queries)
        scores = np.empty((len(queries), self.asking.wanted), np.float32)
        rows = np.empty((len(queries), self.asking.wanted), np.int64)

        def answer(part: slice) -> list[bool]:
            """Write the answers of some queries; tell whether the rows they need are in memory."""
            if not self.refiner.warm:  # the first of them tells
                first = slice(part.start, part.start + 1)
                self.refiner.answer_into(scores[first], rows[first], queries[first], self.asking)
            if self.refiner.cold:
                return [False]
            self.refiner.answer_into(scores[part], rows[part], queries[part], self.asking)
            return [True]

        in_memory: list[bool] = share_out(answer, len(queries))
        if not all(in_memory):
            return None
        return self._settle(queries, scores, rows)

    def _settle(self, queries: Vectors, scores: Scores, rows: Rows) -> Neighbours | None:
        """Return the `k` best of each query; where those are open, from all scores.

        The first lines are all that most batches need: what runs here has to be fetched into the processor's
        caches again, so that each step takes 10 to 30 us, ten times as long as it would otherwise.
        """
        descents = np.count_nonzero(scores[:, :-1] > scores[:, 1:])
        if descents < len(scores) * self.k:
            unclear = ~settled(scores) | (rows[:, -1] == NO_ROW)
            if not self._put_in_order(queries, scores, rows, np.flatnonzero(unclear).tolist()):
                return None
        return Neighbours(rows[:, : self.k], scores[:, : self.k], PLAN)

    def _put_in_order(self, queries: Vectors, scores: Scores, rows: Rows, places: list[int]) -> bool:
        for place in places:
            best = None if rows[place, -1] == NO_ROW else in_order(scores[place], rows[place], self.k)
            if best is None:
                ranking = self._in_two_steps(queries[place : place + 1])
                best = ranking.scores, ranking.rows
            if len(best[1]) < self.k:
                return False
            scores[place, : self.k], rows[place, : self.k] = best
        return True

    def _in_two_steps(self, query: Vectors) -> Ranking:
        def answer(_: slice) -> list[Ranking]:
            return propose(self.segment, query, None, self.plan, self.k, None)

        return share_out(answer, 1)[0]


def prepare(segment: Segment, effort: Effort, encoder: EncoderSpec) -> PreparedSearch | None:
    """Return what answers searches of this effort over a segment; None if they need the longer way."""
    if segment.live is not None or segment.refiner is None or segment.filtered is None:
        return None
    plan = planned(segment, effort, None)
    if plan.name != PLAN:
        return None
    asking = segment.refiner.asking(effort.k, candidates=plan.candidates, effort=plan.effort)
    return PreparedSearch(
        segment, segment.refiner, segment.filtered, plan, encoder, effort.k, asking, encoder.dimension, effort
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
