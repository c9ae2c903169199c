"""The quality rules of FineWeb (Penedo et al. 2024, arXiv 2406.17557, section 3.6)."""

from dataclasses import dataclass

from compactds.filters.corpus.base import Drop, Record
from compactds.filters.corpus.options import option
from compactds.filters.corpus.repetition import repeated_pieces
from compactds.filters.corpus.text_statistics import statistics_of

# Sentence ends of many scripts: Unicode's Sentence_Terminal, common characters of it.
_SENTENCE_ENDS = frozenset(
    ".!?…‼‽⁇⁈⁉։؝؞؟۔܀܁܂߹।॥၊။።፧፨᙮។៕᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿⳹⳺⳻⳾⸮⸼。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡"
)


@dataclass(frozen=True, slots=True)
class FinewebQuality:
    """Drop lists, menus and pages of scraps: FineWeb's own rules on lines."""

    min_ended_lines: float | None = option(
        0.12, about="The least share of lines that end as a sentence does.", minimum=0, maximum=1
    )
    max_short_lines: float | None = option(
        0.67, about="The greatest share of short lines.", minimum=0, maximum=1
    )
    short_line_characters: int = option(30, about="The most characters of a short line.", minimum=0)
    max_duplicate_line_characters: float | None = option(
        0.01, about="The greatest share of characters in lines that stood before.", minimum=0, maximum=1
    )
    max_line_breaks_per_word: float | None = option(0.3, about="The most line breaks a word.", minimum=0)
    name: str = option("fineweb_quality", about="What the ledger calls the filter.")

    def judge(self, document: Record) -> Drop | None:
        """Return the first rule that the text breaks."""
        statistics = statistics_of(document.text)
        lines = statistics.lines
        if not lines:
            return Drop(self.name, "empty", 0, 1)
        ended = sum(line[-1] in _SENTENCE_ENDS for line in lines) / len(lines)
        if self.min_ended_lines is not None and ended < self.min_ended_lines:
            return Drop(self.name, "too_few_ended_lines", ended, self.min_ended_lines)
        short = sum(len(line) <= self.short_line_characters for line in lines) / len(lines)
        if self.max_short_lines is not None and short > self.max_short_lines:
            return Drop(self.name, "too_many_short_lines", short, self.max_short_lines)
        return self._repeated(lines) or self._breaks(document.text, len(statistics.words))

    def _repeated(self, lines: list[str]) -> Drop | None:
        limit = self.max_duplicate_line_characters
        count, repeated = repeated_pieces(lines)
        if limit is None or not count:
            return None
        share = repeated / sum(map(len, lines))
        return Drop(self.name, "duplicate_line_characters", share, limit) if share > limit else None

    def _breaks(self, text: str, words: int) -> Drop | None:
        limit = self.max_line_breaks_per_word
        if limit is None or not words:
            return None
        share = text.count("\n") / words
        return Drop(self.name, "too_many_line_breaks", share, limit) if share > limit else None
