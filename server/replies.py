"""Serialise answers: records straight to JSON, without a detour through models."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from compactds.datastore.records import Hits


def json_response(content: Any, status: int = 200) -> Response:
    """Return a JSON response; records, NumPy numbers, dates and read-only mappings are taken as they are."""
    body = orjson.dumps(content, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")


def hits_content(hits: Hits, explain: bool) -> dict[str, Any]:
    """Return the part of an answer that belongs to one query."""
    content: dict[str, Any] = {"hits": hits}
    if explain:
        content["report"] = hits.report
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"an answer holds a {type(value).__name__}, which JSON cannot")
