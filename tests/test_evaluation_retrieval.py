import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactds.clients.evaluation.beir import Collection
from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.retrieval import (
    evaluate_retrieval,
    group_by_document,
    retrieve_documents,
    write_run,
)
from compactds.clients.evaluation.searching import Asking
from compactds.clients.results import Hit, Passage


def hit(passage_id, score):
    document_id = passage_id.rpartition("#")[0]
    return Hit(score, 1, Passage(passage_id, document_id, 0, "", "", "", 0, 0, {}))


class Ranked:
    """Answer each query with its prepared ranking of (passage id, score)."""

    def __init__(self, rankings):
        self.rankings = rankings
        self.calls = []

    def search(self, query, /, *, k, where=None, recall=None):
        self.calls.append((tuple(query), k, where, recall))
        return [[hit(*entry) for entry in self.rankings.get(text, [])[:k]] for text in query]


def test_the_best_passage_of_a_document_gives_its_rank_and_score():
    hits = [hit("b#4", 0.9), hit("a#0", 0.8), hit("b#1", 0.7), hit("c#0", 0.7), hit("a#2", 0.1)]
    assert group_by_document(hits) == [("b", 0.9), ("a", 0.8), ("c", 0.7)]
    assert group_by_document([]) == []


def test_documents_are_scored_not_passages():
    searcher = Ranked({"text": [("x#0", 0.9), ("x#1", 0.8), ("x#2", 0.7), ("good#0", 0.6)]})
    collection = Collection("set", {"q": "text"}, {"q": {"good": 1}})
    report = evaluate_retrieval(searcher, collection, ["nDCG@10", "RR@10"])
    assert {result.name: result.mean for result in report.measures} == {
        "nDCG@10": pytest.approx(1 / math.log2(3)),
        "RR@10": 0.5,
    }
    assert report.per_query == {"q": {"nDCG@10": pytest.approx(1 / math.log2(3)), "RR@10": 0.5}}
    assert report.run == {"q": [("x", 0.9), ("good", 0.6)]}


def test_the_mean_is_over_all_queries_also_those_without_hits():
    searcher = Ranked({"one": [("a#0", 1.0)], "two": [("b#0", 1.0), ("a#0", 0.5)]})
    queries = {"1": "one", "2": "two", "3": "three"}
    collection = Collection("set", queries, {query_id: {"a": 1} for query_id in queries})
    (result,) = evaluate_retrieval(searcher, collection, ["RR@10"]).measures
    assert result.mean == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert result.interval is not None
    assert 0 <= result.interval.low <= result.mean <= result.interval.high <= 1


def test_equal_scores_keep_the_order_in_which_they_were_returned():
    judgements = {"q": {"z": 1}}
    first = Ranked({"text": [("z#0", 0.5), ("a#0", 0.5)]})
    last = Ranked({"text": [("a#0", 0.5), ("z#0", 0.5)]})
    values = [
        evaluate_retrieval(searcher, Collection("set", {"q": "text"}, judgements), ["RR@10"]).measures[0].mean
        for searcher in (first, last)
    ]
    assert values == [1.0, 0.5]


def test_more_passages_are_fetched_until_there_are_enough_documents():
    crowded = [(f"big#{number}", 1.0 - number / 100) for number in range(9)] + [("a#0", 0.1), ("b#0", 0.05)]
    spread = [(f"{name}#0", 0.5) for name in "uvwxyz"]
    searcher = Ranked({"crowded": crowded, "spread": spread})
    found = retrieve_documents(searcher, {"1": "crowded", "2": "spread"}, 3)
    assert [document for document, _ in found.run["1"]] == ["big", "a", "b"]
    assert [document for document, _ in found.run["2"]] == ["u", "v", "w"]
    assert [(texts, k) for texts, k, *_ in searcher.calls] == [
        (("crowded", "spread"), 3),
        (("crowded",), 6),
        (("crowded",), 12),
    ]
    assert found.short == 0


def test_fetching_stops_when_the_store_has_no_more_or_at_the_limit():
    searcher = Ranked({"few": [("a#0", 1.0), ("a#1", 0.9)], "endless": [("b#0", 1.0)] * 50})
    found = retrieve_documents(searcher, {"1": "few", "2": "endless"}, 4, max_k=10)
    assert found.short == 2
    assert [(texts, k) for texts, k, *_ in searcher.calls] == [
        (("few", "endless"), 4),
        (("endless",), 8),
        (("endless",), 10),
    ]


