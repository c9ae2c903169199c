"""The benchmark of encoding compares what it says, untimed, on a few passages."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
CORPUS = ROOT / "configs" / "demo" / "corpus.jsonl"


@pytest.fixture
def encoding(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.encoding")


@pytest.fixture(scope="module")
def static_model(tmp_path_factory):
    """A static model that gives each word of the demo corpus a random direction, on disk."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = dict.fromkeys(re.findall(r"\w+", CORPUS.read_text()))
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    directions = np.random.default_rng(3).normal(size=(len(vocabulary), 16)).astype(np.float32)
    folder = tmp_path_factory.mktemp("model") / "words"
    StaticModel(directions, tokenizer, normalize=True).save_pretrained(folder)
    return str(folder)


def test_both_ways_give_nearly_the_same_vectors(encoding, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("compactds.datastore.encoders.computation.TOKENS_PER_TEXT", 8)  # small batches
    out = tmp_path / "out.json"
    arguments = ["--corpus", str(CORPUS), "--passages", "3", "--rounds", "1", "--json", str(out)]
    encoding.main(arguments)
    plain, ours = json.loads(out.read_text())
    assert plain["way"] == "sentence-transformers, float32"
    assert plain["least_cosine"] == pytest.approx(1, abs=1e-6)
    assert ours["mean_cosine"] >= ours["least_cosine"] > 0.999
    assert capsys.readouterr().out.count("\n| ") == 4


def test_more_passages_than_there_are_cannot_be_compared(encoding, tmp_path):
    (tmp_path / "one.jsonl").write_text('{"text": "The sky is blue."}\n')
    with pytest.raises(SystemExit, match="holds 1 passages only"):
        encoding.throughput_rows(tmp_path / "one.jsonl", "minilm", 2, 1)


def test_memory_is_measured_over_ten_times_the_passages(encoding, static_model, capsys):
    encoding.main(["--corpus", str(CORPUS), "--model", static_model, "--passages", "40", "--memory"])
    first, second = (line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[-2:])
    assert (first[0].strip(), second[0].strip()) == ("40", "400")
    assert first[2].strip() == "1.00"


def test_a_small_corpus_is_encoded_again_until_there_are_enough(encoding, static_model, monkeypatch):
    monkeypatch.setattr(encoding, "PASSAGES_PER_SHARD", 500)
    found = encoding.encode_all(CORPUS, static_model, 1200)
    assert len(found["after_each_shard"]) == 3


def test_a_rebuild_is_compared_byte_by_byte(encoding, static_model, tmp_path, capsys):
    options = ["--model", static_model, "--passages", "30", "--stores", str(tmp_path)]
    encoding.main(["--corpus", str(CORPUS), "--rebuild", *options])
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].split("|")[1:-1]]
    assert 30 <= int(cells[0]) < 60
    assert cells[-1] == "yes"
    assert len(list(tmp_path.glob("rebuild-cache/vectors/*/*.vectors"))) == 1
