"""Rules on how long a text is, and whether it is text at all."""

from dataclasses import dataclass

import numpy as np

from compactds.filters.corpus import characters
from compactds.filters.corpus.base import Drop, Record
from compactds.filters.corpus.options import option
from compactds.filters.corpus.text_statistics import statistics_of


@dataclass(frozen=True, slots=True)
class Length:
    """Drop what is shorter or longer than wanted, in words or characters."""

    min_words: int | None = option(None, about="The fewest words.", minimum=0)
    max_words: int | None = option(None, about="The most words.", minimum=0)
    min_characters: int | None = option(1, about="The fewest characters.", minimum=0)
    max_characters: int | None = option(None, about="The most characters.", minimum=0)
    name: str = option("length", about="What the ledger calls the filter.")

    def judge(self, document: Record) -> Drop | None:
        """Return which limit the text breaks."""
        length = len(document.text)
        if self.min_characters is not None and length < self.min_characters:
            return Drop(self.name, "too_few_characters", length, self.min_characters)
        if self.max_characters is not None and length > self.max_characters:
            return Drop(self.name, "too_many_characters", length, self.max_characters)
        if self.min_words is None and self.max_words is None:
            return None
        words = len(statistics_of(document.text).words)
        if self.min_words is not None and words < self.min_words:
            return Drop(self.name, "too_few_words", words, self.min_words)
        if self.max_words is not None and words > self.max_words:
            return Drop(self.name, "too_many_words", words, self.max_words)
        return None


@dataclass(frozen=True, slots=True)
class Garbled:
    """Drop what is not text: binary data, text in a wrong encoding, pages of unknown characters."""

    max_share: float = option(
        0.01,
        about="The greatest share of control, replacement, private and unassigned characters.",
        minimum=0,
        maximum=1,
    )
    name: str = option("garbled", about="What the ledger calls the filter.")

    def judge(self, document: Record) -> Drop | None:
        """Return the share of characters that are no text if it is too great."""
        if not document.text:
            return None
        garbled = 0
        for piece in statistics_of(document.text).pieces():
            garbled += int(np.count_nonzero(piece.flags & characters.GARBLED))
        share = garbled / len(document.text)
        return Drop(self.name, "garbled", share, self.max_share) if share > self.max_share else None
