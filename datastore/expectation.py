"""Say what recall to expect of an index that is not built yet, and where that is known from.

A store's own calibration replaces this once it is built. Nothing is guessed: what is said was measured,
on a sample of the vectors at hand or, without any, on the vectors named here.
"""

import math
from dataclasses import dataclass

import numpy as np

from compactds.datastore.advisor import LEAST_ROWS, RERANKED, measure_store_code, split_sample
from compactds.datastore.ann.choose import IndexPlan
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.plan import DEFAULT_RECALL

SAMPLE_ROWS = 10_000

MEASURED_ON = "123,964 vectors of MiniLM (384 dimensions): paper abstracts and sentences of textbooks"
MEASURED_ROWS = (10_000, 50_000, 123_464)
CANDIDATES_FOR_95 = {9.6: (34, 50, 59), 16.0: (69, 125, 169), 32.0: (170, 538, 800)}
"""Of the code with so many dimensions a byte: the candidates that hold 0.95 of the ten nearest, at each of
`MEASURED_ROWS`, when every list is scanned."""


@dataclass(frozen=True, slots=True)
class ExpectedRecall:
    """Hold what recall@10 to expect; None where nothing is known before the store is calibrated.

    `candidates` are those that hold 0.95 of the ten nearest when every list is scanned; `source` says in a
    sentence where the figures are from.
    """

    recall: float | None
    candidates: int | None
    source: str


def expect_recall(
    plan: IndexPlan, rows: int, dimension: int, vectors: Vectors | None = None
) -> ExpectedRecall:
    """Return what is known of an index's recall before it is built; `vectors` are a sample, (n, d)."""
    if plan.kind == "flat":
        return ExpectedRecall(1.0, 10, "a flat index scores every vector as it is")
    if plan.kind == "hnsw":
        return ExpectedRecall(None, None, "graphs are measured only once they are built")
    if vectors is not None and len(vectors) >= LEAST_ROWS:
        sample = split_sample(vectors)
        found = measure_store_code(sample, plan.code_bytes)
        held = found.reranked[RERANKED[0]]
        source = (
            f"measured on {len(sample.vectors):,} of your vectors: {RERANKED[0]} candidates of this code "
            f"hold {held:.3f} of the ten nearest; among {rows:,} it takes more of them"
        )
        count = found.candidates[DEFAULT_RECALL]
        return ExpectedRecall(None if count is None else DEFAULT_RECALL, count, source)
    count = known_candidates(dimension / plan.code_bytes, rows)
    return ExpectedRecall(
        DEFAULT_RECALL, count, f"measured on {MEASURED_ON}; another encoder's vectors may need more or fewer"
    )


def known_candidates(dimensions_per_byte: float, rows: int) -> int:
    """Return the candidates that hold 0.95 of the ten nearest, between and beyond what was measured.

    Linear in the logarithms of rows, candidates and dimensions a byte.
    """
    sizes = np.log(MEASURED_ROWS)
    ratios = sorted(CANDIDATES_FOR_95)
    at_rows = []
    for ratio in ratios:
        slope, start = np.polyfit(sizes, np.log(CANDIDATES_FOR_95[ratio]), 1)
        at_rows.append(start + slope * math.log(max(rows, MEASURED_ROWS[0])))
    return math.ceil(math.exp(float(np.interp(math.log(dimensions_per_byte), np.log(ratios), at_rows))))
