"""Decide how a search is run: which rows are scored exactly, and how hard the index looks for them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compactds.datastore.ann.base import AnnIndex
from compactds.datastore.ann.ivf import FILTERED_POWER
from compactds.datastore.manifest import CalibrationPoint, SearchCosts
from compactds.datastore.queries import Effort

DEFAULT_RECALL = 0.95
DEFAULT_CANDIDATES = 100
CALIBRATION_K = 10
"""Recall is measured of the first so many results; K grows with k beyond it."""
FILTERED_MISSES = 0.15
"""Which part of the misses that the recall asked for allows is aimed at under a filter: recall is calibrated
over all queries, and those that are asked under a filter may be harder than most."""
OPEN_FROM_SHARE = 0.3
"""A filter that allows less is never left to the end: too few of the candidates would pass it."""
OPEN_SPARE = 1.5
"""How many times as many of the best rows are kept as are expected to hold enough that pass the filter."""
OPEN_CANDIDATES_POWER = 0.7
"""So many times as many candidates keep the rows that pass among the best: share ** -0.7."""
OPEN_WORTH = 1.2
OPEN_EFFORT_POWER = -0.3
"""Where a filter leaves a share s, s ** -0.3 times the effort, and a little more, meet as many that pass."""
OPEN_DENSITY = 0.7
"""If less than this part of the rows that were expected to pass do, the filter goes against the query."""
MISSES_FURTHER_OUT = 0.15
"""Which part of the rows that the recall asked for lets a search miss may lie in the lists it leaves out:
codes, and filters that go against a query, take the rest."""

PlanName = Literal["none", "exact", "ann", "lists", "codes", "open"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold a decision: what is done, the candidates K, the effort of the index, and the predicted cost.

    - none: nothing is allowed, nothing is done
    - exact: every allowed row is scored
    - ann: without a filter, the index proposes
    - lists: under a filter, as many lists are searched for allowed rows as it leaves rows near the query, and
      further ones until they hold none of the best
    - codes: the codes of all allowed rows are scanned
    - open: the index proposes without regard to the filter, which is applied to what scores best; for an
      index that cannot leave rows out

    A search of lists goes on until much fewer than `misses` of the best rows are to be expected further
    out, or has the effort asked for if that is None; where it would take longer than scanning the codes
    of `most_rows`, scoring a row counted as `score_rows` of them, every allowed row is scored instead,
    which costs less. With `grows`, more candidates are scored where it has to look further than where it
    began. An open search keeps the `results` best rows; `instead` is what is done for queries of which
    fewer than `least` pass the filter, because it excludes rows just where such a query looks; without
    one, all that is allowed is scored for them.
    """

    name: PlanName
    candidates: int
    effort: int
    predicted_us: float
    misses: float | None = None
    most_rows: float = math.inf
    score_rows: float = 0.0
    grows: bool = False
    results: int = 0
    least: float = 0.0
    instead: "Plan | None" = None


def choose_plan(
    asked: Effort,
    *,
    matching: int,
    rows: int,
    filtered: bool,
    index: AnnIndex,
    calibration: Sequence[CalibrationPoint],
    costs: SearchCosts,
) -> Plan:
    """Return the plan of least predicted cost for one query over one segment of `rows` rows.

    If full recall is asked for, every allowed row is scored. A plan that is asked for by name is taken if
    it can be.
    """
    if matching == 0:
        return Plan("none", 0, 0, 0.0)
    recall = asked.recall or DEFAULT_RECALL
    point = point_for(calibration, 1 - (1 - recall) * FILTERED_MISSES if filtered else recall)
    effort = asked.effort if asked.effort is not None else (point.effort if point else 0)
    wanted = asked.candidates
    if wanted is None:
        calibrated = point.candidates if point else DEFAULT_CANDIDATES
        wanted = max(calibrated, -(-calibrated * asked.k // CALIBRATION_K))
    wanted = min(max(wanted, asked.k), matching)
    exact = Plan("exact", matching, 0, matching * costs.row_us)
    if asked.recall == 1.0 or matching <= wanted:
        return exact
    misses = None if asked.effort is not None else MISSES_FURTHER_OUT * asked.k * (1 - recall)
    plans = _filtered(asked, matching, rows, wanted, effort, index, costs, misses) if filtered else []
    if not filtered:
        proposing_us = costs.query_us + index.worth(effort) * costs.code_us
        plans = [Plan("ann", wanted, effort, proposing_us + wanted * costs.row_us)]
    plans = [exact, *plans]
    for plan in plans:
        if plan.name == asked.plan:
            return plan
    if not filtered:
        return plans[-1]
    if any(plan.name == "lists" for plan in plans):
        # Both meet as many rows; lists end early where they can, and score more candidates where they must.
        plans = [plan for plan in plans if plan.name not in ("open", "codes")]
    return min(plans, key=lambda plan: plan.predicted_us)


def _filtered(
    asked: Effort,
    matching: int,
    rows: int,
    wanted: int,
    effort: int,
    index: AnnIndex,
    costs: SearchCosts,
    misses: float | None,
) -> list[Plan]:
    k, grows = asked.k, asked.candidates is None
    share = matching / rows
    plans = []
    scoring_us = wanted * costs.row_us
    worth = index.worth(effort)
    if index.filters:
        met = min(rows, worth * share**FILTERED_POWER)
        listing_us = costs.filtered_us + met * costs.code_us + scoring_us
        plans = [Plan("codes", wanted, rows, costs.filtered_us + rows * costs.code_us + scoring_us)]
        if not index.exact:  # such an index has no lists
            most_rows = max(worth, (matching * costs.row_us - costs.filtered_us) / costs.code_us)
            score_rows = costs.row_us / costs.code_us
            lists = Plan("lists", wanted, effort, listing_us, misses, most_rows, score_rows, grows)
            plans.insert(0, lists)
    if share >= OPEN_FROM_SHARE:
        further = max(1, math.ceil(OPEN_WORTH * effort * share**OPEN_EFFORT_POWER))
        results = min(rows, math.ceil(OPEN_SPARE * k / share))
        more = min(rows, max(results, math.ceil(wanted * share**-OPEN_CANDIDATES_POWER)))
        opening_us = costs.query_us + index.worth(further) * costs.code_us + more * costs.row_us
        least = max(k, OPEN_DENSITY * share * results)
        instead = plans[0] if plans else None
        plans.append(Plan("open", more, further, opening_us, results=results, least=least, instead=instead))
    return plans


def point_for(calibration: Sequence[CalibrationPoint], recall: float) -> CalibrationPoint | None:
    """Return the cheapest calibrated point that promises `recall`, or the last there is.

    An index without efforts (a flat one) has no calibration, and gets none.
    """
    for point in calibration:
        if point.promised >= recall:
            return point
    return calibration[-1] if calibration else None
