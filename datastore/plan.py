"""Decide how a search is run: which rows are scored exactly, and how hard the index looks for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compactds.datastore.manifest import CalibrationPoint
from compactds.datastore.queries import Effort

DEFAULT_RECALL = 0.95
DEFAULT_CANDIDATES = 100
CALIBRATION_K = 10
"""Recall is measured of the first so many results; K grows with k beyond it."""
SCAN_AT_MOST_ROWS = 4_096
"""Allowed rows up to this many are all scored exactly: cheaper than any index search worth having."""

PlanName = Literal["none", "exact", "ann"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold a decision: the plan's name, the candidates K, and the effort the index is asked for."""

    name: PlanName
    candidates: int
    effort: int


def choose_plan(
    asked: Effort,
    *,
    matching: int,
    filtered: bool,
    index_filters: bool,
    calibration: Sequence[CalibrationPoint],
) -> Plan:
    """Choose the plan of one search over one segment.

    Exact scoring of every allowed row is chosen when full recall is asked for, when no more rows are
    allowed than an index search would score anyway, and when the index cannot filter.
    """
    if matching == 0:
        return Plan("none", 0, 0)
    point = point_for(calibration, asked.recall or DEFAULT_RECALL)
    effort = asked.effort if asked.effort is not None else (point.effort if point else 0)
    wanted = asked.candidates
    if wanted is None:
        calibrated = point.candidates if point else DEFAULT_CANDIDATES
        wanted = max(calibrated, -(-calibrated * asked.k // CALIBRATION_K))
    few = matching <= max(wanted, SCAN_AT_MOST_ROWS if filtered else 0)
    if asked.recall == 1.0 or few or (filtered and not index_filters):
        return Plan("exact", matching, 0)
    return Plan("ann", wanted, effort)


def point_for(calibration: Sequence[CalibrationPoint], recall: float) -> CalibrationPoint | None:
    """Return the cheapest calibrated point that promises `recall`, or the last there is.

    An index without efforts (a flat one) has no calibration, and gets none.
    """
    for point in calibration:
        if point.promised >= recall:
            return point
    return calibration[-1] if calibration else None
