"""Run one system in a process of its own and answer the benchmark, one JSON message a line.

The process knows nothing of the benchmark but this file and one adapter, and needs NumPy alone besides what
the adapter imports, so that each system can have an environment of its own. An adapter is a module with

    build(vectors, folder, threads, options)   vectors of shape (n, d), float16, mapped; None
    open_index(folder, threads, options)       the index as an Index, below

What a library prints goes to standard error; standard output belongs to the messages.
"""

import ctypes
import gc
import importlib
import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

K = 10
WARM_UP_QUERIES = 20
TINY_ROWS = 2_000

Rows = NDArray[np.int64]
One = Callable[[NDArray[np.float32]], Sequence[int] | Rows]
Many = Callable[[NDArray[np.float32]], Sequence[Sequence[int]] | Rows]


class Index(Protocol):
    """An opened index. `ram_bytes` is all it keeps in memory, computed from its structure."""

    settings: Sequence[dict[str, Any]]
    ram_bytes: int

    def prepare(self, setting: dict[str, Any]) -> tuple[One, Many | None]:
        """Return what answers one query, shape (d,), and what answers a batch, shape (n, d), if it can."""
        ...

    def close(self) -> None: ...


class Worker:
    """Hold an adapter, its open index and the queries between messages."""

    def __init__(self, adapter: Any, threads: int) -> None:
        self.adapter = adapter
        self.threads = threads
        self.index: Index | None = None
        self.queries = np.empty((0, 0), np.float32)
        self.before: dict[str, int] = {}

    def build(self, vectors: str, folder: str, options: dict[str, Any]) -> dict[str, Any]:
        """Build an index of all vectors, and a tiny one that `open` warms itself up with."""
        rows = np.load(vectors, mmap_mode="r")
        for name, part in (("tiny", rows[:TINY_ROWS]), ("whole", rows)):
            (Path(folder) / name).mkdir(parents=True)
            start = time.perf_counter()
            self.adapter.build(part, Path(folder) / name, self.threads, options)
            seconds = time.perf_counter() - start
        return {"build_seconds": seconds, "versions": versions(self.adapter.PACKAGES)}

    def open(self, folder: str, queries: str, options: dict[str, Any]) -> dict[str, Any]:
        """Open the index; what libraries take for themselves is taken before, by opening a tiny one."""
        self.queries = np.load(queries).astype(np.float32)
        tiny = self.adapter.open_index(Path(folder) / "tiny", self.threads, options)
        one = tiny.prepare(tiny.settings[0])[0]
        for query in self.queries[:WARM_UP_QUERIES]:
            one(query)
        tiny.close()
        del tiny, one
        self.before = memory()
        start = time.perf_counter()
        self.index = self.adapter.open_index(Path(folder) / "whole", self.threads, options)
        return {
            "open_seconds": time.perf_counter() - start,
            "settings": list(self.index.settings),
            "ram_bytes": int(self.index.ram_bytes),
            "disk_bytes": folder_bytes(Path(folder) / "whole"),
        }

    def memory(self) -> dict[str, Any]:
        """Return by how much the process grew since before it opened the index, in bytes."""
        return {name: value - self.before[name] for name, value in memory().items()}

    def ask(
        self, setting: dict[str, Any], order: Sequence[int], batch: int, seconds: float | None, answers: bool
    ) -> dict[str, Any]:
        """Ask the queries named by `order` one at a time or in batches, at most for so many seconds.

        Returns seconds for each call, and the rows found if `answers`.
        """
        assert self.index is not None
        one, many = self.index.prepare(setting)
        queries = self.queries[np.asarray(order)]
        call: Any = one
        calls: Any = queries
        if batch > 1:
            if many is None:
                return {"cannot_batch": True}
            call = many
            calls = [queries[start : start + batch] for start in range(0, len(queries), batch)]
        for query in calls[: max(1, WARM_UP_QUERIES // batch)]:
            call(query)
        gc.collect()
        taken: list[float] = []
        found: list[Any] = []
        asked = 0
        clock = time.perf_counter
        end = clock() + seconds if seconds else float("inf")
        for query in calls:
            start = clock()
            rows = call(query)
            stop = clock()
            taken.append(stop - start)
            asked += len(query) if batch > 1 else 1
            if answers:
                found.extend(rows if batch > 1 else [rows])
            if stop > end:
                break
        reply: dict[str, Any] = {"seconds": taken, "asked": asked}
        if answers:
            reply["rows"] = [[int(row) for row in rows] for rows in found]
        return reply


def memory() -> dict[str, int]:
    """Return what the process holds: memory of its own, and pages of mapped files."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kib = {name: int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile", "RssShmem")}
    return {"own_bytes": kib["RssAnon"] + kib["RssShmem"], "mapped_bytes": kib["RssFile"]}


def folder_bytes(folder: Path) -> int:
    """Return what a folder takes on disk."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the installed versions of packages."""
    return {name: importlib.metadata.version(name) for name in packages}


def serve(worker: Worker, messages: TextIO, replies: TextIO) -> None:
    """Carry out messages until there are no more; an error is a reply, too."""
    for line in messages:
        message = json.loads(line)
        try:
            reply = getattr(worker, message.pop("do"))(**message)
        except Exception as error:  # noqa: BLE001 (the edge of the process)
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main(module: str, threads: int) -> None:
    run_worker(module, threads, Worker)


def run_worker(module: str, threads: int, kind: Callable[[Any, int], Worker]) -> None:
    """Answer messages from standard input with a worker of this kind."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(kind(importlib.import_module(module), threads), sys.stdin, replies)
