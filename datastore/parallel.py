"""Use the cores for searches: one thread a query, and a batch shared out over all of them.

Left alone, faiss starts a team of threads for every call, and a server with many requests under way would
run as many teams as requests, each waiting for the others' cores.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

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

    The workers are shared by all callers, so that concurrent batches do not outnumber the cores.
    """
    if count < 2:
        return alone(task, slice(0, 1)) if count else []
    workers = os.cpu_count() or 1
    size = min(MOST_QUERIES_A_TASK, -(-count // workers))
    slices = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    if len(slices) < 2:
        return [result for part in slices for result in alone(task, part)]
    parts = _workers(workers, os.getpid()).map(lambda part: alone(task, part), slices)
    return [result for part in parts for result in part]


@lru_cache(maxsize=1)
def _workers(count: int, process: int) -> ThreadPoolExecutor:
    """Return the threads of a process; those of the one it was forked from do not run in it."""
    del process
    return ThreadPoolExecutor(count, thread_name_prefix="compactds-search")
