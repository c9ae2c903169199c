"""Every benchmark runs, untimed, on data of a few lines; what it compares is the same."""

import importlib
import json
import pkgutil
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmarks(monkeypatch):
    """Import a benchmark by its name."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture(scope="module")
def static_model(tmp_path_factory):
    """A static model that gives each word of the demo corpus a random direction, on disk."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = re.findall(r"\w+", (ROOT / "configs" / "demo" / "corpus.jsonl").read_text().lower())
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    directions = np.random.default_rng(3).normal(size=(len(vocabulary), 32)).astype(np.float32)
    folder = tmp_path_factory.mktemp("model") / "words"
    StaticModel(directions, tokenizer, normalize=True).save_pretrained(folder)
    return folder


def table(printed, first):
    """Return the rows of the table whose first head is `first`, as lists of cells."""
    lines = printed.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def program(*lines):
    return [sys.executable, "-c", "\n".join(("import signal, sys", *lines))]


def test_the_short_benchmark_builds_the_demo_and_all_ways_agree(benchmarks, static_model, tmp_path, capfd):
    arguments = ["--encoder", str(static_model), "--stores", str(tmp_path), "--limit", "3"]
    benchmarks("demo").main(arguments)
    printed = capfd.readouterr().out
    (build,) = table(printed, "encoder")
    assert build[1:2] + build[-2:] == ["336", "flat", "not tried"]
    rows = table(printed, "way")
    assert [(row[0], row[2]) for row in rows] == [
        *[(way, "one at a time") for way in ("embedded", "HTTP", "Client", "AsyncClient")] * 2,
        *[(way, "64 a batch") for way in ("embedded", "HTTP", "Client", "AsyncClient")] * 2,
        *[("AsyncClient", "16 at once")] * 2,
    ]
    assert {row[3] for row in rows} == {"3 of 3"}
    assert {row[1] for row in rows} == {"no", "yes"}
    assert all(float(row[4]) < 1e-5 for row in rows)


def test_parity_says_why_a_server_does_not_start(benchmarks, tmp_path):
    with pytest.raises(RuntimeError, match="no datastore at"), benchmarks("parity").served(tmp_path):
        pass


def test_queries_are_lines_or_records(benchmarks, tmp_path):
    (tmp_path / "queries").write_text('{"question": "a"}\n\n{"text": "b"}\nwhat is c?\n')
    assert benchmarks("parity").read_queries(tmp_path / "queries") == ["a", "b", "what is c?"]


def test_a_build_too_quick_to_be_interrupted_is_no_failure(benchmarks, static_model, tmp_path, capfd):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(f'{{"id": "{number}", "text": "light of star {number}"}}\n' for number in range(3))
    )
    out = tmp_path / "out.json"
    options = ["--encoders", str(static_model), "--stores", str(tmp_path / "stores"), "--json", str(out)]
    benchmarks("builds").main(["--corpus", str(corpus), "--interrupt", *options])
    (row,) = table(capfd.readouterr().out, "encoder")
    assert row[-1] == "not interrupted"
    (record,) = json.loads(out.read_text())
    assert (record["passages"], record["interrupted_percent"]) == (3, None)


class TestInterrupting:
    def test_a_build_is_stopped_once_enough_is_encoded(self, benchmarks):
        waiting = program(
            "signal.signal(signal.SIGINT, lambda *_: sys.exit(130))",
            "for percent in (7, 42):",
            "    print(f'encoding: {percent} of 100 ({percent}%), 9/s', file=sys.stderr, flush=True)",
            "signal.pause()",
        )
        assert benchmarks("builds").stop_halfway(waiting) == 42

    def test_one_that_ends_before_is_not_interrupted(self, benchmarks):
        assert (
            benchmarks("builds").stop_halfway(program("print('encoding: 3 done', file=sys.stderr)")) is None
        )

    def test_one_that_fails_is_told(self, benchmarks):
        with pytest.raises(RuntimeError, match="ended with 1: no such file"):
            benchmarks("builds").stop_halfway(program("sys.exit('no such file')"))

    @pytest.mark.parametrize(
        ("facts", "told"),
        [
            ({}, "not tried"),
            ({"interrupted_percent": None}, "not interrupted"),
            ({"interrupted_percent": 42, "same_store": True}, "yes, at 42 %"),
            ({"interrupted_percent": 42, "same_store": False}, "NO, at 42 %"),
        ],
    )
    def test_the_table_says_how_it_went(self, benchmarks, facts, told):
        row = dict.fromkeys(
            ("passages", "seconds", "passages_per_second", "peak_rss_bytes", "bytes_per_passage"), 1
        )
        printed = benchmarks("builds").table_row({**row, "encoder": "static", "index": "flat", **facts})
        assert printed.endswith(f"| flat | {told} |")


def test_splitters_are_compared(benchmarks, tmp_path, capsys):
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "out.json"
    corpus.write_text(json.dumps({"text": "The sky is blue. It was not always so. " * 60}) + "\n")
    benchmarks("splitting").main([str(corpus), "--json", str(out)])
    found = {row["splitter"]: row for row in json.loads(out.read_text())}
    assert len(found) == 4
    assert all(row["over"] == 0 for row in found.values())
    assert found["compactds, words"]["ends"] == 1
    assert "1 documents" in capsys.readouterr().out


def test_filters_are_compared_and_all_ways_agree(benchmarks, tmp_path, capsys):
    out = tmp_path / "out.json"
    arguments = ["--rows", "2000", "--repeats", "1", "--json", str(out)]
    benchmarks("filter_bitmaps").main(arguments)
    figures = json.loads(out.read_text())
    assert [row["column"] for row in figures["columns"]][-1] == "authors"
    assert all(row["bytes"] > 0 for row in figures["columns"])
    matching = {row["expression"]: row["matching"] for row in figures["expressions"]}
    assert len(matching) == 22
    assert matching["string =, common"] + matching["string ≠"] == 2_000
    assert len(figures["facets"]) == 12
    assert "one clause(s): slowest" in capsys.readouterr().out


def test_every_benchmark_takes_its_arguments_and_is_listed(benchmarks, monkeypatch, capsys):
    package = importlib.import_module("benchmarks")
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)} - {"__main__"}
    names = {name.replace("_", "-") for name in modules}
    command = benchmarks("__main__")
    for name in names:
        with pytest.raises(SystemExit) as caught:
            command.main([name, "--help"])
        assert caught.value.code == 0
        assert f"python -m benchmarks {name}" in capsys.readouterr().out.replace("_", "-")
    assert command.main(["--help"]) == 0
    assert set(re.findall(r"^  ([\w-]+) ", capsys.readouterr().out, re.MULTILINE)) == names
    assert command.main(["nonsense"]) == 2

    ran = []
    monkeypatch.setattr(benchmarks("demo"), "main", ran.append)
    assert command.main([]) == 0
    assert ran == [[]]


def test_builds_that_are_killed_end_in_the_same_store(benchmarks, static_model, tmp_path, capsys):
    arguments = ["--times", "1", "--encoder", str(static_model), "--json", str(tmp_path / "kills.json")]
    benchmarks("kills").main(arguments)
    assert json.loads((tmp_path / "kills.json").read_text())["same"] == 1
    assert "1 ended in the same store" in capsys.readouterr().out
