"""POST /search as massive-serve and DS-Serve have it, so that their clients work unchanged.

massive-serve answers with passages as strings; DS-Serve, whose keys a body may use, with objects.
Scores, passages and IDs are lists of lists, one list per query, also for a single query.
"""

import time
from typing import Any, cast

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from compactds.datastore.records import Hit, Hits
from compactds.server.bodies import Queries, Texts
from compactds.server.problems import ProblemError
from compactds.server.replies import json_response
from compactds.server.routes import BODY_PROBLEMS, Engine, Settings
from compactds.server.searching import check_size, check_texts
from compactds.server.validation import JsonRoute

OBJECT_KEYS = frozenset(
    {"queries", "exact_search", "diverse_search", "lambda_", "min_words", "backend", "expand_index_id"}
)
"""Keys that only DS-Serve has: a body with one of them gets passages as objects."""

router = APIRouter(route_class=JsonRoute, tags=["compatible"])


class CompatibleBody(BaseModel):
    """A search in the format of massive-serve or DS-Serve; keys it does not know are ignored."""

    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        json_schema_extra={"examples": [{"query": "why is the sky blue", "n_docs": 3}]},
    )

    query: Queries | None = Field(None, description="A question, or a list of questions.")
    queries: Texts | None = Field(None, description="A list of questions (DS-Serve).")
    n_docs: int = Field(1, ge=1, description="How many passages per question: 1 to the server's max_k.")
    nprobe: int | None = Field(None, description="Accepted and returned; search effort is the store's own.")
    exact_search: bool = Field(False, description="Whether to search exhaustively (DS-Serve).")
    diverse_search: bool = Field(False, description="Must be false: not available (DS-Serve).")
    lambda_: float | None = Field(None, alias="lambda", description="Has no effect without diverse_search.")
    min_words: int | None = Field(None, description="Must be 0: not available (DS-Serve).")
    backend: str | None = Field(None, description="Accepted and ignored (DS-Serve).")
    expand_index_id: int | None = Field(None, description="Must be null: not available (DS-Serve).")


@router.post("/search", summary="Search in massive-serve's format", responses=BODY_PROBLEMS)
def search(body: CompatibleBody, engine: Engine, settings: Settings) -> Response:
    """Return passages the way massive-serve does, or DS-Serve if the body uses its keys.

    `exact_search` searches exhaustively; `nprobe` and `backend` have no effect. Options that would
    change the answer and are not available here are refused rather than ignored.
    """
    given = body.query if body.queries is None else body.queries
    _check_available(body, given)
    assert given is not None
    queries = [given] if isinstance(given, str) else given
    check_size(settings, body.n_docs, None, len(queries), texts=True, k_name="n_docs")
    check_texts(settings, given)
    started = time.perf_counter()
    options = {"recall": 1.0} if body.exact_search else {}
    found = cast(list[Hits], engine.search(queries, k=body.n_docs, **options))
    content: dict[str, Any] = {
        "message": f"Search completed for {len(queries)} queries.",
        "query": given,
        "n_docs": body.n_docs,
        "nprobe": body.nprobe,
        "results": {
            "scores": [[hit.score for hit in hits] for hits in found],
            "passages": [[hit.passage.text for hit in hits] for hits in found],
            "IDs": [[hit.passage.id for hit in hits] for hits in found],
        },
    }
    if OBJECT_KEYS & body.model_fields_set:
        content["results"]["passages"] = [
            [_passage_object(hit, query) for hit in hits] for hits, query in zip(found, queries, strict=True)
        ]
        content["results"]["timings_ms"] = {"total": 1000 * (time.perf_counter() - started)}
    return json_response(content)


def _passage_object(hit: Hit, query: str) -> dict[str, Any]:
    passage = hit.passage
    return {
        "passage_id": passage.id,
        "text": passage.text,
        "center_text": passage.text,
        "source": passage.source,
        "raw_query": query,
        "title": passage.title,
        "document_id": passage.document_id,
        "attributes": passage.attributes,
    }


def _check_available(body: CompatibleBody, given: Any) -> None:
    if given is None:
        raise ProblemError(
            422, "invalid_request", "query is missing.", remedy="Give query or queries.", field="query"
        )
    for name in ("diverse_search", "min_words", "expand_index_id"):
        value = getattr(body, name)
        if value not in (None, False, 0) or (name == "expand_index_id" and value is not None):
            raise ProblemError(
                422,
                "unsupported_option",
                f"{name} is not available here.",
                remedy=f"Leave {name} out.",
                value=value,
                field=name,
            )
