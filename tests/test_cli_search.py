"""`compactds search`: the same question to a folder or a server, printed to be read or as JSON."""

import json
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import compactds.clients
import compactds.datastore
from compactds.cli.main import app
from compactds.cli.stores import load_encoders
from compactds.datastore.records import Hit, Hits, Passage, SearchReport
from compactds.filters import FieldType, Schema

PASSAGE = Passage(
    id="sky#0",
    document_id="sky",
    position=0,
    title="Rayleigh scattering",
    text="Short waves scatter most.\n\nSo the sky is \x1b[34mblue. " + "More words. " * 60,
    source="physics",
    start=0,
    end=10,
    attributes={"year": 1871, "tags": ["light", "air"]},
)
HITS = Hits(
    [Hit(0.75, 1, PASSAGE), Hit(0.5, 2, Passage("x#1", "x", 1, "", "Short.", "", 0, 6, {}))],
    SearchReport("exact", 1234, 12, {"encode": 1.5, "exact": 1.0}),
)

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, ["search", *map(str, arguments)], prog_name="compactds")


class Engine:
    """A store that notes what it is asked."""

    def __init__(self, *opened, **options):
        self.opened = (*opened, *options.values())
        self.asked = None
        Engine.last = self

    schema = Schema({"year": FieldType.INT64, "a": FieldType.STRING})
    loaded = False

    @classmethod
    def open(cls, path):
        return cls(path)

    @classmethod
    def of_kind(cls, kind):
        engine = cls()
        engine.manifest = SimpleNamespace(encoder=SimpleNamespace(kind=kind))
        return engine

    def load_encoders(self):
        self.loaded = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def search(self, query, **options):
        self.asked = {"query": query, **options}
        return HITS


class Server(Engine):
    """A server, which checks searches and has its encoders loaded."""

    schema = None

    def load_encoders(self):
        raise AssertionError("a server does that")


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    monkeypatch.setattr(compactds.datastore, "Datastore", Engine, raising=False)
    monkeypatch.setattr(compactds.clients, "Client", Server)
    monkeypatch.delenv("COMPACTDS_API_KEY", raising=False)


def test_a_folder_is_opened_searched_and_closed():
    done = run("store", "why?", "-k", "2", "--candidates", "50", "--recall", "0.9")
    assert done.exit_code == 0
    assert Engine.last.opened == ("store",)
    assert Engine.last.asked == {"query": "why?", "k": 2, "where": None, "candidates": 50, "recall": 0.9}
    assert Engine.last.loaded
    assert Engine.last.closed


@pytest.mark.parametrize(
    ("kind", "on_terminal", "told"),
    [("static", True, "loading the encoder …\n"), ("static", False, ""), ("vectors", True, "")],
)
def test_on_a_terminal_loading_the_encoder_is_told(monkeypatch, capsys, kind, on_terminal, told):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal)
    load_encoders(Engine.of_kind(kind))
    assert Engine.last.loaded
    assert capsys.readouterr().err.replace("\x1b[0m", "") == told


@pytest.mark.parametrize("store", ["store", "http://127.0.0.1:1"])
def test_questions_of_a_file_are_excluded(tmp_path, store):
    file = tmp_path / "questions.jsonl"
    file.write_text('{"question": "Why is it?", "choices": ["a", "b"]}\n')
    done = run(store, "why?", "--exclude-overlap", file)
    assert done.exit_code == 0, done.stderr
    assert Engine.last.asked["exclude_overlap_with"] == ["Why is it? \na \nb", "Why is it?"]
    assert "0 left out for overlap" in done.stderr + done.stdout
    assert "left out" not in run(store, "why?").stdout


def test_a_condition_that_nothing_matches_is_told(monkeypatch):
    none = Hits([], SearchReport("none", 0, 0, {}))
    monkeypatch.setattr(Engine, "search", lambda self, query, **options: none)
    assert run("store", "why?", "--where", "year > 3000").stdout == "no passage matches the condition\n"


def test_a_file_without_questions_is_refused(tmp_path):
    done = run("store", "why?", "--exclude-overlap", tmp_path / "none.jsonl")
    assert done.exit_code != 0
    assert "there are no questions at" in done.stderr


