"""What the command line prints: aligned tables, one-line texts, JSON that any terminal can show."""

import io
import json
import sys

import pytest

from compactds.cli.output import clean, plain, program, runnable, say, say_json, table, warn


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


class TestProgram:
    """Commands that are printed work when they are pasted."""

    def test_a_program_that_the_shell_finds_goes_by_its_name(self, tmp_path, monkeypatch):
        installed = tmp_path / "compactds"
        installed.write_text("#!/bin/sh\n")
        installed.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(sys, "argv", [str(installed), "demo"])
        assert program() == "compactds"

    @pytest.mark.parametrize(
        ("started", "shown"),
        [(".venv/bin/compactds", ".venv/bin/compactds"), ("a b/compactds", "'a b/compactds'")],
    )
    def test_another_one_goes_by_the_path_it_was_started_with(self, started, shown, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(sys, "argv", [started, "demo"])
        assert program() == shown
        assert runnable("Run `compactds verify`, or ask `compactds`.") == (
            f"Run `{shown} verify`, or ask `compactds`."
        )

    def test_what_was_not_started_from_a_shell_goes_by_its_name(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["-c"])
        assert program() == "compactds"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "none"),
        ([], "none"),
        ({}, "none"),
        (True, "true"),
        (1000, "1,000"),
        (0.5, "0.5"),
        (["a", "b"], "a, b"),
        ([{"kind": "flat", "passages": 101}, {"kind": "ivf"}], "kind flat, passages 101; kind ivf"),
    ],
)
def test_data_is_shown_as_words(value, shown):
    assert plain(value) == shown
