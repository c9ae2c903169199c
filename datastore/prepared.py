"""Answer single vectors without a filter in as few steps as there are.

A search of a small index takes less time than Python needs to check its arguments, plan it, and pass it from
function to function. All that does not depend on the vector is therefore settled at the first search of its
kind, and kept. Whatever is out of the ordinary is left to the longer way, which gives the same answers.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from compactds.datastore.encoders.base import EncoderSpec
from compactds.datastore.parallel import alone
from compactds.datastore.plan import choose_plan
from compactds.datastore.queries import Effort
from compactds.datastore.records import Neighbours
from compactds.datastore.refining import Refiner
from compactds.datastore.scoring import settled
from compactds.datastore.segment import Segment

MOST_PREPARED = 64
PLAN = "ann"
ONE = slice(0, 1)


@dataclass(frozen=True, slots=True)
class PreparedSearch:
    """Search one segment, all of whose rows are allowed, as `Refiner.asking` has it for `k` results."""

    refiner: Refiner
    shapes: tuple[tuple[int, ...], ...]
    normalized: bool
    k: int
    wanted: int
    parameters: Any

    def nearest(self, vector: Any) -> Neighbours | None:
        """Return the best rows for a vector of shape (d,) or (1, d); None if it needs the longer way."""
        if type(vector) is not np.ndarray or vector.dtype != np.float32 or vector.shape not in self.shapes:
            return None
        flat = vector.ravel()
        squared = float(flat.dot(flat))
        if not 0 < squared < math.inf or self.refiner.cold:
            return None
        scale = np.float32(1 / math.sqrt(squared) if self.normalized else 1.0)
        query = (flat * scale)[np.newaxis]
        scores, rows = alone(lambda _: [self.refiner.answer(query, self.wanted, self.parameters)], ONE)[0]
        if not settled(scores[0]):
            return None
        return Neighbours(rows[:, : self.k], scores[:, : self.k], PLAN)


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
    shapes = (encoder.dimension,), (1, encoder.dimension)
    return PreparedSearch(segment.refiner, shapes, encoder.normalized, effort.k, wanted, parameters)


class PreparedSearches:
    """Keep the searches prepared for a store, by the arguments they were asked for with; for any threads.

    Arguments that are equal are kept apart by their types, as they may not be equally valid.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], PreparedSearch | None] = {}

    def get(self, k: Any, candidates: Any, recall: Any, effort: Any) -> tuple[bool, PreparedSearch | None]:
        """Tell whether searches with these arguments were considered before, and return what answers them."""
        key = (k, candidates, recall, effort, type(k), type(candidates), type(recall), type(effort))
        try:
            return True, self._kept[key]
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
        key = (k, candidates, recall, effort, type(k), type(candidates), type(recall), type(effort))
        self._kept[key] = prepared
