import pytest

from compactds.clients.evaluation.choices import evaluate_choices, judge, mean_score
from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.intervals import wilson
from compactds.clients.evaluation.searching import Asking
from compactds.clients.evaluation.tasks import Question
from compactds.clients.results import Hit, Passage


def hits(*scores):
    return [Hit(score, 1, Passage("p", "d", 0, "", "", "", 0, 0, {})) for score in scores]


class Scored:
    """Answer each text with hits of prepared scores."""

    def __init__(self, scores):
        self.scores = scores
        self.asked = []

    def search(self, query, /, *, k, where=None, recall=None):
        self.asked += [(text, k, where, recall) for text in query]
        return [hits(*self.scores.get(text, ())[:k]) for text in query]


def question(id_, answer, choices=("a", "b", "c", "d"), subject="s"):
    return Question(id_, subject, f"{id_}?", tuple(choices), answer)


def test_the_choice_with_the_best_top_hit_is_chosen():
    searcher = Scored({"1? a": [0.1], "1? b": [0.9, 0.0], "1? c": [0.8, 0.8], "1? d": [0.2]})
    report = evaluate_choices(searcher, [question("1", 1)])
    (outcome,) = report.outcomes
    assert (outcome.chosen, outcome.answer, outcome.credit, outcome.tied) == (1, 1, 1.0, 1)
    assert (report.accuracy, report.chance, report.queries) == (1.0, 0.25, 4)
    assert searcher.asked[0] == ("1? a", 1, None, None)


def test_the_mean_of_several_hits_can_score_a_choice():
    searcher = Scored({"1? a": [0.1], "1? b": [0.9, 0.0], "1? c": [0.8, 0.8], "1? d": [0.2]})
    (outcome,) = evaluate_choices(searcher, [question("1", 1)], top_n=2).outcomes
    assert (outcome.chosen, outcome.credit) == (2, 0.0)


def test_a_choice_with_fewer_hits_is_scored_by_those_it_has():
    assert mean_score(hits(0.5, 0.25), 10) == 0.375
    assert mean_score(hits(0.5, 0.25), 1) == 0.5
    assert mean_score([], 3) == float("-inf")


def test_choices_that_tie_share_the_credit():
    assert judge(question("1", 2), [0.5, 0.1, 0.5, 0.5]).credit == pytest.approx(1 / 3)
    lost = judge(question("1", 1), [0.5, 0.1, 0.5, 0.5])
    assert (lost.credit, lost.chosen, lost.tied) == (0.0, 0, 3)


def test_a_searcher_that_finds_nothing_scores_chance_exactly():
    questions = [question(str(number), number % 4) for number in range(7)] + [question("x", 0, ["yes", "no"])]
    report = evaluate_choices(Scored({}), questions)
    assert report.accuracy == pytest.approx((7 / 4 + 1 / 2) / 8)
    assert report.accuracy == pytest.approx(report.chance)
    assert report.tied == 8


def test_subjects_are_averaged_plainly_beside_the_share_of_all_questions():
    right = {f"{id_}? a": [1.0] for id_ in ("1", "2", "3")}
    questions = [
        *[question(id_, 0, subject="big") for id_ in ("1", "2", "3")],
        question("4", 0, ["a", "b"], subject="small"),
    ]
    report = evaluate_choices(Scored(right | {"4? b": [1.0]}), questions)
    assert report.accuracy == 0.75
    assert report.interval == wilson(3, 4)
    assert report.macro == 0.5
    assert report.macro_interval.low < 0.5 < report.macro_interval.high
    assert report.chance == pytest.approx((3 * 0.25 + 0.5) / 4)
    assert report.macro_chance == pytest.approx((0.25 + 0.5) / 2)
    assert [(s.subject, s.questions, s.correct, s.accuracy) for s in report.subjects] == [
        ("big", 3, 3.0, 1.0),
        ("small", 1, 0.0, 0.0),
    ]


def test_settings_reach_the_searcher_and_progress_counts_searches():
    searcher, done = Scored({}), []
    asking = Asking(where={"subject": "s"}, recall=0.95, batch_size=3)
    evaluate_choices(searcher, [question("1", 0)], top_n=5, asking=asking, progress=done.append)
    assert [call[1:] for call in searcher.asked] == [(5, {"subject": "s"}, 0.95)] * 4
    assert done == [3, 4]


def test_no_questions_and_no_hits_asked_for_are_refused():
    with pytest.raises(EvaluationError, match="there are no questions"):
        evaluate_choices(Scored({}), [])
    with pytest.raises(EvaluationError, match="top_n is 0"):
        evaluate_choices(Scored({}), [question("1", 0)], top_n=0)
