import json

import pytest

from compactds.clients.evaluation.choices import ChoicesReport, SubjectResult, judge
from compactds.clients.evaluation.intervals import Interval
from compactds.clients.evaluation.recall import RecallReport
from compactds.clients.evaluation.report import (
    Evaluation,
    Figure,
    TaskResult,
    choices_result,
    recall_result,
    retrieval_result,
    software_versions,
    to_json,
    to_markdown,
)
from compactds.clients.evaluation.retrieval import MeasureResult, RetrievalReport
from compactds.clients.evaluation.tasks import Question

STORE = {
    "documents": 1200,
    "passages": 34567,
    "encoder": {"model": "minilm", "fingerprint": "0123456789abcdef"},
}


def retrieval_report(**changes):
    values = {
        "collection": "set",
        "measures": (
            MeasureResult("nDCG@10", 0.64461, Interval(0.6, 0.69)),
            MeasureResult("R@100", 0.9, None),
        ),
        "per_query": {"q1": {"nDCG@10": 0.64461, "R@100": 0.9}},
        "run": {"q1": [("d", 0.5)]},
        "depth": 100,
        "short": 0,
        "without_text": 0,
        "without_relevant": 0,
        "judged_found": True,
        "seconds": 2.0,
    }
    return RetrievalReport(**(values | changes))


def evaluation(*results, **changes):
    values = {
        "store_path": "store",
        "store": STORE,
        "settings": {"k": 10, "recall": 1.0, "where": None},
        "results": results,
        "date": "2026-01-02T03:04:05+00:00",
        "versions": {"compactds": "0.1.0"},
    }
    return Evaluation(**(values | changes))


def test_the_table_is_aligned_markdown():
    page = to_markdown(evaluation(retrieval_result("retrieval", retrieval_report())))
    assert page == (
        "store: 1,200 documents, 34,567 passages, encoder minilm (0123456789ab)\n"
        "k 10; recall 1.0; 2026-01-02T03:04:05+00:00; compactds 0.1.0\n"
        "\n"
        "| task      | measure |  value |    95 % interval | chance | searches | seconds | searches/s |\n"
        "| --------- | ------- | -----: | ---------------: | -----: | -------: | ------: | ---------: |\n"
        "| retrieval | nDCG@10 | 0.6446 | 0.6000 to 0.6900 |        |        1 |     2.0 |          0 |\n"
        "|           | R@100   | 0.9000 |                  |        |          |         |            |\n"
    )


def test_notes_follow_the_table():
    report = retrieval_report(short=1, without_text=2, without_relevant=3, judged_found=False)
    page = to_markdown(evaluation(retrieval_result("retrieval", report)))
    assert page.split("\n\n")[-1].splitlines() == [
        "- retrieval: no relevant document was found for any query: "
        "are the store's document ids the collection's?",
        "- retrieval: 1 of 1 ranking with fewer than 100 documents",
        "- retrieval: 2 judged queries have no text and cannot be used",
        "- retrieval: 3 queries have no relevant document and cannot be used",
    ]


def test_a_store_that_says_little_and_names_that_break_a_table():
    result = TaskResult("own|task\nname", (Figure("accuracy", 1.0),), 0, 0.0)
    page = to_markdown(evaluation(result, store={}))
    assert page.startswith("store\n")
    assert "| own\\|task name | accuracy | 1.0000 |" in page
    assert to_json(evaluation(result))["results"][0]["queries_per_second"] is None


def test_json_holds_identity_settings_figures_and_on_demand_the_items():
    whole = evaluation(retrieval_result("retrieval", retrieval_report()))
    record = to_json(whole)
    assert json.loads(json.dumps(record)) == record
    assert record["store"]["encoder"]["fingerprint"] == "0123456789abcdef"
    assert record["settings"] == {"k": 10, "recall": 1.0, "where": None}
    (result,) = record["results"]
    assert result["figures"][0] == {
        "name": "nDCG@10",
        "value": 0.64461,
        "interval": [0.6, 0.69],
        "chance": None,
    }
    assert result["figures"][1]["interval"] is None
    assert (result["collection"], result["depth"], result["queries_per_second"]) == ("set", 100, 0.5)
    assert "items" not in result
    assert to_json(whole, items=True)["results"][0]["items"] == [
        {"query": "q1", "nDCG@10": 0.64461, "R@100": 0.9}
    ]


def choices_report(*subjects, tied=0):
    question = Question("1", "s", "?", ("a", "b"), 1)
    return ChoicesReport(
        accuracy=0.5,
        interval=Interval(0.4, 0.6),
        chance=0.25,
        macro=0.55,
        macro_interval=Interval(0.45, 0.65),
        macro_chance=0.3,
        subjects=tuple(SubjectResult(name, 1, 1.0, 1.0, Interval(0.2, 1.0)) for name in subjects),
        outcomes=(judge(question, [0.1, 0.2]),),
        tied=tied,
        top_n=1,
        queries=4,
        seconds=1.0,
    )


def test_choices_show_both_means_if_there_are_several_subjects():
    several = choices_result("mmlu", choices_report("x", "y", tied=1))
    assert several.figures == (
        Figure("accuracy", 0.5, Interval(0.4, 0.6), 0.25),
        Figure("mean of subjects", 0.55, Interval(0.45, 0.65), 0.3),
    )
    assert several.notes == (
        "1 question, 2 subjects; 4 searches, one for each choice",
        "1 question has several best choices, which share the credit",
    )
    assert several.breakdown["subjects"]["x"] == {"questions": 1, "accuracy": 1.0, "interval": [0.2, 1.0]}
    assert several.items == [{"question": "1", "chosen": 1, "answer": 1, "credit": 1.0}]
    assert len(choices_result("own", choices_report("x")).figures) == 1


@pytest.mark.parametrize(
    ("seconds", "speed"),
    [(0.5, "exact search took 2.00 s, 4.0 times as long"), (0.0, "exact search took 2.00 s")],
)
def test_recall_says_how_long_exact_search_took(seconds, speed):
    report = RecallReport(10, 0.95, 0.5, Interval(0.9, 1.0), (1.0, None), seconds, 2.0)
    result = recall_result("recall", report)
    assert result.figures == (
        Figure("recall@10", 0.95, Interval(0.9, 1.0)),
        Figure("worst recall@10", 0.5),
    )
    assert result.notes == (speed, "1 query matches nothing and cannot be used")
    assert result.items == [{"query": 0, "recall": 1.0}, {"query": 1, "recall": None}]


def test_versions_name_what_computes_the_figures(monkeypatch):
    assert {"python", "compactds", "ir_measures", "numpy"} <= set(software_versions())
    monkeypatch.setattr("compactds.clients.evaluation.report.VERSIONED", ("no-such-package",))
    assert software_versions()["no-such-package"] == "not installed"
    assert set(evaluation().versions) == {"compactds"}
    assert Evaluation("s", {}, {}, ()).date.endswith("+00:00")
