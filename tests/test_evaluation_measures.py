import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.measures import DEFAULT_MEASURES, compute, needed_depth, parse_measures


def measure(name, judgements, rankings):
    values = compute(parse_measures([name]), judgements, rankings)
    return {query_id: scores[str(parse_measures([name])[0])] for query_id, scores in values.items()}


def test_ndcg_by_hand():
    # Ranks hold gains 0, 2, 0, 1; the ideal order has 2, 1, 1 (one relevant document is never found).
    judgements = {"q": {"two": 2, "one": 1, "lost": 1, "zero": 0}}
    found = 2 / math.log2(3) + 1 / math.log2(5)
    ideal = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    value = measure("nDCG@10", judgements, {"q": ["unjudged", "two", "zero", "one"]})
    assert value["q"] == pytest.approx(found / ideal)


def test_recall_reciprocal_rank_and_average_precision_by_hand():
    judgements = {"q": {"a": 1, "b": 3, "c": 1, "d": 1}}
    rankings = {"q": ["x", "a", "b", "y", "c"]}
    assert measure("R@3", judgements, rankings)["q"] == pytest.approx(2 / 4)
    assert measure("RR@10", judgements, rankings)["q"] == pytest.approx(1 / 2)
    assert measure("RR@1", judgements, rankings)["q"] == 0
    assert measure("AP@100", judgements, rankings)["q"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 4)


def test_a_query_that_found_nothing_scores_zero_and_is_not_left_out():
    judgements = {"found": {"a": 1}, "empty": {"a": 1}, "missing": {"a": 1}}
    rankings = {"found": ["a"], "empty": []}
    assert measure("nDCG@10", judgements, rankings) == {"found": 1.0, "empty": 0.0, "missing": 0.0}
    assert measure("nDCG@10", judgements, {}) == {"found": 0.0, "empty": 0.0, "missing": 0.0}


def test_ids_with_blanks_and_other_scripts_are_told_apart():
    judgements = {"q 1": {"Olinda Posso": 1, "Olinda Bastress": 0}, "q 2": {"北京 市": 1, "\ud800": 2}}
    rankings = {"q 1": ["Olinda Bastress", "Olinda Posso"], "q 2": ["\ud800", "北京 市"]}
    assert measure("RR@10", judgements, rankings) == {"q 1": 0.5, "q 2": 1.0}


@given(
    st.permutations([f"d{number}" for number in range(12)]),
    st.dictionaries(st.sampled_from([f"d{number}" for number in range(14)]), st.integers(0, 3), min_size=1),
    st.integers(1, 15),
)
def test_measures_agree_with_their_definitions(ranking, judged, cutoff):
    relevant = {document for document, grade in judged.items() if grade > 0}
    top = ranking[:cutoff]
    if not relevant:
        return
    gains = [judged.get(document, 0) for document in top]
    ideal = sorted(judged.values(), reverse=True)[:cutoff]

    def dcg(grades):
        return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))

    first = next((rank for rank, document in enumerate(top, start=1) if document in relevant), None)
    precisions = [
        len(relevant & set(top[:rank])) / rank
        for rank, document in enumerate(top, start=1)
        if document in relevant
    ]
    expected = {
        f"nDCG@{cutoff}": dcg(gains) / dcg(ideal),
        f"R@{cutoff}": len(relevant & set(top)) / len(relevant),
        f"RR@{cutoff}": 1 / first if first else 0.0,
        f"AP@{cutoff}": sum(precisions) / len(relevant),
    }
    values = compute(parse_measures(list(expected)), {"q": judged}, {"q": ranking})["q"]
    assert values == pytest.approx(expected)


def test_depth_is_the_largest_cutoff_or_a_thousand_without_one():
    assert needed_depth(parse_measures(DEFAULT_MEASURES)) == 100
    assert needed_depth(parse_measures(["P@5", "RR@10"])) == 10
    assert needed_depth(parse_measures(["nDCG@10", "AP"])) == 1000
    assert needed_depth(parse_measures(["IPrec@0.1"])) == 1000


def test_a_measure_named_twice_or_by_an_alias_is_computed_once():
    assert [str(one) for one in parse_measures(["RR@10", " MRR@10", "nDCG@10"])] == ["RR@10", "nDCG@10"]


@pytest.mark.parametrize(
    ("name", "problem", "remedy"),
    [
        ("ndcg@10", "'ndcg@10' does not exist", "Did you mean nDCG@10?"),
        ("recall@100", "does not exist", "Did you mean R@100?"),
        ("precison@5", "does not exist", "Did you mean P@5?"),
        ("zzzzz", "does not exist", "Name one such as nDCG@10"),
        ("", "does not exist", "Name one"),
        ("nDCG@x", "does not exist", "Name one"),
        ("nDCG@10; import os", "does not exist", ""),
        ("__import__('os')", "does not exist", ""),
        ("(" * 90, "does not exist", ""),
        ("x\0y", "does not exist", ""),
        ("R", "lacks a cutoff", ""),
        ("nDCG@1.5", "lacks a cutoff or parameter, or has one it does not take", ""),
        ("nDCG(color=1)@10", "has one it does not take", ""),
        ("nDCG@0", "cuts the ranking outside 1 to 10,000", ""),
        ("nDCG@True", "cuts the ranking outside", ""),
        ("nDCG@99999", "cuts the ranking outside", ""),
        ("NumQ", "is a count, not a mean", ""),
        ("RBP(p=0.8)", "cannot be computed by the packages", ""),
        ("nDCG@" + "1" * 200, "is longer than 100 characters", ""),
    ],
)
def test_a_name_that_is_no_measure_is_refused_with_a_remedy(name, problem, remedy):
    with pytest.raises(EvaluationError, match=problem) as caught:
        parse_measures(["nDCG@10", name])
    assert remedy in caught.value.remedy
    assert caught.value.code == "invalid_value"
    assert len(str(caught.value)) < 400


def test_no_measures_at_all_are_refused():
    with pytest.raises(EvaluationError, match="no measure is named"):
        parse_measures([])