def test_a_server_is_asked_with_the_key_from_the_environment(monkeypatch):
    assert run("http://127.0.0.1:1", "why?").exit_code == 0
    assert Engine.last.opened == ("http://127.0.0.1:1", None)
    monkeypatch.setenv("COMPACTDS_API_KEY", "secret")
    run("https://example.org", "why?")
    assert Engine.last.opened == ("https://example.org", "secret")


@pytest.mark.parametrize(
    ("where", "condition"),
    [
        ("year >= 2015", "year >= 2015"),
        ('{"year": {"$gte": 2015}}', {"year": {"$gte": 2015}}),
        ('  {"a": "b"}', {"a": "b"}),
    ],
)
def test_a_condition_is_sql_or_json(where, condition):
    run("store", "why?", "--where", where)
    assert Engine.last.asked["where"] == condition


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["store", "why?", "--where", '{"year": '], "not JSON"),
        (["store", "why?", "--where", '{"a":' * 100_000], "nested deeper than 64 levels"),
        (["store", "why?", "-k", "0"], "-k"),
        (["store", "why?", "--recall", "1.5"], "--recall"),
        (["store", "why?", "--recall", "0"], "recall is 0, expected a number above 0 and up to 1"),
        (["http://127.0.0.1:1", "why?", "--recall", "nan"], "recall is nan, expected"),
        (["store", "why?", "--candidates", "0"], "--candidates"),
        (["store"], "QUERY"),
    ],
)
def test_wrong_use_exits_with_2(arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.parametrize("subcommand", ["search", "evaluate"])
def test_help_says_which_recall_may_be_asked_for(subcommand):
    told = " ".join(runner.invoke(app, [subcommand, "--help"], prog_name="compactds").stdout.split())
    assert "above 0 up to 1; 1 is exact search." in told
    assert "<=1" not in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["why?", "--where", "year >"], "not a condition"),
        (["why?", "--where", "yeer > 1"], "Did you mean 'year'?"),
        (["why?", "--where", "year = 'x'"], "year"),
        (["why?", "-k", "10001"], "k is 10001"),
        (["why?", "-k", "9", "--candidates", "8"], "candidates is 8"),
        ([" "], "empty"),
    ],
)
def test_a_mistake_is_found_before_the_encoders_are_loaded(arguments, message):
    done = run("store", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not Engine.last.loaded
    assert Engine.last.asked is None


@pytest.mark.parametrize("url", ["http://", "ftp://example.org", "htp://127.0.0.1"])
def test_an_address_that_is_none_is_wrong_use(monkeypatch, url):
    monkeypatch.undo()
    done = run(url, "why?")
    assert done.exit_code == 2
    assert "is not the URL of a server" in done.stderr


def test_a_query_that_was_cut_is_told(monkeypatch):
    assert run("store", "why?").stderr == ""
    monkeypatch.setattr(Engine, "search", lambda *_, **__: Hits([], replace(HITS.report, truncated=True)))
    assert run("store", "why?").stderr == "the query is longer than the encoder reads; its end was not used\n"


def test_hits_are_printed_to_be_read():
    lines = run("store", "why?").stdout.splitlines()
    assert lines[0] == "1. Rayleigh scattering  0.7500"
    assert lines[1] == "   sky#0  physics  year=1871  tags=light,air"
    assert lines[2].startswith("   Short waves scatter most. So the sky is [34mblue. More words.")
    assert all(len(line) <= 100 for line in lines)
    assert "2. x#1  0.5000" in lines
    assert lines[-1] == "2 of 1,234 matching passages, plan exact, 12 scored exactly, 2.5 ms"


def test_a_long_passage_is_cut_to_a_snippet():
    snippet = [line for line in run("store", "why?").stdout.splitlines() if line.startswith("   ")][1:-1]
    assert sum(map(len, snippet)) < 450
    assert any(line.endswith(" …") for line in snippet)


def test_json_holds_query_hits_and_report():
    document = json.loads(run("store", "why?", "--json").stdout)
    assert document == {
        "query": "why?",
        "hits": [asdict(hit) for hit in HITS],
        "report": asdict(HITS.report),
    }
