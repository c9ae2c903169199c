"""Every kind of ANN index passes one suite, which checks its answers against exact search."""

import re
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
import pytest

from compactds.configs.sizes import parse_bytes
from compactds.datastore.ann.base import NO_ROW, AnnIndex
from compactds.datastore.ann.choose import FLAT_BELOW_ROWS, BudgetError, IndexPlan, choose_index, code_sizes
from compactds.datastore.ann.hnsw import HnswIndex
from compactds.datastore.ann.ivf_shape import COARSE_CODES_FROM_LISTS, code_shape, list_count
from compactds.datastore.ann.list_map import ListMap
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.manifest import IndexRecord
from compactds.datastore.segment import open_index
from compactds.datastore.vectors import ExactVectors
from compactds.datastore.writer import write_index

ROWS, DIMENSION = 4_000, 32
KINDS = ("flat", "hnsw", "ivf")


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Clustered unit vectors, as real ones are."""
    draw = np.random.default_rng(3)
    centres = draw.standard_normal((40, DIMENSION))
    rows = centres[draw.integers(0, 40, ROWS)] + 0.6 * draw.standard_normal((ROWS, DIMENSION))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def queries(vectors: np.ndarray) -> np.ndarray:
    draw = np.random.default_rng(4)
    rows = vectors[draw.integers(0, ROWS, 50)] + 0.1 * draw.standard_normal((50, DIMENSION))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def store_vectors(folder: Path, vectors: np.ndarray, dtype: str = "float32") -> ExactVectors:
    path = folder / "vectors"
    vectors.astype({"float32": "<f4", "float16": "<f2"}[dtype]).tofile(path)
    return ExactVectors(path, rows=len(vectors), dimension=vectors.shape[1], dtype=dtype)


@pytest.fixture(scope="module", params=KINDS)
def built(
    request: pytest.FixtureRequest, vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[IndexRecord, AnnIndex]:
    folder = tmp_path_factory.mktemp(request.param)
    stored = store_vectors(folder, vectors)
    plan = choose_index(ROWS, DIMENSION, memory_bytes=1 << 30, kind=request.param)
    record = write_index(folder, plan, stored)
    return record, open_index(folder, record, dimension=DIMENSION)


def exhaustive(
    vectors: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
) -> np.ndarray:
    scores = queries @ vectors.T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    return np.argsort(-scores, axis=1)[:, :k]


def recall(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, expected, strict=True)]))


def full_effort(index: AnnIndex) -> int:
    return index.efforts[-1] if index.efforts else 0


def test_its_hundred_candidates_hold_the_ten_best_at_full_effort(built, vectors, queries):
    _, index = built
    _, rows = index.search(queries, 100, effort=full_effort(index))
    assert recall(rows, exhaustive(vectors, queries, 10)) >= 0.98


def test_more_effort_never_finds_less(built, vectors, queries):
    _, index = built
    expected = exhaustive(vectors, queries, 10)
    found = [recall(index.search(queries, 100, effort=e)[1], expected) for e in index.efforts]
    assert all(later >= earlier - 0.02 for earlier, later in pairwise(found))


def test_scores_come_best_first_and_belong_to_their_rows(built, vectors, queries):
    _, index = built
    scores, rows = index.search(queries, 20, effort=full_effort(index))
    assert (np.diff(scores, axis=1) <= 0).all()
    true_scores = np.take_along_axis(queries @ vectors.T, rows, axis=1)
    assert np.abs(scores - true_scores).max() < (0.6 if not index.exact else 1e-5)


def test_rows_are_never_repeated(built, queries):
    _, index = built
    _, rows = index.search(queries, 50, effort=full_effort(index))
    for row in rows:
        found = row[row != NO_ROW]
        assert len(np.unique(found)) == len(found)


def test_one_query_at_a_time_gives_what_a_batch_gives(built, queries):
    _, index = built
    effort = full_effort(index)
    _, batch = index.search(queries, 10, effort=effort)
    singles = np.concatenate([index.search(query[None], 10, effort=effort)[1] for query in queries])
    assert recall(singles, batch) >= 0.995


def test_many_threads_with_different_efforts_get_what_one_thread_gets(built, queries):
    _, index = built
    efforts = [index.efforts[number % len(index.efforts)] if index.efforts else 0 for number in range(96)]

    def search(number: int) -> np.ndarray:
        return index.search(queries[number % 50][None], 10, effort=efforts[number])[1]

    alone = [search(number) for number in range(96)]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(search, range(96)))
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_a_mask_is_never_broken_and_never_empties_the_result(built, vectors, queries, share):
    _, index = built
    allowed = np.random.default_rng(5).random(ROWS) < share
    if not index.filters:
        with pytest.raises(ValueError, match="does not filter"):
            index.search(queries, 10, effort=10, allowed=Bitmap.from_mask(allowed))
        return
    _, rows = index.search(queries, 10, effort=full_effort(index), allowed=Bitmap.from_mask(allowed))
    assert allowed[rows[rows != NO_ROW]].all()
    wanted = min(10, int(allowed.sum()))
    assert ((rows != NO_ROW).sum(axis=1) == wanted).all()


def test_asking_for_more_than_there_is_fills_up_with_no_row(tmp_path, vectors, queries):
    for kind in KINDS:
        folder = tmp_path / kind
        folder.mkdir()
        stored = store_vectors(folder, vectors[:60])
        record = write_index(folder, choose_index(60, DIMENSION, memory_bytes=1 << 30, kind=kind), stored)
        index = open_index(folder, record, dimension=DIMENSION)
        _, rows = index.search(queries[:3], 100, effort=1_000)
        assert [(row != NO_ROW).sum() for row in rows] == [60, 60, 60], kind


def test_it_says_what_it_holds_in_memory(built):
    record, index = built
    assert abs(index.ram_bytes - record.ram_bytes) <= 0.1 * index.ram_bytes


@pytest.fixture
def two_threads():
    """Let faiss start two threads, whatever it may use in the other tests."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    yield
    faiss.omp_set_num_threads(before)


