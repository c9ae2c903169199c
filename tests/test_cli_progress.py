"""Progress: a few plain lines where nobody watches, bars where somebody does."""

import io
import sys

from rich.console import Console
from rich.progress import Progress

from compactds.cli.progress import BarProgress, LineProgress, progress


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_lines_come_at_the_start_at_intervals_and_at_the_end(capsys):
    clock = Clock()
    lines = LineProgress(interval_s=5, clock=clock)
    lines.stage("encode", 1000)
    for _ in range(10):
        clock.now += 1
        lines.advance(50)
    lines.note("halfway")
    lines.close()
    assert capsys.readouterr().err.splitlines() == [
        "encode: 1,000 …",
        "encode: 250 of 1,000 (25%), 50/s, 15 s left",
        "encode: 500 of 1,000 (50%), 50/s, 10 s left",
        "halfway",
        "encode: 500 done in 10.0 s",
    ]


def test_a_stage_of_unknown_length_counts_and_the_next_stage_ends_it(capsys):
    clock = Clock()
    lines = LineProgress(interval_s=5, clock=clock)
    lines.stage("read", None)
    clock.now = 10
    lines.advance(0)
    clock.now = 20
    lines.advance(2000)
    lines.stage("encode", 0)
    lines.stage("load", None)
    lines.close()
    lines.close()
    assert capsys.readouterr().err.splitlines() == [
        "read …",
        "read: 0, 0/s",
        "read: 2,000, 100/s",
        "read: 2,000 done in 20.0 s",
        "encode: 0 …",
        "encode: 0 done in 0.0 s",
        "load …",
        "load: done in 0.0 s",
    ]


def test_bars_show_each_stage_and_fill_up():
    screen = io.StringIO()
    with Progress(console=Console(file=screen, force_terminal=True, width=80)) as bars:
        drawn = BarProgress(bars)
        drawn.advance(1)
        drawn.stage("read", None)
        drawn.advance(3)
        drawn.stage("encode", 10)
        drawn.advance(10)
        drawn.note("a [note] as it is")
        drawn.close()
        drawn.close()
        assert [(task.description, task.completed, task.total) for task in bars.tasks] == [
            ("read", 3, 3),
            ("encode", 10, 10),
        ]
    assert "a [note] as it is" in screen.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_standard_error_decides_which(monkeypatch, capsys):
    with progress() as shown:
        assert isinstance(shown, LineProgress)
        shown.stage("read", 1)
    assert "read: 0 done" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress() as shown:
        assert isinstance(shown, BarProgress)
        shown.stage("read", 1)
