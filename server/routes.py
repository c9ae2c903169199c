"""The routes under /v1, and the health checks."""

import time
from importlib.metadata import version
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from compactds.datastore.records import Hits
from compactds.filters.errors import CompactdsError, UnknownFieldError
from compactds.server.answers import (
    BatchAnswer,
    CountAnswer,
    FacetsAnswer,
    HealthAnswer,
    PassageAnswer,
    SearchAnswer,
)
from compactds.server.bodies import CountBody, FacetsBody, SearchBody
from compactds.server.engine import SearchEngine
from compactds.server.problems import PROBLEM_TYPE, ProblemError
from compactds.server.readiness import Readiness
from compactds.server.replies import hits_content, json_response
from compactds.server.searching import run_search
from compactds.server.settings import ServerSettings
from compactds.server.validation import JsonRoute


async def get_engine(request: Request) -> SearchEngine:
    """Return the engine this app serves."""
    return cast(SearchEngine, request.app.state.engine)


async def get_settings(request: Request) -> ServerSettings:
    """Return the settings of this app."""
    return cast(ServerSettings, request.app.state.settings)


Engine = Annotated[SearchEngine, Depends(get_engine)]
Settings = Annotated[ServerSettings, Depends(get_settings)]


def problems(**causes: str) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of error responses: `_404="why"` becomes an entry for status 404."""
    schema = {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}
    return {
        int(status.removeprefix("_")): {"description": cause, "content": {PROBLEM_TYPE: schema}}
        for status, cause in causes.items()
    }


BODY_PROBLEMS = problems(
    _400="The body is not JSON.",
    _413="The body is larger than max_body_bytes.",
    _415="The body is not declared as JSON.",
    _422="The body does not fit: a wrong key, type, field, limit, where expression or vector.",
    _500="The store is damaged, or does not go with its encoder.",
    _503="The store cannot answer at present, or the server has too much to do.",
)

router = APIRouter(prefix="/v1", route_class=JsonRoute, tags=["store"])
health_router = APIRouter(tags=["health"])


@router.post(
    "/search",
    summary="Search for one query or a batch",
    responses={200: {"model": SearchAnswer | BatchAnswer}, **BODY_PROBLEMS},
)
def search(body: SearchBody, engine: Engine, settings: Settings) -> Response:
    """Return the best passages for a question, or for each of several.

    Give exactly one of `query`, `vector` and `vectors`. One query (a text, or `vector`) is answered
    with `hits`; a batch (a list of texts, or `vectors`) with `results`, one entry per query in order.
    A filter never costs hits: min(k, matching passages) always come back.
    """
    started = time.perf_counter()
    found = run_search(engine, settings, body)
    took_ms = 1000 * (time.perf_counter() - started)
    if isinstance(found, Hits):
        return json_response({**hits_content(found, body.explain), "took_ms": took_ms})
    results = [hits_content(hits, body.explain) for hits in found]
    return json_response({"results": results, "took_ms": took_ms})


@router.get(
    "/passages/{passage_id:path}",
    summary="Get one passage by its id",
    responses={
        200: {"model": PassageAnswer},
        **problems(
            _404="No passage has this id.",
            _500="The store is damaged.",
            _503="The store cannot answer at present, or the server has too much to do.",
        ),
    },
)
def get_passage(passage_id: str, engine: Engine) -> Response:
    """Return a passage. Percent-encode the id: `sky-1#0` is asked for as `/v1/passages/sky-1%230`."""
    return json_response(engine.get(passage_id))


@router.post("/count", summary="Count passages", responses={200: {"model": CountAnswer}, **BODY_PROBLEMS})
def count(body: CountBody, engine: Engine) -> Response:
    """Return how many passages a where expression allows; without one, how many there are."""
    return json_response({"count": engine.count(body.where)})


@router.post(
    "/facets", summary="Count the values of fields", responses={200: {"model": FacetsAnswer}, **BODY_PROBLEMS}
)
def facets(body: FacetsBody, engine: Engine) -> Response:
    """Return the most frequent values of each field among the passages a where expression allows."""
    try:
        counted = engine.facets(body.fields, body.where, body.limit)
    except UnknownFieldError as error:
        if error.field not in body.fields:
            raise
        place = f"fields[{body.fields.index(error.field)}]"  # fields come before where
        raise ProblemError(
            422, error.code, error.message, remedy=error.remedy, value=error.value, field=place
        ) from error
    return json_response(
        {
            "facets": {
                name: [{"value": value, "count": number} for value, number in values]
                for name, values in counted.items()
            }
        }
    )


@router.get(
    "/store", summary="Describe the store and the limits", responses=problems(_503="The store cannot answer.")
)
def describe(engine: Engine, settings: Settings) -> Response:
    """Return what the store is (counts, schema, encoders, index, sizes) and the limits on requests."""
    return json_response({**engine.describe(), "limits": settings.limits()})


@health_router.get("/", include_in_schema=False)
async def links() -> Response:
    """Say what answers here, and where its routes are described."""
    return json_response(
        {
            "title": "compactds",
            "version": version("compactds"),
            "search": "/v1/search",
            "store": "/v1/store",
            "documentation": "/docs",
            "openapi": "/openapi.json",
        }
    )


@health_router.head("/healthz", include_in_schema=False)
@health_router.get("/healthz", summary="Is the process alive?", responses={200: {"model": HealthAnswer}})
async def healthz() -> Response:
    """Answer as long as the process does; needs no key. HEAD works too."""
    return json_response({"status": "ok"})


@health_router.head("/readyz", include_in_schema=False)
@health_router.get(
    "/readyz",
    summary="Can it search?",
    responses={200: {"model": HealthAnswer}, **problems(_503="The store cannot be searched.")},
)
async def readyz(request: Request) -> Response:
    """Answer 200 if a search for one passage succeeded in the last seconds; needs no key. HEAD works too."""
    failure = await cast(Readiness, request.app.state.readiness).failure()
    if failure is None:
        return json_response({"status": "ready"})
    raise ProblemError(
        503,
        failure.code if isinstance(failure, CompactdsError) else "not_ready",
        "The store cannot be searched.",
        remedy="See the server's log.",
    )
