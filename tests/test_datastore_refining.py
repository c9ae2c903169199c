"""Searching codes and exact vectors in one step: the same answers as in two, and when it stands back."""

import numpy as np
import pytest

from compactds.datastore.ann.flat import build_flat, open_flat
from compactds.datastore.ann.ivf import open_ivf
from compactds.datastore.ann.ivf_build import build_ivf
from compactds.datastore.ann.ivf_shape import code_shape
from compactds.datastore.refining import refiner_for
from compactds.datastore.search import rescore
from compactds.datastore.vectors import FEW_ROWS, ExactVectors

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


def test_one_step_finds_what_two_steps_find_or_leaves_it_to_them(folder, monkeypatch):
    for module in ("refining", "vectors"):  # whatever else the machine has to read
        monkeypatch.setattr(f"compactds.datastore.{module}.reads_so_far", lambda: 0)
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


def test_only_small_requests_are_taken_to_be_in_memory_because_those_before_were(folder, monkeypatch):
    vectors = opened(folder)
    query = np.ones(DIMENSION, np.float32)
    while not vectors.warm:
        vectors.learn(10**12)  # nothing had to be read
    looked = []
    real = ExactVectors.prepare
    monkeypatch.setattr(
        ExactVectors, "prepare", lambda self, rows: looked.append(len(rows)) or real(self, rows)
    )
    for count in (FEW_ROWS, FEW_ROWS + 1):
        vectors.best(query, np.arange(count), 3)
    assert looked == [FEW_ROWS + 1]
    vectors.learn(-1)  # something had to be read
    vectors.best(query, np.arange(5), 3)
    assert looked[1:] == [5]
