"""What an encoder is: text to vectors, with everything a store must remember about it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

EncoderKind = Literal["sentence-transformers", "static", "endpoint", "vectors"]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """Say which encoder a recipe asks for; None leaves a choice to the preset or the model.

    `model` is a preset name, a local path, or a hub id. `kind` picks the loader; "auto" decides by
    the preset or the files found. `dimension` cuts Matryoshka embeddings. `url` is the endpoint's.
    `dtype` is what passages are computed in: "auto" is bfloat16 where the CPU or GPU multiplies it
    natively, float32 elsewhere; queries are always encoded in float32.
    """

    model: str = "minilm"
    kind: str = "auto"
    query_prompt: str | None = None
    passage_prompt: str | None = None
    pooling: str | None = None
    normalize: bool | None = None
    dimension: int | None = None
    max_tokens: int | None = None
    url: str | None = None
    api_key_env: str | None = None
    batch_size: int = 32
    dtype: str = "auto"
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Hold what the manifest records of an encoder, enough to load it again and to recognise it.

    `fingerprint` covers all that changes a vector: weights, prompts, pooling, normalisation,
    dimension, token limit. It does not cover where the model was found. `bundled` is the folder
    inside the store that carries the model, if any. `max_tokens` counts special tokens; None means
    the encoder has no limit.
    """

    model: str
    kind: EncoderKind
    dimension: int
    max_tokens: int | None
    normalized: bool
    query_prompt: str
    passage_prompt: str
    pooling: str
    fingerprint: str
    bundled: str | None = None
    url: str | None = None
    api_key_env: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as the manifest keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "EncoderSpec":
        """Read what `to_json` wrote; raise TypeError for missing or unknown keys."""
        return cls(**data)


class Encoder(Protocol):
    """Turn text into vectors, the same way at build and at query time."""

    @property
    def spec(self) -> EncoderSpec:
        """Return what the manifest records of this encoder."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row per query, shape (len(texts), dimension)."""
        ...

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row per passage, shape (len(texts), dimension)."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return what each passage costs of `max_tokens`: special tokens and prompt included."""
        ...
