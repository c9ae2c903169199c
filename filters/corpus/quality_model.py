"""A learned judgement of quality: a logistic regression, kept as raw numbers and JSON.

A model is a folder: `model.json` says all there is to say, with the checksum of `weights.f32`, the weights
of all buckets and then those of an embedding, if it has any, as little-endian float32.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compactds.filters.corpus.errors import QualityModelError
from compactds.filters.corpus.quality_features import BUCKETS, VERSION, Features, features_of
from compactds.filters.errors import reported, shown

FORMAT: Final = 1
Encode = Callable[[Sequence[str]], NDArray[np.float32]]
_DECIMALS = 6  # what differs beyond, between processors, makes no difference
_WEIGHTS = "weights.f32"
_DESCRIPTION = "model.json"


@dataclass(frozen=True, slots=True)
class QualityModel:
    """Score texts from 0 (unwanted) to 1 (good).

    `weights` has shape (BUCKETS,), `dense` that of an embedding, or (0,). `quantiles` are the scores below
    which 0 %, 1 % … 100 % of the reference texts lie; `threshold` is the score below which a text is
    unwanted; `encoder` names what makes the embeddings; `report` tells how good the model is.
    """

    weights: NDArray[np.float32]
    bias: float
    quantiles: tuple[float, ...]
    threshold: float
    dense: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    encoder: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)

    def score(self, text: str, encode: Encode | None = None) -> float:
        """Return the score of a text; raises QualityModelError if it takes embeddings and gets none."""
        return self.score_features(features_of(text), self.embed(text, encode))

    def embed(self, text: str, encode: Encode | None) -> NDArray[np.float32]:
        """Return what the model wants of a text besides its features, shape (len(dense),)."""
        if not len(self.dense):
            return self.dense
        if encode is None:
            raise QualityModelError(
                f"the quality model was trained with embeddings of {self.encoder!r}, and none are made.",
                value=self.encoder,
                remedy="Pass the encoder that it was trained with, or train one without embeddings.",
            )
        vector = np.asarray(encode([text]), dtype=np.float32).reshape(-1)
        if len(vector) != len(self.dense):
            raise QualityModelError(
                f"the quality model wants embeddings of {len(self.dense)} numbers, not {len(vector)}.",
                value=len(vector),
                remedy=f"It was trained with the encoder {self.encoder!r}.",
            )
        return vector

    def score_features(self, features: Features, vector: NDArray[np.float32]) -> float:
        """Return the score of a text of which features and embedding are known."""
        total = self.bias + float(np.sum(self.weights[features.buckets].astype(np.float64) * features.values))
        if len(vector):
            total += float(np.sum(self.dense.astype(np.float64) * vector))
        return round(float(1 / (1 + np.exp(-np.clip(total, -50, 50)))), _DECIMALS)

    def threshold_for(self, keep: float) -> float:
        """Return the score that this share of the reference texts reaches."""
        return float(np.interp(1 - keep, np.linspace(0, 1, len(self.quantiles)), self.quantiles))

    def save(self, folder: Path) -> None:
        """Write the model into a folder, which is made if it does not exist."""
        raw = np.concatenate((self.weights, self.dense)).astype("<f4").tobytes()
        description = {
            "format": FORMAT,
            "features": VERSION,
            "buckets": BUCKETS,
            "dense": len(self.dense),
            "encoder": self.encoder,
            "bias": self.bias,
            "threshold": self.threshold,
            "quantiles": list(self.quantiles),
            "report": dict(self.report),
            "weights_sha256": sha256(raw).hexdigest(),
        }
        description["sha256"] = _checksum(description)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in ((_WEIGHTS, raw), (_DESCRIPTION, json.dumps(description, indent=1).encode())):
            beside = folder / f".{name}.new"
            beside.write_bytes(content)
            beside.replace(folder / name)


def load_quality_model(folder: Path) -> QualityModel:
    """Read a model; raises QualityModelError if it is missing, damaged or of another version."""
    description = _description(folder)
    raw = _read(folder / _WEIGHTS)
    if sha256(raw).hexdigest() != description["weights_sha256"]:
        raise _damaged(folder / _WEIGHTS, "its checksum is another one")
    weights = np.frombuffer(raw, dtype="<f4").astype(np.float32)
    numbers = (description["bias"], description["threshold"], *description["quantiles"])
    if len(weights) != BUCKETS + description["dense"] or not np.isfinite(weights).all():
        raise _damaged(folder / _WEIGHTS, "it holds other numbers than its description says")
    if len(numbers) < 4 or not all(
        isinstance(number, int | float) and isfinite(number) for number in numbers
    ):
        raise _damaged(folder / _DESCRIPTION, "its numbers are none")
    return QualityModel(
        weights=weights[:BUCKETS],
        dense=weights[BUCKETS:],
        bias=float(description["bias"]),
        threshold=float(description["threshold"]),
        quantiles=tuple(map(float, description["quantiles"])),
        encoder=str(description["encoder"]),
        report=description["report"],
    )


def _description(folder: Path) -> dict[str, Any]:
    path = folder / _DESCRIPTION
    try:
        description = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise _damaged(path, f"it is not a quality model of format {FORMAT}")
    if description.get("features") != VERSION or description.get("buckets") != BUCKETS:
        raise _damaged(path, "it was trained on features that this version does not compute")
    checksum = description.pop("sha256", None)
    if checksum != _checksum(description):
        raise _damaged(path, "its checksum is another one")
    return description


def _checksum(description: Mapping[str, Any]) -> str:
    return sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise QualityModelError(
            f"there is no quality model at {shown(str(path.parent))}: {error.strerror}.",
            value=reported(str(path.parent)),
            remedy="Name the folder that a model was saved to.",
        ) from error


def _damaged(path: Path, reason: str) -> QualityModelError:
    return QualityModelError(
        f"{path} cannot be used: {reason}.", value=reported(str(path)), remedy="Train the model again."
    )
