"""What a search returns: the same fields as `compactds.datastore.records`, without its imports."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


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
    """Hold one result: a passage, its rank from 1, and its score (higher is better)."""

    score: float
    rank: int
    passage: Passage


@dataclass(frozen=True, slots=True)
class SearchReport:
    """Say how a search was answered: plan, rows allowed and scored, milliseconds a stage took.

    `truncated` tells that the query was longer than the encoder reads, so that its end was not used,
    `predicted_ms` what the planner expected the search to cost, `excluded` how many better passages were
    left out because they overlap with the questions to exclude.
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
