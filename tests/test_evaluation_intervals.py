import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactds.clients.evaluation.intervals import (
    MAX_DRAWS,
    Interval,
    bootstrap_mean,
    mean_of_proportions,
    wilson,
)


def test_wilson_agrees_with_published_values():
    # Newcombe (1998), table I: 81 of 263 and 15 of 148, score method without correction.
    first, second = wilson(81, 263), wilson(15, 148)
    assert (round(first.low, 4), round(first.high, 4)) == (0.2553, 0.3662)
    assert (round(second.low, 4), round(second.high, 4)) == (0.0624, 0.1605)


def test_wilson_does_not_collapse_when_everything_or_nothing_is_right():
    none, all_right = wilson(0, 20), wilson(20, 20)
    assert none.low == 0.0
    assert round(none.high, 4) == 0.1611
    assert all_right.high == 1.0
    assert round(all_right.low, 4) == 0.8389


@given(st.integers(1, 500).flatmap(lambda total: st.tuples(st.floats(0, total), st.just(total))))
def test_wilson_holds_the_share_and_mirrors_it(counts):
    correct, total = counts
    interval = wilson(correct, total)
    assert 0.0 <= interval.low <= correct / total <= interval.high <= 1.0
    mirrored = wilson(total - correct, total)
    assert math.isclose(mirrored.low, 1 - interval.high, abs_tol=1e-9)


def test_the_interval_of_one_proportion_is_wilsons():
    alone, expected = mean_of_proportions([(7, 10)]), wilson(7, 10)
    assert math.isclose(alone.low, expected.low)
    assert math.isclose(alone.high, expected.high)


def test_the_interval_of_a_mean_of_proportions_adds_squared_distances():
    one, two = wilson(5, 10), wilson(30, 40)
    interval = mean_of_proportions([(5, 10), (30, 40)])
    below = math.hypot(0.5 - one.low, 0.75 - two.low) / 2
    above = math.hypot(one.high - 0.5, two.high - 0.75) / 2
    assert interval == Interval(
        pytest.approx(0.625 - below),  # type: ignore[arg-type]
        pytest.approx(0.625 + above),  # type: ignore[arg-type]
    )


def test_more_subjects_narrow_the_interval():
    few, many = mean_of_proportions([(5, 10)] * 2), mean_of_proportions([(5, 10)] * 50)
    assert many.high - many.low < few.high - few.low


def test_bootstrap_approaches_the_normal_interval_of_a_large_sample():
    values = np.random.default_rng(7).normal(0.5, 0.1, 4000)
    interval = bootstrap_mean(values.tolist())
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert interval is not None
    assert interval.low == pytest.approx(values.mean() - half, abs=3e-4)
    assert interval.high == pytest.approx(values.mean() + half, abs=3e-4)


def test_bootstrap_repeats_with_its_seed_and_not_with_another():
    values = np.random.default_rng(3).random(50).tolist()
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)


def test_bootstrap_of_samples_larger_than_one_batch_of_draws():
    values = [0.0, 1.0] * (MAX_DRAWS // 1000)  # 500 resamples fit into a batch
    interval = bootstrap_mean(values[: MAX_DRAWS // 500 + 1])
    assert interval is not None
    assert interval.low < 0.5 < interval.high


def test_bootstrap_of_equal_values_is_a_point_and_of_one_value_nothing():
    assert bootstrap_mean([0.25] * 9) == Interval(0.25, 0.25)
    assert bootstrap_mean([0.25]) is None
    assert bootstrap_mean([]) is None
