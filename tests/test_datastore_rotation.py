"""The rotation of codes keeps inner products, and shares the variance out to the sub-quantisers."""

import numpy as np
import pytest

from compactds.datastore.ann.rotation import balanced_rotation

DIMENSION = 24


def uneven(rows: int, seed: int = 0) -> np.ndarray:
    """Rows whose variance falls by half from axis to axis, turned any which way."""
    draw = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(draw.standard_normal((DIMENSION, DIMENSION)))
    wide = draw.standard_normal((rows, DIMENSION)) * 0.5 ** (np.arange(DIMENSION) / 2)
    return np.ascontiguousarray(wide @ turned, dtype=np.float32)


@pytest.mark.parametrize("rows", [2_000, DIMENSION, 3, 1])
def test_inner_products_keep(rows):
    sample = uneven(rows)
    turned = balanced_rotation(sample, 6, DIMENSION).apply(sample)
    np.testing.assert_allclose(turned @ turned.T, sample @ sample.T, atol=1e-4)


def test_groups_share_the_variance():
    sample = uneven(5_000)
    turned = balanced_rotation(sample, 6, DIMENSION).apply(sample)
    told = np.log(turned.var(axis=0)).reshape(6, 4).sum(axis=1)
    assert np.ptp(told) < 1.5  # in groups of neighbours, it would be more than ten


def test_the_narrowest_directions_are_left_out():
    sample = uneven(5_000)
    turned = balanced_rotation(sample, 5, 20).apply(sample)
    assert turned.shape == (5_000, 20)
    lost = 1 - turned.var(axis=0).sum() / sample.var(axis=0).sum()
    assert 0 <= lost < 1e-4


@pytest.mark.parametrize(
    "sample",
    [np.ones((50, DIMENSION)), np.zeros((50, DIMENSION)), np.eye(DIMENSION)[np.arange(90) % 3]],
    ids=["all alike", "nothing", "in three directions"],
)
def test_vectors_that_do_not_span_the_space(sample):
    sample = sample.astype(np.float32)
    turned = balanced_rotation(sample, 6, DIMENSION).apply(sample)
    assert np.isfinite(turned).all()
    np.testing.assert_allclose(turned @ turned.T, sample @ sample.T, atol=1e-3)


def test_the_same_sample_gives_the_same_rotation():
    first, second = (balanced_rotation(uneven(400), 6, DIMENSION).apply(uneven(10, 1)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_dimensions_are_added_where_there_are_fewer_than_are_wanted():
    sample = np.random.default_rng(0).standard_normal((50, 1)).astype(np.float32)
    turned = balanced_rotation(sample, 2, 2).apply(sample)
    assert turned.shape == (50, 2)
    np.testing.assert_allclose(turned @ turned.T, sample @ sample.T, atol=1e-4)
