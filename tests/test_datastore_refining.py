"""Searching codes and exact vectors in one step: the same answers as in two, and when it stands back."""

import numpy as np
import pytest

from compactds.datastore.ann.flat import build_flat, open_flat
from compactds.datastore.ann.ivf import open_ivf
from compactds.datastore.ann.ivf_build import build_ivf
from compactds.datastore.ann.ivf_shape import code_shape
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.plan import Plan
from compactds.datastore.refining import MOST_ASKINGS, refiner_for
from compactds.datastore.search import rescore
from compactds.datastore.vectors import ExactVectors

ROWS, DIMENSION = 3_000, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refining")
    array = np.random.default_rng(0).standard_normal((ROWS, DIMENSION)).astype("<f2")
    array[1::50] = array[0::50]  # a few rows are copies of the one before
    for name, rows in (("whole", ROWS), ("part", ROWS - 1)):
        array[:rows].tofile(folder / f"{name}.f16")
    array.astype("<f4").tofile(folder / "whole.f32")
    wide = array.astype(np.float32)
    shape = code_shape(DIMENSION, 8)
    build_ivf(folder / "ivf", iter([wide]), sample=wide, lists=20, shape=shape)
    build_flat(folder / "flat", iter([wide]), dimension=DIMENSION)
    return folder


def opened(folder, name="whole", dtype="float16", rows=ROWS) -> ExactVectors:
    path = folder / f"{name}.{'f16' if dtype == 'float16' else 'f32'}"
    return ExactVectors(path, rows=rows, dimension=DIMENSION, dtype=dtype)


def test_one_step_finds_what_two_steps_find_or_leaves_it_to_them(folder):
    index, vectors = open_ivf(folder / "ivf"), opened(folder)
    refiner = refiner_for(index, vectors)
    queries = np.random.default_rng(1).standard_normal((200, DIMENSION)).astype(np.float32)
    vectors.learn(10**12)  # nothing had to be read
    for k, candidates, effort in ((10, 50, 4), (1, 1, 20), (50, 50, 9)):
        settled = 0
        found = refiner.best(queries, k, candidates=candidates, effort=effort)
        _, proposed = index.search(queries, candidates, effort=effort)
        for query, rows, one in zip(queries, proposed, found, strict=True):
            if one is not None:
                settled += 1
                two = rescore(vectors, query, rows, k)
                np.testing.assert_array_equal(one[0], two.scores)
                np.testing.assert_array_equal(one[1], two.rows)
        assert settled > 150  # what is left has copies at its end, or lists that hold fewer rows


def test_a_query_alone_finds_what_it_finds_in_a_batch(folder):
    vectors = opened(folder)
    refiner = refiner_for(open_ivf(folder / "ivf"), vectors)
    queries = np.random.default_rng(2).standard_normal((20, DIMENSION)).astype(np.float32)
    vectors.learn(10**12)
    together = refiner.best(queries, 3, candidates=40, effort=5)
    for query, one in zip(queries, together, strict=True):
        (alone,) = refiner.best(query[None], 3, candidates=40, effort=5)
        assert (alone is None) == (one is None)
        if one is not None:
            np.testing.assert_array_equal(alone[0], one[0])
            np.testing.assert_array_equal(alone[1], one[1])


def test_rows_that_have_to_be_read_from_disk_are_left_to_two_steps(folder):
    vectors = opened(folder)
    query = np.ones((1, DIMENSION), np.float32)
    assert vectors.cold  # until a request has shown otherwise
    assert refiner_for(open_ivf(folder / "ivf"), vectors).best(query, 3, candidates=9, effort=2) == [None]


def test_only_half_floats_under_an_index_of_the_same_rows_are_searched_in_one_step(folder):
    index = open_ivf(folder / "ivf")
    assert refiner_for(index, opened(folder, dtype="float32")) is None
    assert refiner_for(index, opened(folder, "part", rows=ROWS - 1)) is None
    assert refiner_for(open_flat(folder / "flat"), opened(folder)) is None


def planned(candidates, effort, grows=True):
    return Plan("lists", candidates, effort, 0.0, grows=grows)


