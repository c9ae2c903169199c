"""Measure how well a store's ranking of documents agrees with a test collection's judgements."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from urllib.parse import quote

from compactds.clients.evaluation.beir import Collection
from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.intervals import SEED, Interval, bootstrap_mean
from compactds.clients.evaluation.measures import (
    DEFAULT_MEASURES,
    check_depth,
    compute,
    needed_depth,
    parse_measures,
)
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

MAX_K = 10_000

Run = Mapping[str, Sequence[tuple[str, float]]]
"""Map a query's id to (document id, score) pairs, best first, each document once."""


@dataclass(frozen=True, slots=True)
class MeasureResult:
    """Hold the mean of one measure over all queries, with its bootstrap interval."""

    name: str
    mean: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class RetrievalReport:
    """Hold what a store reached on one collection.

    `depth` is how many documents each ranking was to have; `short` counts the queries for which fewer
    were found. `per_query` is {query id: {measure: value}}. `judged_found` tells whether any relevant
    document was retrieved at all: if not, the store's document ids are probably not the collection's.
    `truncated` counts queries that the encoder did not read to their end.
    """

    collection: str
    measures: tuple[MeasureResult, ...]
    per_query: Mapping[str, Mapping[str, float]]
    run: Run
    depth: int
    short: int
    without_text: int
    without_relevant: int
    judged_found: bool
    seconds: float
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Hold the ranked documents of every query and what it took to find them."""

    run: Run
    short: int
    seconds: float
    truncated: int = 0


def evaluate_retrieval(
    searcher: Searcher,
    collection: Collection,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    asking: Asking = PLAIN,
    depth: int | None = None,
    max_k: int = MAX_K,
    seed: int = SEED,
    progress: Progress = ignore_progress,
) -> RetrievalReport:
    """Search for a collection's queries and score the documents found.

    A document ranks where its best passage does. `depth` is how many documents a ranking has; if left
    out, what the measures need. A query is asked for at most `max_k` passages. Raises EvaluationError
    for unknown measures, and for those that look further than `depth`, before anything is searched.
    """
    parsed = parse_measures(measures)
    check_depth(parsed, depth)
    depth = needed_depth(parsed) if depth is None else depth
    retrieved = retrieve_documents(
        searcher, collection.queries, depth, asking=asking, max_k=max_k, progress=progress
    )
    rankings = {query_id: [document for document, _ in ranked] for query_id, ranked in retrieved.run.items()}
    per_query = compute(parsed, collection.judgements, rankings)
    results = []
    for name in map(str, parsed):
        values = [scores[name] for scores in per_query.values()]
        results.append(MeasureResult(name, fmean(values), bootstrap_mean(values, seed=seed)))
    return RetrievalReport(
        collection=collection.name,
        measures=tuple(results),
        per_query=per_query,
        run=retrieved.run,
        depth=depth,
        short=retrieved.short,
        without_text=collection.without_text,
        without_relevant=collection.without_relevant,
        judged_found=_any_relevant(collection, rankings),
        seconds=retrieved.seconds,
        truncated=retrieved.truncated,
    )


def retrieve_documents(
    searcher: Searcher,
    queries: Mapping[str, str],
    depth: int,
    *,
    asking: Asking = PLAIN,
    max_k: int = MAX_K,
    progress: Progress = ignore_progress,
) -> Retrieved:
    """Return up to `depth` documents for each query, given as {id: text}.

    Passages of one document take places from others, so queries that lack documents are asked again
    for twice as many passages, until they have `depth` documents, the store has no more passages, or
    `max_k` is reached.
    """
    check_count("depth", depth)
    check_count("max_k", max_k)
    query_ids = list(queries)
    run: dict[str, list[tuple[str, float]]] = {}
    truncated: set[str] = set()
    seconds = 0.0
    for start in range(0, len(query_ids), asking.batch_size):
        pending = query_ids[start : start + asking.batch_size]
        k = min(depth, max_k)
        while pending:
            answers = ask(searcher, [queries[query_id] for query_id in pending], k, asking)
            seconds += answers.seconds
            unfinished = []
            for query_id, hits in zip(pending, answers.hits, strict=True):
                if is_truncated(hits):
                    truncated.add(query_id)
                run[query_id] = group_by_document(hits)[:depth]
                if len(run[query_id]) < depth and len(hits) >= k and k < max_k:
                    unfinished.append(query_id)
            pending = unfinished
            k = min(2 * k, max_k)
        progress(len(run))
    short = sum(len(ranked) < depth for ranked in run.values())
    return Retrieved(run, short, seconds, len(truncated))


def group_by_document(hits: Sequence[Hit]) -> list[tuple[str, float]]:
    """Return (document id, score of its best passage), in the order in which documents first appear."""
    best: dict[str, float] = {}
    for hit in hits:
        best.setdefault(hit.passage.document_id, hit.score)
    return list(best.items())


def write_run(run: Run, path: str | Path, tag: str = "compactds") -> None:
    """Write a run in TREC's format: query, Q0, document, rank from 1, score, tag, one line a document.

    The format separates columns by blanks, so blanks inside ids are percent-encoded.
    """
    tag = _without_blanks(tag)
    lines = [
        f"{_without_blanks(query_id)} Q0 {_without_blanks(document_id)} {rank} {score!r} {tag}\n"
        for query_id, ranked in run.items()
        for rank, (document_id, score) in enumerate(ranked, start=1)
    ]
    try:
        Path(path).write_text("".join(lines), encoding="utf-8", errors="surrogatepass")
    except OSError as error:
        raise EvaluationError(
            f"the run cannot be written to {path}: {error.strerror}.",
            value=str(path),
            remedy="Name a file in a folder you can write to.",
        ) from error


def _without_blanks(text: str) -> str:
    return re.sub(r"\s", lambda blank: quote(blank[0]), text)


def _any_relevant(collection: Collection, rankings: Mapping[str, Sequence[str]]) -> bool:
    return any(
        judged.get(document_id, 0) > 0
        for query_id, judged in collection.judgements.items()
        for document_id in rankings[query_id]
    )
