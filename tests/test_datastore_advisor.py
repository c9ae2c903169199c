"""The code advisor measures recall that brute force confirms, on samples of bounded size."""

from itertools import pairwise

import numpy as np
import pytest

from compactds.datastore.advisor import (
    LEAST_ROWS,
    QUERIES,
    RERANKED,
    SAMPLE_BYTES,
    SAMPLE_ROWS,
    count_codes,
    measure_codes,
    measured_sizes,
    open_vectors,
    sample_rows,
    split_sample,
)
from compactds.datastore.ann.choose import choose_index
from compactds.datastore.errors import VectorError
from compactds.datastore.expectation import CANDIDATES_FOR_95, MEASURED_ROWS, expect_recall, known_candidates


@pytest.fixture(scope="module")
def vectors():
    """Clustered unit vectors of 16 dimensions."""
    draw = np.random.default_rng(2)
    rows = draw.standard_normal((30, 16))[draw.integers(0, 30, 2_000)] + 0.5 * draw.standard_normal(
        (2_000, 16)
    )
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def sample(vectors):
    return split_sample(vectors)


@pytest.fixture(scope="module")
def measured(sample):
    return list(measure_codes(sample))


def test_queries_are_not_among_the_vectors_and_their_neighbours_are_true(vectors, sample):
    assert (len(sample.queries), len(sample.vectors)) == (200, 1_800)
    assert not (sample.vectors[:, None, :4] == sample.queries[:5, :4]).all(axis=2).any()
    expected = np.argsort(-(sample.queries @ sample.vectors.T), axis=1)[:, :10]
    assert np.array_equal(np.sort(sample.truth), np.sort(expected))


def test_all_kinds_are_measured_the_stores_own_first(measured):
    assert len(measured) == count_codes(16)
    names = [one.name for one in measured]
    assert names[0].startswith("PQ 4 bits")
    assert any(name.startswith("RaBitQ 1 bit") for name in names)
    assert names[-1] == "float16, as it is"


def test_float16_finds_all_and_coarser_codes_never_more_than_finer_ones(measured):
    flat = measured[-1]
    assert flat.recall > 0.995
    assert flat.code_bytes == 2 * 16
    assert flat.candidates[0.99] == 10
    stores = [one for one in measured if one.name.startswith("PQ")]
    assert [one.code_bytes for one in stores] == sorted((one.code_bytes for one in stores), reverse=True)
    assert all(finer.recall >= coarser.recall - 0.03 for finer, coarser in pairwise(stores))


def test_more_candidates_hold_more(measured):
    for one in measured:
        assert one.recall <= one.reranked[RERANKED[0]] <= one.reranked[RERANKED[1]]
        counts = [count or 10_000 for count in one.candidates.values()]
        assert counts == sorted(counts)
        assert one.ram_bytes == one.code_bytes + 8
        assert one.queries_per_second > 0


def test_a_measure_says_when_a_thousand_candidates_are_too_few(sample):
    from compactds.datastore.advisor import _candidates_for

    found = np.full((2, 3), -1)
    found[:, 0] = [5, 7]
    assert _candidates_for(found, np.array([[5, 6], [7, 8]])) == {0.9: None, 0.95: None, 0.99: None}


def test_samples_are_bounded_in_rows_and_in_bytes():
    assert len(sample_rows(10**7, 384)) == SAMPLE_ROWS + QUERIES
    assert len(sample_rows(10**6, 4096)) * 4096 * 4 <= SAMPLE_BYTES
    assert np.array_equal(sample_rows(50, 8), np.arange(50))
    assert len(sample_rows(10**5, 384, most=10_000)) == 10_000


def test_code_sizes_of_builds_are_measured_and_a_finer_one():
    assert measured_sizes(384) == [64, 40, 32, 24, 16, 12]
    assert measured_sizes(2) == [1]


