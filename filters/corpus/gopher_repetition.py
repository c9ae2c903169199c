"""The repetition rules of Gopher's MassiveText (Rae et al. 2021, arXiv 2112.11446, table A1)."""

from dataclasses import dataclass

from compactds.filters.corpus import repetition
from compactds.filters.corpus.base import Drop, Record
from compactds.filters.corpus.options import option
from compactds.filters.corpus.text_statistics import TextStatistics, statistics_of

TOP_NGRAMS = ((2, 0.20), (3, 0.18), (4, 0.16))
DUPLICATE_NGRAMS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))


@dataclass(frozen=True, slots=True)
class GopherRepetition:
    """Drop what repeats its lines, paragraphs or phrases: Gopher's repetition rules."""

    max_duplicate_lines: float | None = option(
        0.30, about="The greatest share of lines that stood before.", minimum=0, maximum=1
    )
    max_duplicate_paragraphs: float | None = option(
        0.30, about="The greatest share of paragraphs that stood before.", minimum=0, maximum=1
    )
    max_duplicate_line_characters: float | None = option(
        0.20, about="The greatest share of characters in lines that stood before.", minimum=0, maximum=1
    )
    max_duplicate_paragraph_characters: float | None = option(
        0.20, about="The greatest share of characters in paragraphs that stood before.", minimum=0, maximum=1
    )
    top_ngrams: tuple[tuple[int, float], ...] = option(
        TOP_NGRAMS,
        about="Word counts n, each with the greatest share of characters in the most frequent n-gram.",
    )
    duplicate_ngrams: tuple[tuple[int, float], ...] = option(
        DUPLICATE_NGRAMS,
        about="Word counts n, each with the greatest share of characters in n-grams that stood before.",
    )
    name: str = option("gopher_repetition", about="What the ledger calls the filter.")

    def judge(self, document: Record) -> Drop | None:
        """Return the first rule that the text breaks."""
        if not document.text:
            return None
        statistics = statistics_of(document.text)
        return self._paragraphs(statistics) or self._lines(statistics) or self._ngrams(statistics)

    def _paragraphs(self, statistics: TextStatistics) -> Drop | None:
        return self._pieces(
            statistics.paragraphs,
            len(statistics.text),
            "paragraph",
            self.max_duplicate_paragraphs,
            self.max_duplicate_paragraph_characters,
        )

    def _lines(self, statistics: TextStatistics) -> Drop | None:
        return self._pieces(
            statistics.lines,
            len(statistics.text),
            "line",
            self.max_duplicate_lines,
            self.max_duplicate_line_characters,
        )

    def _pieces(
        self, pieces: list[str], length: int, kind: str, most: float | None, most_characters: float | None
    ) -> Drop | None:
        count, characters = repetition.repeated_pieces(pieces)
        if most is not None and count > most * len(pieces):
            return Drop(self.name, f"duplicate_{kind}s", count / len(pieces), most)
        if most_characters is not None and characters > most_characters * length:
            return Drop(self.name, f"duplicate_{kind}_characters", characters / length, most_characters)
        return None

    def _ngrams(self, statistics: TextStatistics) -> Drop | None:
        words, lengths, length = statistics.word_hashes, statistics.words.lengths, len(statistics.text)
        known = (1, words)
        for n, most in sorted(self.top_ngrams):
            known = (n, repetition.ngram_hashes(words, n, known))
            characters = repetition.top_ngram_characters(known[1], lengths, n, most * length)
            if characters > most * length:
                return Drop(self.name, f"top_{n}_gram", characters / length, most)
        for n, most in sorted(self.duplicate_ngrams):
            if known[0] > n:
                known = (1, words)
            known = (n, repetition.ngram_hashes(words, n, known))
            places, groups = repetition.repeats(known[1])
            if not places.size:
                return None
            spans = repetition.spans_of(lengths, n)
            characters = repetition.repeated_characters(places, groups, spans, n)
            if characters > most * length:
                return Drop(self.name, f"duplicate_{n}_grams", characters / length, most)
            least = min(limit for _, limit in self.duplicate_ngrams)
            if repetition.covered_characters(places, groups, lengths, n) <= least * length:
                return None
        return None
