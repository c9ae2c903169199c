"""Read request bodies, and say in one problem which key is wrong, what it held and what it takes."""

import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, cast, get_type_hints

import orjson
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from compactds.filters.errors import nearest
from compactds.server.problems import ProblemError, abridge, problem_response

_JSON_TYPE = re.compile(r"application/([\w.-]+\+)?json\s*(;.*)?", re.IGNORECASE)

BRANCHES = ("one", "many", "object", "text", "flag")
"""Tags of unions in request bodies; they are part of an error's place, not of the body."""

MAX_KEY_CHARS = 100
"""How much of an unknown key is shown."""

_EXPECTED = {
    "bool_type": "true or false",
    "float_type": "a number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_type": "a whole number",
    "less_than_equal": "at most {le:g}",
    "list_type": "a list",
    "string_type": "a string",
    "too_long": "at most {max_length} of them",
    "too_short": "at least {min_length} of them",
}
"""What pydantic's types of errors mean, filled in from their context."""


class JsonRequest(Request):
    """A request whose body is parsed by orjson: no NaN, no half surrogate pairs, bounded depth."""

    async def json(self) -> Any:
        """Return the parsed body; raise ProblemError for anything but JSON."""
        try:
            return orjson.loads(await self.body())
        except orjson.JSONDecodeError as error:
            raise ProblemError(
                400,
                "invalid_json",
                f"The body is not JSON: {error}.",
                remedy="Send one JSON object in UTF-8, without NaN, Infinity or unpaired surrogates.",
            ) from None


class JsonRoute(APIRoute):
    """A route whose body, if it takes one, is JSON and says so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with the content type checked first."""
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def check_and_handle(request: Request) -> Response:
            if takes_body:
                check_content_type(request.headers.get("content-type"))
            return await handle(JsonRequest(request.scope, request.receive))

        return check_and_handle


def check_content_type(content_type: str | None) -> None:
    """Raise ProblemError unless a content type is that of JSON."""
    if content_type is None or not _JSON_TYPE.fullmatch(content_type.strip()):
        raise ProblemError(
            415,
            "unsupported_media_type",
            f"The body's type is {content_type or 'not given'}, expected application/json.",
            remedy="Send the header 'Content-Type: application/json'.",
            value=content_type,
        )


async def handle_invalid_body(request: Request, error: Exception) -> Response:
    """Answer a body that parses as JSON but does not have the shape the route takes."""
    errors = cast(RequestValidationError, error).errors()
    model = get_type_hints(request.scope["endpoint"])["body"]
    return problem_response(describe_invalid(errors, model), request.scope)


def describe_invalid(errors: Sequence[Mapping[str, Any]], model: type[BaseModel]) -> ProblemError:
    """Return the problem for the first of pydantic's errors about a body.

    An unknown key comes before the others: a required key that is missing may be the same one, misspelt.
    """
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    location = first["loc"][1:]
    path = body_path(location)
    value = first["input"]
    kind = first["type"]
    if not location:
        return ProblemError(
            422,
            "invalid_request",
            "The request has no body." if kind == "missing" else "The body is not a JSON object.",
            remedy=f"Send a JSON object with the keys: {_known_keys(model)}.",
            value=value,
        )
    if kind == "extra_forbidden":
        key = path[:MAX_KEY_CHARS]
        near = nearest(key, model.model_fields)
        remedy = f"Did you mean {near!r}?" if near else f"Known keys: {_known_keys(model)}."
        return ProblemError(422, "unknown_key", f"Unknown key {key!r}.", remedy=remedy, value=key, field=key)
    if kind == "missing":
        detail, value = f"{path} is missing.", None
    else:
        shown = abridge(value)
        shown = shown if isinstance(shown, str) and shown is not value else orjson.dumps(shown).decode()
        detail = f"{path} is {shown}, expected {_expected(first)}."
    remedy = _remedy(path, model)
    if kind == "too_long":
        return ProblemError(422, "limit_exceeded", detail, remedy=remedy, value=value, field=path)
    return ProblemError(422, "invalid_request", detail, remedy=remedy, value=value, field=path)


def body_path(location: Sequence[str | int]) -> str:
    """Return a place in a body as one would write it: `query[3]`."""
    path = ""
    for index, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif index == 0:
            path = part
        elif part not in BRANCHES:
            path += f".{part}"
    return path


def _expected(error: Mapping[str, Any]) -> str:
    """Return what should have stood there, in our words or else in pydantic's."""
    phrase = _EXPECTED.get(error["type"])
    if phrase is not None:
        return phrase.format(**error.get("ctx", {}))
    return str(error["msg"]).removeprefix("Input should be ")


def _known_keys(model: type[BaseModel]) -> str:
    return ", ".join(field.alias or name for name, field in model.model_fields.items())


def _remedy(path: str, model: type[BaseModel]) -> str:
    key = re.split(r"[.\[]", path)[0]
    for name, field in model.model_fields.items():
        if key in (name, field.alias):
            return f"{key}: {field.description}"
    return ""
