"""`compactds demo`: built, served and asked in one go; on a terminal it stays until Ctrl-C."""

import importlib
import json
import re
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from compactds.cli.main import app

demo = importlib.import_module("compactds.cli.demo")

CORPUS = [
    (
        "Rayleigh scattering",
        "The sky is blue because air scatters short waves of light most.",
        "physics",
        1871,
    ),
    ("Market for lemons", "Sellers of bad used cars drive out sellers of good ones.", "economics", 1970),
    ("Photoelectric effect", "Experiments showed that light comes in quanta.", "college_physics", 1905),
    ("Interference", "Experiments showed that light is a wave.", "college_physics", 1801),
]

runner = CliRunner()


@pytest.fixture(autouse=True)
def corpus(tmp_path, monkeypatch):
    """Put four passages in place of the bundled corpus, and work in an empty folder."""
    bundled = tmp_path / "bundled"
    (bundled / "demo").mkdir(parents=True)
    (bundled / "demo.toml").write_text('name = "demo"\n[[sources]]\npath = "demo/corpus.jsonl"\n')
    records = [
        {"id": title, "title": title, "text": text, "subject": subject, "year": year}
        for title, text, subject, year in CORPUS
    ]
    (bundled / "demo" / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.setattr(demo, "files", lambda package: bundled)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def run(*arguments):
    return runner.invoke(app, ["demo", *arguments], prog_name="compactds")


def answers(text):
    """Return the title of the first hit of each question."""
    return re.findall(r"^1\. (.*) \(", text, re.MULTILINE)


def test_three_questions_are_answered_and_a_second_run_builds_nothing(tmp_path):
    done = run("--once", "--port", "0")
    assert done.exit_code == 0, done.stderr
    assert answers(done.stdout) == ["Rayleigh scattering", "Market for lemons", "Photoelectric effect"]
    assert "Interference (" not in done.stdout.split("where", 1)[1].split("Try it")[0]
    url = re.search(r"^serving demo-store at (http://127\.0\.0\.1:\d+)$", done.stderr, re.MULTILINE)[1]
    for example in (f"{url}/docs", f"curl -s {url}/v1/search", f'with Client("{url}") as store:'):
        assert example in done.stdout
    assert "built demo-store: 4 passages" in done.stderr
    snippet = done.stdout[done.stdout.index("from compactds.clients") :]
    compile(snippet, "pasted", "exec")  # not indented
    assert max(map(len, snippet.splitlines())) <= 100

    again = run("--port", "0")  # no terminal: it stops by itself
    assert again.exit_code == 0
    assert answers(again.stdout) == answers(done.stdout)
    assert "built" not in again.stderr


def test_a_taken_port_is_replaced_and_a_terminal_keeps_it_serving(monkeypatch):
    class Stopped(threading.Event):
        def wait(self, timeout=None):
            raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_on_terminal", lambda: True)
    monkeypatch.setattr(demo, "threading", SimpleNamespace(Event=Stopped))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("--port", str(port), "--out", "elsewhere")
    assert done.exit_code == 0, done.stderr
    assert f"port {port} is in use; taking a free one" in done.stderr
    assert f"127.0.0.1:{port}" not in done.stdout
    assert "Serving until Ctrl-C." in done.stdout
    assert done.stderr.endswith("stopped\n")


def test_what_to_go_on_with_is_printed_as_the_user_started_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [".venv/bin/compactds"])
    monkeypatch.setenv("PATH", "")
    demo._show_how_to_go_on("http://127.0.0.1:1", Path("a b"), keeps_serving=False)
    printed = capsys.readouterr().out
    assert "  .venv/bin/compactds serve 'a b' --port 1 " in printed
    assert "  .venv/bin/compactds search 'a b' " in printed
    assert "Or in Python, as .venv/bin/python starts it" in printed


def test_nothing_but_a_terminal_counts_as_one():
    assert not demo._on_terminal()