@pytest.mark.parametrize("shape", [(LEAST_ROWS - 1, 4), (2_000,)])
def test_too_few_vectors_are_refused(shape):
    with pytest.raises(VectorError, match="too few"):
        split_sample(np.ones(shape, np.float32))


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_vectors_that_are_none_are_counted_and_refused(vectors, bad):
    broken = vectors.copy()
    broken[[3, 9]] = bad
    with pytest.raises(VectorError, match="2 of 2,000 sampled vectors are zero or not finite"):
        split_sample(broken)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_vectors_whose_length_overflows_are_not_called_zero_or_not_finite(vectors, scale):
    broken = vectors.copy()
    broken[[3, 9]] *= np.float32(scale)
    with pytest.raises(VectorError, match="2 of 2,000 sampled vectors are too long or too short") as refused:
        split_sample(broken)
    assert refused.value.remedy == "Scale all vectors."


class TestVectorFiles:
    def test_floats_are_mapped(self, tmp_path, vectors):
        np.save(tmp_path / "v.npy", vectors)
        assert np.array_equal(open_vectors(tmp_path / "v.npy"), vectors)

    @pytest.mark.parametrize("array", [np.ones(3), np.ones((3, 4), np.int32), np.empty((0, 4))])
    def test_other_arrays_are_refused(self, tmp_path, array):
        np.save(tmp_path / "v.npy", array)
        with pytest.raises(VectorError):
            open_vectors(tmp_path / "v.npy")

    def test_what_is_no_array_is_refused(self, tmp_path):
        (tmp_path / "v.npy").write_bytes(b"no array")
        (tmp_path / "empty.npy").touch()
        np.savez(tmp_path / "v.npz", vectors=np.ones((3, 4)))
        for name in ("v.npy", "empty.npy", "v.npz"):
            with pytest.raises(VectorError, match=rf"/{name}: it is no \.npy file\.") as refused:
                open_vectors(tmp_path / name)
            assert "as numpy.save writes it" in refused.value.remedy
        with pytest.raises(VectorError, match=r"absent\.npy: No such file or directory\.") as refused:
            open_vectors(tmp_path / "absent.npy")
        assert "path" in refused.value.remedy

    def test_what_is_wrong_with_an_array_is_not_said_in_words_of_numpy(self, tmp_path):
        np.save(tmp_path / "v.npy", np.array([[None]]), allow_pickle=True)
        np.save(tmp_path / "w.npy", np.ones((3, 4)))
        whole = (tmp_path / "w.npy").read_bytes()
        (tmp_path / "short.npy").write_bytes(whole[:-1])
        (tmp_path / "header.npy").write_bytes(whole.replace(b"(3, 4)", b"(3, 4 "))
        for name in ("v.npy", "short.npy", "header.npy"):
            with pytest.raises(VectorError, match=f"/{name}: the .npy file is damaged or cut short"):
                open_vectors(tmp_path / name)


class TestExpectedRecall:
    def test_flat_indexes_are_exact(self):
        assert expect_recall(choose_index(100, 16, memory_bytes=1 << 30), 100, 16).recall == 1.0

    def test_graphs_are_not_foretold(self):
        plan = choose_index(100, 16, memory_bytes=1 << 30, kind="hnsw")
        assert expect_recall(plan, 100, 16).recall is None

    def test_vectors_at_hand_are_measured(self, vectors):
        plan = choose_index(2_000, 16, memory_bytes=1 << 30, kind="ivf", code_bytes=8)
        found = expect_recall(plan, 2_000, 16, vectors)
        assert found.recall == 0.95
        assert found.candidates is not None
        assert "1,800 of your vectors" in found.source

    def test_without_any_it_says_which_were_measured(self):
        plan = choose_index(50_000, 384, memory_bytes=1 << 30)
        found = expect_recall(plan, 50_000, 384)
        assert found.recall == 0.95
        assert "MiniLM" in found.source

    def test_what_was_measured_comes_back_nearly(self):
        for ratio, counts in CANDIDATES_FOR_95.items():
            for rows, count in zip(MEASURED_ROWS, counts, strict=True):
                assert known_candidates(ratio, rows) == pytest.approx(count, rel=0.35)

    def test_more_rows_and_coarser_codes_take_more(self):
        assert known_candidates(9.6, 10**6) > known_candidates(9.6, 10**5)
        assert known_candidates(24, 10**5) > known_candidates(12, 10**5)
