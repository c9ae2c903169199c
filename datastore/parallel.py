"""Use the cores for searches: one thread a query, and a batch shared out over all of them.

Left alone, faiss starts a team of threads for every call, and a server with many requests under way would
run as many teams as requests, each waiting for the others' cores.
"""

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import faiss

MOST_QUERIES_A_TASK = 64

Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Have faiss work in the calling thread alone.

    The number of faiss's threads is the calling thread's own setting, and is put back.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def alone(task: Callable[[slice], list[Result]], part: slice) -> list[Result]:
    """Return what `task` gives for a slice, with faiss working in the calling thread alone."""
    if faiss.omp_get_max_threads() == 1:
        return task(part)
    with one_thread():
        return task(part)


def share_out(task: Callable[[slice], list[Result]], count: int) -> list[Result]:
    """Return what `task` gives for the slices of a batch of `count`, in order, using all cores.

    The caller takes slices as the workers do, so that it waits for none who are busy with another batch. All
    callers share the workers.
    """
    if count < 2:
        return alone(task, slice(0, 1)) if count else []
    cores = os.cpu_count() or 1
    slices = _slices(count, cores)
    batch = _Batch(task, slices)
    for _ in range(min(cores, len(slices)) - 1):
        _workers(cores - 1).put(batch)
    batch.work()
    return [result for part in batch.wait() for result in part]


def _slices(count: int, cores: int) -> list[slice]:
    """Return slices of a batch, about as many as there are cores, or more of MOST_QUERIES_A_TASK.

    The first is larger by one query, which is about what a worker takes to begin: who comes last need not
    be woken.
    """
    first = min(MOST_QUERIES_A_TASK, math.ceil((count + cores - 1) / cores)) if count > cores else 1
    size = min(MOST_QUERIES_A_TASK, math.ceil((count - first) / max(1, cores - 1))) or 1
    starts = range(first, count, size)
    return [slice(0, first), *(slice(start, min(start + size, count)) for start in starts)]


class _Batch(Generic[Result]):
    """Have slices worked through by whoever comes, the caller among them."""

    def __init__(self, task: Callable[[slice], list[Result]], slices: list[slice]) -> None:
        self._results: list[list[Result]] = [[]] * len(slices)
        self._task: Callable[[slice], list[Result]] | None = task
        self._left = deque(enumerate(slices))
        self._ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def work(self) -> None:
        """Take slices until none is left, or one fails."""
        task, failure = self._task, None
        while task is not None and failure is None:
            try:
                place, part = self._left.popleft()
            except IndexError:
                return
            try:
                self._results[place] = alone(task, part)
            except BaseException as error:  # noqa: BLE001 - the caller raises it
                failure = error
            self._ended.put(failure)

    def wait(self) -> list[list[Result]]:
        """Return all results once nobody works on any; raise what a slice raised, and drop those left.

        The batch keeps nothing of them: it may lie with a worker who is busy for longer.
        """
        results, failures, ended = self._results, [], 0
        while ended < len(results):
            failure = self._ended.get()
            ended += 1
            if failure is not None:
                failures.append(failure)
            while failures and self._left:
                with suppress(IndexError):  # another thread took the last
                    self._left.pop()
                    ended += 1
        self._task, self._results = None, []
        try:
            if failures:
                raise failures[0]
        finally:
            del failure, failures  # or their tracebacks would hold this frame, and it them
        return results


class _Workers:
    """Start the threads that work on batches, once in each process."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin without threads: those of the process this one was forked from do not run in it."""
        self._lock = threading.Lock()
        self._count = 0
        self._batches: SimpleQueue[_Batch[Any]] = SimpleQueue()

    def __call__(self, count: int) -> "SimpleQueue[_Batch[Any]]":
        """Return where batches are put, with so many threads or more at the other end."""
        if self._count < count:
            with self._lock:
                while self._count < count:
                    name = f"compactds-search-{self._count}"
                    threading.Thread(target=_run, args=(self._batches,), name=name, daemon=True).start()
                    self._count += 1
        return self._batches


def _run(batches: "SimpleQueue[_Batch[Any]]") -> None:
    while True:
        batch = batches.get()
        batch.work()
        del batch  # or it would be kept until the next comes


_workers = _Workers()
os.register_at_fork(after_in_child=_workers.renew)
