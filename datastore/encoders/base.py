"""What an encoder is: text to vectors, with everything a store must remember about it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

EncoderKind = Literal["sentence-transformers", "static", "openai", "tei", "vectors"]
Vectors = NDArray[np.float32]
TokenSpans = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """Say which encoder a recipe asks for; None leaves a choice to the preset or the model.

    `model` is a preset name, a local path, a hub id, "static" or "static:<model>", or the name an
    endpoint knows its model by. `kind` picks the loader: "sentence-transformers", "static", "openai",
    "tei" or "vectors"; "auto" decides by the preset or the files found. `dimension` cuts Matryoshka
    embeddings. `url` is the endpoint's. `dtype` is what passages are computed in: "auto" is bfloat16
    where the CPU or GPU multiplies it natively, float32 elsewhere; queries are always encoded in
    float32. `device` is "auto", "cpu", or a torch device such as "cuda:0".
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
    the encoder has no limit that can be counted here. `probe` is the beginning of a fixed sentence's
    vector, kept for endpoints, whose weights cannot be hashed.
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
    probe: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as the manifest keeps it."""
        data = asdict(self)
        return data | {"probe": None if self.probe is None else list(self.probe)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "EncoderSpec":
        """Read what `to_json` wrote; raise TypeError for missing or unknown keys."""
        spec = dict(data)
        if spec.get("probe") is not None:
            spec["probe"] = tuple(float(value) for value in spec["probe"])
        return cls(**spec)


class Encoder(Protocol):
    """Turn text into vectors, the same way at build and at query time.

    Every method may be called from several threads. Anything but a sequence of strings, and text with
    lone surrogates, raises EncoderError.
    """

    @property
    def spec(self) -> EncoderSpec:
        """Return what the manifest records of this encoder."""
        ...

    @property
    def overhead_tokens(self) -> int:
        """Return what each passage costs besides its own tokens: special tokens and the prompt.

        A passage fits when this plus the tokens of its text is at most `max_tokens`. Where the last
        token of the prompt merges with the first word the true cost is a token lower, never higher.
        """
        ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row per query, shape (len(texts), dimension)."""
        ...

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row per passage, shape (len(texts), dimension)."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return what each passage costs of `max_tokens`: special tokens and prompt included.

        Nothing is cut. Raises EncoderError if the encoder cannot count, which is so only for kinds
        "openai", "tei" and "vectors", whose `max_tokens` is None.
        """
        ...

    def token_offsets(self, texts: Sequence[str]) -> list[TokenSpans]:
        """Return the character span of every token of each text, one int64 array of shape (n, 2) each.

        Special tokens and the prompt are left out, and nothing is cut; a splitter adds `overhead_tokens`.
        Raises EncoderError if the encoder cannot count, as `count_tokens` does.
        """
        ...


@runtime_checkable
class Steady(Protocol):
    """Promise that a passage's vector depends on its text alone, not on what it is encoded with.

    Only the vectors of an encoder that says so are kept in the embedding cache.
    """

    @property
    def cache_key(self) -> str:
        """Return a digest of all that a passage's vector depends on besides its text.

        That is the fingerprint, and what changes the last digits: number format, device, libraries.
        """
        ...
