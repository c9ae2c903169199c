"""Training of a quality model from examples of good and of unwanted texts.

The training is a logistic regression by Adagrad with a small L2 penalty, in an order that the texts alone
decide: the same texts give the same model, in whatever order they come. A fifth of the examples, chosen by a
hash of their text, is held out to measure how good the model is.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from compactds.filters.corpus.errors import QualityModelError
from compactds.filters.corpus.quality_features import BUCKETS, Features, features_of
from compactds.filters.corpus.quality_model import Encode, QualityModel

LEAST_EXAMPLES = 10
_HELD_OUT_OF = 5
_RATE = 0.5
_PENALTY = 1e-4
_QUANTILES = 101


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Say how a quality model is trained: `max_examples` of each kind at most, a sample by hash of more."""

    keep: float = 0.5
    max_examples: int = 5_000
    epochs: int = 8
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Example:
    features: Features
    vector: NDArray[np.float32]
    good: bool


def train_quality_model(
    good: Iterable[str],
    unwanted: Iterable[str],
    *,
    corpus: Iterable[str] | None = None,
    settings: TrainingSettings | None = None,
    encode: Encode | None = None,
    encoder: str = "",
) -> QualityModel:
    """Return a model that tells good texts from unwanted ones, with what it is worth in its `report`.

    `corpus` is a sample of what is to be filtered: the threshold is then the score that the share
    `settings.keep` of it reaches. Without it, the held-out examples stand for the corpus. `encode` adds
    embeddings to the features, `encoder` is their name. Raises QualityModelError for fewer than 10
    different examples of a kind, and for texts that are both good and unwanted.
    """
    settings = settings or TrainingSettings()
    chosen_good, chosen_unwanted = _chosen(good, settings), _chosen(unwanted, settings)
    _check(chosen_good, chosen_unwanted)
    examples = sorted([*((key, True) for key in chosen_good), *((key, False) for key in chosen_unwanted)])
    texts = chosen_good | chosen_unwanted
    is_held_out = _held_out(examples)
    learned = [_example(texts[key], is_good, encode) for key, is_good in examples if key not in is_held_out]
    held_out = [_example(texts[key], is_good, encode) for key, is_good in examples if key in is_held_out]
    model = _fitted(learned, settings, encoder)
    scores = np.array([model.score_features(one.features, one.vector) for one in held_out])
    labels = np.array([one.good for one in held_out])
    reference = scores
    if corpus is not None:
        sample = _chosen(corpus, settings)
        if not sample:
            raise QualityModelError("the sample of the corpus has no text.", remedy="Give one that has.")
        reference = np.array([model.score(sample[key], encode) for key in sorted(sample)])
    quantiles = tuple(float(value) for value in np.quantile(reference, np.linspace(0, 1, _QUANTILES)))
    chosen = QualityModel(model.weights, model.bias, quantiles, 0.0, model.dense, encoder)
    threshold = chosen.threshold_for(settings.keep)
    report = {
        "good": len(chosen_good),
        "unwanted": len(chosen_unwanted),
        "held_out": len(held_out),
        "reference": "corpus" if corpus is not None else "held-out examples",
        "reference_texts": len(reference),
        "keep": settings.keep,
        "auc": auc(scores, labels),
        **precision_recall(scores, labels, threshold),
    }
    return QualityModel(model.weights, model.bias, quantiles, threshold, model.dense, encoder, report)


def auc(scores: NDArray[np.float64], good: NDArray[np.bool_]) -> float:
    """Return how often a good text scores higher than an unwanted one, ties counted half."""
    order = np.sort(scores)
    below = np.searchsorted(order, scores, side="left")
    through = np.searchsorted(order, scores, side="right")
    ranks = (below + through + 1) / 2
    n_good = int(np.count_nonzero(good))
    n_unwanted = len(good) - n_good
    return float((ranks[good].sum() - n_good * (n_good + 1) / 2) / (n_good * n_unwanted))