def test_more_candidates_are_scored_where_a_filter_leaves_less_unless_their_number_was_given(folder):
    _, _, refiner, allowed = filtered(folder, np.arange(ROWS) % 4 == 0)
    query = np.random.default_rng(6).standard_normal((1, DIMENSION)).astype(np.float32)
    (grown,) = refiner.best_allowed(query, 5, planned(40, 4), allowed)
    (given,) = refiner.best_allowed(query, 5, planned(40, 4, grows=False), allowed)
    assert grown[2] > given[2] == 40


def filtered(folder, mask):
    vectors = opened(folder)
    vectors.learn(10**12)
    index = open_ivf(folder / "ivf")
    return index, vectors, refiner_for(index, vectors), Bitmap.from_mask(mask)


def test_under_a_filter_the_allowed_rows_of_the_searched_lists_are_found_and_no_others(folder):
    mask = np.random.default_rng(5).random(ROWS) < 0.4
    _, vectors, refiner, allowed = filtered(folder, mask)
    queries = np.random.default_rng(6).standard_normal((60, DIMENSION)).astype(np.float32)
    found = refiner.best_allowed(queries, 10, planned(200, 20), allowed)
    answered = [(query, one) for query, one in zip(queries, found, strict=True) if one is not None]
    assert len(answered) > 50
    for query, (scores, rows, scored) in answered:
        assert scored >= 200
        assert mask[rows].all()
        best = rescore(vectors, query, np.flatnonzero(mask), 10)
        assert np.isin(best.rows, rows).mean() >= 0.8
        np.testing.assert_array_equal(scores, rescore(vectors, query, rows, 10).scores)


def test_where_a_filter_leaves_next_to_nothing_near_a_query_it_is_left_to_a_walk(folder):
    index, vectors, _, _ = filtered(folder, np.ones(ROWS, bool))
    query = vectors.gather(np.array([7]))
    near = index.list_map().closeness(index._rotated(query)[0]).argsort()[::-1][:10]
    mask = ~np.isin(index.list_map().list_of_row, near)
    _, _, refiner, allowed = filtered(folder, mask)
    assert refiner.best_allowed(query, 5, planned(50, 4), allowed) == [None]
    even = Bitmap.from_mask(np.arange(ROWS) % 2 == 0)
    assert refiner.best_allowed(query, 5, planned(50, 4), even) != [None]


def test_the_less_a_filter_leaves_the_more_lists_are_searched(folder):
    index = open_ivf(folder / "ivf")
    efforts = [index.effort_at(share, 4) for share in (1.0, 0.5, 0.1, 0.01, 1e-6)]
    assert efforts == sorted(efforts)
    assert (efforts[0], efforts[-1]) == (4, index.lists)
    assert [index.effort_at(1.0, effort) for effort in (1, 5, 15, 99)] == [2, 5, 16, index.lists]


def test_the_parameters_of_a_filter_are_kept_while_they_are_few(folder):
    _, _, refiner, allowed = filtered(folder, np.arange(ROWS) % 2 == 0)
    query = np.random.default_rng(6).standard_normal((1, DIMENSION)).astype(np.float32)
    for k in range(1, 2 * MOST_ASKINGS):
        refiner.best_allowed(query, k, planned(200, 4), allowed)
        assert len(refiner.counts(allowed).use.askings) <= MOST_ASKINGS
    before = dict(refiner.counts(allowed).use.askings)
    refiner.best_allowed(query, k, planned(200, 4), allowed)
    assert refiner.counts(allowed).use.askings == before


def test_copies_of_the_last_row_wanted_are_ordered_by_row_under_a_filter(folder, tmp_path):
    array = np.random.default_rng(8).standard_normal((ROWS, DIMENSION)).astype("<f2")
    array[100:160] = array[100]  # sixty copies
    array.tofile(tmp_path / "copies.f16")
    vectors = ExactVectors(tmp_path / "copies.f16", rows=ROWS, dimension=DIMENSION, dtype="float16")
    wide = array.astype(np.float32)
    build_ivf(tmp_path / "ivf", iter([wide]), sample=wide, lists=20, shape=code_shape(DIMENSION, 8))
    refiner = refiner_for(open_ivf(tmp_path / "ivf"), vectors)
    vectors.learn(10**12)
    allowed = Bitmap.from_mask(np.arange(ROWS) % 2 == 0)
    (found,) = refiner.best_allowed(wide[100:101], 10, planned(200, 20), allowed)
    np.testing.assert_array_equal(found[1], np.arange(100, 120, 2))
    assert (found[0] == found[0][0]).all()