def test_two_builds_are_equal_to_the_byte_with_any_number_of_threads(built, vectors, tmp_path, two_threads):
    record, _ = built
    plan = IndexPlan(record.kind, 0, list_count(ROWS), "", record.parameters.get("code_bytes", 0))
    contents = []
    for name, threads in (("one", 1), ("two", 2), ("again", 2)):
        faiss.omp_set_num_threads(threads)
        (tmp_path / name).mkdir()
        made = write_index(tmp_path / name, plan, store_vectors(tmp_path / name, vectors))
        contents.append((tmp_path / name / made.file).read_bytes())
    assert contents[0] == contents[1] == contents[2]


def test_a_graph_in_pieces_is_searched_as_far_as_it_reaches(queries):
    """hnswlib raises if a query reaches fewer nodes than are asked for."""

    class Pieces:
        element_count = 100

        def knn_query(self, asked, k, num_threads):
            if k > 10 or (len(asked) > 1 and k > 4):
                raise RuntimeError("Cannot return the results in a contiguous 2D array.")
            return np.tile(np.arange(k), (len(asked), 1)), np.zeros((len(asked), k))

    index = HnswIndex(Pieces(), DIMENSION)
    _, rows = index.search(queries[:3], 40, effort=64)
    assert [row[row != NO_ROW].tolist() for row in rows] == [list(range(8))] * 3