def test_the_limit_on_passages_also_holds_for_the_first_search():
    searcher = Ranked({"text": [(f"d{number}#0", 1.0) for number in range(9)]})
    found = retrieve_documents(searcher, {"q": "text"}, 100, max_k=5)
    assert [k for _, k, *_ in searcher.calls] == [5]
    assert (len(found.run["q"]), found.short) == (5, 1)


@given(
    st.lists(st.integers(0, 6), max_size=40).map(lambda owners: [f"d{owner}" for owner in owners]),
    st.integers(1, 9),
)
def test_deep_enough_retrieval_equals_grouping_everything(owners, depth):
    ranking = [(f"{owner}#{index}", 1.0 - index / 100) for index, owner in enumerate(owners)]
    found = retrieve_documents(Ranked({"text": ranking}), {"q": "text"}, depth)
    assert found.run["q"] == group_by_document([hit(*entry) for entry in ranking])[:depth]


def test_where_recall_and_batches_reach_the_searcher_and_progress_is_told():
    searcher, done = Ranked({}), []
    collection = Collection("set", {"1": "a", "2": "b", "3": "c"}, {str(n): {"x": 1} for n in (1, 2, 3)})
    asking = Asking(where="year > 2000", recall=1.0, batch_size=2)
    evaluate_retrieval(searcher, collection, ["P@5"], asking=asking, progress=done.append)
    assert searcher.calls == [(("a", "b"), 5, "year > 2000", 1.0), (("c",), 5, "year > 2000", 1.0)]
    assert done == [2, 3]


def test_progress_counts_queries_that_are_done():
    done = []
    searcher = Ranked({"a": [("x#0", 1.0)] * 9, "b": [("y#0", 1.0), ("z#0", 0.5)]})
    asking = Asking(batch_size=1)
    retrieve_documents(searcher, {"1": "a", "2": "b"}, 2, asking=asking, progress=done.append)
    assert done == [1, 2]
    assert [(texts, k) for texts, k, *_ in searcher.calls] == [
        (("a",), 2),
        (("a",), 4),
        (("a",), 8),
        (("a",), 16),
        (("b",), 2),
    ]


def test_ids_that_match_no_judgement_are_noticed():
    collection = Collection("set", {"q": "text"}, {"q": {"17": 1, "18": 0}})
    strange = evaluate_retrieval(Ranked({"text": [("doc-17#0", 1.0), ("18#0", 0.5)]}), collection, ["P@5"])
    assert not strange.judged_found
    fine = evaluate_retrieval(Ranked({"text": [("17#0", 1.0)]}), collection, ["P@5"])
    assert fine.judged_found


def test_an_unknown_measure_is_refused_before_anything_is_searched():
    searcher = Ranked({})
    with pytest.raises(EvaluationError, match="does not exist"):
        evaluate_retrieval(searcher, Collection("set", {"q": "t"}, {"q": {"a": 1}}), ["nope@3"])
    assert searcher.calls == []


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"depth": 1, "max_k": 0}, {"depth": True}])
def test_counts_below_one_are_refused(wrong):
    with pytest.raises(EvaluationError, match="expected a whole number of at least 1"):
        retrieve_documents(Ranked({}), {"q": "text"}, **wrong)


def test_a_run_is_written_in_trecs_format_and_read_back_by_ir_measures(tmp_path):
    import ir_measures

    path = tmp_path / "run.trec"
    write_run(
        {"q 1": [("Olinda Posso", 0.5), ("b", 1e-9)], "ü": [], "q2": [("北京", -1.25)]}, path, "my store"
    )
    assert path.read_text(encoding="utf-8").splitlines() == [
        "q%201 Q0 Olinda%20Posso 1 0.5 my%20store",
        "q%201 Q0 b 2 1e-09 my%20store",
        "q2 Q0 北京 1 -1.25 my%20store",
    ]
    assert list(ir_measures.read_trec_run(str(path)))[2] == ("q2", "北京", -1.25)


def test_a_run_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(EvaluationError, match="the run cannot be written"):
        write_run({}, tmp_path / "missing" / "run.trec")
