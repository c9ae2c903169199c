"""Lists copied for a filter in steady use: the same codes, the same answers, within a limit."""

import gc
import os
import weakref
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest

from compactds.datastore.ann import narrowed
from compactds.datastore.ann.ivf import open_ivf
from compactds.datastore.ann.ivf_build import build_ivf
from compactds.datastore.ann.ivf_shape import code_shape
from compactds.datastore.ann.narrowed import (
    STEADY_SEARCHES,
    NarrowedIndex,
    NarrowedIndexes,
    Use,
    blocks_of,
    copy_bytes,
    layout_is_known,
    limit_bytes,
    packed,
    unpacked,
)
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.filtered import FilteredSearch
from compactds.datastore.plan import Plan
from compactds.datastore.vectors import ExactVectors

ROWS, DIMENSION, LISTS = 6_000, 32, 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("narrowed")
    array = np.random.default_rng(0).standard_normal((ROWS, DIMENSION)).astype("<f2")
    array.tofile(folder / "exact.f16")
    wide = array.astype(np.float32)
    for code_bytes in (1, 3, 8):
        shape = code_shape(DIMENSION, code_bytes)
        build_ivf(folder / f"ivf{code_bytes}", iter([wide]), sample=wide, lists=LISTS, shape=shape)
    return folder


@pytest.fixture
def index(folder):
    return open_ivf(folder / "ivf8")


@pytest.fixture
def queries() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((40, DIMENSION)).astype(np.float32)


def a_filter(share: float, seed: int = 3) -> Bitmap:
    return Bitmap.from_mask(np.random.default_rng(seed).random(ROWS) < share)


def searched(index, queries: np.ndarray, k: int, **parameters) -> tuple[np.ndarray, np.ndarray]:
    return index.search(queries, k, params=faiss.SearchParametersIVF(**parameters))


@pytest.mark.parametrize("code_bytes", [1, 3, 8])
def test_codes_are_read_and_written_as_faiss_does(folder, code_bytes):
    index = open_ivf(folder / f"ivf{code_bytes}")
    ivf = index.ivf
    packer = ivf.get_CodePacker()
    assert layout_is_known(ivf)
    for number in range(LISTS):
        blocks, size = blocks_of(ivf, number), int(ivf.get_list_size(number))
        codes = unpacked(blocks, np.arange(size))
        for place in range(size):
            row = packer.unpack_1(blocks.reshape(len(blocks), -1), place)
            np.testing.assert_array_equal(codes[place, ::2] | codes[place, 1::2] << 4, row)
        np.testing.assert_array_equal(packed(codes), blocks)


def test_copying_none_and_few_codes():
    blocks = np.random.default_rng(0).integers(0, 256, (3, 6, 16)).astype(np.uint8)
    assert unpacked(blocks, np.empty(0, np.int64)).shape == (0, 6)
    assert packed(np.empty((0, 6), np.uint8)).shape == (0, 6, 16)
    some = np.array([0, 31, 32, 95])
    np.testing.assert_array_equal(
        unpacked(packed(unpacked(blocks, some)), np.arange(4)), unpacked(blocks, some)
    )


@pytest.mark.parametrize("share", [0.0, 0.003, 0.1, 0.6, 1.0])
def test_a_copy_finds_what_the_index_finds_under_the_filter(index, queries, share):
    allowed = a_filter(share)
    narrow = NarrowedIndex(index.ivf)
    rounds = 1
    while not narrow.copy(allowed.bits, 0.0):
        rounds += 1
    assert rounds == LISTS
    assert narrow.index.ntotal == allowed.count
    rotated = index.transform.apply(queries)
    selector = faiss.IDSelectorBitmap(allowed.bits)
    for probes, k in ((1, 5), (7, 30), (LISTS, 200)):
        scores, rows = searched(index.ivf, rotated, k, nprobe=probes, sel=selector)
        ours, found = searched(narrow.index, rotated, k, nprobe=probes)
        np.testing.assert_allclose(ours, scores, rtol=1e-5)
        assert (found == rows).mean() > 0.98  # equal scores come in any order
        assert allowed.holds(found[found >= 0]).all()


