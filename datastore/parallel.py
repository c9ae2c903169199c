"""Use the cores for searches: one thread a query, and a batch shared out over all of them.

Left alone, faiss starts a team of threads for every call, and a server with many requests under way would
run as many teams as requests, each waiting for the others' cores.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
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

    The caller takes slices as the workers do, so that it waits for none who are busy. Those are shared by all
    callers: of concurrent batches, each gets its caller's thread, and the rest of the cores between them.
    """
    if count < 2:
        return alone(task, slice(0, 1)) if count else []
    cores = os.cpu_count() or 1
    size = min(MOST_QUERIES_A_TASK, -(-count // cores))
    batch = _Batch(task, [slice(start, min(start + size, count)) for start in range(0, count, size)])
    for _ in range(min(cores, len(batch.results)) - 1):
        _workers(cores - 1, os.getpid()).put(batch)
    batch.work()
    return [result for part in batch.wait() for result in part]


class _Batch(Generic[Result]):
    """Have slices worked through by whoever comes, the caller among them."""

    def __init__(self, task: Callable[[slice], list[Result]], slices: list[slice]) -> None:
        self.results: list[list[Result]] = [[]] * len(slices)
        self._task = task
        self._left = deque(enumerate(slices))
        self._ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def work(self) -> None:
        """Take slices until none is left, or one fails."""
        failure: BaseException | None = None
        while failure is None:
            try:
                place, part = self._left.popleft()
            except IndexError:
                return
            try:
                self.results[place] = alone(self._task, part)
            except BaseException as error:  # noqa: BLE001 - the caller raises it
                failure = error
            self._ended.put(failure)

    def wait(self) -> list[list[Result]]:
        """Return all results once nobody works on any; raise what a slice raised, and drop those left."""
        failure, ended = None, 0
        while ended < len(self.results):
            failure = self._ended.get() or failure
            ended += 1
            while failure and self._left:
                with suppress(IndexError):  # another thread took the last
                    self._left.pop()
                    ended += 1
        if failure:
            raise failure
        return self.results


@lru_cache(maxsize=1)
def _workers(count: int, process: int) -> "SimpleQueue[_Batch[Any]]":
    """Return where the threads of a process are given batches; those of the one it forked from do not run."""
    del process
    batches: SimpleQueue[_Batch[Any]] = SimpleQueue()

    def run() -> None:
        while True:
            batch = batches.get()
            batch.work()
            del batch  # or it would be kept until the next comes

    for number in range(count):
        threading.Thread(target=run, name=f"compactds-search-{number}", daemon=True).start()
    return batches
