import gzip

import pytest

from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.lines import id_field, read_lines, read_records, text_field


def test_lines_are_numbered_and_lose_their_ends_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffäöü\r\n\nlast without end\u2028same line".encode())
    assert list(read_lines(path)) == [(1, "äöü"), (2, ""), (3, "last without end\u2028same line")]


def test_gzipped_files_are_read_as_they_are(tmp_path):
    path = tmp_path / "records.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n\n{"a": 2}\n'))
    assert [record for _, record in read_records(path)] == [{"a": 1}, {"a": 2}]


def damaged_files():
    whole = gzip.compress(b'{"a": 1}\n' * 1000)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    return {"truncated": whole[:-12], "no gzip": b'{"a": 1}', "flipped": bytes(flipped)}


@pytest.mark.parametrize("damage", sorted(damaged_files()))
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    path = tmp_path / "records.jsonl.gz"
    path.write_bytes(damaged_files()[damage])
    with pytest.raises(EvaluationError, match=r"records\.jsonl\.gz"):
        list(read_records(path))


def test_a_missing_file_a_folder_and_bytes_that_are_not_utf8_are_named(tmp_path):
    with pytest.raises(EvaluationError, match="nowhere does not exist"):
        list(read_lines(tmp_path / "nowhere"))
    with pytest.raises(EvaluationError, match="cannot be read"):
        list(read_lines(tmp_path))
    (tmp_path / "latin").write_bytes(b"fine\nna\xefve\n")
    with pytest.raises(EvaluationError, match=r"latin, line 2: not UTF-8"):
        list(read_lines(tmp_path / "latin"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "a JSON list, expected an object"),
        ("null", "a JSON NoneType, expected an object"),
    ],
)
def test_a_line_that_is_no_json_object_is_named(tmp_path, line, problem):
    (tmp_path / "x.jsonl").write_text('{"fine": 1}\n' + line)
    with pytest.raises(EvaluationError, match=rf"x\.jsonl, line 2: {problem}"):
        list(read_records(tmp_path / "x.jsonl"))


def test_fields_must_hold_what_is_expected_of_them():
    assert text_field("here", {"t": " x "}, "t") == " x "
    assert id_field("here", {"i": 7}, "i") == "7"
    assert id_field("here", {"i": "ä b"}, "i") == "ä b"
    for value in (None, "", "  ", 3, ["x"]):
        with pytest.raises(EvaluationError, match="here: field 't' is"):
            text_field("here", {"t": value}, "t")
    for value in (None, "", True, 1.5):
        with pytest.raises(EvaluationError, match="here: field 'i' is"):
            id_field("here", {"i": value}, "i")
    with pytest.raises(EvaluationError, match="field 't' is missing, expected text"):
        text_field("here", {}, "t")
