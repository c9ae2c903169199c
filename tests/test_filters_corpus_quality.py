"""A learned quality filter is trained, measured, saved and applied with the same outcome everywhere."""

import json
import random
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactds.filters.corpus.base import Drop
from compactds.filters.corpus.catalogue import make_filter
from compactds.filters.corpus.errors import QualityModelError
from compactds.filters.corpus.learned_quality import LearnedQuality
from compactds.filters.corpus.quality_features import BUCKETS, READ_CHARACTERS, features_of
from compactds.filters.corpus.quality_model import QualityModel, load_quality_model
from compactds.filters.corpus.quality_training import (
    TrainingSettings,
    auc,
    precision_recall,
    train_quality_model,
)

NOUNS = [
    "kettle",
    "window",
    "letter",
    "stove",
    "rain",
    "aunt",
    "house",
    "cellar",
    "apple",
    "bridge",
    "river",
    "leaf",
    "notebook",
    "teacher",
    "lamp",
]
SPAM = [
    "buy",
    "cheap",
    "pills",
    "now",
    "click",
    "here",
    "free",
    "winner",
    "casino",
    "bonus",
    "discount",
    "offer",
    "limited",
    "deal",
    "subscribe",
]


@dataclass
class Page:
    text: str
    id: str = "page"
    title: str = ""
    source: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


def written(words, number, shared=("the", "of", "and", "a")):
    pick = random.Random(f"{words[0]} {number}")
    return " ".join(pick.choice(words if pick.random() < 0.6 else shared) for _ in range(60))


GOOD = [written(NOUNS, number) for number in range(60)]
UNWANTED = [written(SPAM, number) for number in range(60)]


@pytest.fixture(scope="module")
def model():
    return train_quality_model(GOOD, UNWANTED)


def test_examples_are_told_apart_and_the_report_says_how_well(model):
    assert model.score(written(NOUNS, 1000)) > 0.7 > 0.3 > model.score(written(SPAM, 1000))
    assert model.report == {
        "good": 60,
        "unwanted": 60,
        "held_out": 24,
        "reference": "held-out examples",
        "reference_texts": 24,
        "keep": 0.5,
        "auc": 1.0,
        "precision": 1.0,
        "recall": 1.0,
    }


def test_the_report_is_on_examples_that_were_not_learned():
    noise = [written(NOUNS, f"noise {number}") for number in range(120)]
    hopeless = train_quality_model(noise[:60], noise[60:])
    assert 0.2 < hopeless.report["auc"] < 0.8


def test_the_threshold_keeps_the_share_asked_for():
    corpus = [written(NOUNS, f"c{number}") for number in range(30)] + [
        written(SPAM, f"c{number}") for number in range(70)
    ]
    model = train_quality_model(GOOD, UNWANTED, corpus=corpus, settings=TrainingSettings(keep=0.3))
    assert model.report["reference"] == "corpus"
    assert sum(model.score(text) >= model.threshold for text in corpus) == pytest.approx(30, abs=1)
    assert sum(model.score(text) >= model.threshold_for(0.8) for text in corpus) == pytest.approx(80, abs=1)
    assert model.threshold_for(1.0) <= min(map(model.score, corpus))


def test_the_order_of_examples_and_their_copies_make_no_difference(model):
    again = train_quality_model([*reversed(GOOD), *GOOD[:9], "", " \n"], iter(UNWANTED))
    assert np.array_equal(again.weights, model.weights)
    assert (again.bias, again.threshold, again.report) == (model.bias, model.threshold, model.report)


def test_of_too_many_examples_a_sample_is_learned_that_order_does_not_change():
    few = TrainingSettings(max_examples=20, epochs=1)
    first = train_quality_model(GOOD, UNWANTED, settings=few)
    second = train_quality_model(GOOD[::-1], UNWANTED[::-1], settings=few)
    assert first.report["good"] == second.report["good"] == 20
    assert np.array_equal(first.weights, second.weights)


@pytest.mark.parametrize(
    ("good", "unwanted", "message"),
    [
        (GOOD[:9], UNWANTED, "9 different examples of good text"),
        (GOOD, [UNWANTED[0]] * 50, "1 different examples of unwanted text"),
        (GOOD, [*UNWANTED, GOOD[3]], "1 texts are examples of both"),
    ],
)
def test_examples_that_teach_nothing_are_refused(good, unwanted, message):
    with pytest.raises(QualityModelError, match=message):
        train_quality_model(good, unwanted)


def test_an_empty_sample_of_the_corpus_is_refused():
    with pytest.raises(QualityModelError, match="sample of the corpus has no text"):
        train_quality_model(GOOD, UNWANTED, corpus=["", " "])


def encode(texts):
    return np.array([[text.count("kettle"), len(text) / 1000, 1] for text in texts], dtype=np.float32)


def test_embeddings_can_be_learned_from_too(tmp_path):
    model = train_quality_model(GOOD, UNWANTED, encode=encode, encoder="counts")
    assert model.dense.shape == (3,)
    model.save(tmp_path / "model")
    table = {"filter": "learned_quality", "model": str(tmp_path / "model")}
    assert make_filter(table, encode=encode).judge(Page(written(NOUNS, 5))) is None
    with pytest.raises(QualityModelError, match="trained with embeddings of 'counts', and none are made"):
        make_filter(table).judge(Page("text"))
    with pytest.raises(QualityModelError, match="wants embeddings of 3 numbers, not 2"):
        make_filter(table, encode=lambda texts: np.zeros((1, 2), np.float32)).judge(Page("text"))


