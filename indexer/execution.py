"""Who runs the tasks of a stage: this process, worker processes on this machine, or another engine.

A stage is a module-level function over files: it takes a context and a task, both small and picklable,
reads and writes files of the build's folder, and returns a small JSON-like result. So it does not matter
who runs it, and a task that was lost half way is simply run again.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from types import TracebackType
from typing import Any, Protocol

from compactds.indexer.errors import BuildError

Report = Callable[[int], None]
"""Takes how many more units of the stage are done."""
StageFunction = Callable[[Any, Any, Report], dict[str, Any]]
"""Does one task: (context, task, report) to a result that JSON can hold."""

MOST_DEFAULT_WORKERS = 8
_TASKS_AHEAD = 32  # for each worker, so that a long task keeps none of them waiting
_LOOK_EVERY_S = 0.2


class Executor(Protocol):
    """Run the tasks of stages."""

    @property
    def workers(self) -> int:
        """Return how many tasks run at a time."""
        ...

    @property
    def spreads_encoding(self) -> bool:
        """Say whether encoders are to be loaded by its workers, which may have more cores than this machine.

        Otherwise the process that builds encodes, with all cores and one copy of the model.
        """
        ...

    def map(
        self, function: StageFunction, context: Any, tasks: Sequence[Any], report: Report
    ) -> Iterator[dict[str, Any]]:
        """Yield the result of each task, in the order of the tasks.

        The error of the first task that fails, in that order, is raised; no further tasks are started.
        """
        ...

    def close(self) -> None:
        """End all processes this executor started."""
        ...


def default_workers() -> int:
    """Return how many processes to use when nobody says: one for each core, within reason."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_DEFAULT_WORKERS)


class LocalExecutor:
    """Run tasks in this process, or spread them over worker processes of this machine.

    Processes are started when a stage first has more than one task, and serve all stages after it. They
    end with this process, however it ends.
    """

    spreads_encoding = False

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise BuildError(
                f"{workers} workers cannot build anything.", value=workers, remedy="Give at least 1."
            )
        self.workers = workers
        self._pool: _Pool | None = None

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def map(
        self, function: StageFunction, context: Any, tasks: Sequence[Any], report: Report
    ) -> Iterator[dict[str, Any]]:
        """Yield the result of each task, in the order of the tasks."""
        if self.workers == 1 or len(tasks) < 2:
            for task in tasks:
                yield function(context, task, report)
            return
        try:
            yield from self._spread(function, context, tasks, report)
        except BrokenProcessPool as error:
            raise BuildError(
                "a worker process was ended from outside, perhaps because memory ran out.",
                value=self.workers,
                remedy="Free memory or give fewer --workers, and run the same command again.",
            ) from error

    def close(self) -> None:
        """End the worker processes; what they were doing is given up."""
        if self._pool is not None:
            self._pool.stopping.value = 1
            self._pool.processes.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _spread(
        self, function: StageFunction, context: Any, tasks: Sequence[Any], report: Report
    ) -> Iterator[dict[str, Any]]:
        pool = self._started()
        remaining = iter(tasks)
        running: deque[Future[dict[str, Any]]] = deque()

        def submit(count: int) -> None:
            for task in islice(remaining, count):
                running.append(pool.processes.submit(_work, function, context, task))

        told = pool.counted.value
        submit(self.workers * _TASKS_AHEAD)
        while running:
            future = running.popleft()
            finished = False
            while not finished:
                finished = bool(wait([future], timeout=_LOOK_EVERY_S).done)
                counted = pool.counted.value
                report(counted - told)
                told = counted
            yield future.result()
            submit(1)

    def _started(self) -> "_Pool":
        if self._pool is None:
            context = get_context("spawn")
            counted, stopping = context.Value("q", 0), context.Value("b", 0)
            processes = ProcessPoolExecutor(
                self.workers, mp_context=context, initializer=_begin, initargs=(counted, stopping)
            )
            self._pool = _Pool(processes, counted, stopping)
        return self._pool


@dataclass(frozen=True, slots=True)
class _Pool:
    """Hold worker processes, and what is shared with them: units done, and whether to give up."""

    processes: ProcessPoolExecutor
    counted: Any
    stopping: Any


class _Stopped(Exception):  # noqa: N818 - a signal to leave, not an error
    """Leave a task whose result nobody waits for."""


class _Worker:
    """Hold what a worker process shares with the process that started it."""

    counted: Any = None
    stopping: Any = None


def _begin(counted: Any, stopping: Any) -> None:
    """Set up a worker process: Ctrl-C is its parent's to handle, and it does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are as many as the cores already
    _Worker.counted, _Worker.stopping = counted, stopping
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _work(function: StageFunction, context: Any, task: Any) -> dict[str, Any]:
    return function(context, task, _report)


def _report(amount: int) -> None:
    if _Worker.stopping.value:
        raise _Stopped
    with _Worker.counted.get_lock():
        _Worker.counted.value += amount
