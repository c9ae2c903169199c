"""Ask a server without blocking: the client for asyncio and trio."""

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import anyio
import httpx2

from compactds.clients import _wire
from compactds.clients._retries import Retries
from compactds.clients._wire import Call, Connection, Outcome
from compactds.clients.client import DEFAULT_URL
from compactds.clients.errors import UnavailableError
from compactds.clients.results import Hits, Passage

T = TypeVar("T")


class AsyncClient:
    """A client of one server; any number of tasks of one event loop may share it.

    Use it as an async context manager, or call `close`. `retries` is how often a request is sent again
    after a failed connection or a 429 or 503; `transport` replaces the network, for tests. Every method
    raises a ClientError if it has no answer to return.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 2,
        transport: httpx2.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self.url = url
        self._retries = Retries(retries)
        self._sleep = sleep
        self._http = httpx2.AsyncClient(**Connection(url, api_key, timeout_s).arguments, transport=transport)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @overload
    async def search(  # type: ignore[overload-overlap]
        self,
        query: str,
        *,
        k: int = 10,
        where: Any = None,
        candidates: int | None = None,
        recall: float | None = None,
        mode: str = "dense",
        exclude_overlap_with: Sequence[str] | bool | None = None,
    ) -> Hits: ...
    @overload
    async def search(
        self,
        query: Sequence[str],
        *,
        k: int = 10,
        where: Any = None,
        candidates: int | None = None,
        recall: float | None = None,
        mode: str = "dense",
        exclude_overlap_with: Sequence[str] | bool | None = None,
    ) -> list[Hits]: ...
    @overload
    async def search(
        self,
        query: None = None,
        *,
        vectors: Any,
        k: int = 10,
        where: Any = None,
        candidates: int | None = None,
        recall: float | None = None,
        mode: str = "dense",
        exclude_overlap_with: Sequence[str] | bool | None = None,
    ) -> Hits | list[Hits]: ...
    async def search(
        self,
        query: str | Sequence[str] | None = None,
        *,
        vectors: Any = None,
        k: int = 10,
        where: Any = None,
        candidates: int | None = None,
        recall: float | None = None,
        mode: str = "dense",
        exclude_overlap_with: Sequence[str] | bool | None = None,
    ) -> Hits | list[Hits]:
        """Return the `k` best passages for a query, or for each of several.

        Give `query` (text, or a list of texts) or `vectors` (one vector or several: lists or arrays).
        `where` is a dict, an SQL condition, or an object with a `to_json()` method; a list of these gives
        each query of a batch its own. `candidates` is how
        many rows are scored exactly; `recall`, above 0 up to 1, asks for an expected recall@k instead, and
        1.0 searches exhaustively. `mode` is how to search; 'dense', which compares vectors, is the only one.
        `exclude_overlap_with` holds the texts of evaluation questions that no passage returned may overlap
        with; True stands for each query's own text.
        """
        return await self._send(
            _wire.search_call(query, vectors, k, where, candidates, recall, mode, exclude_overlap_with)
        )

    async def get(self, passage_id: str) -> Passage:
        """Return one passage by its id; raise NotFoundError if the store does not hold it."""
        return await self._send(_wire.get_call(passage_id))

    async def count(self, where: Any = None) -> int:
        """Return how many passages a where expression allows."""
        return await self._send(_wire.count_call(where))

    async def facets(
        self, fields: Sequence[str], where: Any = None, limit: int = 10
    ) -> dict[str, list[tuple[Any, int]]]:
        """Return the most frequent values of each field among allowed passages, with their counts."""
        return await self._send(_wire.facets_call(fields, where, limit))

    async def describe(self) -> dict[str, Any]:
        """Return what the store is, and the server's limits on requests."""
        return await self._send(_wire.describe_call())

    async def health(self) -> bool:
        """Tell whether the server can search just now; raise ClientError if it does not answer at all."""
        try:
            return await self._send(_wire.ready_call())
        except UnavailableError:
            return False

    async def _send(self, call: Call[T]) -> T:
        attempt = 0
        while True:
            outcome: Outcome
            try:
                outcome = await self._http.request(call.method, call.path, content=call.content)
            except httpx2.RequestError as error:
                outcome = error
            except RuntimeError as error:
                if self._http.is_closed:
                    raise _wire.closed_error() from error
                raise
            wait_s = self._retries.wait_s(attempt, outcome, patient=call.patient)
            if wait_s is None:
                return call.finish(outcome)
            await self._sleep(wait_s)
            attempt += 1
