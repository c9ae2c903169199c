"""`compactds train-filter` makes a model that builds use, and says what it is worth."""

import json
import re
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from compactds.cli.main import app
from compactds.configs.recipe import recipe_for
from compactds.datastore.encoders import EncoderOptions, load_encoder
from compactds.filters.corpus.errors import QualityModelError
from compactds.filters.corpus.quality_model import load_quality_model
from compactds.indexer.pipeline import filter_steps
from compactds.indexer.quality_encoder import QualityEncoder
from compactds.indexer.survey import survey

GOOD = "The moon pulls at the sea, which rises {} feet at the shore; the sun does so too, but less."
UNWANTED = "Click here to win {} prizes!!! Buy now, buy cheap, subscribe and save $$$ today only."


def write(path, template, numbers):
    path.write_text(
        "".join(json.dumps({"id": str(number), "text": template.format(number)}) + "\n" for number in numbers)
    )
    return path


@pytest.fixture
def examples(tmp_path):
    return (
        *("--good", write(tmp_path / "good.jsonl", GOOD, range(40))),
        *("--unwanted", write(tmp_path / "unwanted.jsonl", UNWANTED, range(40))),
    )


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    """A static encoder of the words above, opened as one that has been distilled."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = dict.fromkeys(re.findall(r"\w+", GOOD + UNWANTED))
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    directions = np.random.default_rng(3).normal(size=(len(vocabulary), 16)).astype(np.float32)
    folder = tmp_path_factory.mktemp("static") / "words"
    StaticModel(directions, tokenizer, normalize=True).save_pretrained(folder)
    return load_encoder(EncoderOptions(model="static"), bundle_root=folder)


def run(*arguments):
    return CliRunner().invoke(app, ["train-filter", *map(str, arguments)])


def kept(model, tmp_path):
    """Return how many of ten new texts of each kind a build with the model would keep."""
    found = []
    for name, template in (("new", GOOD), ("spam", UNWANTED)):
        path = write(tmp_path / f"{name}.jsonl", template, range(100, 110))
        table = {"filter": "learned_quality", "model": str(model), "threshold": 0.5}
        lines = survey(recipe_for([str(path)], {"filters": [table]}))["sources"]
        found.append(lines[0]["documents_out"])
    return found


def test_a_model_tells_new_texts_apart(examples, tmp_path):
    done = run(*examples, "--out", tmp_path / "model")
    assert done.exit_code == 0, done.output
    assert "40 good and 40 unwanted texts, 16 held out" in done.output
    assert "held-out AUC 1.000" in done.output
    assert "precision 1.000, recall 1.000" in done.output
    assert "held-out examples, as no --corpus was given" in done.output
    assert kept(tmp_path / "model", tmp_path) == [10, 0]


def test_the_corpus_sets_the_threshold(examples, tmp_path):
    corpus = [
        write(tmp_path / "a.jsonl", GOOD, range(50, 60)),
        write(tmp_path / "b.jsonl", UNWANTED, range(90)),
    ]
    done = run(
        *examples,
        "--corpus",
        corpus[0],
        "--corpus",
        corpus[1],
        "--keep",
        "0.1",
        "--out",
        tmp_path / "m",
        "--json",
    )
    answer = json.loads(done.stdout)
    model = load_quality_model(tmp_path / "m")
    assert (answer["keep"], answer["reference"], answer["reference_texts"]) == (0.1, "corpus", 100)
    assert answer["threshold"] == model.threshold
    texts = [GOOD.format(number) for number in range(50, 60)] + [UNWANTED.format(one) for one in range(90)]
    assert sum(model.score(text) >= model.threshold for text in texts) == 10
    again = run(*examples, "--corpus", *corpus[:1], "--out", tmp_path / "m")  # in place of the first
    assert "keeps 50% of 10 texts of the corpus" in again.output


def test_examples_that_cannot_be_told_apart_are_said_to_be(tmp_path):
    numbers = np.random.default_rng(1).permutation(400).tolist()
    good = write(tmp_path / "good.jsonl", "word {}", numbers[:200])
    unwanted = write(tmp_path / "unwanted.jsonl", "word {}", numbers[200:])
    assert "poorly" in run("--good", good, "--unwanted", unwanted, "--out", tmp_path / "m").output


def test_with_embeddings_the_encoder_is_kept_beside_the_model(examples, static, tmp_path, monkeypatch):
    monkeypatch.setattr(QualityEncoder, "load_static", lambda: QualityEncoder(encoder=static))
    out = tmp_path / "model"
    for _ in range(2):  # the second in place of the first
        done = run(*examples, "--out", out, "--encoder", "static", "--json")
        assert json.loads(done.stdout)["encoder"].startswith("static:")
    assert kept(out, tmp_path) == [10, 0]
    assert QualityEncoder(out)(["moon \ud800"]).shape == (1, 16)
    description = (out / "encoder" / "config.json").read_text()
    (out / "encoder" / "config.json").write_text(description.replace("true", "false"))
    with pytest.raises(QualityModelError, match="was trained with"):
        QualityEncoder(out)(["moon"])
    shutil.rmtree(out / "encoder")
    with pytest.raises(QualityModelError, match="holds no encoder"):
        QualityEncoder(out)(["moon"])


def test_an_encoder_that_is_no_file_is_not_kept(tmp_path):
    class Other:
        spec = type("Spec", (), {"model": "other", "kind": "tei"})

    with pytest.raises(Exception, match="other cannot be kept"):
        QualityEncoder.load_static(Other()).save(tmp_path)


def test_too_few_examples_are_counted(examples, tmp_path):
    few = write(tmp_path / "few.jsonl", UNWANTED, range(3))
    done = run(*examples[:2], "--unwanted", few, "--out", tmp_path / "m")
    assert done.exit_code == 1
    assert "there are 3 different examples of unwanted text, at least 10 are needed" in done.output
    assert not (tmp_path / "m").exists()


def test_a_file_is_not_both_good_and_unwanted(examples, tmp_path):
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "good.jsonl")
    for unwanted in (tmp_path / "link.jsonl", tmp_path):
        done = run(*examples[:2], "--unwanted", unwanted, "--out", tmp_path / "m")
        assert done.exit_code == 2
        assert "can be only one" in done.output
    done = run("--good", "hf:a/b", "--unwanted", "hf:a/b", "--out", tmp_path / "m")
    assert done.exit_code == 2
    same = write(tmp_path / "same.jsonl", GOOD, range(30, 50))
    done = run(*examples[:2], "--unwanted", same, "--out", tmp_path / "m")
    assert done.exit_code == 1
    assert "10 texts are examples of both" in done.output


@pytest.mark.parametrize("keep", ["nan", "1.5", "-1"])
def test_keep_is_a_share(examples, tmp_path, keep):
    assert run(*examples, "--keep", keep, "--out", tmp_path / "m").exit_code == 2


def test_what_is_in_the_way_is_left_alone(examples, tmp_path):
    assert "other than a model" in run(*examples, "--out", tmp_path).output
    assert "not a folder" in run(*examples, "--out", tmp_path / "good.jsonl").output
    assert run(*examples, "--encoder", "minilm", "--out", tmp_path / "m").exit_code == 2
    assert run("--good", tmp_path / "none", *examples[2:], "--out", tmp_path / "m").exit_code == 1


def test_broken_records_are_told_or_left_out(examples, tmp_path):
    with (tmp_path / "good.jsonl").open("a") as file:
        file.write("{\n")
    done = run(*examples, "--out", tmp_path / "m")
    assert done.exit_code == 1
    assert "good.jsonl" in done.output
    assert run(*examples, "--skip-invalid", "--out", tmp_path / "m").exit_code == 0


def test_a_model_that_is_not_named_by_a_path_is_refused_as_ever(tmp_path):
    with pytest.raises(Exception, match="model"):
        filter_steps(recipe_for([str(tmp_path)], {"filters": [{"filter": "learned_quality", "model": 3}]}))
