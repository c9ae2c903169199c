"""Tell whether the store can be searched just now, without searching for every health check."""

import logging
import threading
import time
from collections.abc import Callable

import anyio
from anyio import CapacityLimiter, to_thread

from compactds.datastore.errors import SearchError
from compactds.server.engine import SearchEngine

logger = logging.getLogger(__name__)

FRESH_S = 5.0
"""How long the outcome of a probe is good for."""

PATIENCE_S = 30.0
"""How long a health check waits for a probe; an encoder may still be loading."""


class Readiness:
    """Search for one passage now and then, in a thread of its own, and remember how it ended.

    The thread is not one of those that requests share, so busy searches do not hold up the answer.
    """

    def __init__(
        self,
        engine: SearchEngine,
        *,
        fresh_s: float = FRESH_S,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._fresh_s = fresh_s
        self._patience_s = patience_s
        self._clock = clock
        self._limiter = CapacityLimiter(1)
        self._under_way = threading.Lock()
        self._probed: tuple[float, Exception | None] | None = None

    async def failure(self) -> Exception | None:
        """Return why the store cannot be searched, None if it can; probe unless the last one is fresh."""
        if not self._is_fresh():
            try:
                with anyio.fail_after(self._patience_s):
                    await to_thread.run_sync(
                        self._probe_unless_fresh, abandon_on_cancel=True, limiter=self._limiter
                    )
            except TimeoutError as error:
                return error
        assert self._probed is not None
        return self._probed[1]

    def probe(self) -> None:
        """Search for one passage; a store of ready-made vectors, which takes no text, counts its rows."""
        failure: Exception | None = None
        try:
            try:
                self._engine.search("ready", k=1)
            except SearchError:
                self._engine.count()
        except Exception as error:
            # The server runs on all the same: /readyz says that it cannot search, and requests say why.
            logger.exception("the store cannot be searched")
            failure = error
        self._probed = self._clock(), failure

    def _is_fresh(self) -> bool:
        return self._probed is not None and self._clock() - self._probed[0] < self._fresh_s

    def _probe_unless_fresh(self) -> None:
        if self._is_fresh():
            return  # another health check probed while this one waited
        if not self._under_way.acquire(blocking=False):
            raise TimeoutError("the last probe has not ended")
        try:
            self.probe()
        finally:
            self._under_way.release()
