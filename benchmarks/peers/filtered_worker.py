"""Run one system in a process of its own and ask it filtered queries.

What `worker` does, and besides: an index that filters has a method

    prepare_filtered(setting, where)    what answers one query, shape (d,), of rows that `where` allows

and what it does to get ready for a filter is not in the time of a query: systems that take a bitmap are given
it for nothing. `where` is None for all rows. After a query, `plan` may name the way it was answered.
"""

import gc
import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.worker import Worker, run_worker

LONGEST_REPEATED_SECONDS = 0.5


class FilteredWorker(Worker):
    """Hold queries with their filters, too."""

    cases: Sequence[dict[str, Any]] = ()

    def build(self, vectors: str, folder: str, options: dict[str, Any]) -> dict[str, Any]:
        """Build as every worker does, and tell the most memory that took."""
        return {**super().build(vectors, folder, options), "build_peak_bytes": self.peak()["peak_bytes"]}

    def read_cases(self, path: str) -> dict[str, Any]:
        """Read what will be asked: for each case the number of a query, and where."""
        self.cases = json.loads(Path(path).read_text())
        return {"cases": len(self.cases)}

    def ask_cases(
        self,
        setting: dict[str, Any],
        numbers: Sequence[int],
        repeats: int,
        warm_up: float | None,
        answers: bool,
    ) -> dict[str, Any]:
        """Ask each case so often, after asking it for `warm_up` seconds and once at least, if it is a number.

        Returns the seconds of each call in a list for each case, empty if it cannot be asked; why, by the
        case's number; and the rows found and the plan of the last call of each if `answers`.
        """
        assert self.index is not None
        index: Any = self.index
        reply: dict[str, Any] = {"seconds": [], "rows": [], "plans": [], "failed": {}}
        gc.collect()
        for number in numbers:
            case = self.cases[number]
            query, rows, taken = self.queries[case["query"]], [], []
            try:
                one = index.prepare_filtered(setting, case["where"])
                if warm_up is not None:
                    until = time.perf_counter() + warm_up
                    one(query)
                    while time.perf_counter() < until:
                        one(query)
                for _ in range(repeats):
                    start = time.perf_counter()
                    rows = one(query)
                    taken.append(time.perf_counter() - start)
                    if taken[-1] > LONGEST_REPEATED_SECONDS:
                        break
            except Exception as error:  # noqa: BLE001 (a filter that a system cannot answer is a result)
                traceback.print_exc(limit=1, file=sys.stderr)
                reply["failed"][str(number)] = f"{type(error).__name__}: {error}"[:300]
                taken, rows = [], []
            reply["seconds"].append(taken)
            if answers:
                reply["rows"].append([int(row) for row in rows])
                reply["plans"].append(getattr(index, "plan", None))
        return reply if answers else {"seconds": reply["seconds"]}

    def time_filters(self, numbers: Sequence[int], repeats: int) -> dict[str, Any]:
        """Return the milliseconds that the filters of cases take alone, none if the index cannot tell."""
        index: Any = self.index
        if not hasattr(index, "time_filter"):
            return {"times": []}
        return {"times": [index.time_filter(self.cases[number]["where"], repeats) for number in numbers]}

    def peak(self) -> dict[str, Any]:
        """Return the most memory the process has held so far, in bytes."""
        lines = Path("/proc/self/status").read_text().splitlines()
        (most,) = [line for line in lines if line.startswith("VmHWM")]
        return {"peak_bytes": int(most.split()[1]) * 1024}


def main(module: str, threads: int) -> None:
    run_worker(module, threads, FilteredWorker)
