"""Measure what approximate search misses: its hits against those of exact search over the same store."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.intervals import SEED, Interval, bootstrap_mean
from compactds.clients.evaluation.protocol import Hit, Searcher
from compactds.clients.evaluation.searching import (
    PLAIN,
    Asking,
    Progress,
    ask,
    check_count,
    ignore_progress,
    is_truncated,
)

TOLERANCE = 1e-6  # relative: what the same score may differ by when it is computed in another batch


@dataclass(frozen=True, slots=True)
class RecallReport:
    """Hold the recall@k of a searcher against exact search.

    `per_query` has one value per query, in order; None where exact search found nothing either (a
    where expression that allows no row). `mean`, `worst` and `interval` are over the others. The
    seconds are those of the searches alone. `truncated` counts queries that the encoder did not read to
    their end.
    """

    k: int
    mean: float
    worst: float
    interval: Interval | None
    per_query: tuple[float | None, ...]
    seconds: float
    exact_seconds: float
    truncated: int = 0


def recall_against_exact(
    searcher: Searcher,
    queries: Sequence[str],
    k: int = 10,
    *,
    asking: Asking = PLAIN,
    seed: int = SEED,
    progress: Progress = ignore_progress,
) -> RecallReport:
    """Search for every query as asked and exactly (`recall=1.0`), and compare.

    Raises EvaluationError without queries, or if exact search finds nothing for any of them.
    """
    check_count("k", k)
    if not queries:
        raise EvaluationError("there are no queries to search for.", value=0, remedy="Give at least one.")
    # One search warms encoder and caches up, so that neither side's seconds hold their loading.
    ask(searcher, queries[:1], k, asking)
    found = ask(searcher, queries, k, asking, lambda done: progress(done // 2))
    exact = ask(
        searcher, queries, k, replace(asking, recall=1.0), lambda done: progress((len(queries) + done) // 2)
    )
    per_query = tuple(
        recall_of_hits(hits, truth, k) for hits, truth in zip(found.hits, exact.hits, strict=True)
    )
    values = [value for value in per_query if value is not None]
    if not values:
        raise EvaluationError(
            "exact search finds nothing for any query.",
            value=len(queries),
            remedy="Check the store and the where expression.",
        )
    return RecallReport(
        k=k,
        mean=fmean(values),
        worst=min(values),
        interval=bootstrap_mean(values, seed=seed),
        per_query=per_query,
        seconds=found.seconds,
        exact_seconds=exact.seconds,
        truncated=sum(map(is_truncated, found.hits)),
    )


def recall_of_hits(hits: Sequence[Hit], truth: Sequence[Hit], k: int) -> float | None:
    """Return the share of the exact top k that was found; None if the exact top k is empty.

    Any passage that scores as high as the last of the exact top k counts: among equal scores, which
    ones are in the top k is chance.
    """
    truth = truth[:k]
    if not truth:
        return None
    last = min(hit.score for hit in truth)
    enough = last - TOLERANCE * max(1.0, abs(last))
    wanted = {hit.passage.id for hit in truth}
    found = {hit.passage.id for hit in hits[:k] if hit.passage.id in wanted or hit.score >= enough}
    return min(len(found), len(truth)) / len(truth)
