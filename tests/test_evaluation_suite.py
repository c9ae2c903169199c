import json

import pytest

from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.searching import Asking
from compactds.clients.evaluation.suite import KINDS, Options, load_task
from compactds.clients.evaluation.tasks import Question
from compactds.clients.questions import overlap_texts
from compactds.clients.results import Hit, Passage


class Fixed:
    """Find one document for every query, and remember how it was asked."""

    def __init__(self, document_id="d1"):
        self.document_id = document_id
        self.calls = []

    def search(self, query, /, *, k, where=None, recall=None):
        self.calls.append((list(query), k, where, recall))
        passage = Passage(f"{self.document_id}#0", self.document_id, 0, "", "", "", 0, 0, {})
        return [[Hit(0.5, 1, passage)] for _ in query]


@pytest.fixture
def paths(tmp_path):
    """One small task of every kind: three queries or questions each."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "qrels.tsv").write_text("1\td1\t1\n2\td1\t1\n3\td2\t1\n")
    lines = [json.dumps({"_id": str(n), "text": f"query {n}"}) for n in (1, 2, 3)]
    (folder / "queries.jsonl").write_text("\n".join(lines))
    for split, rows in (("test", 3), ("dev", 1)):
        (tmp_path / "mmlu" / split).mkdir(parents=True)
        (tmp_path / "mmlu" / split / f"law_{split}.csv").write_text("q,a,b,c,d,B\n" * rows)
    arc = {"query": "Question: Why?", "choices": ["a", "b"], "gold": 0}
    (tmp_path / "arc.jsonl").write_text((json.dumps(arc) + "\n") * 3)
    own = [{"id": n, "question": "Why?", "choices": ["a", "b", "c"], "answer": 0} for n in range(3)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, own)))
    files = {"retrieval": folder, "recall": folder, "choices": tmp_path / "own.jsonl"}
    return files | {"mmlu": tmp_path / "mmlu", "arc": tmp_path / "arc.jsonl"}


@pytest.mark.parametrize(
    ("kind", "searches", "figures"),
    [
        ("retrieval", 3, {"RR@10": 2 / 3}),
        ("recall", 3, {"recall@10": 1.0, "worst recall@10": 1.0}),
        ("mmlu", 12, {"accuracy": 0.25}),
        ("arc", 6, {"accuracy": 0.5}),
        ("choices", 9, {"accuracy": 1 / 3}),
    ],
)
def test_every_kind_of_task_runs(paths, kind, searches, figures):
    task = load_task(kind, str(paths[kind]), Options(measures=["RR@10"]))
    done = []
    outcome = task.run(Fixed(), done.append)
    assert task.searches == searches == done[-1]
    assert {figure.name: figure.value for figure in outcome.result.figures} == pytest.approx(figures)
    assert (outcome.run is not None) == (kind == "retrieval")
    assert outcome.result.task == task.name
    assert task.name == {"retrieval": "retrieval set"}.get(kind, kind)
    assert task.run(Fixed()).result.figures == outcome.result.figures


@pytest.mark.parametrize(
    ("kind", "searches"), [("retrieval", 2), ("recall", 2), ("mmlu", 8), ("arc", 4), ("choices", 6)]
)
def test_a_limit_holds_for_every_kind(paths, kind, searches):
    assert load_task(kind, str(paths[kind]), Options(limit=2)).searches == searches


def test_options_reach_the_searches(paths):
    searcher = Fixed()
    asking = Asking(where="year = 1", recall=0.9, batch_size=2)
    options = Options(asking=asking, k=4, top_n=3, measures=["P@5"], depth=7, max_k=6)
    load_task("retrieval", str(paths["retrieval"]), options).run(searcher)
    assert {call[1:] for call in searcher.calls} == {(6, "year = 1", 0.9)}
    searcher.calls.clear()
    load_task("choices", str(paths["choices"]), options).run(searcher)
    assert {call[1:] for call in searcher.calls} == {(3, "year = 1", 0.9)}
    searcher.calls.clear()
    load_task("recall", str(paths["recall"]), options).run(searcher)
    assert {call[1:] for call in searcher.calls} == {(4, "year = 1", 0.9), (4, "year = 1", 1.0)}


class Clean(Fixed):
    """Remember which questions passages must not overlap with."""

    def search(self, query, /, *, k, where=None, recall=None, exclude_overlap_with):
        self.calls.append(exclude_overlap_with)
        return Fixed().search(query, k=k)


@pytest.mark.parametrize(
    ("kind", "questions"),
    [
        ("retrieval", ["query 1", "query 2", "query 3"]),
        ("recall", ["query 1", "query 2", "query 3"]),
        ("mmlu", ["q \na \nb \nc \nd"]),
        ("arc", ["Why? \na \nb"]),
        ("choices", ["Why? \na \nb \nc"]),
    ],
)
def test_decontamination_excludes_what_overlaps_with_the_tasks_own_questions(paths, kind, questions):
    searcher = Clean()
    load_task(kind, str(paths[kind]), Options(decontaminate=True)).run(searcher)
    assert searcher.calls
    assert all(call == questions for call in searcher.calls)


def test_short_questions_are_excluded_without_their_choices_too_unless_several_begin_with_them():
    long = " ".join(f"word{n}" for n in range(13))
    texts = ["Which is true?", "Which is true?", "Who found radium?", long, " "]
    choices = [("a", "b"), ("c", "d"), ("Curie",), ("x",), ()]
    questions = [
        Question(str(n), "", text, theirs, 0)
        for n, (text, theirs) in enumerate(zip(texts, choices, strict=True))
    ]
    assert overlap_texts(questions) == [
        "Which is true? \na \nb",
        "Which is true? \nc \nd",
        "Who found radium? \nCurie",
        f"{long} \nx",
        "Who found radium?",
    ]


def test_a_split_is_the_collections_and_leaves_other_tasks_alone(paths):
    options = Options(split="dev")
    assert load_task("mmlu", str(paths["mmlu"]), options).searches == 12
    with pytest.raises(EvaluationError, match="no query belongs to split 'dev'"):
        load_task("retrieval", str(paths["retrieval"]), options)


def test_a_task_can_be_named(paths):
    task = load_task("mmlu", str(paths["mmlu"] / "dev"), Options(), name="warm-up")
    assert (task.name, task.searches) == ("warm-up", 4)


def test_a_task_that_cannot_run_is_refused_when_it_is_loaded(paths):
    with pytest.raises(EvaluationError, match="'quiz' is not a kind of task") as caught:
        load_task("quiz", "x", Options())
    assert all(kind in caught.value.remedy for kind in KINDS)
    with pytest.raises(EvaluationError, match="does not exist"):
        load_task("retrieval", str(paths["retrieval"]), Options(measures=["nDGC@10"]))
