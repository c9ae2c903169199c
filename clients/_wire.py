"""Requests as bytes and answers as results: all that the two clients share, without any waiting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Generic, NoReturn, TypeVar
from urllib.parse import quote

import httpx2
import orjson

from compactds.clients.errors import (
    AuthenticationError,
    BadRequestError,
    ClientError,
    ConnectionFailedError,
    NotFoundError,
    ServerError,
    TimedOutError,
    UnavailableError,
    UnexpectedResponseError,
)
from compactds.clients.results import Hit, Hits, Passage, SearchReport

MAX_ID_CHARS = 32_768
"""Characters of a percent-encoded passage id; URLs end somewhere above."""

T = TypeVar("T")
Outcome = httpx2.Response | httpx2.RequestError


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and how to read its answer; `patient` calls are sent again when the server is busy."""

    method: str
    path: str
    read: Callable[[Any], T]
    content: bytes | None = None
    patient: bool = True

    def finish(self, outcome: Outcome) -> T:
        """Return the result of the last attempt, or raise the ClientError it means."""
        if isinstance(outcome, httpx2.RequestError):
            _raise_failure(outcome)
        if outcome.status_code != 200:
            raise problem_error(outcome)
        try:
            return self.read(orjson.loads(outcome.content))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnexpectedResponseError(
                f"{outcome.request.url} answered with something else than a result: {error!r}.",
                status=outcome.status_code,
                remedy="Check that the URL is that of a compactds server.",
            ) from None


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a server: the arguments both clients give to their HTTP client."""

    url: str
    api_key: str | None
    timeout_s: float
    arguments: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        try:
            url = httpx2.URL(self.url)
        except (httpx2.InvalidURL, TypeError) as error:
            raise _url_error(self.url, f": {error}") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise _url_error(self.url, "")
        headers: dict[str, str | bytes] = {"content-type": "application/json", "accept": "application/json"}
        if self.api_key is not None:
            _check_key(self.api_key)
            headers["authorization"] = f"Bearer {self.api_key}".encode()
        # A proxy never stands between a machine and itself.
        arguments = {"base_url": url, "headers": headers, "timeout": self.timeout_s}
        object.__setattr__(self, "arguments", {**arguments, "trust_env": not _is_loopback(url.host)})


def search_call(
    query: str | Sequence[str] | None,
    vectors: Any,
    k: int,
    where: Any,
    candidates: int | None,
    recall: float | None,
    mode: str,
    exclude_overlap_with: Sequence[str] | bool | None,
) -> Call[Hits | list[Hits]]:
    """Return the call for a search; one query is answered by Hits, several by a list of Hits."""
    body: dict[str, Any] = {"k": k, "explain": True}
    if query is not None:
        body["query"] = query if isinstance(query, str) else list(query)
    if vectors is not None:
        body["vectors" if _is_batch(vectors) else "vector"] = vectors
    options = {"where": where, "candidates": candidates, "recall": recall}
    if not isinstance(exclude_overlap_with, bool | str | None):
        exclude_overlap_with = list(exclude_overlap_with)
    options["exclude_overlap_with"] = exclude_overlap_with
    body |= {name: value for name, value in options.items() if value is not None}
    if mode != "dense":
        body["mode"] = mode
    return Call("POST", "/v1/search", _read_search, encode(body))


def get_call(passage_id: str) -> Call[Passage]:
    """Return the call for one passage."""
    encoded = quote(passage_id, safe="", errors="surrogatepass")
    if len(encoded) > MAX_ID_CHARS:
        raise BadRequestError(
            f"a passage id of {len(passage_id):,} characters does not fit in a URL.",
            code="invalid_request",
            value=passage_id[:100],
            remedy="Give an id as search results give it.",
        )
    return Call("GET", f"/v1/passages/{encoded}", _read_passage)


def count_call(where: Any) -> Call[int]:
    """Return the call that counts passages."""
    return Call("POST", "/v1/count", lambda data: int(data["count"]), encode(_with_where({}, where)))


def facets_call(fields: Sequence[str], where: Any, limit: int) -> Call[dict[str, list[tuple[Any, int]]]]:
    """Return the call that counts the values of fields."""
    names = fields if isinstance(fields, str) else list(fields)
    return Call(
        "POST", "/v1/facets", _read_facets, encode(_with_where({"fields": names, "limit": limit}, where))
    )


def describe_call() -> Call[dict[str, Any]]:
    """Return the call that describes the store."""
    return Call("GET", "/v1/store", lambda data: dict(data))


def ready_call() -> Call[bool]:
    """Return the call that asks whether the server can search; it is not sent again."""
    return Call("GET", "/readyz", lambda data: data["status"] == "ready", patient=False)


def encode(body: Any) -> bytes:
    """Return a body as JSON; raise BadRequestError for what JSON cannot hold.

    NumPy arrays and numbers, dates, and objects with a `to_json()` method are taken as they are.
    """
    try:
        return orjson.dumps(
            body, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS
        )
    except TypeError as error:
        cause = error.__cause__ or error
        raise BadRequestError(
            f"the request cannot be written as JSON: {cause}.",
            code="invalid_request",
            remedy="Give text, numbers, dates, lists and dicts with string keys.",
        ) from None


def problem_error(response: httpx2.Response) -> ClientError:
    """Return the error for a response that is not a result."""
    status = response.status_code
    kind = _error_kind(status)
    try:
        problem = orjson.loads(response.content)
        return kind(
            str(problem["detail"]),
            code=str(problem["code"]),
            value=problem.get("value"),
            remedy=str(problem.get("remedy", "")),
            field=problem.get("field"),
            status=status,
            request_id=str(problem.get("request_id", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return kind(
            f"{response.request.url} answered {status} {response.reason_phrase}.",
            status=status,
            remedy="Check that the URL is that of a compactds server.",
        )


def _error_kind(status: int) -> type[ClientError]:
    if status in (401, 403):
        return AuthenticationError
    if status == 404:
        return NotFoundError
    if status in (429, 503):
        return UnavailableError
    if status >= 500:
        return ServerError
    return BadRequestError if status >= 400 else UnexpectedResponseError


def _raise_failure(error: httpx2.RequestError) -> NoReturn:
    url = error.request.url
    if isinstance(error, httpx2.TimeoutException):
        raise TimedOutError(
            f"{url} did not answer in time.", value=str(url), remedy="Give the client a larger timeout_s."
        ) from error
    if isinstance(error, httpx2.TransportError):
        raise ConnectionFailedError(
            f"cannot reach {url}: {error or type(error).__name__}.",
            value=str(url),
            remedy="Check the URL, and that the server runs.",
        ) from error
    raise UnexpectedResponseError(f"{url} answered with something that is not HTTP: {error}.") from error


def _with_where(body: dict[str, Any], where: Any) -> dict[str, Any]:
    return body if where is None else {**body, "where": where}


def _is_batch(vectors: Any) -> bool:
    dimensions = getattr(vectors, "ndim", None)
    if dimensions is not None:
        return bool(dimensions != 1)
    return len(vectors) > 0 and hasattr(vectors[0], "__len__")


def _plain(value: Any) -> Any:
    for name in ("to_json", "tolist"):
        method = getattr(value, name, None)
        if method is not None:
            return method()
    raise TypeError(f"it holds a {type(value).__name__}")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def closed_error() -> ClientError:
    """Return the error of a client that is used after it was closed."""
    return ClientError("the client is closed.", remedy="Make another, and ask inside its with block.")


def _check_key(key: Any) -> None:
    """Raise BadRequestError for a key that a header cannot carry as it is; the key is not shown."""
    if not isinstance(key, str) or not key or key != key.strip() or not key.isprintable():
        raise BadRequestError(
            "the API key is empty or no text, begins or ends with a blank, or holds a line break or "
            "control character.",
            code="invalid_request",
            remedy="Give it without; a key read from a file often ends with a line break.",
        )


def _url_error(url: Any, why: str) -> BadRequestError:
    return BadRequestError(
        f"{url!r} is not the URL of a server{why}.",
        value=url,
        remedy="Give one such as http://127.0.0.1:8080.",
    )


def _read_search(data: Any) -> Hits | list[Hits]:
    return [_read_hits(part) for part in data["results"]] if "results" in data else _read_hits(data)


def _read_hits(data: Any) -> Hits:
    report = data["report"]
    return Hits(
        (Hit(hit["score"], hit["rank"], _read_passage(hit["passage"])) for hit in data["hits"]),
        SearchReport(
            report["plan"],
            report["matching"],
            report["candidates"],
            report["timings_ms"],
            report["truncated"],
            report["predicted_ms"],
            report["excluded"],
        ),
    )


def _read_passage(data: Any) -> Passage:
    return Passage(
        id=data["id"],
        document_id=data["document_id"],
        position=data["position"],
        title=data["title"],
        text=data["text"],
        source=data["source"],
        start=data["start"],
        end=data["end"],
        attributes=data["attributes"],
    )


def _read_facets(data: Any) -> dict[str, list[tuple[Any, int]]]:
    return {
        name: [(entry["value"], entry["count"]) for entry in values]
        for name, values in data["facets"].items()
    }
