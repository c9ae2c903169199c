"""What a search returns: hits, the passages they point to, and a report of how they were found.

`compactds.clients.results` has the same shapes, so results embedded and over HTTP compare equal
field by field.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Passage:
    """Hold one passage: a piece of a document, the unit that is searched.

    `id` is `<document_id>#<position>`; `start` and `end` are the character span of `text` in the
    document's text. `attributes` hold JSON values: dates and timestamps are ISO 8601 strings, and a
    missing attribute is absent.
    """

    id: str
    document_id: str
    position: int
    title: str
    text: str
    source: str
    start: int
    end: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hit:
    """Hold one result: a passage, its rank from 1, and its score (higher is better).

    The score is the similarity under the exact encoder: cosine for normalised vectors, else the
    inner product.
    """

    score: float
    rank: int
    passage: Passage


@dataclass(frozen=True, slots=True)
class SearchReport:
    """Say how a search was answered.

    `plan` is the plan that ran, `matching` how many rows the where expression allowed, `candidates`
    how many rows were scored exactly, `timings_ms` what each stage took for the whole batch. `truncated`
    tells that the query was longer than the encoder reads, so that its end was not used. `predicted_ms` is
    what the planner expected finding candidates and scoring them to cost for this query. `excluded` is how
    many better passages were left out because they overlap with the questions to exclude.
    """

    plan: str
    matching: int
    candidates: int
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    truncated: bool = False
    predicted_ms: float = 0.0
    excluded: int = 0


class Hits(list[Hit]):
    """Hold the hits of one query, best first, and the report of the search."""

    __slots__ = ("report",)

    def __init__(self, hits: Iterable[Hit], report: SearchReport) -> None:
        super().__init__(hits)
        self.report = report


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Hold the best rows of each query vector, best first, and their exact scores, both of shape (n, k).

    Places without a row hold -1 and a score of -inf. `plan` names how they were found.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    plan: str = "none"
