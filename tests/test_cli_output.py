"""What the command line prints: aligned tables, one-line texts, JSON that any terminal can show."""

import io
import json
import sys

import pytest

from compactds.cli.output import clean, say, say_json, table, warn


def ascii_stream():
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)


def written(stream):
    return stream.buffer.getvalue().decode("ascii")


def test_control_characters_cannot_reach_the_terminal():
    assert clean("a\x1b[31mb\nc\x07\x9bd\u202ee") == "a [31mb c  d e"
    assert clean("ordinary — text π 😀") == "ordinary — text π 😀"


def test_results_go_to_standard_output_and_remarks_to_standard_error(capsys):
    say("result")
    warn("remark\nmore")
    warn("one\ntwo", multiline=True)
    captured = capsys.readouterr()
    assert captured.out == "result\n"
    assert captured.err == "remark more\none\ntwo\n"


def test_text_the_terminal_cannot_show_is_replaced(monkeypatch):
    stream = ascii_stream()
    monkeypatch.setattr(sys, "stdout", stream)
    say("π and \ud800")
    assert written(stream) == "? and  \n"


@pytest.mark.parametrize("document", [{"text": "π"}, ["\ud800"]])
def test_json_is_whole_on_any_terminal(document, monkeypatch, capsys):
    say_json(document)
    assert json.loads(capsys.readouterr().out) == document
    stream = ascii_stream()
    monkeypatch.setattr(sys, "stdout", stream)
    say_json(document)
    assert json.loads(written(stream)) == document


def test_a_table_aligns_numbers_right_and_words_left():
    assert table([("a", "1"), ("long name", "1,000")], header=("name", "count")) == [
        "name       count",
        "a              1",
        "long name  1,000",
    ]
    assert table([("a\nb", "1"), ("", "none")], header=("x", "y")) == ["x    y", "a b  1", "     none"]
    assert table([], header=("name", "count")) == ["name  count"]
