"""Looking at lists a few at a time: each once, and nothing else than all at once."""

import faiss
import numpy as np
import pytest

from compactds.datastore.ann import probe as probing_module
from compactds.datastore.ann.ivf import open_ivf, parameters_for
from compactds.datastore.ann.ivf_build import build_ivf
from compactds.datastore.ann.ivf_shape import code_shape
from compactds.datastore.ann.probe import ROOM_ROWS, Probe

ROWS, DIMENSION, LISTS = 20_000, 32, 300  # so many lists have coded centroids


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    array = np.random.default_rng(0).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    build_ivf(folder / "ivf", iter([array]), sample=array, lists=LISTS, shape=code_shape(DIMENSION, 8))
    return open_ivf(folder / "ivf")


@pytest.fixture
def queries() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((20, 1, DIMENSION)).astype(np.float32)


def test_lists_are_found_as_faiss_finds_them(index, queries):
    probe = Probe(index)
    for query in queries:
        probe.find(query, 5)
        assert len(probe.lists) == LISTS  # all of so few
        _, expected = index.ivf.quantizer.search(index.transform.apply(query), LISTS)
        np.testing.assert_array_equal(probe.lists, expected[0])


@pytest.mark.parametrize("steps", [(4, 9, 30), (1, LISTS), (7, 8, LISTS + 5)])
def test_further_lists_follow_those_found_and_are_others(index, queries, steps, monkeypatch):
    monkeypatch.setattr(probing_module, "LISTS_AT_ONCE", 0)
    probe = Probe(index)
    for query in queries:
        probe.find(query, steps[0])
        assert len(probe.lists) == steps[0]
        for count in steps[1:]:
            before = probe.lists.copy()
            probe.find_further(count)
            assert len(probe.lists) == min(count, LISTS)
            turned = index.transform.apply(query)
            every, numbers = index.ivf.quantizer.search(turned, LISTS)
            expected = dict(zip(numbers[0].tolist(), every[0].tolist(), strict=True))
            theirs = [expected[number] for number in probe.lists.tolist()]
            np.testing.assert_allclose(probe._scores[: len(theirs)], theirs, rtol=1e-5)
            np.testing.assert_array_equal(probe.lists[: len(before)], before)
            assert len(np.unique(probe.lists)) == len(probe.lists)


@pytest.mark.parametrize("at_once", [0, 1_024])
def test_all_lists_are_found_where_codes_of_centroids_leave_some_out(tmp_path, at_once, monkeypatch):
    monkeypatch.setattr(probing_module, "LISTS_AT_ONCE", at_once)
    draw = np.random.default_rng(2)
    flat = draw.standard_normal((ROWS, 2)) @ draw.standard_normal((2, DIMENSION))  # all in one plane
    array = flat.astype(np.float32)
    build_ivf(tmp_path / "ivf", iter([array]), sample=array, lists=LISTS, shape=code_shape(DIMENSION, 8))
    index = open_ivf(tmp_path / "ivf")
    probe, left_out = Probe(index), 0
    for query in array[:100, np.newaxis]:
        left_out += (index.ivf.quantizer.search(index.transform.apply(query), LISTS)[1] < 0).sum()
        probe.find(query, 4)
        probe.find_further(LISTS)
        assert sorted(probe.lists.tolist()) == list(range(LISTS))
    assert left_out  # by faiss


@pytest.mark.parametrize("count", [50, ROOM_ROWS + 10])
def test_lists_looked_at_in_parts_propose_what_they_propose_together(index, queries, count):
    probe = Probe(index)
    for query in queries[:5]:
        probe.find(query, 40)
        near = [found.copy() for found in probe.propose(index.ivf, 0, count, parameters_for(15))]
        far = probe.propose(index.ivf, 15, count, parameters_for(25))
        scores, rows = (np.append(*parts) for parts in zip(near, far, strict=True))
        order = np.argsort(-scores, kind="stable")[:count]
        together, expected = probe.propose(index.ivf, 0, count, parameters_for(40))
        np.testing.assert_allclose(scores[order], together, atol=0.05)  # faiss rounds by what it looks at
        assert np.isin(rows[order], expected).mean() > 0.95
        of_list = index.list_map().list_of_row
        assert set(of_list[near[1]]) <= set(probe.lists[:15])
        assert set(of_list[far[1]]) <= set(probe.lists[15:40])


def test_fewer_rows_than_are_wanted_are_told_by_their_number(index, queries):
    probe = Probe(index)
    probe.find(queries[0], 3)
    sizes = [int(index.ivf.get_list_size(int(number))) for number in probe.lists[:3]]
    scores, rows = probe.propose(index.ivf, 0, 4_000, parameters_for(3))
    assert len(scores) == len(rows) == sum(sizes)
    none = np.zeros((ROWS + 7) // 8, np.uint8)
    selector = faiss.IDSelectorBitmap(none)
    assert [
        len(found)
        for found in probe.propose(index.ivf, 0, 10, faiss.SearchParametersIVF(nprobe=3, sel=selector))
    ] == [0, 0]
