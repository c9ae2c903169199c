"""The retrieval benchmark, end to end over a collection small enough to score by hand."""

import importlib.util
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest

from compactds.datastore.encoders.base import EncoderSpec

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "retrieval.py"


class WordEncoder:
    """Add up one fixed random direction per word: texts that share words are near."""

    spec = EncoderSpec(
        model="words",
        kind="static",
        dimension=64,
        max_tokens=None,
        normalized=True,
        query_prompt="",
        passage_prompt="",
        pooling="sum",
        fingerprint="words-64",
    )

    def encode_passages(self, texts):
        sums = np.array([sum(map(self.direction, text.split())) for text in texts], np.float32)
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)

    encode_queries = encode_passages

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]

    @staticmethod
    def direction(word):
        return np.random.default_rng(zlib.crc32(word.encode())).normal(size=64)


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("retrieval_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def collection(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    long_text = " ".join(f"word{number}" for number in range(900))
    documents = [
        ("1", "stars", "bright light"),
        ("2", "", "deep sea water"),
        ("3", "stars", "bright water"),
        ("4", "long", long_text),
        ("5", "", ""),
    ]
    (folder / "corpus.jsonl").write_text(
        "".join(
            json.dumps({"_id": id_, "title": title, "text": text, "metadata": {}}) + "\n"
            for id_, title, text in documents
        )
    )
    queries = [("a", "stars bright light", "dev"), ("b", "deep sea", "dev"), ("c", "light", "train")]
    (folder / "queries.jsonl").write_text(
        "".join(
            json.dumps({"_id": id_, "text": text, "metadata": {"split": split}}) + "\n"
            for id_, text, split in queries
        )
    )
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\na\t3\t1\nb\t2\t1\nc\t1\t1\n")
    return folder


def test_figures_are_those_computed_by_hand_and_the_store_is_kept(benchmark, collection, tmp_path, capsys):
    out = tmp_path / "out.json"
    arguments = ["--beir", str(collection), "--split", "dev", "--stores", str(tmp_path / "stores")]
    benchmark.main([*arguments, "--json", str(out)], encoder=WordEncoder())
    # Query a finds document 1, which it equals, before document 3; query b finds document 2 first.
    expected = (1 / math.log2(3) + 1) / 2
    assert f"{expected:.4f}" in capsys.readouterr().out
    record = json.loads(out.read_text())
    assert record["results"][0]["figures"][0]["value"] == pytest.approx(expected)
    assert record["build"]["passages"] == record["build"]["documents"] == 4  # the long one is whole
    assert record["settings"]["without text"] == 1
    benchmark.main(arguments, encoder=WordEncoder())
    assert "the store was up to date" in capsys.readouterr().out