def test_lists_take_about_the_bytes_that_are_counted(index):
    allowed = a_filter(0.3)
    counted = index.list_map().counts(allowed).allowed
    narrow = NarrowedIndex(index.ivf)
    while not narrow.copy(allowed.bits, 1.0):
        pass
    code_bytes = int(index.ivf.M2) // 2
    sizes = [int(narrow.index.get_list_size(number)) for number in range(LISTS)]
    assert sizes == counted.tolist()
    assert narrow.ram_bytes == copy_bytes(counted, code_bytes)
    codes = sum(-(-size // 32) * 32 * code_bytes for size in sizes)
    assert (
        codes + 8 * allowed.count < copy_bytes(counted, code_bytes) < 2 * codes + 8 * allowed.count + 10_000
    )
    assert copy_bytes(np.zeros(5, np.float32), code_bytes) == 5 * narrowed.LIST_BYTES


def test_the_limit_is_a_share_of_the_index_but_no_less_than_a_little():
    assert limit_bytes(0) == 0
    assert limit_bytes(1 << 20) == 4 << 20
    assert limit_bytes(10 << 20) == 16 << 20
    assert limit_bytes(1 << 30) == 256 << 20


class Copies:
    """Use filters as searches do."""

    def __init__(self, index, limit: int) -> None:
        self.kept = NarrowedIndexes(index.ivf, limit)
        self.index = index

    def use(self, use: Use, allowed: Bitmap, times: int = STEADY_SEARCHES + LISTS) -> None:
        counted = self.index.list_map().counts(allowed).allowed
        for _ in range(times):
            self.kept.searched(use, allowed.bits, counted)


def test_a_filter_gets_its_lists_once_it_is_in_steady_use(index, monkeypatch):
    monkeypatch.setattr(narrowed, "COPYING_WORK", 0.0)
    copies, use, allowed = Copies(index, 1 << 20), Use(), a_filter(0.5)
    copies.use(use, allowed, STEADY_SEARCHES - 1)
    assert use.copying is None
    assert copies.kept.ram_bytes == 0
    copies.use(use, allowed, LISTS - 1)
    assert use.copying is not None
    assert use.narrowed is None
    assert copies.kept.ram_bytes == use.copy_bytes > 0
    copies.use(use, allowed, 1)
    assert use.copying is None
    assert use.narrowed.ntotal == allowed.count


def test_filters_share_a_limit_and_give_way_when_they_are_idle(index, monkeypatch):
    monkeypatch.setattr(narrowed, "IDLE_SEARCHES", 100)
    filters = [a_filter(0.4, seed) for seed in range(3)]
    counted = index.list_map().counts(filters[0]).allowed
    limit = int(2.5 * copy_bytes(counted, int(index.ivf.M2) // 2))
    copies, uses = Copies(index, limit), [Use() for _ in filters]
    copies.use(uses[0], filters[0])
    copies.use(uses[1], filters[1])
    assert uses[0].narrowed is not None
    assert uses[1].narrowed is not None
    kept = weakref.ref(uses[0].narrowed)
    copies.use(uses[2], filters[2], 60)
    assert uses[2].copying is uses[2].narrowed is None  # neither of the others is idle yet
    copies.use(uses[1], filters[1], 10)
    copies.use(uses[2], filters[2], 100)
    assert uses[2].narrowed is not None
    assert uses[1].narrowed is not None
    assert uses[0].narrowed is None  # the one that was used last longest ago
    gc.collect()
    assert kept() is None
    assert copies.kept.ram_bytes <= limit


def test_a_filter_that_takes_more_than_the_limit_is_never_copied(index):
    copies, use, others = Copies(index, 20_000), Use(), Use()
    copies.use(use, a_filter(0.9), 200)
    assert use.copying is use.narrowed is None
    copies.use(others, a_filter(0.005))
    assert others.narrowed is not None


def test_lists_go_with_their_filter(index):
    copies, use = Copies(index, 1 << 20), Use()
    copies.use(use, a_filter(0.5))
    assert copies.kept.ram_bytes > 0
    del use
    gc.collect()
    assert copies.kept.ram_bytes == 0


def test_nothing_is_copied_if_faiss_lays_codes_out_otherwise(index, monkeypatch):
    monkeypatch.setattr(narrowed, "PLACES", np.arange(16))
    assert not layout_is_known(index.ivf)
    copies, use = Copies(index, 1 << 20), Use()
    copies.use(use, a_filter(0.5), 100)
    assert use.narrowed is None


def test_searches_go_on_when_memory_does_not_suffice_for_a_copy(index, monkeypatch):
    def refuse(*_):
        raise MemoryError

    copies, use = Copies(index, 1 << 20), Use()
    monkeypatch.setattr(NarrowedIndex, "copy", refuse)
    copies.use(use, a_filter(0.5), 100)
    assert use.copying is use.narrowed is None
    assert copies.kept.ram_bytes == 0


def test_a_copy_that_turns_out_larger_than_the_limit_is_let_go_for_good(index, monkeypatch):
    monkeypatch.setattr(narrowed, "copy_bytes", lambda *_: 100)
    copies, use = Copies(index, 20_000), Use()
    copies.use(use, a_filter(0.9), 200)
    assert use.copying is use.narrowed is None
    assert use.searches < 0
    assert copies.kept.ram_bytes == 0


def test_lists_of_a_filter_that_leaves_most_rows_are_not_copied(index):
    copies, use = Copies(index, 1 << 24), Use()
    copies.use(use, a_filter(0.7), 200)
    assert use.copying is use.narrowed is None
    assert copies.kept.ram_bytes == 0


def test_a_forked_process_copies_even_if_a_thread_was_copying_meanwhile(index):
    copies = Copies(index, 1 << 20)
    with copies.kept._lock:
        child = os.fork()
        if not child:
            use = Use()
            try:
                copies.use(use, a_filter(0.5))
            finally:
                os._exit(use.narrowed is None or not copies.kept.ram_bytes)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_search_finds_the_same_before_and_after_for_any_number_of_threads(folder, index, queries, share):
    vectors = ExactVectors(folder / "exact.f16", rows=ROWS, dimension=DIMENSION, dtype="float16")
    search = FilteredSearch(index, vectors)
    allowed, plan = a_filter(share), Plan("lists", 60, 9, 0.0, misses=0.04)
    vectors.learn(10**12)

    def ask(query: np.ndarray):
        found = search.best(query[np.newaxis], 5, plan, allowed)
        return found and [part.tolist() for part in found[:2]]

    before = [ask(query) for query in queries[:5]]
    with ThreadPoolExecutor(8) as pool:
        meanwhile = list(pool.map(ask, [*queries] * 20))
    assert index.list_map().counts(allowed).use.narrowed is not None
    assert 0 < search.ram_bytes < 1 << 20
    after = [ask(query) for query in queries]
    assert meanwhile == after * 20
    assert before == after[:5]


def test_a_closed_search_goes_without_waiting_for_the_garbage_collector(folder, index):
    vectors = ExactVectors(folder / "exact.f16", rows=ROWS, dimension=DIMENSION, dtype="float16")
    search = FilteredSearch(index, vectors)
    kept = weakref.ref(search)
    gc.disable()
    try:
        del search
        assert kept() is None
    finally:
        gc.enable()
