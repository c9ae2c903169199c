"""Stand in for the encoder of a store that was built from ready-made vectors."""

from collections.abc import Sequence
from typing import NoReturn

from compactds.datastore.encoders.base import EncoderSpec, TokenSpans, Vectors
from compactds.datastore.encoders.fingerprint import json_sha256
from compactds.datastore.errors import EncoderError


def vectors_spec(dimension: int, *, normalized: bool) -> EncoderSpec:
    """Return what the manifest records of ready-made vectors: their dimension, and whether of length one."""
    fingerprint = json_sha256({"kind": "vectors", "dimension": dimension, "normalized": normalized})
    return EncoderSpec(
        model="",
        kind="vectors",
        dimension=dimension,
        max_tokens=None,
        normalized=normalized,
        query_prompt="",
        passage_prompt="",
        pooling="none",
        fingerprint=fingerprint,
    )


class VectorsEncoder:
    """Refuse text: the store's vectors came ready-made, from an encoder nobody named."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._spec = spec

    @property
    def spec(self) -> EncoderSpec:
        """Return what the manifest records of the vectors."""
        return self._spec

    @property
    def overhead_tokens(self) -> int:
        """Raise EncoderError: there are no tokens."""
        self._refuse()

    def encode_queries(self, texts: Sequence[str]) -> Vectors:  # noqa: ARG002
        """Raise EncoderError: the store takes vectors."""
        self._refuse()

    def encode_passages(self, texts: Sequence[str]) -> Vectors:  # noqa: ARG002
        """Raise EncoderError: the store takes vectors."""
        self._refuse()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:  # noqa: ARG002
        """Raise EncoderError: there are no tokens."""
        self._refuse()

    def token_offsets(self, texts: Sequence[str]) -> list[TokenSpans]:  # noqa: ARG002
        """Raise EncoderError: there are no tokens."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise EncoderError(
            f"the store was built from ready-made vectors of dimension {self._spec.dimension} and names no "
            "encoder, so text cannot be encoded.",
            value=self._spec.model,
            remedy="Query it with vectors, or build it with the encoder that made them named.",
        )
