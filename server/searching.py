"""Check a search against the server's limits and hand it to the engine."""

from collections.abc import Sequence
from typing import Any

from compactds.datastore.errors import SearchError
from compactds.datastore.queries import check_where_list
from compactds.datastore.records import Hits
from compactds.server.bodies import SearchBody
from compactds.server.engine import SearchEngine
from compactds.server.problems import ProblemError
from compactds.server.settings import ServerSettings


def run_search(engine: SearchEngine, settings: ServerSettings, body: SearchBody) -> Hits | list[Hits]:
    """Return Hits for one query, a list of Hits for a batch; raise ProblemError before any work."""
    check_mode(body.mode)
    check_one_kind(body)
    queries = body.query if isinstance(body.query, list) else body.vectors
    check_size(
        settings, body.k, body.candidates, 1 if queries is None else len(queries), body.vectors is None
    )
    check_wheres(body, queries)
    options: dict[str, Any] = {"k": body.k}
    for name in ("where", "candidates", "recall", "exclude_overlap_with"):
        value = getattr(body, name)
        if value is not None:
            options[name] = value
    if body.query is not None:
        check_texts(settings, body.query)
        return engine.search(body.query, **options)
    if body.vectors is not None:
        check_lengths(body.vectors)
        return engine.search(vectors=body.vectors, **options) if body.vectors else []
    return engine.search(vectors=body.vector, **options)


def check_mode(mode: str) -> None:
    """Refuse every mode but the one there is."""
    if mode != "dense":
        raise ProblemError(
            422,
            "unsupported_mode",
            f"This server has no mode {mode[:100]!r}.",
            remedy="Leave mode out, or say 'dense'.",
            value=mode,
            field="mode",
        )


def check_one_kind(body: SearchBody) -> None:
    """Refuse a body with none of query, vector and vectors, or with several."""
    given = [name for name in ("query", "vector", "vectors") if getattr(body, name) is not None]
    if len(given) != 1:
        raise ProblemError(
            422,
            "invalid_request",
            f"{' and '.join(given)} are both given." if given else "query is missing.",
            remedy="Give exactly one of query, vector and vectors.",
            field=given[-1] if given else "query",
        )


def check_size(
    settings: ServerSettings, k: int, candidates: int | None, queries: int, texts: bool, *, k_name: str = "k"
) -> None:
    """Refuse a search that asks for more than the server's limits."""
    batch_name = "query" if texts else "vectors"
    _check_limit(k_name, k, "max_k", settings.max_k, f"{k_name} is {k:,}")
    _check_limit(
        "candidates", candidates or 0, "max_candidates", settings.max_candidates, "candidates is too large"
    )
    _check_limit(
        batch_name, queries, "max_batch", settings.max_batch, f"{batch_name} holds {queries:,} queries"
    )
    hits = k * queries
    _check_limit(
        k_name, hits, "max_hits", settings.max_hits, f"{k_name} times the number of queries is {hits:,}"
    )


def check_texts(settings: ServerSettings, query: str | Sequence[str]) -> None:
    """Refuse queries that are blank or longer than the limit."""
    for index, text in enumerate([query] if isinstance(query, str) else query):
        name = "query" if isinstance(query, str) else f"query[{index}]"
        if not text.strip():
            raise ProblemError(
                422,
                "empty_query",
                f"{name} is {'empty' if not text else 'blank'}.",
                remedy="Give at least one word.",
                value=text,
                field=name,
            )
        what = f"{name} has {len(text):,} characters"
        _check_limit(name, len(text), "max_query_chars", settings.max_query_chars, what)


def check_wheres(body: SearchBody, queries: Sequence[Any] | None) -> None:
    """Refuse a list of where expressions that does not go with the queries, one for each."""
    try:
        check_where_list(body.where, 1 if queries is None else len(queries), single=queries is None)
    except SearchError as error:
        raise ProblemError(
            422, "invalid_request", error.message, remedy=error.remedy, value=error.value, field="where"
        ) from None


def check_lengths(vectors: Sequence[Sequence[float]]) -> None:
    """Refuse vectors of different lengths."""
    for index, vector in enumerate(vectors):
        if len(vector) != len(vectors[0]):
            raise ProblemError(
                422,
                "invalid_vector",
                f"vectors[{index}] has {len(vector)} numbers, vectors[0] has {len(vectors[0])}.",
                remedy="Give vectors of one encoder.",
                value=len(vector),
                field=f"vectors[{index}]",
            )


def _check_limit(field: str, value: int, limit_name: str, limit: int, what: str) -> None:
    if value > limit:
        raise ProblemError(
            422,
            "limit_exceeded",
            f"{what}, more than this server's {limit_name}, which is {limit:,}.",
            remedy="Ask for less per request; GET /v1/store lists the limits.",
            value=value,
            field=field,
        )
