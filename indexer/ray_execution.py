"""Run the tasks of stages on Ray Data: over the cores of this machine, or of a cluster.

A task is a row of a Ray dataset, and mapping it calls the very function that other executors call. Workers
read and write the build's folder, so all machines need it, and the sources, under the same paths. What a
worker did not finish when it died is run again by Ray; since each file is written in one step, that changes
nothing.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from compactds.filters.errors import CompactdsError
from compactds.indexer.errors import BuildError
from compactds.indexer.execution import Report, StageFunction

ADDRESS_VARIABLE = "RAY_ADDRESS"
BLOCKS_PER_WORKER = 8


class RayExecutor:
    """Spread tasks over the Ray cluster that RAY_ADDRESS names, else over one started on this machine.

    `workers` is how many tasks run at a time: as many as there are cores, if left out. Raises BuildError if
    Ray is not installed, or there is no such cluster.
    """

    spreads_encoding = True

    def __init__(self, workers: int | None = None) -> None:
        self._ray = _import_ray()
        self._started = not self._ray.is_initialized()
        if self._started:
            # A cluster of our own is for this machine alone, and listens nowhere else.
            own = {"num_cpus": workers, "_node_ip_address": "127.0.0.1"}
            if os.environ.get(ADDRESS_VARIABLE):
                own = {}
            try:
                self._ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
            except (ConnectionError, ValueError) as error:
                raise BuildError(
                    f"no Ray cluster can be reached: {' '.join(str(error).split())[:300]}",
                    value=os.environ.get(ADDRESS_VARIABLE),
                    remedy=f"Check {ADDRESS_VARIABLE}, or leave it out to use this machine.",
                ) from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        available = int(self._ray.cluster_resources().get("CPU", 1))
        self.workers = min(workers or available, available)

    def map(
        self, function: StageFunction, context: Any, tasks: Sequence[Any], report: Report
    ) -> Iterator[dict[str, Any]]:
        """Yield the result of each task, in the order of the tasks."""
        if len(tasks) < 2:
            for task in tasks:
                yield function(context, task, report)
            return
        settings = self._ray.data.DataContext.get_current()
        settings.execution_options.preserve_order = True
        settings.enable_progress_bars = False
        given = self._ray.put((function, context, list(tasks)))
        blocks = min(len(tasks), BLOCKS_PER_WORKER * self.workers)
        numbers = self._ray.data.range(len(tasks), override_num_blocks=blocks)
        pool = self._ray.data.TaskPoolStrategy(size=min(self.workers, blocks))
        done = numbers.map(partial(_work, given), compute=pool, num_cpus=1)
        for row in done.iter_rows():
            if row["error"]:
                raise self._ray.cloudpickle.loads(row["error"])
            report(row["units"])
            yield json.loads(row["result"])

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._started:
            self._ray.shutdown()


def _work(given: Any, row: dict[str, Any]) -> dict[str, Any]:
    """Do the task of this number; give back its result, or its error where it is one of ours."""
    import ray

    function, context, tasks = ray.get(given)
    units = 0

    def report(amount: int) -> None:
        nonlocal units
        units += amount

    try:
        result = function(context, tasks[row["id"]], report)
    except (CompactdsError, OSError) as error:
        return {"result": "", "units": units, "error": ray.cloudpickle.dumps(error)}
    return {"result": json.dumps(result), "units": units, "error": b""}


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise BuildError(
            "building on Ray needs the package 'ray'.", remedy="Run: pip install 'compactds[ray]'."
        ) from None
    return ray
