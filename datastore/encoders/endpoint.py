"""Encode with a server: an OpenAI-compatible /v1/embeddings, or Text Embeddings Inference's /embed."""

import os
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from compactds.datastore.encoders.base import EncoderSpec, TokenSpans, Vectors
from compactds.datastore.encoders.embedding_client import EmbeddingClient, Protocol, TextTooLongError
from compactds.datastore.encoders.fingerprint import json_sha256
from compactds.datastore.encoders.settings import Settings, cut_and_normalize
from compactds.datastore.encoders.texts import check_texts
from compactds.datastore.errors import EncoderError, SearchError

PROBE_TEXT = "The quick brown fox jumps over the lazy dog."
_PROBE_LENGTH = 64
# What the same model may differ by between servers, number formats and batch sizes.
_SMALLEST_PROBE_COSINE = 0.999


class EndpointEncoder:
    """Encode queries and passages through an HTTP server.

    Its tokens cannot be counted here. A text the server finds too long is an error, unless it speaks the
    OpenAI protocol and cuts in silence, which that protocol cannot forbid. Threads may share it.
    """

    def __init__(self, client: EmbeddingClient, spec: EncoderSpec) -> None:
        self._client = client
        self._spec = spec

    @property
    def spec(self) -> EncoderSpec:
        """Return what the manifest records of this encoder."""
        return self._spec

    @property
    def cache_key(self) -> str:
        """Return a digest of what is known here of what a vector depends on besides its text.

        A server may be busy with other texts or change its batches, and then differ in the last digits.
        Vectors that are kept are those it gave first.
        """
        return json_sha256({"fingerprint": self._spec.fingerprint, "url": self._spec.url})

    @property
    def overhead_tokens(self) -> int:
        """Raise EncoderError: the server's tokens cannot be counted here."""
        self._refuse_to_count()

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row per query, shape (len(texts), dimension).

        Raises SearchError if the server says that a query is too long: it is the query that is at fault.
        """
        try:
            return self._encode(texts, self._spec.query_prompt)
        except TextTooLongError as error:
            longest = max(map(len, texts))
            which = "the query" if len(texts) == 1 else f"one of {len(texts)} queries"
            raise SearchError(
                f"{which} is too long for the encoder, whose limit is {error.limit}; the longest has "
                f"{longest:,} characters.",
                value=longest,
                remedy="Shorten it.",
            ) from error

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row per passage, shape (len(texts), dimension)."""
        return self._encode(texts, self._spec.passage_prompt)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:  # noqa: ARG002
        """Raise EncoderError: the server's tokens cannot be counted here."""
        self._refuse_to_count()

    def token_offsets(self, texts: Sequence[str]) -> list[TokenSpans]:  # noqa: ARG002
        """Raise EncoderError: the server's tokens cannot be counted here."""
        self._refuse_to_count()

    def close(self) -> None:
        """Close the connections to the server."""
        self._client.close()

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        checked = check_texts(texts)
        if not checked:
            return np.empty((0, self._spec.dimension), np.float32)
        vectors = self._client.embed([prompt + text for text in checked])
        if vectors.shape[1] < self._spec.dimension:
            raise EncoderError(
                f"the endpoint gave vectors of {vectors.shape[1]} dimensions, not {self._spec.dimension}.",
                value=vectors.shape[1],
                remedy="Check which model the endpoint serves.",
            )
        return cut_and_normalize(vectors, self._spec.dimension, normalize=self._spec.normalized)

    def _refuse_to_count(self) -> NoReturn:
        raise EncoderError(
            f"the tokens of {self._spec.model} cannot be counted: it runs behind {self._spec.url}.",
            value=self._spec.url,
            remedy="Split passages by words only.",
        )


def open_endpoint(
    protocol: Protocol,
    url: str,
    model: str,
    settings: Settings,
    *,
    api_key_env: str | None = None,
    batch_size: int = 32,
) -> EndpointEncoder:
    """Connect to a server and learn its dimension from the vector of a fixed sentence.

    Vectors are scaled to length one unless `settings.normalize` is False. Raises EncoderError if the
    server cannot be used or the key is missing.
    """
    if settings.max_tokens is not None:
        raise EncoderError(
            f"max_tokens = {settings.max_tokens} cannot be kept: an endpoint's tokens are not counted here.",
            value=settings.max_tokens,
            remedy="Leave max_tokens out, and split passages by words.",
        )
    client = EmbeddingClient(protocol, url, model, batch_size, _api_key(api_key_env))
    try:
        probe = client.embed([PROBE_TEXT])
        return EndpointEncoder(client, _spec(protocol, url, model, settings, api_key_env, probe))
    except EncoderError:
        client.close()
        raise


def _spec(
    protocol: Protocol, url: str, model: str, settings: Settings, api_key_env: str | None, probe: Vectors
) -> EncoderSpec:
    full = probe.shape[1]
    dimension = settings.dimension or full
    if dimension > full:
        raise EncoderError(
            f"dimension = {dimension} is more than the endpoint's {full}.",
            value=dimension,
            remedy=f"Give at most {full}.",
        )
    normalized = settings.normalize is not False
    head = cut_and_normalize(probe, min(dimension, _PROBE_LENGTH), normalize=True)[0]
    query_prompt, passage_prompt = settings.query_prompt or "", settings.passage_prompt or ""
    fingerprint = json_sha256(
        {
            "kind": "endpoint",
            "model": model,
            "prompts": [query_prompt, passage_prompt],
            "normalized": normalized,
            "dimension": dimension,
        }
    )
    return EncoderSpec(
        model=model,
        kind=protocol,
        dimension=dimension,
        max_tokens=None,
        normalized=normalized,
        query_prompt=query_prompt,
        passage_prompt=passage_prompt,
        pooling="endpoint",
        fingerprint=fingerprint,
        url=url,
        api_key_env=api_key_env,
        probe=tuple(round(float(value), 6) for value in head),
    )


def same_probe(recorded: Sequence[float], found: Sequence[float]) -> bool:
    """Say whether two probes point the same way, as those of one model do: a cosine of 0.999 or more."""
    if len(recorded) != len(found):
        return False
    first, second = np.array(recorded), np.array(found)
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    return norms > 0 and float(first @ second) / norms >= _SMALLEST_PROBE_COSINE


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise EncoderError(
            f"the environment variable {variable}, named by api_key_env, is not set.",
            value=variable,
            remedy=f"Put the endpoint's key into {variable}.",
        )
    return key
