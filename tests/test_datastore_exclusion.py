"""Searches that leave out what overlaps with evaluation questions."""

from dataclasses import asdict

import numpy as np
import pytest

from compactds.configs.recipe import EncoderConfig, Recipe, Source
from compactds.datastore import Datastore, exclusion
from compactds.datastore.encoders.base import EncoderSpec
from compactds.datastore.errors import SearchError
from compactds.filters.corpus.overlap import OverlapError, OverlapIndex
from compactds.filters.corpus.overlap_questions import Question
from compactds.indexer.build import build

LONG = "what force keeps the planets of the solar system in orbit around the sun at all times"
SHORT = "who first measured the speed of light"
PLANTED = {  # place in the ranking -> what stands in the text; places are those of `near`
    0: LONG,
    1: LONG.upper(),
    3: f"It was asked, {SHORT.replace(' ', ', ')}?",
    4: " ".join(LONG.split()[:13]),
    9: LONG,
}


class NumberEncoder:
    """Place a text by the first number in it, so that tests say which passages are near."""

    spec = EncoderSpec(
        model="numbers",
        kind="static",
        dimension=2,
        max_tokens=None,
        normalized=True,
        query_prompt="",
        passage_prompt="",
        pooling="sum",
        fingerprint="numbers-2",
    )

    def encode_passages(self, texts):
        numbers = [next((int(word) for word in text.split() if word.isdigit()), 0) for text in texts]
        angles = np.array(numbers, np.float32).reshape(-1) / 100
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    encode_queries = encode_passages

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


@pytest.fixture(scope="module")
def store(tmp_path_factory, write_jsonl):
    folder = tmp_path_factory.mktemp("excluded")
    records = [
        {"id": f"d{n}", "text": f"{n} is its very place. {PLANTED.get(n, 'Plain')}", "even": n % 2 == 0}
        for n in range(40)
    ]
    source = write_jsonl(folder / "records.jsonl", records)
    recipe = Recipe(name="t", sources=[Source(path=str(source))], encoder=EncoderConfig(model="numbers"))
    build(recipe, folder / "store", encoder=NumberEncoder())
    with Datastore.open(folder / "store", encoder=NumberEncoder()) as opened:
        yield opened


def places(hits):
    return [int(hit.passage.document_id[1:]) for hit in hits]


def test_what_overlaps_is_left_out_and_the_next_best_take_its_place(store):
    assert places(store.search("0", k=6)) == [0, 1, 2, 3, 4, 5]
    hits = store.search("0", k=6, exclude_overlap_with=[LONG, SHORT])
    assert places(hits) == [2, 5, 6, 7, 8, 10]
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5, 6]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits.report.excluded == 5
    assert {"overlap", "fetch"} <= set(hits.report.timings_ms)


def test_each_question_is_found_alone(store):
    assert places(store.search("0", k=3, exclude_overlap_with=[LONG])) == [2, 3, 5]
    assert places(store.search("0", k=4, exclude_overlap_with=[SHORT])) == [0, 1, 2, 4]
    assert places(store.search("0", k=4, exclude_overlap_with=(Question(SHORT),))) == [0, 1, 2, 4]


def test_the_count_is_of_better_passages_however_far_the_search_went(store):
    assert store.search("0", k=1, exclude_overlap_with=[LONG, SHORT]).report.excluded == 2
    assert store.search("0", k=3, exclude_overlap_with=[LONG, SHORT]).report.excluded == 4
    assert store.search("39", k=3, exclude_overlap_with=[LONG, SHORT]).report.excluded == 0


@pytest.mark.parametrize("options", [{}, {"candidates": 6}, {"recall": 1.0}, {"recall": 0.5}], ids=str)
def test_every_clean_passage_is_found_if_there_are_fewer_than_k(store, options):
    hits = store.search(
        "0", k=6, where={"even": True}, exclude_overlap_with=["is its very place Plain"], **options
    )
    assert places(hits) == [0, 4]
    assert hits.report.matching == 20
    assert hits.report.excluded == 18
    everything = [f"{n} is its very place" for n in range(40)]
    nothing = store.search("0", k=6, exclude_overlap_with=everything, **options)
    assert (places(nothing), nothing.report.excluded) == ([], 40)


