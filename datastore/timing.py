"""Measure what the stages of a search take."""

import time
from collections.abc import Mapping


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

    def lap_shares(self, spent: Mapping[str, float]) -> None:
        """Count the time since the last lap towards several stages, in proportion to what each spent.

        For stages that several threads went through at once, whose times add up to more than passed.
        """
        now = time.perf_counter()
        total = sum(spent.values()) or 1.0
        for stage, seconds in spent.items():
            share = 1000 * (now - self._last) * seconds / total
            self._timings[stage] = self._timings.get(stage, 0.0) + share
        self._last = now
