"""Measure what the steps of a search cost on this machine, so that plans can be compared."""

import time
from collections.abc import Callable

import numpy as np

from compactds.datastore.ann.base import AnnIndex
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.manifest import SearchCosts
from compactds.datastore.parallel import alone
from compactds.datastore.vectors import ExactVectors

ROUNDS = 7
SCORED_ROWS = 512
LEAST_CODE_US = 2e-4
"""No scan is faster than this: what is measured as less is noise."""
CANDIDATES = 100
BEST = 10
MEASURED_SHARE = 0.05
"""Which share of an index's rows the dearer of the two measured searches meets."""


def measure_costs(index: AnnIndex, proposing: ExactVectors, deciding: ExactVectors) -> SearchCosts:
    """Return microseconds of each step, each the least of several rounds, with all vectors in memory."""
    draw = np.random.default_rng(0)  # rows that lie apart, as candidates do: neighbours are cheaper to read
    size = min(SCORED_ROWS, deciding.rows)
    if not size:
        return SearchCosts()
    # Others each time, as searches ask for others: the same again would lie in the processor's caches.
    drawn = [draw.choice(deciding.rows, size, replace=False) for _ in range(ROUNDS + 1)]
    for rows in drawn:
        deciding.gather(rows)  # from disk, this once
    turns = iter(drawn)
    queries, exact = proposing.gather(np.array([0])), deciding.gather(np.array([0]))[0]
    row_us = _least_us(lambda: deciding.best(exact, next(turns), BEST)) / size
    few, many = (
        1,
        max((e for e in index.efforts if index.worth(e) <= MEASURED_SHARE * deciding.rows), default=0),
    )

    def search_us(effort: int, allowed: Bitmap | None = None) -> float:
        return _least_us(lambda: index.search(queries, CANDIDATES, effort=effort, allowed=allowed))

    if many <= few:  # an index without efforts, or one too small to tell them apart
        whole_us = search_us(max(few, *index.efforts, 0))
        code_us = max(LEAST_CODE_US, whole_us / max(1, deciding.rows))
        return _rounded(SearchCosts(row_us, code_us, 0.0, 0.0))
    rounds = [(search_us(few), search_us(many)) for _ in range(ROUNDS)]  # in turns, as noise comes and goes
    query_us, more_us = (min(times) for times in zip(*rounds, strict=True))
    code_us = max(LEAST_CODE_US, (more_us - query_us) / (index.worth(many) - index.worth(few)))
    filtered_us = query_us
    if index.filters:
        filtered_us = search_us(many, Bitmap.all(deciding.rows)) - index.worth(many) * code_us
    return _rounded(SearchCosts(row_us, code_us, query_us, max(query_us, filtered_us)))


def _least_us(task: Callable[[], object]) -> float:
    """Return the least time of several runs, in one thread; the first run, which reads, does not count."""

    def timed(_: slice) -> list[float]:
        task()
        spent = []
        for _round in range(ROUNDS):
            start = time.perf_counter()
            task()
            spent.append(time.perf_counter() - start)
        return spent

    return 1e6 * min(alone(timed, slice(0, 1)))


def _rounded(costs: SearchCosts) -> SearchCosts:
    return SearchCosts(
        round(costs.row_us, 5), round(costs.code_us, 6), round(costs.query_us, 2), round(costs.filtered_us, 2)
    )
