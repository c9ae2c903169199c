"""Decide how a search is run: which rows are scored exactly, and how hard the index looks for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compactds.datastore.manifest import CalibrationPoint

DEFAULT_RECALL = 0.95
DEFAULT_CANDIDATES = 100
CANDIDATES_PER_RESULT = 10
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
    *,
    matching: int,
    filtered: bool,
    k: int,
    candidates: int | None,
    recall: float | None,
    index_filters: bool,
    calibration: Sequence[CalibrationPoint],
) -> Plan:
    """Choose the plan of one search over one segment.

    Exact scoring of every allowed row is chosen when full recall is asked for, when no more rows are
    allowed than an index search would score anyway, and when the index cannot filter.
    """
    wanted = candidates or max(DEFAULT_CANDIDATES, CANDIDATES_PER_RESULT * k)
    if matching == 0:
        return Plan("none", 0, 0)
    few = matching <= max(wanted, SCAN_AT_MOST_ROWS if filtered else 0)
    if recall == 1.0 or few or (filtered and not index_filters):
        return Plan("exact", matching, 0)
    return Plan("ann", wanted, effort_for(calibration, recall or DEFAULT_RECALL))


def effort_for(calibration: Sequence[CalibrationPoint], recall: float) -> int:
    """Return the least calibrated effort that reached `recall`, or the greatest there is.

    An index without efforts (a flat one) has no calibration and gets 0.
    """
    for point in calibration:
        if point.recall >= recall:
            return point.effort
    return calibration[-1].effort if calibration else 0
