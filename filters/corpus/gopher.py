"""The quality rules of Gopher's MassiveText (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1)."""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from compactds.filters.corpus.base import Drop, Record
from compactds.filters.corpus.characters import LETTER, SOLID
from compactds.filters.corpus.options import option
from compactds.filters.corpus.text_statistics import TextStatistics, statistics_of

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
_BULLETS = ("•", "‣", "◦", "▪", "–", "-", "*")
_ELLIPSES = ("...", "…")


@dataclass(frozen=True)
class GopherQuality:
    """Drop what is too short, too long, or written unlike prose: Gopher's quality rules."""

    min_words: int | None = option(
        50, about="The fewest words; words of punctuation alone don't count.", minimum=0
    )
    max_words: int | None = option(100_000, about="The most words.", minimum=0)
    min_mean_word_length: float | None = option(3.0, about="The least mean length of a word.", minimum=0)
    max_mean_word_length: float | None = option(10.0, about="The greatest mean length of a word.", minimum=0)
    max_symbols_per_word: float | None = option(
        0.1, about="The most # signs, or ellipses, a word.", minimum=0
    )
    max_bullet_lines: float | None = option(
        0.9, about="The greatest share of lines that begin with a bullet.", minimum=0, maximum=1
    )
    max_ellipsis_lines: float | None = option(
        0.3, about="The greatest share of lines that end with an ellipsis.", minimum=0, maximum=1
    )
    min_words_with_letters: float | None = option(
        0.8, about="The least share of words with a letter in them.", minimum=0, maximum=1
    )
    min_stop_words: int | None = option(2, about="The fewest different stop words.", minimum=0)
    stop_words: tuple[str, ...] = option(STOP_WORDS, about="The stop words, of which enough must occur.")
    name: str = option("gopher_quality", about="What the ledger calls the filter.")

    def judge(self, document: Record) -> Drop | None:
        """Return the first rule that the text breaks."""
        statistics = statistics_of(document.text)
        return (
            self._length(statistics)
            or self._symbols(statistics)
            or self._lines(statistics)
            or self._letters(statistics)
            or self._stop_words(document.text)
        )

    def _length(self, statistics: TextStatistics) -> Drop | None:
        words = statistics.words
        solid = statistics.words_with(SOLID)
        count = int(np.count_nonzero(solid))
        if self.min_words is not None and count < self.min_words:
            return Drop(self.name, "too_few_words", count, self.min_words)
        if self.max_words is not None and count > self.max_words:
            return Drop(self.name, "too_many_words", count, self.max_words)
        if not count:
            return None
        mean = int(words.lengths[solid].sum()) / count
        if self.min_mean_word_length is not None and mean < self.min_mean_word_length:
            return Drop(self.name, "words_too_short", mean, self.min_mean_word_length)
        if self.max_mean_word_length is not None and mean > self.max_mean_word_length:
            return Drop(self.name, "words_too_long", mean, self.max_mean_word_length)
        return None

    def _symbols(self, statistics: TextStatistics) -> Drop | None:
        limit, text, words = self.max_symbols_per_word, statistics.text, len(statistics.words)
        if limit is None or not words:
            return None
        if (share := text.count("#") / words) > limit:
            return Drop(self.name, "too_many_hashes", share, limit)
        if (share := sum(map(text.count, _ELLIPSES)) / words) > limit:
            return Drop(self.name, "too_many_ellipses", share, limit)
        return None

    def _lines(self, statistics: TextStatistics) -> Drop | None:
        lines = statistics.lines
        if not lines:
            return None
        if self.max_bullet_lines is not None:
            share = sum(line.startswith(_BULLETS) for line in lines) / len(lines)
            if share > self.max_bullet_lines:
                return Drop(self.name, "too_many_bullet_lines", share, self.max_bullet_lines)
        if self.max_ellipsis_lines is not None:
            share = sum(line.endswith(_ELLIPSES) for line in lines) / len(lines)
            if share > self.max_ellipsis_lines:
                return Drop(self.name, "too_many_ellipsis_lines", share, self.max_ellipsis_lines)
        return None

    def _letters(self, statistics: TextStatistics) -> Drop | None:
        words = statistics.words
        if self.min_words_with_letters is None or not len(words):
            return None
        share = int(np.count_nonzero(statistics.words_with(LETTER))) / len(words)
        if share < self.min_words_with_letters:
            return Drop(self.name, "too_few_words_with_letters", share, self.min_words_with_letters)
        return None

    @cached_property
    def _stop_word_pattern(self) -> re.Pattern[str]:
        return re.compile(rf"\b(?:{'|'.join(map(re.escape, self.stop_words))})\b", re.IGNORECASE)

    def _stop_words(self, text: str) -> Drop | None:
        if not self.min_stop_words:
            return None
        found: set[str] = set()
        for match in self._stop_word_pattern.finditer(text):
            found.add(match[0].lower())
            if len(found) >= self.min_stop_words:
                return None
        return Drop(self.name, "too_few_stop_words", len(found), self.min_stop_words)
