"""Evaluation questions are read from the formats that evaluation sets come in."""

import gzip
import json

import pytest

from compactds.filters.corpus import overlap_files
from compactds.filters.corpus.overlap import OverlapError
from compactds.filters.corpus.overlap_files import read_question_files
from compactds.filters.corpus.overlap_questions import Question


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("record", "question"),
    [
        ({"query": "Why?", "choices": ["a", "b"], "gold": 0}, Question("Why?", ("a", "b"), "q.jsonl:1")),
        ({"question": "Why?", "options": ["a", 2, None]}, Question("Why?", ("a", "2"), "q.jsonl:1")),
        ({"_id": "17", "text": "Why?"}, Question("Why?", (), "17")),
        ({"id": 17, "prompt": "Why?"}, Question("Why?", (), "17")),
        ({"question": "Why?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}},
         Question("Why?", ("a", "b"), "q.jsonl:1")),
        ({"question": "Why?", "choices": {"A": "a", "B": "b"}}, Question("Why?", ("a", "b"), "q.jsonl:1")),
        ({"question": "Why?", "A": "a", "B": "b", "C": 3}, Question("Why?", ("a", "b"), "q.jsonl:1")),
        ({"question": "Why?", "choices": "a or b"}, Question("Why?", (), "q.jsonl:1")),
        ({"text": "About it", "question": "Why?"}, Question("Why?", (), "q.jsonl:1")),
    ],
)  # fmt: skip
def test_a_line_of_json_is_a_question(written, record, question):
    assert read_question_files(written("q.jsonl", json.dumps(record) + "\n\n")) == [question]


def test_mmlu_has_no_header(written):
    path = written("anatomy_test.csv", '"Which, if any?\nSay.",1,"2, 3",4,5,B\nWhat?,a,b,c,d,A\n\n')
    assert read_question_files(path) == [
        Question("Which, if any?\nSay.", ("1", "2, 3", "4", "5"), "anatomy_test.csv:2"),
        Question("What?", ("a", "b", "c", "d"), "anatomy_test.csv:3"),
    ]


def test_other_tables_may_have_a_header(written):
    path = written("t.csv", "\ufeffID,Question,A,B,C,D\n7,Why?,a,b,,d\n,What?,,,,\n")
    assert read_question_files(path) == [
        Question("Why?", ("a", "b", "d"), "7"),
        Question("What?", (), "t.csv:3"),
    ]


def test_tabs_part_ids_from_questions_and_plain_lines_are_questions(written):
    assert read_question_files(written("q.tsv", "1\tWhy?\r\n2\tWhat?\tnow\n")) == [
        Question("Why?", (), "1"),
        Question("What?\tnow", (), "2"),
    ]
    assert read_question_files(written("q.txt", "Why?\n\n What?")) == [
        Question("Why?", (), "q.txt:1"),
        Question(" What?", (), "q.txt:3"),
    ]


def test_a_folder_is_read_in_the_order_of_names_and_files_may_be_gzipped(written):
    written("set/b.jsonl.gz", gzip.compress(b'{"question": "Third?"}', mtime=0))
    written("set/a.csv", "First?,a,b,A\nSecond?,a,b,B\n")
    written("set/sub/c.JSONL", '{"question": "Fourth?"}')
    written("set/README.md", "no question")
    written("set/SOURCE.txt", "no question")
    path = written("set/empty.jsonl", "").parent
    assert [question.text for question in read_question_files(path)] == [
        "First?",
        "Second?",
        "Third?",
        "Fourth?",
    ]


def test_of_a_retrieval_collection_only_the_queries_are_read(written):
    written("beir/corpus.jsonl", '{"_id": "d", "title": "T", "text": "A document."}')
    written("beir/qrels/test.tsv", "query-id\tcorpus-id\tscore\n1\td\t1\n")
    path = written("beir/queries.jsonl", '{"_id": "1", "text": "Why?"}').parent
    assert read_question_files(path) == [Question("Why?", (), "1")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", '{"question": "Why?"}\n{"question": ', "line 2, is no JSON object."),
        ("q.jsonl", "[1]", "line 1, is no JSON object."),
        ("q.jsonl", "[" * 100_000, "line 1, is no JSON object."),
        (
            "q.jsonl",
            '{"answer": "Why?"}',
            "line 1, has none of the fields query, question, text, prompt, input.",
        ),
        ("q.jsonl", '{"question": 5}', "line 1, has none of the fields"),
        ("q.jsonl", "", "holds no questions. Give files ending in .jsonl, .csv, .tsv, .txt"),
        ("q.csv", 'question,A\n"",a\n', "line 2, has no question."),
        ("q.csv", '"Why?,a\n', "cannot be read"),
        ("q.tsv", "Why?\n", "line 1, has no tab"),
        ("q.txt", b"\xff\xfe", "cannot be read"),
        ("q.jsonl.gz", b"no gzip", "cannot be read"),
        ("q.jsonl.gz", gzip.compress(b'{"question": "Why?"}' * 99, mtime=0)[:-9], "cannot be read"),
    ],
)
def test_files_without_questions_say_where_and_why(written, name, content, message):
    path = written(name, content)
    with pytest.raises(OverlapError) as refused:
        read_question_files(path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_lines_that_never_end_are_not_read_into_memory(written, monkeypatch):
    monkeypatch.setattr(overlap_files, "MOST_LINE_BYTES", 50)
    with pytest.raises(OverlapError, match="line 2, is longer than 50 characters"):
        read_question_files(written("q.txt", "Why?\n" + "x" * 60))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(OverlapError, match=r"there are no questions at .*nowhere"):
        read_question_files(tmp_path / "nowhere")
