"""What a server is told: where to listen, who may ask, and how much one request may ask for."""

from dataclasses import asdict, dataclass, field

from compactds.server.errors import InvalidKeyError, KeyRequiredError

MAX_DIMENSION = 65_536
"""Numbers of a vector in a request."""

MAX_QUERIES = 10_000
"""Queries of a request, whatever max_batch says."""


MAX_EXCLUDED = 20_000
"""Questions that the results of a request must not overlap with."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Hold the settings of one server.

    `host` and `port` say where to listen; port 0 takes a free one. `api_key`, if set, must come with
    every request but the health checks, and an address outside this machine needs one. `max_hits`
    bounds k times the number of queries, and with it the size of an answer; `max_concurrent` bounds the
    requests under way at once. `drain_s` is how long running requests may take to finish when the server
    stops.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_key: str | None = field(default=None, repr=False)
    max_k: int = 1_000
    max_batch: int = 256
    max_hits: int = 50_000
    max_candidates: int = 100_000
    max_query_chars: int = 100_000
    max_body_bytes: int = 16_000_000
    max_concurrent: int = 64
    drain_s: int = 10

    def limits(self) -> dict[str, int]:
        """Return the limits on requests, as GET /v1/store publishes them."""
        limits = {name: value for name, value in asdict(self).items() if name.startswith("max_")}
        return {**limits, "max_batch": min(self.max_batch, MAX_QUERIES), "max_dimension": MAX_DIMENSION}


def check_api_key(key: str | None) -> None:
    """Raise ServeError for a key that is empty, or that a header cannot carry as it is."""
    if key is None:
        return
    if not key.strip():
        raise KeyRequiredError("the API key is empty.", remedy="Give a key, or leave it out on 127.0.0.1.")
    if key != key.strip() or not key.isprintable():
        raise InvalidKeyError(
            "the API key begins or ends with a blank, or holds a line break or control character.",
            remedy="Give it without; a key read from a file often ends with a line break.",
        )
