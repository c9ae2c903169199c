"""The benchmarks of duplicates and of decontamination run on data of a few lines, and know the truth."""

import importlib
import json
import random
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    draw = random.Random(1)
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    texts = [" ".join(f"w{draw.randrange(2000)}" for _ in range(120)) for _ in range(60)]
    path.write_text("".join(json.dumps({"text": f"{text}."}) + "\n" for text in texts))
    return path


def test_ways_to_find_duplicates_are_compared(benchmark, corpus, tmp_path, capsys):
    out = tmp_path / "out.json"
    benchmark("duplicates").main(["--corpus", str(corpus), "--json", str(out)])
    results = json.loads(out.read_text())
    ours, datasketch, rensa = results["ways"]
    assert (ours["way"], ours["precision"], ours["recall"]) == ("compactds", 1, 1)
    assert ours["dropped"] == sum(kind["true"] for kind in results["kinds"].values()) > 10
    assert datasketch["recall"] > 0.5
    assert rensa["recall"] > 0.5
    assert "| compactds |" in capsys.readouterr().out


def test_passages_are_compared_in_place_of_documents(benchmark, corpus, tmp_path, monkeypatch, capsys):
    duplicates = benchmark("duplicates")
    monkeypatch.setattr(duplicates, "PASSAGE_WORDS", 40)
    out = tmp_path / "out.json"
    duplicates.main(["--corpus", str(corpus), "--level", "passage", "--json", str(out)])
    results = json.loads(out.read_text())
    ours = results["ways"][0]
    assert (ours["precision"], ours["recall"]) == (1, 1)
    kinds = results["kinds"]
    assert kinds[""]["copies"] > 2 * 60
    assert ours["dropped"] == sum(kind["true"] for kind in kinds.values()) > 30
    assert "passages" in capsys.readouterr().out


def test_exact_similarities_are_those_of_the_sets(benchmark):
    duplicates = benchmark("duplicates")
    texts = ["a b c d e f", "A, b; c d e f!", "a b c d e g", "a b c", "", "x"]
    settings = duplicates.DuplicateSettings(0.3)
    assert duplicates.similar_pairs(texts, settings) == {(0, 1): 1.0, (0, 2): 1 / 3, (1, 2): 1 / 3}
    assert duplicates.dropped_in_order({(0, 1): 1.0, (1, 2): 1.0, (0, 2): 0.9, (3, 4): 1.0}) == {1, 2, 4}
    assert duplicates.dropped_in_order({(0, 1): 1.0, (1, 2): 1.0}) == {1}


def test_questions_are_found_as_often_as_by_the_plain_count(benchmark, corpus, tmp_path, capsys):
    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    draw = random.Random(2)
    questions = [f"Why {' '.join(texts[place].split()[5:19])}?,a,b,c,d,A" for place in range(7)]
    questions += [f"Why {' '.join(f'x{draw.randrange(99)}' for _ in range(30))}?,a,b,c,d,A" for _ in range(9)]
    questions += ["Which of these is true?,one,two,three,four,A", "Which of these is true?,5,6,7,8,A"]
    (tmp_path / "test.csv").write_text("\n".join(questions))
    out = tmp_path / "out.json"
    arguments = ["--corpus", str(corpus), "--questions", str(tmp_path), "--planted", "20", "--json", str(out)]
    benchmark("decontamination").main(arguments)
    results = json.loads(out.read_text())
    ngram, span, jaccard = results["modes"]
    assert results["plain"] == ngram["found"] == 7
    assert (ngram["others"], ngram["documents"], ngram["paragraphs"]) == (0, 7, 7)
    assert span["found"] == jaccard["found"] == 0
    assert results["planted"]["verbatim"]["copies"] == 11
    for kind, counts in results["planted"].items():
        assert counts["ngram"] == counts["copies"] > 0, kind
    assert "the plain count has 7 questions" in capsys.readouterr().out