def test_nothing_is_asked_twice_where_nothing_overlaps(store):
    asked = store.search("0", k=5, exclude_overlap_with=["nobody wrote these words anywhere"])
    assert [asdict(hit) for hit in asked] == [asdict(hit) for hit in store.search("0", k=5)]


def test_the_search_goes_no_further_than_its_bound(store, monkeypatch):
    monkeypatch.setattr(exclusion, "MAX_K", 4)
    hits = store.search("0", k=3, exclude_overlap_with=[LONG, SHORT])
    assert (places(hits), hits.report.excluded) == ([2], 3)


def test_a_batch_finds_what_its_queries_find_alone(store, monkeypatch):
    queries = [str(number) for number in range(0, 40, 3)]
    wheres = [{"even": True}, None] * 7
    monkeypatch.setattr(exclusion, "ROWS_AT_ONCE", 20)
    together = store.search(queries, k=6, where=wheres, exclude_overlap_with=[LONG, SHORT])
    for query, where, hits in zip(queries, wheres, together, strict=True):
        alone = store.search(query, k=6, where=where, exclude_overlap_with=[LONG, SHORT])
        assert [asdict(hit) for hit in hits] == [asdict(hit) for hit in alone]
        assert hits.report.excluded == alone.report.excluded
        assert not set(places(hits)) & set(PLANTED)
    assert store.search([], exclude_overlap_with=[LONG]) == []
    with pytest.raises(SearchError, match="a list of 2, given with a batch of 14"):
        store.search(queries, where=[None, None], exclude_overlap_with=[LONG])


def test_true_stands_for_each_querys_own_text(store):
    assert places(store.search(LONG, k=3, exclude_overlap_with=True)) == [2, 3, 5]
    own, other, wordless = store.search([LONG, SHORT, "?!"], k=3, exclude_overlap_with=True)
    assert places(own) == [2, 3, 5]
    assert places(other) == [0, 1, 2]
    assert places(wordless) == [0, 1, 2]
    assert store.search([], exclude_overlap_with=True) == []


def test_vectors_are_searched_with_questions_too(store):
    vectors = NumberEncoder().encode_queries(["0", "39"])
    near, far = store.search(vectors=vectors, k=2, exclude_overlap_with=[LONG])
    assert (places(near), set(places(far))) == ([2, 3], {38, 39})
    with pytest.raises(SearchError, match="the queries are vectors"):
        store.search(vectors=vectors, exclude_overlap_with=True)


def test_none_and_false_exclude_nothing(store):
    for nothing in (None, False):
        hits = store.search("0", k=2, exclude_overlap_with=nothing)
        assert (places(hits), hits.report.excluded) == ([0, 1], 0)
        assert "overlap" not in hits.report.timings_ms


@pytest.mark.parametrize("wrong", ["a text", 5, {"a"}, b"text", ["a", None], [["a"]]], ids=str)
def test_what_are_no_questions_is_refused(store, wrong):
    with pytest.raises(SearchError, match="exclude_overlap_with"):
        store.search("0", exclude_overlap_with=wrong)


@pytest.mark.parametrize("wordless", [[], ["", " ?! "]], ids=str)
def test_questions_without_a_word_are_refused(store, wordless):
    with pytest.raises(OverlapError, match="has a word to compare"):
        store.search("0", exclude_overlap_with=wordless)


def test_an_index_is_built_once_for_the_same_questions(store, monkeypatch):
    built = []

    def counted(questions):
        built.append(questions)
        return OverlapIndex(questions)

    monkeypatch.setattr(exclusion, "OverlapIndex", counted)
    for number in (1, 1, 2, 1):
        store.search("0", exclude_overlap_with=[f"{LONG} for the time {number}"])
    assert len(built) == 2
