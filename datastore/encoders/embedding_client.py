"""Ask an embedding server for vectors over HTTP: batches, time limits, retries."""

import email.utils
import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn

import httpx2
import numpy as np

from compactds.datastore.encoders.base import Vectors
from compactds.datastore.errors import EncoderError

_log = logging.getLogger(__name__)

Protocol = Literal["openai", "tei"]
_ATTEMPTS = 5
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 60.0
_TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_CONTENT_TOO_LARGE = 413
_REFUSED = frozenset({400, _CONTENT_TOO_LARGE, 422})
_SHOWN_CHARACTERS = 300
# What servers say of a text that is too long, and what number they name as the most they take:
# "must have less than 512 tokens", "maximum context length is 8192 tokens", "8191 input tokens at most".
_ABOUT_LENGTH = re.compile(
    r"\b(tokens?|context|input|prompt)\b.*\b(length|tokens?|long|large)\b", re.I | re.S
)
_LIMIT = re.compile(r"(?:less than|max\w*|limit\w*|at most|up to|exceed\w*)[^0-9]{0,60}([0-9][0-9,_]*)", re.I)


class TextTooLongError(EncoderError):
    """Report a text longer than the server's model takes; `limit` is how the server puts it."""

    code = "text_too_long"

    def __init__(self, message: str, *, value: int, remedy: str, limit: str) -> None:
        super().__init__(message, value=value, remedy=remedy)
        self.limit = limit


class EmbeddingClient:
    """Ask an embedding server for vectors: in batches, with a time limit, and again if it is busy.

    Connection errors and statuses 408, 429, 500, 502, 503 and 504 are tried five times in all, waiting
    as long as Retry-After says, else 0.5 s doubling each time, and at most 60 s.
    """

    def __init__(
        self,
        protocol: Protocol,
        url: str,
        model: str,
        batch_size: int = 32,
        api_key: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._protocol = protocol
        self._url = _address(protocol, url)
        self._model = model
        self._batch_size = batch_size
        self._sleep = sleep
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx2.Client(headers=headers, timeout=_TIMEOUT)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row per text; raise EncoderError if the server fails or makes no sense."""
        batches = [
            self._embed_batch(texts[start : start + self._batch_size])
            for start in range(0, len(texts), self._batch_size)
        ]
        if len({batch.shape[1] for batch in batches}) != 1:
            self._fail("gave vectors of different dimensions", None)
        return np.concatenate(batches)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _embed_batch(self, texts: Sequence[str]) -> Vectors:
        if self._protocol == "openai":
            body: dict[str, Any] = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        else:
            body = {"inputs": list(texts), "normalize": False, "truncate": False}
        rows = self._rows(self._post(body))
        try:
            vectors = np.array(rows, np.float32)
        except (TypeError, ValueError):
            self._fail("gave vectors that are not lists of numbers of one length", None)
        if vectors.ndim != 2 or vectors.shape[0] != len(texts) or vectors.shape[1] == 0:
            self._fail(f"gave an array of shape {vectors.shape} for {len(texts)} texts", vectors.shape)
        return vectors

    def _rows(self, answer: Any) -> list[Any]:
        if self._protocol == "tei":
            return answer if isinstance(answer, list) else self._fail("gave no list of vectors", None)
        try:
            items = sorted(answer["data"], key=lambda item: int(item["index"]))
            return [item["embedding"] for item in items]
        except (TypeError, KeyError, ValueError):
            self._fail("gave no data[].index and data[].embedding", None)

    def _post(self, body: dict[str, Any]) -> Any:
        """Send one request, again while that may help, and return the JSON answer."""
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            wait_s = min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S)
            try:
                response = self._http.post(self._url, json=body)
            except httpx2.TransportError as error:
                if last:
                    self._fail(f"cannot be reached: {error or type(error).__name__}", None)
                _log.warning("%s: %s; trying again in %.1f s", self._url, error, wait_s)
            else:
                if response.status_code not in _RETRIED or last:
                    return self._answer(response)
                wait_s = _retry_after_s(response, wait_s)
                _log.warning("%s: status %d; trying again in %.1f s", self._url, response.status_code, wait_s)
            self._sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def _answer(self, response: httpx2.Response) -> Any:
        if response.status_code != httpx2.codes.OK:
            remedy = "Check the url, the model's name and the server's log."
            if response.status_code in (401, 403):
                remedy = "Put a valid key into the environment variable that api_key_env names."
            elif response.status_code in _REFUSED:
                remedy = "If a text is too long for the model, split into shorter passages."
                self._check_length(response, remedy)
            self._fail(f"answered {response.status_code}: {_shown(response)}", response.status_code, remedy)
        try:
            return response.json()
        except ValueError:
            self._fail(f"answered with what is not JSON: {_shown(response)}", None)

    def _check_length(self, response: httpx2.Response, remedy: str) -> None:
        """Raise TextTooLongError if the server says that it is a text's length that it refuses."""
        said = _shown(response)
        if response.status_code != _CONTENT_TOO_LARGE and not _ABOUT_LENGTH.search(said):
            return
        named = _LIMIT.search(said)
        raise TextTooLongError(
            f"the {self._protocol} endpoint {self._url} answered {response.status_code}: {said}.",
            value=response.status_code,
            remedy=remedy,
            limit=f"{named[1]} tokens" if named else f"what it says: {said}",
        )

    def _fail(
        self, what: str, value: Any, remedy: str = "Check the url, and that it is such a server."
    ) -> NoReturn:
        raise EncoderError(f"the {self._protocol} endpoint {self._url} {what}.", value=value, remedy=remedy)


def _address(protocol: Protocol, url: str) -> str:
    """Return where to post: the url itself if it names the route, else the route under it."""
    if not url.startswith(("http://", "https://")):
        raise EncoderError(
            f"the url {url!r} is not one of an HTTP server.",
            value=url,
            remedy="Write it as http://host:port/v1 (openai) or http://host:port (tei).",
        )
    base = url.rstrip("/")
    route = "/embeddings" if protocol == "openai" else "/embed"
    return base if base.endswith(route) else base + route


def _retry_after_s(response: httpx2.Response, default_s: float) -> float:
    """Return the wait that Retry-After asks for, in seconds or as a date, at most 60 s."""
    value = response.headers.get("Retry-After", "").strip()
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return default_s
    return min(max(wait_s, 0.0), _LONGEST_WAIT_S)


def _shown(response: httpx2.Response) -> str:
    return " ".join(response.text.split())[:_SHOWN_CHARACTERS] or "an empty body"
