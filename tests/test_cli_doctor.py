"""`compactds doctor`: each check says what it found and, if that is bad, what to do."""

import json
import re
import shutil
import socket
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest
from typer.testing import CliRunner

from compactds.cli import checks
from compactds.cli.main import app
from compactds.datastore.encoders import locate
from compactds.datastore.errors import EncoderError

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, ["doctor", *map(str, arguments)], prog_name="compactds")


@pytest.fixture
def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_working_machine_passes(free_port, tmp_path):
    done = run("--port", free_port, "--path", tmp_path)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok       python    3.") for line in lines)
    assert any(line.startswith("ok       encoder   sentence-transformers/all-MiniLM-L6-v2") for line in lines)
    assert any(line.startswith("ok       faiss ") for line in lines)
    assert f"ok       port      {free_port} is free" in lines
    assert f"numpy=={version('numpy')}" in done.stdout
    assert all(len(line) <= 80 for line in lines if "://" not in line and "/" not in line)


def test_json_lists_the_checks_and_a_problem_fails(free_port, tmp_path):
    done = run("--port", free_port, "--path", tmp_path / "absent", "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert not report["ok"]
    problem = next(check for check in report["checks"] if check["state"] == "problem")
    assert problem["name"] == "disk"
    assert problem["remedy"] == "Give --path a folder that exists."


def test_a_problem_is_shown_with_its_remedy(free_port, tmp_path):
    lines = run("--port", free_port, "--path", tmp_path / "absent").stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("problem  disk"))
    assert "Give --path a folder that exists." in [line.strip() for line in lines[place:]]


def test_a_missing_package_is_a_problem(monkeypatch):
    def found(name):
        if name == "faiss-cpu":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(checks, "version", found)
    everything, missing = checks.check_packages()
    assert everything.state == "ok"
    assert "numpy==1.0" in everything.detail
    assert "torch==1.0" in everything.detail
    assert "pytest" not in everything.detail
    assert (missing.name, missing.state, missing.remedy) == ("faiss-cpu", "problem", "pip install faiss-cpu")


@pytest.mark.parametrize(
    ("flags", "state", "shown"),
    [
        ("fpu avx2 avx512f amx_bf16", "ok", "avx2 avx512f amx_bf16"),
        ("fpu sse", "warning", ""),
        (None, "ok", ""),
    ],
)
def test_vector_instructions_are_named(flags, state, shown, tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    if flags is not None:
        info.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(checks, "_CPU_INFO", info)
    check = checks.check_cpu()
    assert check.state == state
    assert check.detail.endswith(shown)
    assert re.match(r"1 core, |\d+ cores, ", check.detail)


@pytest.mark.parametrize(
    ("info", "limit", "state", "detail"),
    [
        ("MemAvailable:  8000000 kB\n", None, "ok", "8.2 GB available"),
        ("MemAvailable:  8000000 kB\n", "max\n", "ok", "8.2 GB available"),
        ("MemAvailable:  8000000 kB\n", "1000000000\n", "warning", "1.0 GB available"),
        ("MemAvailable:  1000 kB\n", None, "warning", "1.0 MB available"),
        (None, None, "warning", "unknown"),
    ],
)
def test_memory_is_what_the_system_or_the_container_gives(info, limit, state, detail, tmp_path, monkeypatch):
    for name, content in (("_MEMORY_INFO", info), ("_MEMORY_LIMIT", limit)):
        file = tmp_path / name
        if content is not None:
            file.write_text(content)
        monkeypatch.setattr(checks, name, file)
    check = checks.check_memory()
    assert (check.state, check.detail) == (state, detail)


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert checks.check_disk(tmp_path).state == "warning"


def test_a_missing_encoder_is_a_warning_and_a_wrong_one_a_problem(monkeypatch):
    import importlib.util

    def wrong(*_):
        raise EncoderError("the weights are others.", remedy="Reinstall.")

    with monkeypatch.context() as patch:
        patch.setattr(locate, "locate", wrong)
        check = checks.check_encoder()
        assert (check.state, check.detail, check.remedy) == (
            "problem",
            "the weights are others.",
            "Reinstall.",
        )
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert checks.check_encoder().state == "warning"


def test_a_faiss_that_is_missing_or_wrong_is_a_problem(monkeypatch):
    import faiss

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "faiss", None)
        assert checks.check_faiss().state == "problem"
    monkeypatch.setattr(faiss, "IndexFlatIP", faiss.IndexFlatL2)
    assert checks.check_faiss().detail == "finds the wrong vectors"


def test_a_taken_port_is_a_warning():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        check = checks.check_port(taken.getsockname()[1])
    assert check.state == "warning"
    assert check.remedy == "Stop what listens there, or serve with --port."
