import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.recall import recall_against_exact, recall_of_hits
from compactds.clients.evaluation.searching import Asking
from compactds.clients.results import Hit, Passage


def hits(**scores):
    return [
        Hit(score, rank, Passage(name, name, 0, "", "", "", 0, 0, {}))
        for rank, (name, score) in enumerate(scores.items(), start=1)
    ]


class TwoWays:
    """Answer exact searches from one table and all others from another."""

    def __init__(self, exact, approximate):
        self.exact, self.approximate = exact, approximate
        self.calls = []

    def search(self, query, /, *, k, where=None, recall=None):
        self.calls.append((where, recall, k))
        table = self.exact if recall == 1.0 else self.approximate
        return [table[text][:k] for text in query]


def test_recall_is_the_share_of_the_exact_top_k_that_was_found():
    truth = hits(a=0.9, b=0.8, c=0.7, d=0.6)
    assert recall_of_hits(hits(a=0.9, c=0.7, x=0.1, y=0.05), truth, 4) == 0.5
    assert recall_of_hits(truth, truth, 4) == 1.0
    assert recall_of_hits([], truth, 4) == 0.0


def test_a_passage_that_scores_as_high_as_the_last_exact_one_counts():
    truth = hits(a=0.9, b=0.5)
    assert recall_of_hits(hits(a=0.9, twin_of_b=0.5), truth, 2) == 1.0
    assert recall_of_hits(hits(a=0.9, nearly_b=0.49), truth, 2) == 0.5


def test_rounding_differences_of_a_score_do_not_count_as_a_miss():
    assert recall_of_hits(hits(twin=0.49999998), hits(a=0.5), 1) == 1.0
    assert recall_of_hits(hits(twin=-7000.0001), hits(a=-7000.0), 1) == 1.0


def test_a_passage_returned_twice_counts_once_and_hits_beyond_k_do_not_count():
    truth = hits(a=0.9, b=0.5)
    assert recall_of_hits([*hits(a=0.9), *hits(a=0.9)], truth, 2) == 0.5
    assert recall_of_hits(hits(x=0.1, y=0.1, a=0.9, b=0.5), truth, 2) == 0.0


def test_fewer_exact_hits_than_k_are_the_whole_truth():
    assert recall_of_hits(hits(a=0.9), hits(a=0.9), 10) == 1.0
    assert recall_of_hits([], [], 10) is None


@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=12),
    st.data(),
)
def test_recall_never_depends_on_which_of_equal_scores_are_returned(scores, data):
    everything = sorted(hits(**{f"p{n}": score for n, score in enumerate(scores)}), key=lambda h: -h.score)
    k = data.draw(st.integers(1, len(scores)))
    shuffled = sorted(data.draw(st.permutations(everything)), key=lambda h: -h.score)
    assert recall_of_hits(shuffled[:k], everything[:k], k) == 1.0


def test_the_report_holds_mean_worst_and_each_query():
    exact = {"one": hits(a=0.9, b=0.8), "two": hits(c=0.9, d=0.8), "none": []}
    found = {"one": hits(a=0.9, b=0.8), "two": hits(c=0.9, x=0.1), "none": []}
    searcher, done = TwoWays(exact, found), []
    asking = Asking(where={"year": 1}, recall=0.9, batch_size=2)
    report = recall_against_exact(searcher, ["one", "two", "none"], 2, asking=asking, progress=done.append)
    assert report.per_query == (1.0, 0.5, None)
    assert (report.mean, report.worst, report.k) == (0.75, 0.5, 2)
    assert report.interval is not None
    assert 0.5 <= report.interval.low <= 0.75 <= report.interval.high <= 1.0
    assert {where["year"] for where, _, _ in searcher.calls} == {1}
    assert {recall for _, recall, _ in searcher.calls} == {0.9, 1.0}
    assert done == sorted(done)
    assert done[-1] == 3


def test_no_queries_and_nothing_to_find_are_refused():
    searcher = TwoWays({"q": []}, {"q": []})
    with pytest.raises(EvaluationError, match="there are no queries"):
        recall_against_exact(searcher, [])
    with pytest.raises(EvaluationError, match="exact search finds nothing"):
        recall_against_exact(searcher, ["q"])
    with pytest.raises(EvaluationError, match="k is 0"):
        recall_against_exact(searcher, ["q"], 0)
