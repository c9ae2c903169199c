"""Put the app together: routes over one engine, errors as problems, limits around them."""

import logging
from collections.abc import AsyncIterator, Callable
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
from compactds.server.middleware import BodyLimit, KeyCheck, RequestIdentity
from compactds.server.problems import handle_engine_error, handle_http_error
from compactds.server.routes import health_router, probe, problems, router
from compactds.server.settings import ServerSettings
from compactds.server.validation import handle_invalid_body

logger = logging.getLogger(__name__)

DESCRIPTION = """
Search a compact, filtered datastore. `POST /v1/search` finds passages, `where` limits which ones may be
returned. Errors are RFC 9457 problem details (`application/problem+json`) with a stable `code`, the
offending `value` and a `remedy`. `GET /v1/store` tells fields, encoders and limits.
"""


def create_app(engine: SearchEngine, settings: ServerSettings | None = None) -> FastAPI:
    """Return the app that serves `engine`; opening and closing the engine is the caller's."""
    settings = settings or ServerSettings()
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
    schemes = [
        Depends(HTTPBearer(auto_error=False)),
        Depends(APIKeyHeader(name="X-API-Key", auto_error=False)),
    ]
    # KeyCheck admits or refuses; the schemes only make the documentation say so.
    guards: dict[str, Any] = {}
    if settings.api_key is not None:
        guards = {"dependencies": schemes, "responses": problems(_401="The API key is missing or another.")}
    app.include_router(router, **guards)
    app.include_router(compatible.router, **guards)
    app.include_router(health_router)
    app.add_exception_handler(HTTPException, handle_http_error)
    app.add_exception_handler(RequestValidationError, handle_invalid_body)
    app.add_exception_handler(CompactdsError, handle_engine_error)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    if settings.api_key is not None:
        app.add_middleware(KeyCheck, api_key=settings.api_key)
    app.add_middleware(RequestIdentity)
    app.openapi = _with_problems(app.openapi)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _warm_up(app: FastAPI) -> AsyncIterator[None]:
    """Search once before the first request, so that no caller waits for the encoder to load."""
    try:
        await run_in_threadpool(probe, app.state.engine)
    except Exception:
        # The server starts all the same: /readyz says that it cannot search, and requests say why.
        logger.exception("the store cannot be searched")
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
                if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                    del operation["responses"]["422"]
        return document

    return openapi