def precision_recall(
    scores: NDArray[np.float64], good: NDArray[np.bool_], threshold: float
) -> dict[str, float | None]:
    """Return the share of kept texts that are good, and of good texts that are kept; None for 0 of 0."""
    kept = scores >= threshold
    both = int(np.count_nonzero(kept & good))
    n_kept, n_good = int(np.count_nonzero(kept)), int(np.count_nonzero(good))
    return {"precision": both / n_kept if n_kept else None, "recall": both / n_good if n_good else None}


def _chosen(texts: Iterable[str], settings: TrainingSettings) -> dict[int, str]:
    """Return the different texts with words in them by hash, at most so many: those of the least hashes."""
    keyed = ((_key(text, settings.seed), text) for text in texts if text.strip())
    found: dict[int, str] = {}
    largest: list[int] = []
    for key, text in keyed:
        if key in found or (len(found) == settings.max_examples and key > -largest[0]):
            continue
        found[key] = text
        heapq.heappush(largest, -key)
        if len(found) > settings.max_examples:
            del found[-heapq.heappop(largest)]
    return found


def _key(text: str, seed: int) -> int:
    return xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), seed=seed)


def _check(good: dict[int, str], unwanted: dict[int, str]) -> None:
    for kind, texts in (("good", good), ("unwanted", unwanted)):
        if len(texts) < LEAST_EXAMPLES:
            raise QualityModelError(
                f"there are {len(texts)} different examples of {kind} text, at least {LEAST_EXAMPLES} are "
                "needed.",
                value=len(texts),
                remedy="Give more; some hundreds of each kind make a useful model.",
            )
    if both := len(good.keys() & unwanted.keys()):
        raise QualityModelError(
            f"{both} texts are examples of both good and unwanted text.",
            value=both,
            remedy="Leave each in one of the two.",
        )


def _held_out(examples: Sequence[tuple[int, bool]]) -> set[int]:
    """Return the keys of every fifth example of each kind, in the order of their hashes."""
    kinds = ([key for key, good in examples if good is kind] for kind in (True, False))
    return {key for keys in kinds for key in keys[::_HELD_OUT_OF]}


def _example(text: str, good: bool, encode: Encode | None) -> _Example:
    vector = np.empty(0, np.float32)
    if encode is not None:
        vector = np.asarray(encode([text]), dtype=np.float32).reshape(-1)
    return _Example(features_of(text), vector, good)


def _fitted(examples: Sequence[_Example], settings: TrainingSettings, encoder: str) -> QualityModel:
    """Return the model after some epochs; both kinds count the same, however many examples they have."""
    size = len(examples[0].vector)
    weights, spread = np.zeros(BUCKETS), np.full(BUCKETS, 1e-8)
    dense, dense_spread = np.zeros(size), np.full(size, 1e-8)
    bias, bias_spread = 0.0, 1e-8
    n_good = sum(example.good for example in examples)
    importance = {True: len(examples) / (2 * n_good), False: len(examples) / (2 * (len(examples) - n_good))}
    random = np.random.default_rng(settings.seed)
    for _ in range(settings.epochs):
        for number in random.permutation(len(examples)):
            one = examples[number]
            buckets, values = one.features.buckets, one.features.values
            total = bias + float(np.sum(weights[buckets] * values)) + float(np.sum(dense * one.vector))
            error = importance[one.good] * (1 / (1 + np.exp(-np.clip(total, -50, 50))) - one.good)
            slope = error * values + _PENALTY * weights[buckets]
            spread[buckets] += slope * slope
            weights[buckets] -= _RATE * slope / np.sqrt(spread[buckets])
            dense_slope = error * one.vector + _PENALTY * dense
            dense_spread += dense_slope * dense_slope
            dense -= _RATE * dense_slope / np.sqrt(dense_spread)
            bias_spread += error * error
            bias -= _RATE * error / np.sqrt(bias_spread)
    return QualityModel(
        weights.astype(np.float32), float(bias), (0.0, 1.0), 0.5, dense.astype(np.float32), encoder
    )