@pytest.mark.parametrize("share", [0.003, 0.02, 0.1, 0.5, 0.9])
def test_under_a_filter_an_index_of_lists_searches_so_many_lists_for_allowed_rows(many_lists, share):
    array, index = many_lists
    mask = np.random.default_rng(6).random(len(array)) < share
    allowed, queries = Bitmap.from_mask(mask), array[:100]
    _, every = index.search(queries, 200, effort=index.lists, allowed=allowed)
    assert mask[every[every != NO_ROW]].all()
    assert recall(every, exhaustive(array, queries, 10, mask)) >= 0.97
    _, near = index.search(queries, 200, effort=3, allowed=allowed)
    assert mask[near[near != NO_ROW]].all()
    for query, rows in zip(queries, near, strict=True):
        theirs = set(index.list_map().list_of_row[rows[rows != NO_ROW]].tolist())
        assert theirs <= set(index.ivf.quantizer.search(index.transform.apply(query[np.newaxis]), 3)[1][0])


def test_rows_allowed_are_counted_by_list_or_estimated_from_a_sample(many_lists, monkeypatch):
    array, index = many_lists
    allowed = Bitmap.from_rows(np.arange(0, len(array), 3), len(array))
    exact = ListMap(index.ivf).counts(allowed)
    assert exact.allowed.sum() == allowed.count
    monkeypatch.setattr("compactds.datastore.ann.list_map.COUNTED_EXACTLY_ROWS", 100)
    known = ListMap(index.ivf)
    estimated = known.counts(allowed)
    np.testing.assert_array_equal(estimated.allowed, exact.allowed)  # the sample holds all rows of so few
    assert known.counts(allowed) is estimated
    gone = Bitmap(allowed.bits.copy(), allowed.length)
    known.counts(gone)
    held = len(known._known)
    del gone  # what is known of a filter goes with its result
    assert len(known._known) == held - 1
    monkeypatch.setattr("compactds.datastore.ann.list_map.REMEMBERED_FILTERS", 3)
    others = [Bitmap.from_rows(np.array([row]), len(array)) for row in range(3)]
    assert [known.counts(other).allowed.sum() for other in others] == [1, 1, 1]
    assert known.counts(allowed) is not estimated
    again = Bitmap(allowed.bits.copy(), allowed.length)
    assert known.counts(again) is not known.counts(allowed)  # equal, but not the same
    assert known.ram_bytes >= 2 * len(array)


@pytest.fixture(scope="module")
def many_lists(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, AnnIndex]:
    """An IVF index with so many lists that their centroids have codes of their own."""
    draw = np.random.default_rng(8)
    centres = draw.standard_normal((300, DIMENSION))
    rows = centres[draw.integers(0, 300, 34_000)] + 0.6 * draw.standard_normal((34_000, DIMENSION))
    array = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    folder = tmp_path_factory.mktemp("many")
    plan = choose_index(len(array), DIMENSION, memory_bytes=1 << 30, kind="ivf", code_bytes=8)
    assert plan.lists >= COARSE_CODES_FROM_LISTS
    record = write_index(folder, plan, store_vectors(folder, array))
    index = open_index(folder, record, dimension=DIMENSION)
    assert abs(index.ram_bytes - plan.ram_bytes) <= 0.1 * plan.ram_bytes
    return array, index


