"""Single vectors answered in short: as in full, and errors as in full."""

import shutil

import numpy as np
import pytest

from compactds.configs.recipe import recipe_for
from compactds.datastore import Datastore
from compactds.datastore.errors import SearchError, StoreError, VectorError
from compactds.datastore.prepared import MOST_PREPARED, PreparedSearches
from compactds.filters import WhereError, parse_where
from compactds.indexer.build import build
from compactds.indexer.deleting import delete

ROWS, DIMENSION = 1_500, 16


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    array = np.random.default_rng(0).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    array[1::40] = array[0::40][: len(array[1::40])]
    array /= np.linalg.norm(array, axis=1, keepdims=True)
    np.save(folder / "vectors.npy", array)
    lines = (
        f'{{"id": "{row}", "text": "row {row}", "number": {row}, "even": {str(row % 2 == 0).lower()}}}'
        for row in range(ROWS)
    )
    (folder / "records.jsonl").write_text("\n".join(lines))
    settings = {"vectors": str(folder / "vectors.npy"), "index.kind": "ivf"}
    build(recipe_for([str(folder / "records.jsonl")], settings), folder / "store")
    with Datastore.open(folder / "store") as opened:
        for query in array[:20]:  # whose rows are in memory from then on
            opened.nearest(query)
        yield opened


@pytest.fixture
def queries() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((60, DIMENSION)).astype(np.float32)


@pytest.mark.parametrize(
    "asked", [{}, {"k": 3}, {"recall": 0.8}, {"effort": 2, "candidates": 40}, {"k": 200}, {"recall": 1.0}]
)
def test_a_vector_gets_in_short_what_it_gets_in_full(store, queries, asked):
    in_full = store.nearest(queries, **asked)
    for place, query in enumerate(queries):
        for vector in (query, query[None], query.tolist()):
            found = store.nearest(vector, **asked)
            np.testing.assert_array_equal(found.rows[0], in_full.rows[place])
            np.testing.assert_array_equal(found.scores[0], in_full.scores[place])
            assert found.plan == in_full.plan


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_vectors_without_a_direction_are_refused_however_often(store, value):
    for _ in range(3):
        with pytest.raises(VectorError):
            store.nearest(np.full(DIMENSION, value, np.float32))


def test_wrong_arguments_are_refused_after_right_ones_that_equal_them(store, queries):
    store.nearest(queries[0], k=1)
    for asked in ({"k": True}, {"k": 1.0}, {"k": [1]}, {"recall": "0.9"}, {"k": 5, "candidates": 2}):
        for _ in range(2):
            with pytest.raises(SearchError):
                store.nearest(queries[0], **asked)


WHERES = {
    "half": {"even": True},
    "most": {"number": {"$gte": 100}},
    "few": {"number": {"$lt": 40}},
    "fewer than k": {"number": {"$lt": 4}},
    "copies": {"number": {"$in": [number for pair in range(0, ROWS, 40) for number in (pair, pair + 1)]}},
    "none": {"number": {"$lt": 0}},
    "all": {"number": {"$gte": 0}},
}


@pytest.mark.parametrize("where", WHERES.values(), ids=WHERES)
@pytest.mark.parametrize("asked", [{}, {"k": 3, "recall": 0.8}, {"effort": 3, "candidates": 40}, {"k": 60}])
def test_a_vector_under_a_filter_gets_in_short_what_it_gets_in_full(store, queries, where, asked):
    in_full = store.nearest(queries, where=where, **asked)
    for place, query in enumerate(queries[:20]):
        for vector in (query, query[None], query.tolist()):
            found = store.nearest(vector, where=where, **asked)
            np.testing.assert_array_equal(found.rows[0], in_full.rows[place])
            np.testing.assert_array_equal(found.scores[0], in_full.scores[place])
            assert found.plan == in_full.plan


def test_wrong_conditions_and_vectors_are_refused_however_often(store, queries):
    for _ in range(2):
        with pytest.raises(WhereError):
            store.nearest(queries[0], where={"no such field": 1})
        with pytest.raises(VectorError):
            store.nearest(np.zeros(DIMENSION, np.float32), where={"even": True})
        with pytest.raises(VectorError):
            store.nearest(queries[0, :5], where={"even": True})


def test_rows_deleted_since_are_not_found_under_a_filter(store, queries, tmp_path):
    shutil.copytree(store.path, tmp_path / "store")
    number = int(store.nearest(queries[0], where={"even": True}).rows[0, 0])
    delete(tmp_path / "store", ids=[str(number)])
    with Datastore.open(tmp_path / "store") as opened:
        for _ in range(3):
            found = opened.nearest(queries[0], where={"even": True}).rows
            assert number not in found
            assert (found % 2 == 0).all()


def test_a_closed_store_answers_nothing(store, queries):
    opened = Datastore.open(store.path)
    opened.nearest(queries[0])
    opened.close()
    with pytest.raises(StoreError, match="closed"):
        opened.nearest(queries[0])


def test_only_so_many_kinds_of_search_are_kept():
    kept = PreparedSearches()
    for k in range(MOST_PREPARED + 1):
        kept.keep(None, k, None, None, None)
    assert len(kept._kept) == 1
    assert kept.get(MOST_PREPARED, None, None, None) == (True, None)
    assert kept.get(1, None, None, None) == (False, None)
    assert kept.get([], None, None, None) == (True, None)


def test_a_batch_gets_what_its_vectors_get_alone_copies_among_the_rows_or_not(store, queries):
    copied = store.nearest(queries, k=200).rows  # far enough down to meet rows that score alike
    alone = [store.nearest(query, k=200).rows[0] for query in queries]
    np.testing.assert_array_equal(copied, np.stack(alone))
    assert store.nearest(queries[:0]).rows.shape == (0, 10)


def test_lists_that_hold_fewer_rows_than_are_wanted_leave_no_gaps(store, queries):
    for query in queries[:20]:
        for wanted in (150, 400, 900):
            found = store.nearest(query, k=wanted, candidates=wanted, effort=2)
            assert (found.rows >= 0).all()
            assert len(np.unique(found.rows)) == wanted


def test_a_vector_in_strides_scores_as_one_in_a_row(store, queries):
    strided = np.asfortranarray(queries)
    together = store.nearest(strided)
    for place, query in enumerate(queries):
        found = store.nearest(strided[place])
        np.testing.assert_array_equal(found.scores, store.nearest(query).scores)
        np.testing.assert_array_equal(found.scores[0], together.scores[place])


def test_a_filter_over_deleted_rows_is_found_out_once_and_gets_its_lists(store, queries, tmp_path):
    shutil.copytree(store.path, tmp_path / "store")
    delete(tmp_path / "store", ids=["0", "1"])
    with Datastore.open(tmp_path / "store") as opened:
        (segment,) = opened._open_segments
        exact = opened.nearest(queries, where={"even": True}, recall=1.0).rows
        counts = segment.index.list_map().counts(segment.allowed(parse_where({"even": True}, opened.schema)))
        for _ in range(20):
            after = opened.nearest(queries, where={"even": True}, plan="lists", candidates=80).rows
        assert counts.use.searches >= 20
        assert counts.use.narrowed is not None
        assert np.mean([np.isin(*pair).mean() for pair in zip(exact, after, strict=True)]) > 0.9
        assert (after % 2 == 0).all()
        assert not np.isin(after, [0, 1]).any()
