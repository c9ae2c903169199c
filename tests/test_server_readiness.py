"""Readiness: one probe for many health checks, beside the searches and never for ever."""

import threading
from collections import Counter

import anyio
import pytest
from anyio import to_thread

from compactds.datastore.errors import EncoderError, SearchError
from compactds.server.readiness import Readiness


class ProbedEngine:
    """Count what is called, and fail or wait as told."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.failure: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()

    def search(self, query, *, k):
        self.calls["search"] += 1
        self.go_on.wait()
        if self.failure:
            raise self.failure

    def count(self):
        self.calls["count"] += 1
        return 3


@pytest.fixture
def engine():
    return ProbedEngine()


def test_the_outcome_of_a_probe_is_good_for_some_seconds(engine):
    now = [0.0]
    readiness = Readiness(engine, fresh_s=5.0, clock=lambda: now[0])
    assert anyio.run(readiness.failure) is None
    engine.failure = EncoderError("gone")
    now[0] = 4.9
    assert anyio.run(readiness.failure) is None
    now[0] = 5.0
    assert anyio.run(readiness.failure) is engine.failure
    lost, engine.failure = engine.failure, None
    assert anyio.run(readiness.failure) is lost
    now[0] = 10.0
    assert anyio.run(readiness.failure) is None
    assert engine.calls == {"search": 3}


def test_a_probe_at_the_start_saves_the_first_health_check_one(engine):
    readiness = Readiness(engine, clock=lambda: 0.0)
    readiness.probe()
    assert anyio.run(readiness.failure) is None
    assert engine.calls == {"search": 1}


def test_a_store_that_takes_no_text_is_counted(engine):
    engine.failure = SearchError("this store takes vectors.")
    assert anyio.run(Readiness(engine).failure) is None
    assert engine.calls == {"search": 1, "count": 1}


def test_health_checks_at_once_share_one_probe(engine):
    readiness = Readiness(engine, clock=lambda: 0.0)

    async def run():
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(readiness.failure)

    anyio.run(run)
    assert engine.calls == {"search": 1}


def test_a_probe_needs_none_of_the_threads_that_searches_share(engine):
    async def run():
        go_on = threading.Event()
        searches = to_thread.current_default_thread_limiter()
        async with anyio.create_task_group() as group:
            for _ in range(int(searches.total_tokens)):
                group.start_soon(to_thread.run_sync, go_on.wait)
            while searches.available_tokens:
                await anyio.sleep(0)
            failure = await Readiness(engine).failure()
            go_on.set()
        return failure

    assert anyio.run(run) is None


def test_a_probe_that_hangs_is_a_failure_and_holds_no_more_than_one_thread(engine):
    engine.go_on.clear()
    readiness = Readiness(engine, patience_s=0.01)

    async def run():
        try:
            return [await readiness.failure() for _ in range(3)]
        finally:
            engine.go_on.set()

    assert [type(failure) for failure in anyio.run(run)] == [TimeoutError] * 3
    assert engine.calls == {"search": 1}