def test_codes_of_centroids_lose_next_to_nothing(many_lists):
    array, index = many_lists
    _, rows = index.search(array[:200], 100, effort=index.lists // 4)
    assert recall(rows, exhaustive(array, array[:200], 10)) >= 0.97
    _, rows = index.search(array[:200], 400, effort=index.lists)
    assert recall(rows, exhaustive(array, array[:200], 10)) >= 0.995


class TestChoice:
    def test_few_passages_get_a_flat_index(self):
        assert choose_index(FLAT_BELOW_ROWS - 1, 384, memory_bytes=1 << 30).kind == "flat"

    def test_more_get_the_finest_codes_that_fit(self):
        fine = choose_index(1_000_000, 384, memory_bytes=1 << 30)
        assert (fine.kind, fine.code_bytes) == ("ivf", 40)
        coarser = choose_index(1_000_000, 384, memory_bytes=fine.ram_bytes - 1)
        assert (coarser.kind, coarser.code_bytes) == ("ivf", 32)
        assert coarser.ram_bytes < fine.ram_bytes

    def test_the_code_size_can_be_given(self):
        assert choose_index(1_000_000, 384, memory_bytes=1 << 30, code_bytes=64).code_bytes == 64

    def test_384_dimensions_take_at_most_64_bytes_a_vector(self):
        for rows in (100_000, 1_000_000, 10_000_000):
            assert choose_index(rows, 384, memory_bytes=1 << 40).ram_bytes <= 64 * rows

    def test_a_small_budget_gets_codes_even_for_few_passages(self):
        assert choose_index(9_000, 384, memory_bytes=10 << 20).kind == "ivf"

    @pytest.mark.parametrize("rows", [1, 15, 38])
    def test_rows_too_few_for_codes_get_a_flat_index_and_are_told_so(self, rows):
        plan = choose_index(rows, 384, memory_bytes=1 << 30, kind="ivf")
        assert (plan.kind, plan.reason) == ("flat", f"{rows} passages are too few to train codes on")

    def test_a_plan_says_why_it_was_chosen(self):
        asked = choose_index(9_000, 384, memory_bytes=10 << 20, kind="ivf").reason
        needed = choose_index(9_000, 384, memory_bytes=10 << 20).reason
        finest = "of the codes to choose from, those of 40 bytes are the finest that fit"
        assert asked == f"the recipe asks for it, and {finest}"
        assert needed == f"9,000 vectors as they are take more than the memory budget, and {finest}"

    def test_a_budget_too_small_says_the_least_that_would_do(self):
        with pytest.raises(BudgetError, match=r"Give at least [\d.]+MB, with --memory"):
            choose_index(1_000_000, 384, memory_bytes=1 << 20)

    @pytest.mark.parametrize("kind", ["auto", "flat", "hnsw", "ivf"])
    @pytest.mark.parametrize("rows", [1, 115, 9_000, 1_000_000, 40_000_000])
    def test_what_a_budget_too_small_is_told_to_be_is_enough(self, rows, kind):
        with pytest.raises(BudgetError) as caught:
            choose_index(rows, 384, memory_bytes=10, kind=kind)
        least = re.search(r"at least ([\d.]+\w+),", caught.value.remedy)[1]
        assert caught.value.message.endswith(f"needs {least}.") or kind != "auto"
        chosen = choose_index(rows, 384, memory_bytes=parse_bytes(least), kind=kind)
        assert chosen.kind in ("flat", "ivf", kind)

    def test_the_kind_that_takes_least_is_named_where_none_is_asked_for(self):
        with pytest.raises(BudgetError, match=r"of kind 'flat', needs 176\.7kB\.") as caught:
            choose_index(115, 384, memory_bytes=1_000)
        assert "--index auto" not in caught.value.remedy
        with pytest.raises(BudgetError, match=r"kind 'ivf' over .*--index auto"):
            choose_index(115, 384, memory_bytes=1_000, kind="ivf")

    def test_a_kind_that_is_asked_for_is_taken(self):
        kinds = [choose_index(1_000, 384, memory_bytes=1 << 30, kind=kind).kind for kind in KINDS]
        assert kinds == list(KINDS)

    @pytest.mark.parametrize("dimension", [2, 7, 32, 100, 256, 384, 768, 1024, 4096])
    def test_codes_fit_any_dimension(self, dimension):
        for size in code_sizes(dimension):
            shape = code_shape(dimension, size)
            assert shape.rotated % shape.quantisers == 0
            assert 0 < shape.rotated <= dimension
            assert shape.bytes <= max(size, 1)

    def test_lists_never_outnumber_what_training_needs(self):
        assert [list_count(rows) for rows in (1, 38, 100, 10_000, 1_000_000)] == [1, 1, 2, 140, 1400]