def test_a_saved_model_scores_the_same_in_another_process(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = load_quality_model(tmp_path / "model")
    assert np.array_equal(loaded.weights, model.weights)
    assert (loaded.bias, loaded.threshold, loaded.quantiles) == (model.bias, model.threshold, model.quantiles)
    assert loaded.report == model.report
    text = written(NOUNS, 7)
    program = (
        "import sys; from pathlib import Path\n"
        "from compactds.filters.corpus.quality_model import load_quality_model\n"
        "print(load_quality_model(Path(sys.argv[1])).score(sys.argv[2]))"
    )
    run = [sys.executable, "-c", program, str(tmp_path / "model"), text]
    assert float(subprocess.run(run, capture_output=True, check=True, text=True).stdout) == model.score(text)


def test_saving_again_gives_the_same_bytes_and_leaves_nothing_else(model, tmp_path):
    model.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert sorted(before) == ["model.json", "weights.f32"]


def test_the_filter_drops_what_scores_low(model, tmp_path):
    model.save(tmp_path / "model")
    table = {"filter": "learned_quality", "model": "model"}
    text = written(SPAM, 77)
    assert make_filter(table, folder=tmp_path).judge(Page(text)) == Drop(
        "learned_quality", "low_quality", model.score(text), model.threshold
    )
    assert make_filter({**table, "threshold": 0}, folder=tmp_path).judge(Page(text)) is None
    assert make_filter({**table, "keep": 1.0}, folder=tmp_path).judge(Page(UNWANTED[0])) is None
    assert LearnedQuality(tmp_path / "model", keep=0.01).judge(Page(text)) is not None


def rewritten(folder, **changes):
    described = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(described | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "there is no quality model at"),
        (lambda folder: (folder / "weights.f32").unlink(), "there is no quality model at"),
        (lambda folder: (folder / "model.json").write_text("{"), "it is not JSON"),
        (lambda folder: (folder / "model.json").write_bytes(b"\xff"), "it is not JSON"),
        (lambda folder: (folder / "model.json").write_text("[]"), "not a quality model of format 1"),
        (lambda folder: rewritten(folder, format=2), "not a quality model of format 1"),
        (lambda folder: rewritten(folder, features=0), "features that this version does not compute"),
        (lambda folder: rewritten(folder, bias=9), "its checksum is another one"),
        (
            lambda folder: (folder / "weights.f32").write_bytes(b"\0" * 4 * BUCKETS),
            "its checksum is another one",
        ),
    ],
)
def test_a_damaged_model_is_refused(damage, message, model, tmp_path):
    model.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(QualityModelError, match=message):
        LearnedQuality(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        QualityModel(np.zeros(5, np.float32), 0.0, (0.0, 1.0), 0.5),
        QualityModel(np.full(BUCKETS, np.nan, np.float32), 0.0, (0.0, 1.0), 0.5),
        QualityModel(np.zeros(BUCKETS, np.float32), float("nan"), (0.0, 1.0), 0.5),
        QualityModel(np.zeros(BUCKETS, np.float32), 0.0, (), 0.5),
    ],
    ids=["too few weights", "weights that are none", "a bias that is none", "no quantiles"],
)
def test_a_model_of_wrong_numbers_is_refused(changed, tmp_path):
    changed.save(tmp_path)
    with pytest.raises(QualityModelError, match="Train the model again"):
        load_quality_model(tmp_path)


@settings(max_examples=80, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_any_text_has_features_of_length_one(text):
    features = features_of(text)
    assert len(features.buckets) == len(set(features.buckets.tolist())) == len(features.values)
    assert not len(features.buckets) or int(features.buckets.max()) < BUCKETS
    assert not text.strip() or np.sum(features.values.astype(np.float64) ** 2) == pytest.approx(1, abs=1e-5)


def test_features_are_of_lower_case_and_of_the_beginning():
    beginning = "Tea and Rain. " * READ_CHARACTERS
    assert np.array_equal(features_of(beginning).buckets, features_of(beginning.upper() + "!").buckets)
    assert len(features_of(" ").buckets) == 0


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=20))
def test_auc_is_the_share_of_pairs_in_the_right_order(pairs):
    good = [score for score, label in pairs if label]
    unwanted = [score for score, label in pairs if not label]
    if not good or not unwanted:
        return
    expected = sum((a > b) + (a == b) / 2 for a in good for b in unwanted) / (len(good) * len(unwanted))
    scores, labels = zip(*pairs, strict=True)
    assert auc(np.array(scores, float), np.array(labels)) == pytest.approx(expected)


def test_precision_and_recall_at_a_threshold():
    scores, good = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, True])
    assert precision_recall(scores, good, 0.7) == {"precision": 2 / 3, "recall": 2 / 3}
    assert precision_recall(scores, good, 0.95) == {"precision": None, "recall": 0}
