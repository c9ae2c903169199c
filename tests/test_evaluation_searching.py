import subprocess
import sys

import pytest

from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.searching import Asking, ask


class Recorder:
    def __init__(self, answers_per_query=1):
        self.calls = []
        self.answers_per_query = answers_per_query

    def search(self, query, /, *, k, where=None, recall=None):
        self.calls.append((list(query), k, where, recall))
        return [[text] for text in query] * self.answers_per_query


def test_queries_go_out_in_batches_and_hits_come_back_in_order():
    searcher, done = Recorder(), []
    asking = Asking(where={"year": 2020}, recall=0.9, batch_size=2)
    answers = ask(searcher, ["a", "b", "c"], 7, asking, done.append)
    assert searcher.calls == [(["a", "b"], 7, {"year": 2020}, 0.9), (["c"], 7, {"year": 2020}, 0.9)]
    assert answers.hits == [["a"], ["b"], ["c"]]
    assert done == [2, 3]
    assert answers.seconds > 0


def test_a_search_asks_for_no_more_hits_at_a_time_than_allowed():
    searcher = Recorder()
    ask(searcher, list("abcde"), 40, Asking(batch_size=4, max_hits=100))
    assert [texts for texts, *_ in searcher.calls] == [["a", "b"], ["c", "d"], ["e"]]
    ask(searcher, ["a", "b"], 1000, Asking(max_hits=100))
    assert [texts for texts, *_ in searcher.calls[3:]] == [["a"], ["b"]]


def test_no_queries_ask_nothing():
    searcher = Recorder()
    assert ask(searcher, [], 3, Asking()).hits == []
    assert searcher.calls == []


def test_a_searcher_that_loses_an_answer_is_refused():
    with pytest.raises(EvaluationError, match="2 queries were asked and 4 lists of hits came back"):
        ask(Recorder(answers_per_query=2), ["a", "b"], 3, Asking())


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "8"])
def test_a_batch_size_that_is_no_count_is_refused(size):
    with pytest.raises(EvaluationError, match="batch_size is") as caught:
        Asking(batch_size=size)
    assert caught.value.code == "invalid_value"


def test_importing_the_evaluation_loads_nothing_heavy():
    script = (
        "import sys, compactds.clients.evaluation\n"
        "print({'numpy', 'ir_measures', 'pandas', 'torch', 'faiss'} & set(sys.modules))"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "set()"
