import pytest

from compactds.clients.evaluation.beir import Collection
from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.queries import load_queries
from compactds.clients.evaluation.sampling import sample, sample_by_subject, sample_collection
from compactds.clients.evaluation.tasks import Question


def many(subject, count):
    return [Question(f"{subject}-{n}", subject, "?", ("a", "b"), 0) for n in range(count)]


def test_sampling_takes_so_many_of_each_subject_in_order():
    questions = many("x", 50) + many("y", 3)
    kept = sample_by_subject(questions, 5)
    assert [question.subject for question in kept] == ["x"] * 5 + ["y"] * 3
    assert kept == sorted(kept, key=questions.index)
    assert sample_by_subject(questions, 5) == kept
    assert sample_by_subject(questions, 5, seed=1) != kept


def test_sampling_a_subject_does_not_depend_on_the_others():
    alone = sample_by_subject(many("x", 50), 5)
    beside = sample_by_subject(many("a", 20) + many("x", 50), 5)
    assert [question for question in beside if question.subject == "x"] == alone


@pytest.mark.parametrize("limit", [0, -3, True])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(EvaluationError, match="limit is"):
        sample_by_subject(many("x", 3), limit)


def test_a_sample_keeps_the_order_and_holds_everything_if_there_is_less():
    assert sample([3, 1, 2], 10) == [3, 1, 2]
    drawn = sample(range(1000), 20)
    assert drawn == sorted(set(drawn))
    assert sample(range(1000), 20) == drawn != sample(range(1000), 20, seed=1)


def test_a_sampled_collection_keeps_queries_and_judgements_together():
    names = [f"q{number}" for number in range(20)]
    whole = Collection("set", {n: n.upper() for n in names}, {n: {f"d{n}": 1} for n in names}, 4, 5)
    part = sample_collection(whole, 3)
    assert len(part.queries) == 3
    assert part.judgements == {n: {f"d{n}": 1} for n in part.queries}
    assert (part.name, part.without_text, part.without_relevant) == ("set", 4, 5)


def test_queries_are_lines_or_records_or_a_collections(tmp_path):
    (tmp_path / "plain.txt").write_text("first äö\n\nsecond\n", encoding="utf-8")
    assert load_queries(tmp_path / "plain.txt") == ["first äö", "second"]
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "a"}\n{"query": "b"}\n{"question": "c"}\n')
    assert load_queries(tmp_path / "queries.jsonl") == ["a", "b", "c"]
    assert load_queries(tmp_path) == ["a", "b", "c"]


def test_a_file_without_queries_and_a_record_without_text_are_named(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(EvaluationError, match=r"empty\.txt holds no query"):
        load_queries(tmp_path / "empty.txt")
    (tmp_path / "x.jsonl").write_text('{"title": "a"}\n')
    with pytest.raises(
        EvaluationError, match=r"x\.jsonl, line 1: there is no field 'text', 'query' or 'question'"
    ):
        load_queries(tmp_path / "x.jsonl")
