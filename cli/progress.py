"""Progress of long jobs, on standard error: bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compactds.cli.output import warn

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from compactds.indexer.progress import Progress


class LineProgress:
    """Print a line when a stage starts and ends, and at most one per interval between."""

    def __init__(self, *, interval_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._name = ""
        self._total: int | None = None
        self._done = 0
        self._started = self._printed = 0.0

    def stage(self, name: str, total: int | None) -> None:
        """Start a stage of `total` steps, or of an unknown number."""
        self.close()
        self._name, self._total, self._done = name, total, 0
        self._started = self._printed = self._clock()
        warn(f"{name} …" if total is None else f"{name}: {total:,} …")

    def advance(self, amount: int) -> None:
        """Count steps done."""
        self._done += amount
        now = self._clock()
        if now - self._printed >= self._interval_s:
            self._printed = now
            warn(f"{self._name}: {self._state(now - self._started)}")

    def note(self, message: str) -> None:
        """Print a message."""
        warn(message)

    def close(self) -> None:
        """End the stage that runs."""
        if self._name:
            counted = f"{self._done:,} " if self._done or self._total is not None else ""
            warn(f"{self._name}: {counted}done in {self._clock() - self._started:.1f} s")
            self._name = ""

    def _state(self, elapsed_s: float) -> str:
        rate = self._done / elapsed_s
        if not self._total:
            return f"{self._done:,}, {rate:,.0f}/s"
        left = f", {(self._total - self._done) / rate:,.0f} s left" if rate else ""
        return f"{self._done:,} of {self._total:,} ({self._done / self._total:.0%}), {rate:,.0f}/s{left}"


class BarProgress:
    """Draw a bar per stage with rich."""

    def __init__(self, bars: "Bars") -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, name: str, total: int | None) -> None:
        """Start a stage of `total` steps, or of an unknown number."""
        self.close()
        self._task = self._bars.add_task(name, total=total)

    def advance(self, amount: int) -> None:
        """Count steps done."""
        if self._task is not None:
            self._bars.advance(self._task, amount)

    def note(self, message: str) -> None:
        """Print a message above the bars."""
        from rich.text import Text

        self._bars.console.print(Text(message))

    def close(self) -> None:
        """End the stage that runs: a bar of unknown length is filled."""
        if self._task is not None:
            done = self._bars.tasks[self._task].completed
            self._bars.update(self._task, total=max(done, 1), completed=max(done, 1))
            self._bars.stop_task(self._task)
            self._task = None


@contextmanager
def progress() -> Iterator["Progress"]:
    """Yield a progress that suits standard error; the last stage ends with the block."""
    if not sys.stderr.isatty():
        lines = LineProgress()
        yield lines
        lines.close()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        drawn = BarProgress(bars)
        yield drawn
        drawn.close()
