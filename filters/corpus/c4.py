"""The rules of C4 (Raffel et al. 2020, JMLR 21, section 2.2) and of multilingual C4.

C4 cleans and judges in one step. Here `c4_quality` judges a document as it would be after the cleaning,
and `c4_lines` does the cleaning.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from compactds.filters.corpus.base import Drop, Record
from compactds.filters.corpus.options import option
from compactds.filters.corpus.text_statistics import statistics_of

POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_LINE_ENDS = (".", "!", "?", '"', "'", "”", "’")
_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)")


@dataclass(frozen=True, slots=True)
class LineRules:
    """Say which lines of a page are prose."""

    min_words: int
    max_word_characters: int
    ended: bool
    without_javascript: bool
    without_policies: bool

    def fault(self, line: str) -> str | None:
        """Return why a line is left out, None if it stays; the line is stripped and not empty."""
        words = line.split()
        if len(line) > self.max_word_characters and max(map(len, words)) > self.max_word_characters:
            return "overlong_word"
        if self.ended and (not line.endswith(_LINE_ENDS) or line.endswith(("...", "…"))):
            return "not_ended"
        if len(words) < self.min_words:
            return "too_few_words"
        lowered = line.lower()
        if self.without_javascript and "javascript" in lowered:
            return "javascript"
        if self.without_policies and any(phrase in lowered for phrase in POLICY_PHRASES):
            return "policy"
        return None


def _without_citations(line: str) -> str:
    return _CITATION.sub("", line).rstrip() if "[" in line else line


@dataclass(frozen=True, slots=True)
class C4Quality:
    """Drop pages that are code, dummy text, or have too few sentences after C4's cleaning of lines."""

    min_sentences: int | None = option(5, about="The fewest sentences in the lines that stay.", minimum=0)
    min_words_per_line: int = option(3, about="The fewest words of a line that stays.", minimum=0)
    max_word_characters: int = option(
        1000, about="The most characters of a word in a line that stays.", minimum=1
    )
    ended_lines: bool = option(True, about="Count only lines that end as a sentence does.")
    javascript: bool = option(True, about="Leave out lines that speak of JavaScript.")
    policies: bool = option(True, about="Leave out lines on cookies, privacy and terms of use.")
    lorem_ipsum: bool = option(True, about="Drop pages with the words lorem ipsum.")
    curly_brackets: bool = option(True, about="Drop pages with a curly bracket, which are code.")
    name: str = option("c4_quality", about="What the ledger calls the filter.")

    def judge(self, document: Record) -> Drop | None:
        """Return the first rule that the text breaks."""
        text = document.text
        if self.curly_brackets and (brackets := text.count("{")):
            return Drop(self.name, "curly_bracket", brackets, 0)
        if self.lorem_ipsum and "lorem ipsum" in text.lower():
            return Drop(self.name, "lorem_ipsum", "lorem ipsum")
        if not self.min_sentences:
            return None
        sentences = 0
        for line in self._kept_lines(text):
            sentences += max(1, len(_SENTENCE_END.findall(line)))
            if sentences >= self.min_sentences:
                return None
        return Drop(self.name, "too_few_sentences", sentences, self.min_sentences)

    def _kept_lines(self, text: str) -> Iterator[str]:
        rules = LineRules(
            self.min_words_per_line,
            self.max_word_characters,
            self.ended_lines,
            self.javascript,
            self.policies,
        )
        for line in statistics_of(text).lines:
            bare = _without_citations(line)
            if bare and rules.fault(bare) is None:
                yield bare


@dataclass(frozen=True, slots=True)
class C4Lines:
    """Take lines out of documents that are no prose, and the marks of citations, as C4 does."""

    min_words_per_line: int = option(3, about="The fewest words of a line that stays.", minimum=0)
    max_word_characters: int = option(
        1000, about="The most characters of a word in a line that stays.", minimum=1
    )
    ended_lines: bool = option(True, about="Take out lines that don't end as a sentence does.")
    javascript: bool = option(True, about="Take out lines that speak of JavaScript.")
    policies: bool = option(True, about="Take out lines on cookies, privacy and terms of use.")
    citations: bool = option(True, about="Take out marks of citations, as [12] and [edit].")
    name: str = option("c4_lines", about="What the ledger calls the editor.")

    def edit(self, text: str) -> tuple[str, Mapping[str, int]]:
        """Return the lines that stay, and how many were taken out by fault; blank lines stay."""
        rules = LineRules(
            self.min_words_per_line,
            self.max_word_characters,
            self.ended_lines,
            self.javascript,
            self.policies,
        )
        kept: list[str] = []
        changes: dict[str, int] = {}
        for line in text.splitlines():
            bare = line.strip()
            if bare and self.citations and "[" in bare:
                bare, count = _CITATION.subn("", bare)
                bare = bare.strip()
                if count:
                    changes["citation"] = changes.get("citation", 0) + count
            fault = rules.fault(bare) if bare else None
            if fault is None:
                kept.append(bare)
            else:
                changes[fault] = changes.get(fault, 0) + 1
        return ("\n".join(kept).strip("\n"), changes) if changes else (text, {})


@dataclass(frozen=True, slots=True)
class C4Paragraphs:
    """Drop pages with too few long lines: the rule of multilingual C4."""

    min_paragraphs: int = option(3, about="The fewest lines that are long enough.", minimum=0)
    min_paragraph_characters: int = option(200, about="The fewest characters of a long line.", minimum=0)
    name: str = option("c4_paragraphs", about="What the ledger calls the filter.")

    def judge(self, document: Record) -> Drop | None:
        """Return the number of long lines if it is too small."""
        lines = statistics_of(document.text).lines
        long = sum(len(line) >= self.min_paragraph_characters for line in lines)
        if long < self.min_paragraphs:
            return Drop(self.name, "too_few_paragraphs", long, self.min_paragraphs)
        return None
