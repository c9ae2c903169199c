"""Say what went wrong as an RFC 9457 problem: one shape for every error the server sends."""

import logging
import reprlib
from http import HTTPStatus
from typing import Any, cast

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from compactds.datastore.errors import (
    DamagedStoreError,
    EncoderMismatchError,
    EncoderNotFoundError,
    PassageNotFoundError,
    SearchError,
    StoreFormatError,
)
from compactds.filters.corpus.overlap import OverlapError
from compactds.filters.errors import CompactdsError, WhereError

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
MAX_VALUE_BYTES = 500

_STATUS_OF_ERROR: dict[type[CompactdsError], int] = {
    WhereError: 422,
    SearchError: 422,
    OverlapError: 422,
    PassageNotFoundError: 404,
}

_LASTING_ERRORS = (DamagedStoreError, EncoderMismatchError, EncoderNotFoundError, StoreFormatError)
"""Faults of the store or its encoder that asking again cannot mend."""

_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed"}


class ProblemError(HTTPException):
    """Refuse a request; `field` names the part of the body at fault, `value` what stood there."""

    def __init__(
        self, status: int, code: str, detail: str, *, remedy: str = "", value: Any = None, field: str = ""
    ) -> None:
        super().__init__(status, detail)
        self.code = code
        self.remedy = remedy
        self.value = value
        self.field = field


def request_id(scope: Scope) -> str:
    """Return the id under which the server logs this request."""
    return str(scope.get("state", {}).get("request_id", ""))


def problem_response(problem: HTTPException, scope: Scope) -> Response:
    """Return a problem as a response; an HTTPException of the framework gets a code by its status."""
    status = problem.status_code
    if not isinstance(problem, ProblemError):
        code = _CODE_OF_STATUS.get(status, "http_error")
        remedy = "GET /openapi.json lists the routes and their methods." if status in (404, 405) else ""
        headers = problem.headers
        problem = ProblemError(status, code, _http_detail(problem, scope), remedy=remedy)
        problem.headers = headers
    content = {
        "type": f"urn:compactds:problem:{problem.code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": _printable(problem.detail),
        "code": problem.code,
        "field": abridge(problem.field) or None,
        "value": abridge(problem.value),
        "remedy": _printable(problem.remedy),
        "request_id": request_id(scope),
    }
    headers = dict(problem.headers or {})
    body = orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
    return Response(body, status, headers, media_type=PROBLEM_TYPE)


def problem_of(error: CompactdsError, scope: Scope) -> ProblemError:
    """Return the problem for an error of the engine; what the caller can't mend is logged, not told."""
    for kind, status in _STATUS_OF_ERROR.items():
        if isinstance(error, kind):
            place = _place_in_body(error) if isinstance(error, WhereError) else ""
            return ProblemError(
                status, error.code, error.message, remedy=error.remedy, value=error.value, field=place
            )
    logger.error("request %s: %s: %s", request_id(scope), error.code, error)
    if isinstance(error, _LASTING_ERRORS):
        return ProblemError(
            500,
            error.code,
            "The store cannot answer.",
            remedy="Report the request id to whoever runs the server; its log says more.",
        )
    return ProblemError(
        503,
        error.code,
        "The store cannot answer at present.",
        remedy="Try again later; the server's log says more under this request id.",
    )


def _place_in_body(error: WhereError) -> str:
    """Return what of the body is at fault: a where expression, or what it says of one field."""
    where = "where" if error.place is None else f"where[{error.place}]"
    return where if error.field is None else f"{where}.{error.field}"


def internal_problem() -> ProblemError:
    """Return the problem for an error nobody foresaw."""
    return ProblemError(
        500,
        "internal_error",
        "The server failed to answer.",
        remedy="Report the request id to whoever runs the server; its log says more.",
    )


async def handle_http_error(request: Request, error: Exception) -> Response:
    """Answer a refused request, an unknown route or a wrong method."""
    return problem_response(cast(HTTPException, error), request.scope)


async def handle_engine_error(request: Request, error: Exception) -> Response:
    """Answer a request that the engine refused."""
    return problem_response(problem_of(cast(CompactdsError, error), request.scope), request.scope)


def abridge(value: Any) -> Any:
    """Return a value as JSON can hold it, cut to a size a person reads."""
    try:
        huge = isinstance(value, str | list | dict) and len(value) > MAX_VALUE_BYTES
        if not huge and len(orjson.dumps(value)) <= MAX_VALUE_BYTES:
            return value
    except TypeError:
        pass  # too deep, half a surrogate pair, or not JSON: shown as text below
    if isinstance(value, str):
        return _printable(value[:MAX_VALUE_BYTES]) + ("…" if len(value) > MAX_VALUE_BYTES else "")
    return _printable(reprlib.repr(value))


def _http_detail(error: HTTPException, scope: Scope) -> str:
    if error.status_code == 404:
        return f"There is nothing at {scope['path']!r}."
    if error.status_code == 405:
        return f"{scope['path']!r} does not take {scope['method']}."
    return error.detail


def _printable(text: str) -> str:
    """Return text that UTF-8 can hold: half a surrogate pair becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode()
