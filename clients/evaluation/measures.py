"""Retrieval measures by name, such as nDCG@10, computed by ir_measures."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from compactds.clients.evaluation.errors import WRONG_VALUE, EvaluationError

DEFAULT_MEASURES = ("nDCG@10", "R@100", "RR@10", "AP@100")
DEFAULT_DEPTH = 1000  # TREC's depth, for measures that name none
MAX_CUTOFF = 10_000  # the most hits a search returns
MAX_NAME = 100  # characters


def parse_measures(names: Sequence[str]) -> tuple[Any, ...]:
    """Return ir_measures' measures for names such as nDCG@10, R@100, RR@10, AP, P(rel=2)@5.

    A measure named twice is kept once. Raises EvaluationError for a name that is not a measure, cannot
    be computed here, or is a count rather than a mean over queries.
    """
    if not names:
        raise EvaluationError(
            "no measure is named.", value=[], remedy="Name one, such as nDCG@10.", code=WRONG_VALUE
        )
    return tuple(dict.fromkeys(_parse(name) for name in names))


def needed_depth(measures: Sequence[Any]) -> int:
    """Return how many documents a query's ranking must have: the largest cutoff, 1,000 without one."""
    return max(int(measure.params.get("cutoff", DEFAULT_DEPTH)) for measure in measures)


def check_depth(measures: Sequence[Any], depth: int | None) -> None:
    """Raise EvaluationError for a measure that looks further down a ranking than `depth` documents."""
    for measure in measures:
        cutoff = measure.params.get("cutoff")
        if depth is not None and cutoff is not None and cutoff > depth:
            raise EvaluationError(
                f"measure {measure} looks at {cutoff} documents, and depth is {depth}.",
                value=depth,
                remedy=f"Leave depth out, give at least {cutoff}, or name another measure.",
                code=WRONG_VALUE,
            )


def compute(
    measures: Sequence[Any],
    judgements: Mapping[str, Mapping[str, int]],
    rankings: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, float]]:
    """Return {query id: {measure: value}} for every judged query.

    `rankings` hold document ids, best first; a query without a ranking scores as one that found
    nothing. What is measured is the order itself: equal search scores do not shuffle documents.
    """
    import ir_measures

    # Numbers stand in for ids, which the programs behind ir_measures would split at blanks.
    queries = {query_id: str(number) for number, query_id in enumerate(judgements)}
    documents: dict[str, str] = {}

    def number(document_id: str) -> str:
        return documents.setdefault(document_id, str(len(documents)))

    qrels = {
        queries[query_id]: {number(document_id): grade for document_id, grade in judged.items()}
        for query_id, judged in judgements.items()
    }
    run = {
        queries[query_id]: {
            number(document_id): float(-rank) for rank, document_id in enumerate(rankings[query_id])
        }
        for query_id in judgements
        if rankings.get(query_id)
    }
    values: dict[str, dict[str, float]] = {query_id: {} for query_id in queries.values()}
    for query_id in values:
        values[query_id] = {str(measure): float(measure.DEFAULT) for measure in measures}
    if run:
        for metric in ir_measures.iter_calc(measures, qrels, run):
            values[metric.query_id][str(metric.measure)] = float(metric.value)
    return {query_id: values[short] for query_id, short in queries.items()}


def _parse(name: str) -> Any:
    import ir_measures

    name = name.strip()
    if len(name) > MAX_NAME:
        raise _refusal(f"{name[:MAX_NAME]}…", f"is longer than {MAX_NAME} characters")
    try:
        measure = ir_measures.parse_measure(name)
    except (NameError, ValueError, TypeError, RecursionError):
        raise _refusal(name, "does not exist") from None
    try:
        supported = ir_measures.DefaultPipeline.supports(measure)
    except AssertionError:
        raise _refusal(name, "lacks a cutoff or parameter, or has one it does not take") from None
    if not supported:
        raise _refusal(name, "cannot be computed by the packages installed here")
    cutoff = measure.params.get("cutoff", 1)
    if isinstance(cutoff, bool) or not 1 <= cutoff <= MAX_CUTOFF:
        raise _refusal(name, f"cuts the ranking outside 1 to {MAX_CUTOFF:,}")
    if not isinstance(measure.aggregator(), ir_measures.MeanAgg):
        raise _refusal(name, "is a count, not a mean over queries")
    return measure


def _refusal(name: str, problem: str) -> EvaluationError:
    """Return an error whose remedy says which measure was probably meant, else which ones there are."""
    import ir_measures

    stem, at, cutoff = name.partition("@")
    # Aliases such as MRR stand for a measure whose own name is given back.
    known = {alias.lower(): str(kind.NAME) for alias, kind in ir_measures.measures.registry.items()}
    written = stem.strip().lower()
    near = get_close_matches(written, known, n=1, cutoff=0.75 if len(written) < 5 else 0.8)
    remedy = "Name one such as nDCG@10, R@100, RR@10, AP@100, P@5 or Success@5."
    if near and known[near[0]] != stem.strip():
        remedy = f"Did you mean {known[near[0]]}{at}{cutoff}?"
    return EvaluationError(f"measure {name!r} {problem}.", value=name, remedy=remedy, code=WRONG_VALUE)
