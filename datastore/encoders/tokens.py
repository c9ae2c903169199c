"""Count the tokens of passages, and find where each token stands, without cutting anything."""

import json
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from compactds.datastore.encoders.base import TokenSpans

_TEXTS_PER_BATCH = 512
_BERT = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}


class TokenCounter:
    """Count tokens with a copy of a model's tokenizer that neither cuts nor pads.

    The copy is set up once and never changed, so threads may share it.
    """

    def __init__(self, tokenizer: Any, prompt: str, *, special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._special_tokens = special_tokens
        self.overhead_tokens = self.count([""])[0]

    @classmethod
    def from_json(cls, tokenizer_json: str, prompt: str, *, special_tokens: bool = True) -> "TokenCounter":
        """Copy a tokenizer from its serialised form.

        `special_tokens` says whether the model adds its special tokens, which then count too.
        """
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(tokenizer_json)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(tokenizer, prompt, special_tokens=special_tokens)

    @cached_property
    def tokens_end_at_spaces(self) -> bool:
        """Say whether what stands between spaces, tabs and line ends has the same tokens in every text.

        It is so for the tokenizers of BERT and its kin, which part a text there before all else. Others
        may be as good; nothing is promised for them.
        """
        parts = json.loads(self._tokenizer.to_str())
        kinds = {name: (parts[name] or {}).get("type") for name in ("normalizer", "pre_tokenizer", "model")}
        return kinds == _BERT and not any(
            token["rstrip"] or any(character.isspace() for character in token["content"])
            for token in parts["added_tokens"]
        )

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without the prompt."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=self._special_tokens)
        return [encoding.ids for encoding in encodings]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text with prompt and special tokens."""
        counts: list[int] = []
        for start in range(0, len(texts), _TEXTS_PER_BATCH):
            batch = [self._prompt + text for text in texts[start : start + _TEXTS_PER_BATCH]]
            encodings = self._tokenizer.encode_batch_fast(batch, add_special_tokens=self._special_tokens)
            counts.extend(len(encoding) for encoding in encodings)
        return counts

    def offsets(self, texts: Sequence[str]) -> list[TokenSpans]:
        """Return the character spans of each text's own tokens, one (n, 2) array a text."""
        spans: list[TokenSpans] = []
        for start in range(0, len(texts), _TEXTS_PER_BATCH):
            batch = list(texts[start : start + _TEXTS_PER_BATCH])
            for encoding in self._tokenizer.encode_batch(batch, add_special_tokens=False):
                flat = chain.from_iterable(encoding.offsets)
                spans.append(np.fromiter(flat, np.int64, 2 * len(encoding)).reshape(-1, 2))
        return spans
