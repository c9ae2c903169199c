"""Ask systems all cases: once for recall, then in rounds for time."""

import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from benchmarks.fanns.cases import UNFILTERED, Bucket, Problem
from benchmarks.peers.launch import Process

UNFILTERED_EVERY = 10  # buckets between two turns of the unfiltered queries
UNFILTERED_QUERIES = 10  # asked in such a turn


@dataclass(slots=True)
class Measured:
    """Hold what one setting of a system did in one bucket: recall a case, and seconds of calls."""

    setting: dict[str, Any]
    recalls: list[float]
    plans: list[str | None]
    first_seconds: float
    failed: list[str]
    disallowed: int
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @property
    def recall(self) -> float:
        return statistics.fmean(self.recalls)

    @property
    def p50_ms(self) -> float:
        return 1000 * float(np.median(self.seconds)) if self.seconds else float("nan")

    @property
    def p99_ms(self) -> float:
        return 1000 * float(np.percentile(self.seconds, 99)) if self.seconds else float("nan")

    @property
    def queries_per_second(self) -> float:
        return statistics.median(self.rates) if self.rates else float("nan")


@dataclass(slots=True)
class System:
    """Hold a running system, what its build and its opening cost, and what was measured of it."""

    name: str
    process: Process
    costs: dict[str, Any]
    settings: list[dict[str, Any]]
    measured: dict[Bucket, list[Measured]] = field(default_factory=dict)
    filter_ms: dict[Bucket, dict[str, float]] = field(default_factory=dict)

    def best(self, bucket: Bucket, recall: float) -> Measured | None:
        """Return the cheapest setting that reaches `recall` in a bucket, else the one with most recall."""
        asked = [one for one in self.measured.get(bucket, []) if not one.failed]
        able = [one for one in asked if one.recall >= recall]
        if able:
            return min(able, key=lambda one: one.first_seconds)
        return max(asked, key=lambda one: (one.recall, -one.first_seconds), default=None)


def numbers_by_bucket(problem: Problem) -> dict[Bucket, list[int]]:
    """Return the numbers of cases in each bucket."""
    found: dict[Bucket, list[int]] = defaultdict(list)
    for number, case in enumerate(problem.cases):
        found[case.bucket].append(number)
    return dict(found)


def ask_once(system: System, problem: Problem) -> None:
    """Ask each setting every case, which gives recall and a first idea of time."""
    buckets = numbers_by_bucket(problem)
    for bucket in buckets:
        system.measured[bucket] = []
    order = [number for numbers in buckets.values() for number in numbers]
    for setting in system.settings:
        reply = system.process.tell(
            "ask_cases", setting=setting, numbers=order, repeats=1, warm_up=None, answers=True
        )
        answered = dict(
            zip(order, zip(reply["rows"], reply["seconds"], reply["plans"], strict=True), strict=True)
        )
        for bucket, numbers in buckets.items():
            answers = [answered[number] for number in numbers]
            system.measured[bucket].append(
                Measured(
                    setting,
                    [problem.recall(number, answered[number][0]) for number in numbers],
                    [plan for _, _, plan in answers],
                    sum(sum(seconds) for _, seconds, _ in answers),
                    [reply["failed"][str(number)] for number in numbers if str(number) in reply["failed"]],
                    sum(problem.disallowed(number, answered[number][0]) for number in numbers),
                )
            )


def take_rounds(
    systems: Sequence[System],
    problem: Problem,
    chosen: Callable[[System, Bucket], Sequence[Measured]],
    *,
    rounds: int,
    repeats: int,
    timed: int,
    warm_up: float,
    tell: Callable[[str], None],
) -> None:
    """Time the chosen settings of all systems on the first `timed` cases of each bucket.

    Each case is asked for `warm_up` seconds before, as a filter is that an application uses all the time;
    so is each unfiltered query, which finds the processor's caches as filled.
    Buckets and systems come in another order in every round. The unfiltered queries come again and again
    within a round, so that what they are compared with is measured at the same time.
    """
    buckets = numbers_by_bucket(problem)
    filtered = [bucket for bucket in buckets if bucket != UNFILTERED]
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}: {len(filtered)} buckets")
        draw = random.Random(number)
        order = draw.sample(filtered, len(filtered))
        for place in range(0, len(order), UNFILTERED_EVERY):
            for bucket in (UNFILTERED, *order[place : place + UNFILTERED_EVERY]):
                turns = [(system, one) for system in systems for one in chosen(system, bucket)]
                numbers = buckets[bucket][:timed]
                if bucket == UNFILTERED:  # others each time
                    some = min(len(buckets[bucket]), UNFILTERED_QUERIES)
                    numbers = draw.sample(buckets[bucket], some)
                for system, one in draw.sample(turns, len(turns)):
                    time_turn(system, one, numbers, repeats, warm_up)


def time_turn(system: System, one: Measured, numbers: Sequence[int], repeats: int, warm_up: float) -> None:
    """Ask one setting the cases of a bucket, each for `warm_up` seconds before; note seconds and rate."""
    reply = system.process.tell(
        "ask_cases", setting=one.setting, numbers=numbers, repeats=repeats, warm_up=warm_up, answers=False
    )
    seconds = [taken for case in reply["seconds"] for taken in case]
    if seconds:
        one.seconds += seconds
        one.rates.append(len(seconds) / sum(seconds))


def time_filters(system: System, problem: Problem, repeats: int) -> None:
    """Note what the filters take alone, as median over a bucket, of a system that can tell."""
    for bucket, numbers in numbers_by_bucket(problem).items():
        if bucket == UNFILTERED:
            continue
        parts = system.process.tell("time_filters", numbers=numbers, repeats=repeats)["times"]
        if not parts:
            return
        system.filter_ms[bucket] = {
            name: statistics.median(part[name] for part in parts) for name in parts[0]
        }
