import json
from importlib.resources import files

import pytest

from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.tasks import (
    Question,
    load_arc,
    load_mmlu,
    load_questions,
)

ROW = 'What is 1 + 1?,1,"2, of course",3,4,B\n'


def write_jsonl(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_mmlu_folders_files_and_splits(tmp_path):
    for split in ("test", "dev"):
        (tmp_path / split).mkdir()
    (tmp_path / "test" / "b_subject_test.csv").write_text(ROW)
    (tmp_path / "test" / "a_subject_test.csv").write_text(ROW * 2)
    (tmp_path / "dev" / "a_subject_dev.csv").write_text(ROW)
    questions = load_mmlu(tmp_path)
    assert [(q.id, q.subject) for q in questions] == [
        ("a_subject-1", "a_subject"),
        ("a_subject-2", "a_subject"),
        ("b_subject-1", "b_subject"),
    ]
    assert questions[0] == Question(
        "a_subject-1", "a_subject", "What is 1 + 1?", ("1", "2, of course", "3", "4"), 1
    )
    assert load_mmlu(tmp_path / "test") == questions
    assert [q.id for q in load_mmlu(tmp_path, "dev")] == ["a_subject-1"]
    assert len(load_mmlu(tmp_path / "test" / "a_subject_test.csv")) == 2


def test_mmlu_questions_may_span_lines_and_hold_quotes(tmp_path):
    (tmp_path / "x.csv").write_text('"Line one\nline ""two""",a,b,c,d,D\n\n' + ROW)
    first, second = load_mmlu(tmp_path)
    assert (first.text, first.answer) == ('Line one\nline "two"', 3)
    assert (second.id, second.subject) == ("x-2", "x")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("question,A,B,C,D,answer\n", r"x\.csv, line 1: the right choice is 'answer', expected A, B, C or D"),
        (ROW + "q,1,2,3,4,1\n", r"x\.csv, line 2: the right choice is '1'"),
        (ROW + "q,1,2,3,4,\n", r"x\.csv, line 2: the right choice is ''"),
        (ROW + "q,1,2,3,4,AB\n", r"x\.csv, line 2: the right choice is 'AB'"),
        (ROW + "q,1,2,3,B\n", r"x\.csv, line 2: 5 columns, expected 6"),
        ('"one\ntwo",1,2,3,4,A\n' + "q,1,2,3,B\n", r"x\.csv, line 3: 5 columns"),
        (ROW + " ,1,2,3,4,B\n", r"x\.csv, line 2: field 'question' is ' '"),
        (ROW + "q,1,2,,4,B\n", r"x\.csv, line 2: field 'C' is ''"),
        (ROW + '"open,1,2,3,4,B\n', r"x\.csv, line 2: not valid CSV"),
        ("", "holds no question"),
    ],
)
def test_bad_mmlu_rows_are_named(tmp_path, content, problem):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(EvaluationError, match=problem):
        load_mmlu(tmp_path)


def test_a_path_without_questions_is_named(tmp_path):
    with pytest.raises(EvaluationError, match=r"holds no \*\.csv"):
        load_mmlu(tmp_path)
    with pytest.raises(EvaluationError, match="nowhere does not exist"):
        load_mmlu(tmp_path / "nowhere")
    with pytest.raises(EvaluationError, match=r"holds no \*\.jsonl"):
        load_arc(tmp_path)
    with pytest.raises(EvaluationError, match="nowhere does not exist"):
        load_questions(tmp_path / "nowhere")
    (tmp_path / "empty.jsonl").write_text("\n")
    for load in (load_arc, load_questions):
        with pytest.raises(EvaluationError, match="holds no question"):
            load(tmp_path)


def test_arc_drops_the_word_question_and_reads_folders(tmp_path):
    write_jsonl(tmp_path / "arc_easy.jsonl", {"query": "Question: Why?", "choices": ["x", "y"], "gold": 1})
    write_jsonl(tmp_path / "arc_challenge.jsonl", {"query": "How?", "choices": ["x", "y", "z"], "gold": 0})
    assert load_arc(tmp_path) == [
        Question("arc_challenge-1", "arc_challenge", "How?", ("x", "y", "z"), 0),
        Question("arc_easy-1", "arc_easy", "Why?", ("x", "y"), 1),
    ]


@pytest.mark.parametrize("gold", [2, -1, True, "A", None, 1.0])
def test_an_arc_answer_outside_the_choices_is_named(tmp_path, gold):
    path = write_jsonl(tmp_path / "a.jsonl", {"query": "Why?", "choices": ["x", "y"], "gold": gold})
    with pytest.raises(EvaluationError, match=r"a\.jsonl, line 1: field 'gold' is"):
        load_arc(path)


@pytest.mark.parametrize(
    ("answer", "index"),
    [(0, 0), (2, 2), ("A", 0), ("C", 2), ("Rome", 1), ("c", None), ("D", None), (3, None), (None, None)],
)
def test_an_answer_is_an_index_a_letter_or_a_choice(tmp_path, answer, index):
    record = {"id": 1, "question": "Where?", "choices": ["Oslo", "Rome", "Bonn"], "answer": answer}
    path = write_jsonl(tmp_path / "own.jsonl", record)
    if index is None:
        with pytest.raises(EvaluationError, match=r"own\.jsonl, line 1: field 'answer' is"):
            load_questions(path)
    else:
        assert load_questions(path) == [Question("1", "own", "Where?", ("Oslo", "Rome", "Bonn"), index)]


def test_an_answer_that_could_be_a_letter_or_another_choice_is_refused(tmp_path):
    record = {"id": "1", "question": "Which vitamin?", "choices": ["B", "C", "A"], "answer": "A"}
    with pytest.raises(EvaluationError, match="names a single choice"):
        load_questions(write_jsonl(tmp_path / "own.jsonl", record))
    ordered = write_jsonl(tmp_path / "own.jsonl", record | {"choices": ["A", "B", "C"]})
    assert load_questions(ordered)[0].answer == 0


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"question": ""},
        {"choices": ["only one"]},
        {"choices": "abc"},
        {"choices": ["a", ""]},
        {"choices": ["a", 1]},
        {"choices": [str(number) for number in range(27)]},
        {"subject": 3},
    ],
)
def test_bad_fields_are_named(tmp_path, change):
    record = {"id": "1", "question": "Where?", "choices": ["a", "b"], "answer": 0} | change
    with pytest.raises(EvaluationError, match=rf"line 1: field '{next(iter(change))}' is"):
        load_questions(write_jsonl(tmp_path / "own.jsonl", record))


def test_one_id_for_two_questions_is_refused_naming_both_places(tmp_path):
    record = {"id": "1", "question": "Where?", "choices": ["a", "b"], "answer": 0}
    path = write_jsonl(tmp_path / "own.jsonl", record, record)
    with pytest.raises(EvaluationError, match=r"line 2: id '1' again; the first is in .*line 1"):
        load_questions(path)


def test_the_demo_questions_can_be_read():
    questions = load_questions(str(files("compactds.configs") / "demo" / "questions.jsonl"))
    assert len(questions) >= 100
    assert len({question.subject for question in questions}) >= 20
