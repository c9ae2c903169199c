"""Searching under filters: as many lists as it takes, wherever a filter leaves rows."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from compactds.datastore import filtered
from compactds.datastore.ann.ivf import open_ivf
from compactds.datastore.ann.ivf_build import build_ivf
from compactds.datastore.ann.ivf_shape import code_shape
from compactds.datastore.ann.list_map import MOST_KEPT
from compactds.datastore.ann.probe import Probe
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.filtered import FilteredSearch
from compactds.datastore.plan import Plan
from compactds.datastore.vectors import ExactVectors

ROWS, DIMENSION, LISTS = 12_000, 48, 120
TOPICS, THEMES = 12, 10


def of_topics(draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors that lie in themes of topics, and the topic of each."""
    layout = np.random.default_rng(0)
    topics = layout.standard_normal((TOPICS, 1, DIMENSION))
    themes = topics + 0.8 * layout.standard_normal((TOPICS, THEMES, DIMENSION))
    topic, theme = draw.integers(0, TOPICS, count), draw.integers(0, THEMES, count)
    vectors = themes[topic, theme] + draw.standard_normal((count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), topic


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filtered")
    array, topics = of_topics(np.random.default_rng(1), ROWS)
    array[1::200] = array[0::200]  # a few rows are copies of the one before
    array.astype("<f2").tofile(folder / "exact.f16")
    wide = array.astype("<f2").astype(np.float32)
    build_ivf(folder / "ivf", iter([wide]), sample=wide, lists=LISTS, shape=code_shape(DIMENSION, 16))
    return folder, wide, topics


def opened(folder):
    index = open_ivf(folder / "ivf")
    vectors = ExactVectors(folder / "exact.f16", rows=ROWS, dimension=DIMENSION, dtype="float16")
    vectors.learn(10**12)  # nothing had to be read
    return index, vectors, FilteredSearch(index, vectors)


def planned(candidates: int, effort: int, *, misses: float | None = 0.075, grows: bool = True) -> Plan:
    return Plan("lists", candidates, effort, 0.0, misses=misses, grows=grows)


def truth(wide: np.ndarray, query: np.ndarray, mask: np.ndarray, k: int = 10) -> np.ndarray:
    return np.argsort(-np.where(mask, wide @ query, -np.inf), kind="stable")[:k]


def recall(found, wide, queries, mask) -> float:
    hits = [
        1.0 if one is None else np.isin(truth(wide, query, mask), one[1]).mean()  # all is scored instead
        for one, query in zip(found, queries, strict=True)
    ]
    return float(np.mean(hits))


@pytest.mark.parametrize("side", ["with", "against", "neither"])
@pytest.mark.parametrize("share", [0.15, 0.5])
def test_recall_does_not_depend_on_where_a_filter_leaves_rows(store, side, share):
    folder, wide, topics = store
    _, _, search = opened(folder)
    queries, theirs = of_topics(np.random.default_rng(2), 60)
    kept = round(share * TOPICS)
    found = {True: [], False: []}
    for query, topic in zip(queries, theirs, strict=True):
        others = np.roll(np.arange(TOPICS), -topic - 1)  # the query's own topic comes last
        chosen = others[-kept:] if side == "with" else others[:kept]
        mask = np.isin(topics, chosen)
        if side == "neither":
            mask = np.random.default_rng(int(topic)).random(ROWS) < share
        one = search.best(query[np.newaxis], 10, planned(60, 4), Bitmap.from_mask(mask))
        found[one is None].append(recall([one], wide, [query], mask))
        assert one is None or mask[one[1]].all()
    assert np.mean(found[False] or [1.0]) >= 0.95
    if side != "against":
        assert len(found[False]) > 40  # where nothing goes against it, a search ends early


def test_an_effort_that_was_asked_for_is_kept_to(store):
    folder, wide, topics = store
    index, _, search = opened(folder)
    queries, theirs = of_topics(np.random.default_rng(2), 40)
    answers = {"asked": [], "far": []}
    for query, topic in zip(queries, theirs, strict=True):
        mask = topics != topic
        for name, misses in (("asked", None), ("far", 0.075)):
            one = search.best(query[np.newaxis], 10, planned(60, 2, misses=misses), Bitmap.from_mask(mask))
            answers[name].append(recall([one], wide, [query], mask))
    assert np.mean(answers["far"]) > np.mean(answers["asked"])
    assert index.lists == LISTS


def test_rows_are_found_however_few_are_near(store):
    folder, wide, _ = store
    index, _, search = opened(folder)
    query = wide[7:8]
    probe = Probe(index)
    probe.find(query, LISTS)
    nearest = probe.lists
    mask = np.isin(index.list_map().list_of_row, nearest[-20:])
    one = search.best(query, 10, planned(200, 2, misses=None, grows=False), Bitmap.from_mask(mask))
    assert one is not None
    assert mask[one[1]].all()
    every = search.best(query, 10, planned(400, 2, grows=False), Bitmap.from_mask(mask))  # of all lists
    assert every is not None
    assert recall([every], wide, query, mask) >= 0.9
    cheaper = replace(planned(200, 2), misses=0.075, most_rows=ROWS - 1)
    assert search.best(query, 10, cheaper, Bitmap.from_mask(mask)) is None  # all rows are scored instead


def test_more_candidates_are_scored_further_out_unless_their_number_was_given(store):
    folder, wide, topics = store
    _, _, search = opened(folder)
    even, against = (Bitmap.from_mask(mask) for mask in (np.arange(ROWS) % 4 == 0, topics != topics[7]))
    assert search.best(wide[7:8], 5, planned(40, 4, misses=None), even)[2] == 40
    grown = search.best(wide[7:8], 5, planned(40, 4, misses=0.04), against)
    given = search.best(wide[7:8], 5, planned(40, 4, misses=0.04, grows=False), against)
    assert grown[2] > given[2] == 40


def test_the_less_a_filter_leaves_the_more_lists_are_searched(store):
    index, _, _ = opened(store[0])
    efforts = [index.effort_at(share, 4) for share in (1.0, 0.5, 0.1, 0.01, 1e-6)]
    assert efforts == sorted(efforts)
    assert (efforts[0], efforts[-1]) == (4, index.lists)


def test_parameters_are_kept_while_they_are_few(store):
    index, _, search = opened(store[0])
    allowed = Bitmap.from_mask(np.arange(ROWS) % 10 < 7)  # too many for lists of their own
    query = np.random.default_rng(6).standard_normal((1, DIMENSION)).astype(np.float32)
    kept = index.list_map().counts(allowed).kept
    for lists in index.efforts:
        search.best(query, 10, planned(200, lists, misses=None, grows=False), allowed)
        assert 0 < len(kept) <= MOST_KEPT
    assert len(kept) == MOST_KEPT
    before = dict(kept)
    search.best(query, 10, planned(200, lists, misses=None, grows=False), allowed)
    assert kept == before


@pytest.mark.parametrize("cold", [False, True])
def test_copies_of_the_last_row_wanted_are_ordered_by_row(tmp_path, cold):
    array = np.random.default_rng(8).standard_normal((ROWS, DIMENSION)).astype("<f2")
    array[100:160] = array[100]  # sixty copies
    array.tofile(tmp_path / "exact.f16")
    wide = array.astype(np.float32)
    build_ivf(tmp_path / "ivf", iter([wide]), sample=wide, lists=LISTS, shape=code_shape(DIMENSION, 8))
    _, vectors, search = opened(tmp_path)
    if cold:
        vectors.learn(-1)  # something had to be read
        assert vectors.cold
    allowed = Bitmap.from_mask(np.arange(ROWS) % 2 == 0)
    found = search.best(wide[100:101], 10, planned(200, 20), allowed)
    np.testing.assert_array_equal(found[1], np.arange(100, 120, 2))
    assert (found[0] == found[0][0]).all()


def test_what_is_on_disk_is_found_as_what_is_in_memory(store):
    folder, wide, topics = store
    _, vectors, search = opened(folder)
    allowed = Bitmap.from_mask(topics < 5)
    for query in wide[:40]:
        warm = search.best(query[np.newaxis], 10, planned(100, 6), allowed)
        vectors.learn(-1)
        cold = search.best(query[np.newaxis], 10, planned(100, 6), allowed)
        while vectors.cold:
            vectors.learn(10**12)
        assert (warm is None) == (cold is None)
        if warm is not None:
            np.testing.assert_array_equal(warm[1], cold[1])
            np.testing.assert_array_equal(warm[0], cold[0])


def test_a_filter_that_leaves_as_much_near_a_query_as_elsewhere_is_searched_in_one_step(store, monkeypatch):
    folder, wide, topics = store
    _, _, search = opened(folder)
    asked = []

    def note(plan, lists, *_):
        asked.append(lists)
        return plan.candidates

    monkeypatch.setattr("compactds.datastore.filtered._candidates", note)
    steps = {}
    for name, mask in (("even", np.arange(ROWS) % 2 == 0), ("against", topics != topics[7])):
        asked.clear()
        search.best(wide[7:8], 10, planned(60, 4), Bitmap.from_mask(mask))
        steps[name] = list(asked)
    assert len(steps["even"]) == 1
    assert len(steps["against"]) > 1
    assert steps["against"] == sorted(steps["against"])


@pytest.mark.parametrize(
    ("effort", "excluded", "steps"),
    [(LISTS // 4, 9, 1), (LISTS // 16, 9, 2), (LISTS // 4, 6, 2), (LISTS // 4, 0, 1)],
    ids=["all at once", "few lists to begin with", "much allowed", "nothing against the query"],
)
def test_a_small_index_has_all_lists_searched_at_once_where_a_filter_goes_against_a_query(
    store, effort, excluded, steps, monkeypatch
):
    folder, wide, topics = store
    index, _, search = opened(folder)
    asked = []
    look = FilteredSearch._look

    def note(self, found, probe, counts, lists, candidates):
        asked.append(lists)
        look(self, found, probe, counts, lists, candidates)

    monkeypatch.setattr(FilteredSearch, "_look", note)
    # Next to nothing may be missed, so that no search ends with the first lists for want of depth.
    strict = planned(60, effort, misses=1e-6)
    if excluded:
        mask = np.isin(topics, [(topics[7] + step) % TOPICS for step in range(excluded, TOPICS)])
    else:
        mask = np.arange(ROWS) % 4 == 0
    one = search.best(wide[7:8], 10, strict, Bitmap.from_mask(mask))
    assert one is not None
    assert len(asked) == steps
    assert (asked[0] == index.lists) == (steps == 1 and excluded > 0)
    assert recall([one], wide, wide[7:8], mask) == 1.0
    asked.clear()
    search.best(wide[7:8], 10, replace(strict, misses=None), Bitmap.from_mask(mask))
    assert asked[0] < index.lists  # an effort that was asked for is kept to
    asked.clear()
    dear = search.best(wide[7:8], 10, replace(strict, most_rows=ROWS - 1), Bitmap.from_mask(mask))
    assert (dear is None) == (excluded > 0)  # all is scored instead, before any list is looked at
    assert len(asked) == (1 if not excluded or steps == 2 else 0)
    monkeypatch.setattr(filtered, "SMALL_ROWS", ROWS - 1)
    asked.clear()
    search.best(wide[7:8], 10, strict, Bitmap.from_mask(mask))
    assert asked[0] < index.lists


@pytest.mark.parametrize("side", ["with", "against"])
def test_vectors_in_float32_are_scored_by_their_inner_products(store, side):
    folder, wide, topics = store
    wide.tofile(folder / "exact.f32")
    index = open_ivf(folder / "ivf")
    vectors = ExactVectors(folder / "exact.f32", rows=ROWS, dimension=DIMENSION, dtype="float32")
    search = FilteredSearch(index, vectors)
    queries, theirs = of_topics(np.random.default_rng(3), 30)
    hits, answered = [], 0
    for query, topic in zip(queries, theirs, strict=True):
        mask = (topics == topic) if side == "with" else (topics != topic)
        found = search.best(query[np.newaxis], 10, planned(60, 4), Bitmap.from_mask(mask))
        hits.append(recall([found], wide, [query], mask))
        if found is not None:
            answered += 1
            np.testing.assert_allclose(found[0], wide[found[1]] @ query, rtol=1e-5)
            assert mask[found[1]].all()
    assert np.mean(hits) >= 0.95
    assert answered >= 5  # else all was scored, which finds everything


def test_another_encoder_decides_by_its_own_vectors(store, tmp_path):
    folder, narrow, topics = store
    turn = np.random.default_rng(4).standard_normal((DIMENSION, 2 * DIMENSION)).astype(np.float32)
    deciding = narrow @ turn
    deciding.astype("<f2").tofile(tmp_path / "exact.f16")
    vectors = ExactVectors(tmp_path / "exact.f16", rows=ROWS, dimension=2 * DIMENSION, dtype="float16")
    search = FilteredSearch(open_ivf(folder / "ivf"), vectors)
    queries, theirs = of_topics(np.random.default_rng(5), 30)
    stored = deciding.astype("<f2").astype(np.float32)
    hits, answered = [], 0
    for query, topic in zip(queries, theirs, strict=True):
        mask, exact = topics != topic, (query @ turn)[np.newaxis]
        found = search.best(query[np.newaxis], 10, planned(200, 8), Bitmap.from_mask(mask), deciding=exact)
        hits.append(recall([found], stored, exact, mask))
        if found is not None:
            answered += 1
            assert mask[found[1]].all()
            assert (np.diff(found[0]) <= 0).all()
            np.testing.assert_allclose(found[0], stored[found[1]] @ exact[0], rtol=1e-3)
    assert np.mean(hits) >= 0.8
    assert answered >= 5  # else all was scored, which finds everything


def test_no_more_candidates_are_scored_than_half_of_what_is_allowed(store):
    folder, wide, topics = store
    _, _, search = opened(folder)
    answered = 0
    for query, topic in zip(wide[:40], topics[:40], strict=True):
        allowed = Bitmap.from_mask(topics != topic)
        for k, candidates in ((10, 60), (100, 900), (300, 3_000)):
            found = search.best(query[np.newaxis], k, planned(candidates, 2, misses=0.05 * k), allowed)
            assert found is None or found[2] < allowed.count / 2
            answered += found is not None
        given = search.best(
            query[np.newaxis], 10, planned(50_000, 2, grows=False), Bitmap.from_rows(np.arange(99), ROWS)
        )
        assert given is not None
        assert given[2] <= 99
    assert 5 < answered < 120


@pytest.mark.parametrize("grows", [True, False])
def test_the_rows_scored_are_counted(store, grows, monkeypatch):
    folder, wide, topics = store
    _, _, search = opened(folder)
    scored = []
    real = ExactVectors.best

    def best(self, query, rows, k):
        scored.append(len(rows))
        return real(self, query, rows, k)

    monkeypatch.setattr(ExactVectors, "best", best)
    steps = []
    for query, topic in zip(wide[:40], topics[:40], strict=True):
        scored.clear()
        found = search.best(
            query[np.newaxis], 10, planned(60, 2, grows=grows), Bitmap.from_mask(topics != topic)
        )
        assert found is None or found[2] == sum(scored)
        steps.append(scored[1:])
    assert any(steps)
    if not grows:  # of those further out, none is scored that is not among the best 60 of all
        assert all(count <= 60 for further in steps for count in further)
        assert np.mean([count for further in steps for count in further]) < 50


def test_lists_found_a_few_at_a_time_give_what_all_at_once_give(store, monkeypatch):
    folder, wide, topics = store
    _, _, search = opened(folder)
    _, _, other = opened(folder)
    further = 0
    for query, topic in zip(wide[:60], topics[:60], strict=True):
        allowed = Bitmap.from_mask(topics != topic)
        monkeypatch.setattr("compactds.datastore.ann.probe.LISTS_AT_ONCE", 1_024)
        expected = search.best(query[np.newaxis], 10, planned(60, 4), allowed)
        monkeypatch.setattr("compactds.datastore.ann.probe.LISTS_AT_ONCE", 0)
        found = other.best(query[np.newaxis], 10, planned(60, 4), allowed)
        assert (found is None) == (expected is None)
        if found is not None:
            np.testing.assert_array_equal(found[1], expected[1])
            further += found[2] > 60
    assert further > 5


def test_depth_is_the_mean_place_of_the_best_or_a_part_of_the_deepest():
    known = SimpleNamespace(sizes=np.zeros(4), list_of_row=np.array([2, 0, 1, 3], np.uint16))
    counts = SimpleNamespace(allowed=np.array([20, 40, 10, 30], np.float32))
    lists = np.array([2, 0, 1, 3])  # their allowed rows lie at 0 to 10, 30, 70 and 100
    assert filtered._depth(lists, known, counts, np.array([0])) == pytest.approx(0.05)
    assert filtered._depth(lists, known, counts, np.array([0, 1])) == pytest.approx((0.05 + 0.2) / 2)
    best = np.array([0] * 9 + [3])
    assert filtered._depth(lists, known, counts, best) == pytest.approx(filtered.OF_DEEPEST * 0.85)
    assert filtered._depth(lists[:2], known, counts, np.array([1])) == pytest.approx(20 / 30)


def test_two_encoders_score_more_candidates_the_more_lists_a_filter_takes(store):
    folder, wide, _ = store
    _, _, search = opened(folder)
    allowed = Bitmap.from_mask(np.arange(ROWS) % 4 == 0)
    one = search.best(wide[9:10], 5, planned(40, 4, misses=None), allowed)
    two = search.best(wide[9:10], 5, planned(40, 4, misses=None), allowed, deciding=wide[9:10])
    assert two[2] > one[2] == 40


def test_numbers_of_lists_are_few_so_that_their_parameters_are_kept(store, monkeypatch):
    folder, wide, topics = store
    index, _, search = opened(folder)
    looked = []
    real = FilteredSearch._look

    def look(self, found, probe, counts, lists, candidates):
        looked.append((found.lists, lists))
        real(self, found, probe, counts, lists, candidates)

    monkeypatch.setattr(FilteredSearch, "_look", look)
    allowed = Bitmap.from_mask(topics != 3)
    for query in wide[:300]:
        search.best(query[np.newaxis], 10, planned(60, 4), allowed)
    assert {lists for _, lists in looked} <= set(index.efforts)
    assert len({lists - before for before, lists in looked}) <= 2 * MOST_KEPT


def test_another_encoder_of_the_same_dimension_decides_by_its_own_vectors(store, tmp_path):
    folder, narrow, topics = store
    turn = np.random.default_rng(4).standard_normal((DIMENSION, DIMENSION)).astype(np.float32)
    stored = (narrow @ turn).astype("<f2")
    stored.tofile(tmp_path / "exact.f16")
    vectors = ExactVectors(tmp_path / "exact.f16", rows=ROWS, dimension=DIMENSION, dtype="float16")
    vectors.learn(10**12)
    search = FilteredSearch(open_ivf(folder / "ivf"), vectors)
    allowed = Bitmap.from_mask(topics < 6)
    answered = 0
    for query in narrow[:20]:
        exact = (query @ turn)[np.newaxis]
        found = search.best(query[np.newaxis], 10, planned(200, 8), allowed, deciding=exact)
        if found is not None:
            answered += 1
            np.testing.assert_allclose(found[0], stored[found[1]].astype(np.float32) @ exact[0], rtol=1e-3)
    assert answered >= 10


def test_all_is_scored_where_searching_further_and_scoring_more_would_cost_as_much(store):
    folder, wide, topics = store
    _, _, search = opened(folder)
    allowed = Bitmap.from_mask(topics != topics[7])
    plan = planned(60, 4)
    assert search.best(wide[7:8], 10, replace(plan, most_rows=ROWS + 1), allowed) is not None
    assert search.best(wide[7:8], 10, replace(plan, most_rows=ROWS + 1, score_rows=30.0), allowed) is None
