"""The console script loads the command line, and may be stopped while it does."""

import os
import signal
import subprocess
import sys

import pytest

from compactds.cli.entry import main

INTERRUPTED = """
import signal, sys
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "compactds.cli.main":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupted())
signal.signal(signal.SIGINT, {handler})
from compactds.cli.entry import main
main()
"""


def started(handler):
    program = INTERRUPTED.format(handler=handler)
    return subprocess.run([sys.executable, "-c", program, "--version"], capture_output=True, check=False)


def test_stopped_while_it_loads_it_says_so_in_one_line():
    done = started("signal.default_int_handler")
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"stopped\n")


def test_a_signal_that_is_ignored_stays_ignored():
    done = started("signal.SIG_IGN")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"compactds ")


def test_ctrl_c_is_told_to_the_command_once_it_runs(monkeypatch, capfd):
    def end(code):
        raise SystemExit(code)

    class Interrupted:
        def find_spec(self, name, path=None, target=None):
            if name == "compactds.cli.main":
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.delitem(sys.modules, "compactds.cli.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background
    try:
        with pytest.raises(SystemExit, match="130"):
            main()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err == "stopped\n"
