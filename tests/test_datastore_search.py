"""Exact scoring over vectors on disk: gathers, scans, ties, plans, and completing short results."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactds.datastore.ann.ivf import open_ivf
from compactds.datastore.ann.ivf_build import build_ivf
from compactds.datastore.ann.ivf_shape import code_shape
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.calibration import calibrate, held_out_rows, hold_out, queries_from_elsewhere
from compactds.datastore.manifest import CalibrationPoint, SearchCosts
from compactds.datastore.parallel import share_out
from compactds.datastore.plan import choose_plan, point_for
from compactds.datastore.queries import Effort
from compactds.datastore.scoring import ordered
from compactds.datastore.search import EMPTY, Ranking, complete, rescore, scan
from compactds.datastore.vectors import ExactVectors, widen


def stored(tmp_path, array: np.ndarray, dtype: str = "float32") -> ExactVectors:
    path = tmp_path / f"vectors.{dtype}"
    array.astype({"float16": "<f2", "float32": "<f4"}[dtype]).tofile(path)
    return ExactVectors(path, rows=len(array), dimension=array.shape[1], dtype=dtype)


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((5_000, 48)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_gathered_rows_are_the_stored_ones_in_the_order_asked(tmp_path, array, dtype):
    vectors = stored(tmp_path, array, dtype)
    rows = np.array([4_999, 0, 17, 17, 2_500])
    expected = array[rows].astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(vectors.gather(rows), expected)
    assert vectors.gather(np.empty(0, np.int64)).shape == (0, 48)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_best_of_given_rows_have_their_inner_products_whatever_else_is_asked_for(
    tmp_path, array, dtype, monkeypatch
):
    monkeypatch.setattr("compactds.datastore.scoring.SHORTLIST_BYTES", 20_000)  # several calls of faiss
    vectors = stored(tmp_path, array, dtype)
    rows = np.random.default_rng(2).permutation(5_000)[:333]
    scores, found = vectors.best(array[1], rows, 333)
    np.testing.assert_allclose(scores, vectors.gather(found) @ array[1], atol=1e-4)
    assert sorted(found) == sorted(rows)
    assert (scores[:-1] >= scores[1:]).all()
    some = vectors.best(array[1], found[40:140], 7)
    np.testing.assert_array_equal(some[0], scores[40:47])
    np.testing.assert_array_equal(some[1], found[40:47])
    assert [len(each) for each in vectors.best(array[1], rows[:0], 3)] == [0, 0]


@pytest.mark.parametrize("allowed_rows", [5_000, 4_000, 40])
def test_the_best_of_all_rows_are_those_of_any_other_way(tmp_path, array, allowed_rows, monkeypatch):
    monkeypatch.setattr("compactds.datastore.vectors.VIEW_BYTES", 96 * 777)  # several views
    vectors = stored(tmp_path, array, "float16")
    mask = np.zeros(5_000, bool)
    mask[np.random.default_rng(3).permutation(5_000)[:allowed_rows]] = True
    allowed = None if allowed_rows == 5_000 else Bitmap.from_mask(mask)
    scores, rows = vectors.best_of_all(array[9], 25, allowed)
    expected = vectors.best(array[9], np.flatnonzero(mask), 25)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_array_equal(scores, expected[0])


def test_damaged_rows_take_no_places_in_a_batch_either(tmp_path, array):
    array[10:60] = np.nan
    vectors = stored(tmp_path, array, "float16")
    for ranking in scan(vectors, array[100:112], 30, None):
        assert len(ranking.rows) == 30
        assert not set(ranking.rows) & set(range(10, 60))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_equal_scores_order_by_row_and_damaged_rows_come_nowhere(tmp_path, array, dtype):
    array = np.round(array[:, :8])
    array[1::2] = array[0::2]  # every vector twice
    array[100] = np.nan
    vectors = stored(tmp_path, array, dtype)
    whole = np.delete(np.arange(5_000), 100)
    scores = array[whole].astype(np.float32) @ array[0]
    expected = whole[np.lexsort((whole, -scores))]
    for k in (1, 2, 3, 50, 4_999):
        for rows in (vectors.best_of_all(array[0], k)[1], vectors.best(array[0], np.arange(5_000), k)[1]):
            np.testing.assert_array_equal(rows, expected[:k])
    assert vectors.best(array[0], np.array([100]), 1)[1].tolist() == []


def resident_kilobytes_of_files() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))


def test_calibrating_keeps_few_pages_of_large_vectors(tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    array = draw.standard_normal((20_000, 1_024)).astype(np.float16)  # 40 MB
    vectors = stored(tmp_path, array, "float16")
    build_ivf(
        tmp_path / "i",
        iter([array.astype(np.float32)]),
        sample=array[:4_000].astype(np.float32),
        lists=60,
        shape=code_shape(1_024, 8),
    )
    index, held_out = open_ivf(tmp_path / "i"), hold_out(vectors, vectors, np.arange(0, 20_000, 200))
    before, most = resident_kilobytes_of_files(), []
    monkeypatch.setattr(ExactVectors, "release", watched(ExactVectors.release, most))
    monkeypatch.setattr("compactds.datastore.calibration.MAPPED_BYTES", 1 << 20)
    monkeypatch.setattr("compactds.datastore.calibration.MAPPED_ROWS", 100)
    assert calibrate(index, vectors, held_out)
    assert max(most) - before < 20_000


def watched(release, most):
    def wrapper(self):
        most.append(resident_kilobytes_of_files())
        release(self)

    return wrapper


def test_a_pass_that_is_made_once_leaves_no_pages_with_the_process(tmp_path):
    array = np.ones((40_000, 512), np.float16)  # 40 MB
    vectors = stored(tmp_path, array, "float16")
    before = resident_kilobytes_of_files()
    rows = np.arange(0, 40_000, 5)
    for _ in range(2):
        assert sum(len(block) for _, block in vectors.blocks(release=True)) == 40_000
        assert sum(len(block) for _, block in vectors.blocks(rows, release=True)) == len(rows)
    assert resident_kilobytes_of_files() - before < 4_000
    assert sum(len(block) for _, block in vectors.blocks()) == 40_000
    assert resident_kilobytes_of_files() - before > 30_000


class Disk:
    """Stand in for the kernel: tell of reads for rows that are not in memory, and take what is asked for."""

    def __init__(self, vectors, monkeypatch):
        self.reads, self.asked = 0, []
        monkeypatch.setattr("compactds.datastore.vectors.read_pages", self.ask)
        monkeypatch.setattr("compactds.datastore.vectors.reads_so_far", lambda: self.reads)
        self.vectors, self.array = vectors, vectors._array
        vectors._array = self
        self.cold = set()

    def ask(self, mapped, rows, row_bytes):
        self.asked.append(len(rows))
        self.touch(rows)

    def touch(self, rows):
        found = self.cold & set(np.asarray(rows).tolist())
        self.reads += len(found)
        self.cold -= found

    def __getitem__(self, key):
        self.touch(key[0])
        return self.array[key]

    def take(self, rows, axis):
        self.touch(rows)
        return self.array.take(rows, axis=axis)


class TestAskingForPages:
    @pytest.fixture
    def disk(self, tmp_path, array, monkeypatch):
        disk = Disk(stored(tmp_path, array, "float16"), monkeypatch)
        disk.vectors.gather(np.arange(10))
        assert disk.asked == [10]  # nothing is known of a file just opened
        assert not disk.vectors.cold
        return disk

    def test_rows_in_memory_are_not_asked_for(self, disk):
        disk.vectors.gather(np.arange(1_000))
        assert disk.asked == [10]

    def test_a_few_rows_tell_that_a_request_is_on_disk(self, disk):
        disk.cold = set(range(1_000))
        disk.vectors.gather(np.arange(1_000))
        assert disk.asked == [10, 1_000]
        assert disk.reads == 1_000
        assert disk.vectors.cold

    def test_asking_goes_on_until_several_requests_found_all_in_memory(self, disk):
        disk.cold = {3}  # not among the few that are looked at first
        disk.vectors.gather(np.arange(100))
        assert disk.asked == [10]
        for count in range(1, 8):
            disk.vectors.gather(np.arange(count))
        assert disk.asked == [10, 1, 2, 3, 4]
        assert not disk.vectors.cold


def test_every_half_float_is_widened_exactly():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    np.testing.assert_array_equal(widen(finite).view(np.uint32), finite.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("k", [1, 10, 5_000, 9_000])
def test_a_scan_equals_sorting_all_scores(tmp_path, array, k, monkeypatch):
    monkeypatch.setattr("compactds.datastore.vectors.SCAN_BYTES", 100_000)  # many blocks
    queries = array[:3]
    for ranking, scores in zip(
        scan(stored(tmp_path, array), queries, k, None), queries @ array.T, strict=True
    ):
        expected = np.argsort(-scores, kind="stable")[:k]
        np.testing.assert_allclose(ranking.scores, scores[expected], atol=1e-4)
        assert ranking.scored == 5_000
        assert ranking.rows[0] == expected[0]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_query_gets_the_same_scores_alone_and_in_a_batch(tmp_path, array, dtype):
    vectors = stored(tmp_path, array, dtype)
    together = scan(vectors, array[:20], 10, None)
    for query, ranking in zip(array[:20], together, strict=True):
        (alone,) = scan(vectors, query[None], 10, None)
        np.testing.assert_array_equal(alone.scores, ranking.scores)
        np.testing.assert_array_equal(alone.rows, ranking.rows)
        np.testing.assert_array_equal(rescore(vectors, query, alone.rows, 10).scores, ranking.scores)
        assert alone.scored == ranking.scored == 5_000


def test_a_scan_under_a_mask_returns_allowed_rows_only(tmp_path, array):
    allowed = np.zeros(5_000, dtype=bool)
    allowed[[5, 50, 4_000]] = True
    (ranking,) = scan(stored(tmp_path, array), array[:1], 10, Bitmap.from_mask(allowed))
    assert sorted(ranking.rows) == [5, 50, 4_000]


def test_candidates_without_a_row_are_dropped(tmp_path, array):
    ranking = rescore(stored(tmp_path, array), array[7], np.array([3, -1, 7, -1]), 10)
    assert ranking.rows[0] == 7
    assert sorted(ranking.rows) == [3, 7]
    assert ranking.scored == 2


def test_short_results_are_completed_and_others_left_alone(tmp_path, array):
    vectors = stored(tmp_path, array)
    allowed = np.zeros(5_000, dtype=bool)
    allowed[:20] = True
    good = Ranking(np.zeros(10, np.float32), np.arange(10), 10)
    first, second = complete(
        vectors, array[:2], [EMPTY, good], 10, allowed=Bitmap.from_mask(allowed), matching=20
    )
    assert len(first.rows) == 10
    assert second is good
    assert complete(vectors, array[:1], [good], 10, allowed=Bitmap.from_mask(allowed), matching=20)[0] is good


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, -1.0]), min_size=0, max_size=40), st.integers(1, 45))
def test_the_best_are_ordered_by_score_then_row(scores, k):
    rows = np.random.default_rng(len(scores)).permutation(len(scores)).astype(np.int64)
    found_scores, found_rows = ordered(np.array(scores, np.float32), rows, k)
    expected = sorted(zip(scores, rows.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))[:k]
    assert list(zip(found_scores.tolist(), found_rows.tolist(), strict=True)) == expected


POINTS = (
    CalibrationPoint(2, 32, 0.75, 0.7, 0.1),
    CalibrationPoint(8, 64, 0.92, 0.9, 0.2),
    CalibrationPoint(32, 128, 0.98, 0.97, 0.5),
)


class Lists:
    """What a planner asks an index of 100,000 rows in 1,000 lists."""

    exact, filters = False, True

    def worth(self, effort):
        return 100.0 * effort


COSTS = SearchCosts(row_us=0.2, code_us=0.006, query_us=30, filtered_us=60)


def plan(**changes):
    facts = {
        "matching": 100_000,
        "rows": 100_000,
        "filtered": False,
        "index": Lists(),
        "calibration": POINTS,
        "costs": COSTS,
    }
    asked = {"k": 10} | {name: changes.pop(name) for name in set(changes) - facts.keys()}
    return choose_plan(Effort(**asked), **{**facts, **changes})


class TestPlan:
    def test_an_open_search_asks_the_index_for_the_default_recall(self):
        assert (plan().name, plan().effort, plan().candidates) == ("ann", 32, 128)

    def test_a_recall_target_sets_the_effort(self):
        assert (plan(recall=0.85).effort, plan(recall=0.85).candidates) == (8, 64)
        assert plan(recall=0.5).effort == 2

    def test_what_is_promised_counts_not_what_was_measured(self):
        assert plan(recall=0.91).effort == 32

    def test_an_effort_of_its_own_goes_before_the_calibrated_one(self):
        assert (plan(effort=5).effort, plan(effort=5, candidates=40).candidates) == (5, 40)

    def test_a_target_beyond_the_curve_takes_its_end(self):
        assert point_for(POINTS, 0.999) is POINTS[-1]
        assert point_for((), 0.9) is None
        assert plan(calibration=()).candidates == 100

    def test_full_recall_scans(self):
        assert plan(recall=1.0).name == plan(recall=1.0, filtered=True).name == "exact"

    def test_few_rows_are_all_scored(self):
        assert plan(filtered=True, matching=500).name == "exact"
        assert plan(matching=90, rows=90).name == "exact"

    def test_the_more_is_allowed_the_further_from_scoring_it_all(self):
        names = [
            plan(filtered=True, matching=matching).name for matching in (0, 9, 900, 9_000, 50_000, 95_000)
        ]
        assert names == ["none", "exact", "exact", "lists", "lists", "lists"]

    def test_a_filter_is_left_to_the_end_where_it_lets_much_pass_and_never_else(self):
        assert plan(filtered=True, matching=99_000, plan="open").name == "open"
        assert plan(filtered=True, matching=29_000, plan="open").name == "lists"

    def test_under_a_filter_fewer_misses_are_aimed_at_than_asked_for(self):
        point = point_for(POINTS, 0.98)
        assert plan(filtered=True, matching=50_000).effort == point.effort
        assert plan(filtered=True, matching=50_000).candidates == point.candidates
        assert plan(filtered=True, matching=50_000, effort=7).effort == 7

    def test_the_less_passes_the_further_an_open_search_looks(self):
        most, half = (plan(filtered=True, matching=m, plan="open") for m in (90_000, 50_000))
        assert (most.results, half.results) == (17, 30)
        assert 32 < most.effort < half.effort
        assert 128 < most.candidates < half.candidates
        assert (most.least, half.least) == pytest.approx((10.71, 10.5))
        assert half.instead.name == "lists"

    def test_a_search_of_lists_may_miss_less_the_more_recall_is_asked_for_unless_its_effort_is_given(self):
        misses = [plan(filtered=True, matching=20_000, recall=recall).misses for recall in (0.9, 0.95, 0.99)]
        assert misses == pytest.approx([0.15, 0.075, 0.015])
        assert plan(filtered=True, matching=20_000, k=20).misses == pytest.approx(0.15)
        assert plan(filtered=True, matching=20_000, effort=16).misses is None

    @pytest.mark.parametrize("name", ["exact", "lists", "codes", "open"])
    def test_a_plan_can_be_asked_for(self, name):
        assert plan(filtered=True, matching=80_000, plan=name).name == name

    def test_lists_are_given_up_where_scoring_everything_is_cheaper(self):
        asked = plan(filtered=True, matching=2_000, plan="lists")
        assert asked.most_rows * COSTS.code_us + COSTS.filtered_us == pytest.approx(2_000 * COSTS.row_us)

    def test_an_index_that_cannot_filter_is_left_out_of_filtered_searches(self):
        class Graph(Lists):
            filters = False

        assert plan(filtered=True, matching=20_000, index=Graph()).name == "exact"
        assert plan(filtered=True, matching=90_000, index=Graph()).name == "open"
        assert plan(index=Graph()).name == "ann"

    def test_nothing_allowed_needs_no_search(self):
        assert plan(matching=0).name == "none"

    def test_candidates_grow_with_k(self):
        assert plan(k=50).candidates == 640
        assert plan(k=50, candidates=60).candidates == 60

    def test_the_prediction_of_an_open_search_counts_the_scoring_of_its_candidates(self):
        assert plan().predicted_us == pytest.approx(30 + 3_200 * 0.006 + 128 * 0.2)

    def test_an_index_that_keeps_no_lists_has_none_searched(self):
        class Flat(Lists):
            exact = True

        assert plan(filtered=True, matching=20_000, index=Flat(), plan="lists").name == "codes"

    def test_dearer_work_is_predicted_to_cost_more(self):
        costs = [plan(filtered=True, matching=m, plan="lists").predicted_us for m in (90_000, 9_000, 900)]
        assert costs == sorted(costs)


class Shuffling:
    """An index that finds the true neighbours among the first `effort` hundred rows only."""

    exact, filters, ram_bytes, efforts = False, True, 0, (1, 10, 25, 50)

    def __init__(self, array):
        self.array = array

    def cost_us(self, effort):
        return effort

    def worth(self, effort):
        return 100 * effort

    def search(self, queries, count, *, effort, allowed=None):
        scores = queries @ self.array[: 100 * effort].T
        rows = np.argsort(-scores, axis=1)[:, :count]
        return np.take_along_axis(scores, rows, 1), rows


def test_calibration_measures_recall_and_stops_when_there_is_no_more_to_gain(tmp_path, array):
    unit = array / np.linalg.norm(array, axis=1, keepdims=True)
    vectors = stored(tmp_path, unit)
    points = calibrate(Shuffling(unit), vectors, hold_out(vectors, vectors, held_out_rows(len(unit))))
    assert [point.effort for point in points] == [1, 10, 25, 50]
    assert [round(point.recall, 1) for point in points] == pytest.approx([0.0, 0.2, 0.5, 1.0], abs=0.06)
    assert points[-1].recall == 1.0
    assert all(point.promised < point.recall for point in points[:-1])


def test_queries_from_elsewhere_are_measured_against_every_row(tmp_path, array):
    vectors = stored(tmp_path, array)
    queries = np.random.default_rng(9).standard_normal((40, array.shape[1])).astype(np.float32)
    held_out = queries_from_elsewhere(queries, queries, vectors)
    expected = np.argsort(-(queries @ vectors.gather(np.arange(vectors.rows)).T), axis=1)[:, :10]
    np.testing.assert_array_equal(held_out.truth, expected)
    assert calibrate(Shuffling(array), vectors, held_out)[-1].recall == 1.0


def test_what_costs_more_and_finds_less_is_not_kept(tmp_path, array):
    class Worsening(Shuffling):
        efforts = (50, 10)

        def cost_us(self, effort):
            return 60 - effort

    vectors = stored(tmp_path, array)
    points = calibrate(Worsening(array), vectors, hold_out(vectors, vectors, held_out_rows(len(array))))
    assert {point.effort for point in points} == {50}


def test_held_out_rows_are_drawn_alike_every_time():
    rows = held_out_rows(50_000)
    assert len(np.unique(rows)) == 1_000
    np.testing.assert_array_equal(rows, held_out_rows(50_000))
    assert [len(held_out_rows(count)) for count in (1, 2, 100, 5_000)] == [1, 2, 10, 500]


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_to_find_is_nothing_to_calibrate(tmp_path, array, rows):
    vectors = stored(tmp_path, array[:rows] if rows else array[:1])
    held_out = hold_out(vectors, vectors, np.arange(rows))
    assert calibrate(Shuffling(array), vectors, held_out) == ()


def test_an_exact_index_needs_no_calibration(tmp_path, array):
    index = Shuffling(array)
    index.exact = True
    vectors = stored(tmp_path, array)
    assert calibrate(index, vectors, hold_out(vectors, vectors, np.arange(3))) == ()


class TestSharingOut:
    @pytest.mark.parametrize("count", [0, 1, 2, 3, 64, 1_000])
    def test_every_query_is_answered_once_and_in_order(self, count):
        assert share_out(lambda part: list(range(part.start, part.stop)), count) == list(range(count))

    def test_faiss_gets_one_thread_inside_and_its_own_number_outside(self):
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(3)
        try:
            inside = share_out(lambda part: [faiss.omp_get_max_threads()] * (part.stop - part.start), 10)
            assert set(inside) == {1}
            assert faiss.omp_get_max_threads() == 3
        finally:
            faiss.omp_set_num_threads(before)

    def test_an_error_in_a_part_reaches_the_caller(self):
        def fail(part):
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            share_out(fail, 10)
