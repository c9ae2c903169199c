"""Put the app together: routes over one engine, errors as problems, limits around them."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from compactds.filters.errors import CompactdsError
from compactds.server import compatible
from compactds.server.answers import ProblemAnswer
from compactds.server.engine import SearchEngine
from compactds.server.middleware import Admission, BodyLimit, HostCheck, KeyCheck, RequestIdentity
from compactds.server.problems import handle_engine_error, handle_http_error
from compactds.server.readiness import Readiness
from compactds.server.routes import health_router, problems, router
from compactds.server.settings import ServerSettings, check_api_key
from compactds.server.validation import handle_invalid_body

DESCRIPTION = """
Search a compact, filtered datastore. `POST /v1/search` finds passages, `where` limits which ones may be
returned. Errors are RFC 9457 problem details (`application/problem+json`) with a stable `code`, the
offending `value` and a `remedy`. `GET /v1/store` tells fields, encoders and limits.
"""

_REFUSALS = {
    "_401": "The API key is missing or another; only where the server has one.",
    "_421": "The Host header does not name this machine; only where the server has no API key.",
}


def create_app(engine: SearchEngine, settings: ServerSettings | None = None) -> FastAPI:
    """Return the app that serves `engine`; opening and closing the engine is the caller's.

    Without an API key, it answers only to the names of this machine and to the settings' host. Raises
    ServeError for an API key of no use.
    """
    settings = settings or ServerSettings()
    check_api_key(settings.api_key)
    app = FastAPI(
        title="compactds",
        version=version("compactds"),
        description=DESCRIPTION,
        lifespan=_warm_up,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.engine = engine
    app.state.settings = settings
    app.state.readiness = Readiness(engine)
    schemes = [
        Depends(HTTPBearer(auto_error=False)),
        Depends(APIKeyHeader(name="X-API-Key", auto_error=False)),
    ]
    # KeyCheck admits or refuses; the schemes only make the documentation say so.
    guards: dict[str, Any] = {"responses": problems(**_REFUSALS)}
    if settings.api_key is not None:
        guards["dependencies"] = schemes
    app.include_router(router, **guards)
    app.include_router(compatible.router, **guards)
    app.include_router(health_router, responses=problems(_421=_REFUSALS["_421"]))
    app.add_exception_handler(HTTPException, handle_http_error)
    app.add_exception_handler(RequestValidationError, handle_invalid_body)
    app.add_exception_handler(CompactdsError, handle_engine_error)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Admission, max_concurrent=settings.max_concurrent)
    if settings.api_key is not None:
        app.add_middleware(KeyCheck, api_key=settings.api_key)
    else:
        app.add_middleware(HostCheck, host=settings.host)
    app.add_middleware(RequestIdentity)
    app.openapi = _with_problems(app.openapi)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _warm_up(app: FastAPI) -> AsyncIterator[None]:
    """Search once before the first request, so that no caller waits for the encoder to load."""
    await run_in_threadpool(app.state.readiness.probe)
    yield


def _with_problems(generate: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Describe problems where the framework would describe errors of its own, which are never sent."""

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document["components"]["schemas"]
        schemas["ProblemAnswer"] = ProblemAnswer.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for operations in document["paths"].values():
            for operation in operations.values():
                _show_examples(operation, schemas)
                if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                    del operation["responses"]["422"]
        return document

    return openapi


def _show_examples(operation: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    """Put the examples of a body's schema where pages that send requests look for them."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
    for example in schemas.get(name, {}).get("examples", ())[:1]:
        body["example"] = example
