"""The benchmark of coverage makes noise by a seed, and tells it from the corpus, on a few documents."""

import importlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture(scope="module")
def documents():
    """Forty passages of the demo corpus that are long enough to be judged."""
    lines = (ROOT / "configs" / "demo" / "corpus.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    texts = [" ".join(record["text"].split()) for record in records]
    return [
        {"_id": str(number), "title": f"Part {number}", "text": text[:1500]}
        for number, text in enumerate([text for text in texts if len(text) > 500][:40])
    ]


@pytest.fixture(scope="module")
def static_model(tmp_path_factory, documents):
    from model2vec import StaticModel
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = re.findall(r"\w+", " ".join(document["text"] for document in documents))
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    directions = np.random.default_rng(3).normal(size=(len(vocabulary), 32)).astype(np.float32)
    folder = tmp_path_factory.mktemp("model") / "words"
    StaticModel(directions, tokenizer, normalize=True).save_pretrained(folder)
    return folder


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def test_noise_is_of_every_kind_and_the_same_for_the_same_seed(benchmarks, documents):
    made = benchmarks("coverage_noise").noise(documents, 2.0, 5)
    kinds = Counter(record["_id"].split("-")[1] for record in made)
    assert kinds == {"boilerplate": 16, "spam": 16, "garbled": 16, "exact": 8, "near": 8, "language": 16}
    assert len({record["_id"] for record in made}) == 80
    assert made == benchmarks("coverage_noise").noise(documents, 2.0, 5)
    assert made != benchmarks("coverage_noise").noise(documents, 2.0, 6)
    texts = {document["text"] for document in documents}
    assert {record["text"] in texts for record in made if "exact" in record["_id"]} == {True}
    assert {record["text"] in texts for record in made if "near" in record["_id"]} == {False}


def test_noise_is_written_once(benchmarks, documents, tmp_path, capsys):
    (tmp_path / "corpus.jsonl").write_text(lines([*documents, {"_id": "e", "title": "", "text": " "}]))
    arguments = ["--corpus", str(tmp_path / "corpus.jsonl"), "--out", str(tmp_path / "noise.jsonl")]
    benchmarks("coverage_noise").main(arguments)
    before = (tmp_path / "noise.jsonl").stat()
    benchmarks("coverage_noise").main(arguments)
    assert (tmp_path / "noise.jsonl").stat() == before
    assert capsys.readouterr().out.startswith("40 documents of noise")


def test_filters_take_the_noise_out_and_leave_the_corpus(
    benchmarks, documents, static_model, tmp_path, capsys
):
    beir = tmp_path / "collection"
    beir.mkdir()
    (beir / "corpus.jsonl").write_text(lines(documents))
    queries = [
        {"_id": f"q{one['_id']}", "text": one["text"][:200], "metadata": {"split": "validation"}}
        for one in documents[:5]
    ]
    (beir / "queries.jsonl").write_text(lines(queries))
    judgements = "".join(f"q{number}\t{number}\t1\n" for number in range(5))
    (beir / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judgements}")
    arguments = ["--beir", str(beir), "--encoder", str(static_model), "--index", "flat"]
    benchmarks("coverage").main(
        [*arguments, "--stores", str(tmp_path / "stores"), "--json", str(tmp_path / "out.json")]
    )
    clean, noisy, rules, learned = json.loads((tmp_path / "out.json").read_text())
    assert [clean["documents"], clean["noise"], noisy["documents"], noisy["noise"]] == [40, 0, 80, 40]
    assert clean["corpus_lost"] == noisy["corpus_lost"] == noisy["noise_removed"] == 0
    assert noisy["ram_bytes"] == 2 * clean["ram_bytes"]
    for row in (rules, learned):
        assert row["documents"] == 80 - row["noise_removed"] - row["corpus_lost"]
        assert [row["kinds"][kind] for kind in ("exact", "near", "language")] == [0, 0, 0]
        assert sum(count["noise"] for count in row["removed_by"].values()) == row["noise_removed"]
    assert learned["noise_removed"] >= 38 > rules["noise_removed"]
    assert learned["kinds"]["spam"] == 0 < rules["kinds"]["spam"]
    assert learned["corpus_lost"] <= 2
    printed = capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in printed.splitlines()[2:6]] == [
        *("clean", "noisy", "rules", "learned")
    ]
    assert "| spam | 8 |" in printed
