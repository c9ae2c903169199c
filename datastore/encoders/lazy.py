"""Stand for an encoder whose facts are known, and load its model only when a vector is wanted."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

from compactds.datastore.encoders.base import Encoder, EncoderSpec, Steady, TokenSpans, Vectors
from compactds.datastore.encoders.texts import check_texts
from compactds.datastore.encoders.tokens import TokenCounter
from compactds.datastore.errors import EncoderError


class LazyEncoder:
    """Count tokens with a tokenizer, and load the model when the first text is encoded.

    Loading a transformer takes seconds, most of them for the libraries it needs; a build that finds all
    its vectors in the embedding cache never does. Threads may share it.
    """

    def __init__(
        self, spec: EncoderSpec, cache_key: str, tokenizer_json: str, load: Callable[[], Encoder]
    ) -> None:
        self._spec = spec
        self._cache_key = cache_key
        self._tokenizer_json = tokenizer_json
        self._load = load
        self._loaded: Encoder | None = None
        self._turn = threading.Lock()

    @property
    def spec(self) -> EncoderSpec:
        """Return what the manifest records of this encoder."""
        return self._spec

    @property
    def cache_key(self) -> str:
        """Return a digest of all that a passage's vector depends on besides its text."""
        return self._cache_key

    @property
    def tokenizer_json(self) -> str:
        """Return the tokenizer in its serialised form."""
        return self._tokenizer_json

    @property
    def is_loaded(self) -> bool:
        """Say whether a vector was wanted yet."""
        return self._loaded is not None

    @property
    def overhead_tokens(self) -> int:
        """Return what each passage costs besides its own tokens: special tokens and the prompt."""
        return self._tokens.overhead_tokens

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row per query, shape (len(texts), dimension)."""
        return self._encoder().encode_queries(texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row per passage, shape (len(texts), dimension)."""
        return self._encoder().encode_passages(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return what each passage costs of `max_tokens`: special tokens and prompt included."""
        return self._tokens.count(check_texts(texts))

    def token_offsets(self, texts: Sequence[str]) -> list[TokenSpans]:
        """Return the character span of every token of each text, without prompt and special tokens."""
        return self._tokens.offsets(check_texts(texts))

    @cached_property
    def _tokens(self) -> TokenCounter:
        return TokenCounter.from_json(self._tokenizer_json, self._spec.passage_prompt)

    def _encoder(self) -> Encoder:
        """Return the encoder itself, loaded once; raise EncoderError if it is not the one known."""
        with self._turn:
            if self._loaded is None:
                encoder = self._load()
                same = replace(encoder.spec, bundled=self._spec.bundled) == self._spec
                if not (same and isinstance(encoder, Steady) and encoder.cache_key == self._cache_key):
                    raise EncoderError(
                        f"the model {self._spec.model!r} changed while it was in use.",
                        value=encoder.spec.fingerprint,
                        remedy="Run the same command again.",
                    )
                self._loaded = encoder
            return self._loaded
