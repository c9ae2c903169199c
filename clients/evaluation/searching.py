"""Ask a searcher many queries in batches, and time it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from compactds.clients.evaluation.errors import WRONG_VALUE, EvaluationError
from compactds.clients.evaluation.protocol import Hit, Searcher

BATCH_SIZE = 64
MAX_HITS = 50_000  # what a server returns at a time, unless it is told otherwise

Progress = Callable[[int], None]
"""Take how many queries (or questions) of a task are done so far."""


def ignore_progress(done: int) -> None:
    """Report nothing."""


def check_count(name: str, value: int) -> None:
    """Raise EvaluationError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise EvaluationError(
            f"{name} is {value!r}, expected a whole number of at least 1.",
            value=value,
            remedy=f"Give {name} a value of 1 or more.",
            code=WRONG_VALUE,
        )


@dataclass(frozen=True, slots=True)
class Asking:
    """Say how queries are asked: `where`, `recall` and `exclude_overlap_with` go to every search as they are.

    A search holds at most `batch_size` queries, and fewer if they ask for more than `max_hits`
    passages together.
    """

    where: Any = None
    recall: float | None = None
    batch_size: int = BATCH_SIZE
    max_hits: int = MAX_HITS
    exclude_overlap_with: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size)
        check_count("max_hits", self.max_hits)


PLAIN = Asking()


@dataclass(frozen=True, slots=True)
class Answers:
    """Hold one list of hits per query, in the queries' order, and the seconds the searches took."""

    hits: Sequence[Sequence[Hit]]
    seconds: float


def is_truncated(hits: Any) -> bool:
    """Tell whether the report of the hits says that the encoder did not read their query to its end."""
    return bool(getattr(getattr(hits, "report", None), "truncated", False))


def ask(
    searcher: Searcher, queries: Sequence[str], k: int, asking: Asking, progress: Progress = ignore_progress
) -> Answers:
    """Search for all queries; raise EvaluationError if a batch comes back with another length."""
    found: list[Sequence[Hit]] = []
    seconds = 0.0
    options = {"exclude_overlap_with": asking.exclude_overlap_with} if asking.exclude_overlap_with else {}
    size = max(1, min(asking.batch_size, asking.max_hits // k))
    for start in range(0, len(queries), size):
        batch = list(queries[start : start + size])
        begun = time.perf_counter()
        results = searcher.search(batch, k=k, where=asking.where, recall=asking.recall, **options)
        seconds += time.perf_counter() - begun
        if len(results) != len(batch):
            raise EvaluationError(
                f"{len(batch)} queries were asked and {len(results)} lists of hits came back.",
                value=len(results),
                remedy="The searcher must return one list per query.",
            )
        found.extend(results)
        progress(len(found))
    return Answers(found, seconds)
