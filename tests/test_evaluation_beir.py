import json

import pytest

from compactds.clients.evaluation.beir import read_collection, read_judgements
from compactds.clients.evaluation.errors import EvaluationError

HEADER = "query-id\tcorpus-id\tscore\n"


def write_collection(root, qrels, queries, qrels_file="qrels.tsv"):
    root.mkdir(exist_ok=True)
    (root / qrels_file).parent.mkdir(exist_ok=True)
    (root / qrels_file).write_text(qrels, encoding="utf-8")
    lines = [json.dumps({"_id": id_, "text": text, "metadata": meta}) for id_, text, meta in queries]
    (root / "queries.jsonl").write_text("\n".join(lines))
    return root


QUERIES = [("q1", "first", {}), ("q2", "second", {}), ("q3", "third", {})]


def test_queries_with_a_relevant_document_are_kept_and_the_others_counted(tmp_path):
    root = write_collection(
        tmp_path / "set", HEADER + "q1\td1\t1\nq1\td2\t0\nq2\td1\t0\nlost\td1\t2\n", QUERIES
    )
    collection = read_collection(root)
    assert collection.name == "set"
    assert dict(collection.queries) == {"q1": "first"}
    assert collection.judgements == {"q1": {"d1": 1, "d2": 0}}
    assert collection.without_relevant == 1  # q2
    assert collection.without_text == 1  # lost


def test_the_test_split_of_a_qrels_folder_is_read_by_default(tmp_path):
    root = write_collection(tmp_path / "set", HEADER + "q1\td1\t1\n", QUERIES, "qrels/test.tsv")
    (root / "qrels" / "train.tsv").write_text(HEADER + "q2\td2\t1\nq3\td3\t1\n")
    assert list(read_collection(root).queries) == ["q1"]
    train = read_collection(root, "train")
    assert list(train.queries) == ["q2", "q3"]
    assert train.name == "set (train)"


def test_a_split_can_be_in_the_queries_metadata(tmp_path):
    queries = [("1", "a", {"split": "train"}), (2, "b", {"split": "dev"}), ("3", "c", None), ("4", "d", [])]
    root = write_collection(tmp_path / "set", HEADER + "1\tx\t1\n2\tx\t1\n3\tx\t1\n", queries)
    assert dict(read_collection(root, "dev").queries) == {"2": "b"}
    with pytest.raises(EvaluationError, match="no query belongs to split 'test'") as caught:
        read_collection(root, "test")
    assert "'dev', 'train'" in caught.value.remedy


def test_the_split_of_a_collection_without_splits_is_refused(tmp_path):
    root = write_collection(tmp_path / "set", HEADER + "q1\td1\t1\n", QUERIES)
    with pytest.raises(EvaluationError, match="Splits of this collection: none"):
        read_collection(root, "test")


def test_ids_may_hold_blanks_and_any_letters_and_a_header_is_not_needed(tmp_path):
    path = tmp_path / "qrels.tsv"
    path.write_text("anfrage ä\tOlinda Posso\t2\r\nanfrage ä\t北京\t-1\n\n", encoding="utf-8")
    assert read_judgements(path) == {"anfrage ä": {"Olinda Posso": 2, "北京": -1}}


def test_a_judgement_given_twice_is_one_and_a_contradiction_is_refused(tmp_path):
    path = tmp_path / "qrels.tsv"
    path.write_text("q\td\t1\nq\td\t1\n")
    assert read_judgements(path) == {"q": {"d": 1}}
    path.write_text("q\td\t1\nq\td\t2\n")
    with pytest.raises(EvaluationError, match=r"line 2: document 'd' is judged 2 for query 'q', and 1 above"):
        read_judgements(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (HEADER + "q1 d1 1\n", "line 2: expected query id, document id and relevance"),
        (HEADER + "q1\t0\td1\t1\n", "line 2: expected query id, document id and relevance"),
        (HEADER + "q1\t\t1\n", "line 2: expected query id, document id and relevance"),
        (HEADER + "q1\td1\t0.5\n", "line 2: relevance is '0.5'"),
        (HEADER, "holds no judgement"),
        ("", "holds no judgement"),
    ],
)
def test_bad_judgements_are_named(tmp_path, content, problem):
    (tmp_path / "qrels.tsv").write_text(content)
    with pytest.raises(EvaluationError, match=problem):
        read_judgements(tmp_path / "qrels.tsv")


def test_what_a_folder_lacks_is_named(tmp_path):
    with pytest.raises(EvaluationError, match=r"neither qrels\.tsv nor qrels/test\.tsv"):
        read_collection(tmp_path)
    (tmp_path / "qrels.tsv").write_text("q\td\t1\n")
    with pytest.raises(EvaluationError, match=r"has no queries\.jsonl"):
        read_collection(tmp_path)


def test_a_query_id_twice_and_a_query_without_text_are_named(tmp_path):
    twice = write_collection(tmp_path / "a", "q1\td\t1\n", [QUERIES[0], QUERIES[0]])
    with pytest.raises(EvaluationError, match=r"line 2: a second query with id 'q1'"):
        read_collection(twice)
    blank = write_collection(tmp_path / "b", "q1\td\t1\n", [("q1", " ", {})])
    with pytest.raises(EvaluationError, match="line 1: field 'text'"):
        read_collection(blank)


def test_judgements_of_other_queries_leave_nothing_to_score(tmp_path):
    root = write_collection(tmp_path / "set", "other\td\t1\nq1\td\t0\n", QUERIES)
    with pytest.raises(EvaluationError, match="no query has both a text and a relevant document"):
        read_collection(root)
