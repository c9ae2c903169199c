"""Turn documents into passages that an encoder reads whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from compactds.datastore.encoders.base import EncoderSpec, TokenSpans
from compactds.datastore.encoders.tokens import TokenCounter
from compactds.indexer.documents import Document
from compactds.indexer.splitting import PassageLimits, Span, split

TITLE_SHARE = 4
"""A title may take one part in this many of an encoder's token limit; a longer one is cut."""


class Measure(Protocol):
    """Measure texts in an encoder's tokens, as an Encoder does."""

    @property
    def spec(self) -> EncoderSpec:
        """Return what the manifest records of the encoder."""
        ...

    @property
    def overhead_tokens(self) -> int:
        """Return what each passage costs besides its own tokens."""
        ...

    def token_offsets(self, texts: Sequence[str]) -> list[TokenSpans]:
        """Return the character span of every token of each text, one (n, 2) array a text."""
        ...


@dataclass(frozen=True, slots=True)
class TokenMeasure:
    """Measure texts in an encoder's tokens without the encoder: with a copy of its tokenizer.

    There is none for an encoder without a limit, whose tokens nobody counts.
    """

    spec: EncoderSpec
    counter: TokenCounter | None

    @property
    def overhead_tokens(self) -> int:
        """Return what each passage costs besides its own tokens."""
        return 0 if self.counter is None else self.counter.overhead_tokens

    def token_offsets(self, texts: Sequence[str]) -> list[TokenSpans]:
        """Return the character span of every token of each text."""
        assert self.counter is not None, "tokens are counted only against a limit"
        return self.counter.offsets(texts)

    @property
    def tokens_end_at_spaces(self) -> bool:
        """Say whether what stands between spaces has the same tokens whatever is around it."""
        return self.counter is not None and self.counter.tokens_end_at_spaces


@dataclass(frozen=True, slots=True)
class PassageOptions:
    """Say how documents become passages: the most words, the shortest tail, and what is encoded."""

    words: int = 256
    min_words: int = 32
    split: bool = True
    embed_title: bool = True


class Passager:
    """Split documents into passages, and say what text stands for a passage when it is encoded.

    Passages keep inside the token limit of the encoder that has the least. Without encoders, as for
    ready-made vectors, or with `split` off, a document is one passage.
    """

    def __init__(self, options: PassageOptions, encoders: Sequence[Measure]) -> None:
        self._options = options
        limited = [encoder for encoder in encoders if encoder.spec.max_tokens is not None]
        self.measure = min(limited, key=_token_limit, default=None) if options.split else None
        self._split = options.split and bool(encoders)
        self._title = lru_cache(maxsize=1024)(self._measure_title)

    def split(self, document: Document) -> list[Span]:
        """Return the spans of a document's passages, in order."""
        if not self._split:
            return [Span(0, len(document.text))]
        limit = None
        if self.measure is not None:
            limit = _token_limit(self.measure) - self.measure.overhead_tokens - self._title(document.title)[1]
        limits = PassageLimits(words=self._options.words, min_words=self._options.min_words, max_tokens=limit)
        if self.measure is None:
            return split(document.text, limits)
        at_spaces = isinstance(self.measure, TokenMeasure) and self.measure.tokens_end_at_spaces
        return split(document.text, limits, self.measure.token_offsets, tokens_end_at_spaces=at_spaces)

    def encoded_text(self, title: str, text: str) -> str:
        """Return what is encoded for a passage: its text, after its document's title if wanted."""
        heading = self._title(title)[0]
        return f"{heading}\n{text}" if heading else text

    def _measure_title(self, title: str) -> tuple[str, int]:
        """Return the title as it is encoded, cut if it is very long, and its tokens."""
        if not self._options.embed_title or not title:
            return "", 0
        if self.measure is None:
            return title, 0
        most = _token_limit(self.measure) // TITLE_SHARE
        (offsets,) = self.measure.token_offsets([title])
        if len(offsets) > most:
            return title[: int(offsets[most - 1][1])], most
        return title, len(offsets)


def _token_limit(encoder: Measure) -> int:
    limit = encoder.spec.max_tokens
    assert limit is not None
    return limit
