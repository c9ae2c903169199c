"""What lists are expected to hold beyond a threshold: the fit, and walks that rely on it."""

from dataclasses import replace

import numpy as np
import pytest

from compactds.datastore.ann.base import NO_ROW, Bounds
from compactds.datastore.ann.ivf import IvfIndex, open_ivf
from compactds.datastore.ann.ivf_build import build_ivf
from compactds.datastore.ann.ivf_shape import code_shape
from compactds.datastore.ann.reach import Reach, measure_reach
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.manifest import REACH_NUMBERS, _parse_segment

ROWS, DIMENSION = 20_000, 24


@pytest.fixture(scope="module")
def array() -> np.ndarray:
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((150, DIMENSION))
    rows = centres[draw.integers(0, 150, ROWS)] + 0.7 * draw.standard_normal((ROWS, DIMENSION))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def index(array, tmp_path_factory) -> IvfIndex:
    path = tmp_path_factory.mktemp("reach") / "index"
    shape = code_shape(DIMENSION, 12)
    build_ivf(path, iter([array]), sample=array, lists=200, shape=shape)
    reach = measure_reach(open_ivf(path), array[::40])
    return open_ivf(path, reach=reach)


def recall(
    index: IvfIndex, array: np.ndarray, queries: np.ndarray, mask: np.ndarray, bounds: Bounds
) -> float:
    _, rows = index.search(queries, 200, effort=10, allowed=Bitmap.from_mask(mask), bounds=bounds)
    assert mask[rows[rows != NO_ROW]].all()
    scores = np.where(mask, queries @ array.T, -9)
    best = np.argpartition(-scores, 10, axis=1)[:, :10]
    return float(np.mean([np.isin(true, found).mean() for true, found in zip(best, rows, strict=True)]))


def test_the_share_above_a_threshold_falls_with_the_gap_and_grows_with_the_rank(index):
    gaps = np.linspace(-0.5, 1.0, 50, dtype=np.float32)
    shares = index.reach.share_above(gaps, 10)
    assert (np.diff(shares) <= 0).all()
    assert 0 <= shares[-1] < 0.001 < shares[0] <= 1
    assert (index.reach.share_above(gaps, 300) >= shares).all()


def test_as_many_rows_are_expected_above_a_threshold_as_there_are(index, array):
    queries = array[7::200]
    expected, found = 0.0, 0
    for (scores, _), centroids in zip(
        index.thresholds(queries, 101), index.centroid_scores(queries), strict=True
    ):
        gaps = scores[100] - centroids
        expected += float((index.list_sizes() * index.reach.share_above(gaps, 100)).sum())
        found += 100
    assert 0.7 * found < expected < 1.4 * found


@pytest.mark.parametrize("side", ["near", "far", "even"])
def test_a_walk_goes_as_far_as_the_misses_allow_wherever_a_filter_leaves_rows(index, array, side):
    queries = array[np.argsort(-(array @ array[5]))[:60]]
    closeness = array @ array[5] * {"near": 1, "far": -1, "even": 0}[side]
    closeness = closeness + 0.1 * np.random.default_rng(1).standard_normal(ROWS)
    mask = closeness > np.quantile(closeness, 0.8)
    strict, loose = (recall(index, array, queries, mask, Bounds(10, misses)) for misses in (0.05, 4.0))
    assert strict >= 0.985
    assert loose <= strict
    most = Bounds(10, 0.0, most_rows=50)
    assert recall(index, array, queries, mask, most) < strict  # nothing beyond that is begun


def test_without_a_measured_reach_the_effort_says_how_far(index, array, tmp_path):
    plain = replace(index, reach=None)
    mask = np.arange(ROWS) % 5 == 0
    assert recall(plain, array, array[:50], mask, Bounds(10, 0.01)) >= 0.9


def test_too_few_rows_or_queries_are_not_fitted(index, array, tmp_path):
    assert measure_reach(index, array[:0]) is None
    few = array[:150]
    build_ivf(
        tmp_path / "few",
        iter([few]),
        sample=few,
        lists=3,
        shape=code_shape(DIMENSION, 4),
    )
    assert measure_reach(open_ivf(tmp_path / "few"), few[:20]) is None


def test_a_fit_that_would_grow_again_far_out_is_made_straight():
    class Flat:
        def list_sizes(self):
            return np.full(50, 100, np.float32)

        def thresholds(self, queries, count):
            lists = np.minimum(np.arange(count) // 2, 49)
            return [(np.linspace(1, 0.5, count, dtype=np.float32), lists) for _ in queries]

        def centroid_scores(self, queries):
            return [np.sqrt(np.linspace(1, 0, 50, dtype=np.float32)) for _ in queries]

    reach = measure_reach(Flat(), np.zeros((128, 4), np.float32))
    assert isinstance(reach, Reach)
    assert reach.bend <= 0


@pytest.mark.parametrize("length", [1e-3, 20.0, 1_000.0])
def test_vectors_of_any_length_are_fitted(array, tmp_path, length):
    longer = array[:8_000] * np.float32(length)
    shape = code_shape(DIMENSION, 12)
    build_ivf(tmp_path / "i", iter([longer]), sample=longer, lists=50, shape=shape)
    reach = measure_reach(open_ivf(tmp_path / "i"), longer[::60])
    assert np.isfinite([reach.level, reach.slope, reach.bend, reach.spread]).all()


@pytest.mark.parametrize("length", [0.01, 1.0, 100.0])
def test_codes_tell_vectors_of_any_length_apart(array, tmp_path, length):
    longer = array[:8_000] * np.float32(length)
    build_ivf(tmp_path / "i", iter([longer]), sample=longer, lists=50, shape=code_shape(DIMENSION, 12))
    _, rows = open_ivf(tmp_path / "i").search(longer[:100], 50, effort=50)
    best = np.argsort(-(longer[:100] @ longer.T), axis=1)[:, :10]
    assert np.mean([np.isin(true, found).mean() for true, found in zip(best, rows, strict=True)]) > 0.95


@pytest.mark.parametrize(
    "reach",
    [[1, 2, 3, 4], {"level": 1}, dict.fromkeys(REACH_NUMBERS, "1"), dict.fromkeys(REACH_NUMBERS, 10**400)],
)
def test_a_manifest_with_another_reach_than_four_numbers_is_refused(reach):
    record = {
        "kind": "ivf",
        "file": "ann.faiss",
        "parameters": {},
        "ram_bytes": 1,
        "reason": "",
        "reach": reach,
    }
    segment = {"name": "1-" + "0" * 16, "index": record, "files": {}}
    with pytest.raises(ValueError, match="reach"):
        _parse_segment(segment)
