"""Measure what the stages of a search take."""

import time


class Clock:
    """Add up what each stage takes, in milliseconds."""

    def __init__(self, timings: dict[str, float]) -> None:
        self._timings = timings
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Count the time since the last lap towards `stage`."""
        now = time.perf_counter()
        self._timings[stage] = self._timings.get(stage, 0.0) + 1000 * (now - self._last)
        self._last = now
