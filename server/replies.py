"""Serialise answers: records straight to JSON, without a detour through models."""

from typing import Any

import orjson
from starlette.responses import Response

from compactds.datastore.records import Hits


def json_response(content: Any, status: int = 200) -> Response:
    """Return a JSON response, which ends with a line break for terminals; records are taken as they are."""
    return Response(
        orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE), status, media_type="application/json"
    )


def hits_content(hits: Hits, explain: bool) -> dict[str, Any]:
    """Return the part of an answer that belongs to one query."""
    content: dict[str, Any] = {"hits": hits}
    if explain:
        content["report"] = hits.report
    return content
