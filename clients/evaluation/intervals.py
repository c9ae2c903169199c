"""Confidence intervals: how far a figure would move with other queries or questions of the same kind."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

SEED = 2025
RESAMPLES = 2000
CONFIDENCE = 0.95
MAX_DRAWS = 4_000_000  # random indices held at a time: 32 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """Hold the ends of a 95 % confidence interval."""

    low: float
    high: float


def bootstrap_mean(values: Sequence[float], *, seed: int = SEED) -> Interval | None:
    """Return the percentile bootstrap interval of the mean; None for fewer than two values.

    2,000 resamples of the whole sample with replacement (Efron 1979); the seed makes it repeatable.
    """
    if len(values) < 2:
        return None
    import numpy as np

    sample = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    step = max(1, MAX_DRAWS // len(sample))
    means = np.concatenate(
        [
            sample[generator.integers(len(sample), size=(min(step, RESAMPLES - start), len(sample)))].mean(1)
            for start in range(0, RESAMPLES, step)
        ]
    )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def wilson(correct: float, total: int) -> Interval:
    """Return Wilson's score interval of a proportion (Wilson 1927); `correct` may be fractional."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share = correct / total
    scale = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # The share itself lies inside, and the interval of 0 or all ends there, which rounding can miss.
    low = 0.0 if correct == 0 else max(0.0, min(share, centre - half))
    high = 1.0 if correct == total else min(1.0, max(share, centre + half))
    return Interval(low, high)


def mean_of_proportions(counts: Sequence[tuple[float, int]]) -> Interval:
    """Return the interval of the plain mean of several proportions, given (correct, total) of each.

    Wilson's limits of each proportion are combined by their squared distances from it (MOVER, Zou and
    Donner 2008): for one proportion the result is Wilson's interval, and it does not collapse when
    every answer is right or wrong.
    """
    below = above = total_share = 0.0
    for correct, total in counts:
        share, interval = correct / total, wilson(correct, total)
        total_share += share
        below += (share - interval.low) ** 2
        above += (interval.high - share) ** 2
    mean = total_share / len(counts)
    return Interval(
        max(0.0, mean - math.sqrt(below) / len(counts)), min(1.0, mean + math.sqrt(above) / len(counts))
    )
