"""The benchmark of corpus filters runs, untimed, on a few lines; datatrove's side is played by a script."""

import importlib
import json
import sys
from pathlib import Path

import pytest

TEXTS = [
    "menu",
    "The kettle had boiled twice before anyone noticed that the window was open. Rain had come in. " * 2,
    "Code { }",
]
STAND_IN = """
import json
reasons = [["short", None, "curly"], ["short", None, "short"], [None, None, None], ["short", None, None]]
reasons += [["short", None, "curly"]]
names = ["c4_quality", "gopher_quality", "gopher_repetition", "fineweb_quality", "all four"]
print("a line that is no figure")
print(json.dumps({name: {"seconds": 1.0, "reasons": each} for name, each in zip(names, reasons)}))
"""


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    return importlib.import_module("benchmarks.corpus_filters")


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def test_verdicts_are_compared_with_those_of_datatrove(benchmark, corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "environment", lambda folder, packages: Path(sys.executable))
    monkeypatch.setattr(benchmark, "PROGRAM", STAND_IN)
    benchmark.main(["--corpus", str(corpus), "--json", str(tmp_path / "out.json")])
    rows = {row["rules"]: row for row in json.loads((tmp_path / "out.json").read_text())}
    assert [*rows] == [*benchmark.COMPARED, benchmark.ALL, *benchmark.ALONE]
    assert {row["documents"] for row in rows.values()} == {3}
    assert rows["c4_quality"]["dropped"] == 3  # two sentences, repeated, are four
    assert (rows["c4_quality"]["only_compactds"], rows["c4_quality"]["only_datatrove"]) == (1, 0)
    assert rows["c4_quality"]["same"] == pytest.approx(2 / 3)
    assert "same" not in rows["language"]
    printed = capsys.readouterr().out
    assert "corpus.jsonl: 3 documents" in printed
    assert printed.count("| 66.7% |") >= 1


def test_what_is_ours_is_measured_alone(benchmark, corpus, capsys):
    benchmark.main(["--corpus", str(corpus), "--without-datatrove", "--documents", "2"])
    assert "| gopher_quality |" in capsys.readouterr().out


def test_the_environment_is_made_once(benchmark, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(benchmark.venv, "create", lambda folder, **_: folder.mkdir())
    monkeypatch.setattr(benchmark.subprocess, "run", lambda arguments, **_: ran.append(arguments))
    folder = tmp_path / "datatrove"
    python = benchmark.environment(folder, benchmark.DATATROVE)
    assert benchmark.environment(folder, benchmark.DATATROVE) == python == folder / "bin" / "python"
    assert len(ran) == 1
    assert "datatrove[io]==0.10.1" in ran[0]
    (folder / "installed.txt").write_text("something else")
    monkeypatch.setattr(benchmark.venv, "create", lambda folder, **_: None)
    benchmark.environment(folder, benchmark.DATATROVE)
    assert len(ran) == 2


def test_language_detectors_are_measured(benchmark, monkeypatch, tmp_path, capsys):
    detectors = importlib.import_module("benchmarks.language_detectors")
    monkeypatch.setattr(detectors, "environment", lambda folder, packages: Path(sys.executable))
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"text": TEXTS[1]}) + "\n")
    out = tmp_path / "out.json"
    detectors.main(["--detectors", "fasttext", "--corpus", str(corpus), "--json", str(out)])
    figures = json.loads(out.read_text())["fasttext"]
    assert figures["whole"] == 1
    assert figures["garbled"] < 0.65
    assert "| fasttext | 100% |" in capsys.readouterr().out
    assert "mb_per_s" not in detectors.measure(Path(sys.executable), "fasttext", None)
