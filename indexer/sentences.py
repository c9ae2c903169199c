"""Find where sentences and paragraphs end, and count words, in text of any script."""

import re
from collections.abc import Iterator
from typing import NamedTuple

# Scripts written without spaces: a Chinese or Japanese character counts as a word, and so do up to four
# characters of Thai, Lao, Burmese or Khmer, about what a word has there.
_DENSE = "\u2e80-\u2fff\u3040-\u30ff\u31c0-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_LOOSE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_WORD = re.compile(r"\S+")
_ANY_WORD = re.compile(f"[{_DENSE}]|[{_LOOSE}]{{1,4}}|[^\\s{_DENSE}{_LOOSE}]+")
_UNSPACED = re.compile(f"[{_DENSE}{_LOOSE}]")

# Looking behind and possessive runs keep this linear on text made of nothing but marks.
_BOUNDARY = re.compile(
    r"(?P<paragraph>\n[^\S\n]*\n\s*)"
    r"|(?<![.!?…])(?P<stop>[.!?…]++)[\"'”’»)\]*_]*+(?P<gap>\s+)"
    r"|[。！？｡]+[」』”’）〉》]*\s*"
    r"|(?<![।۔؟။።])[।۔؟။።]++\s+"
    r"|\n(?=[^\S\n]*(?:[-*•‣–]|[0-9]{1,3}[.)])\s)"
)
_LAST_WORD = re.compile(r"[\w.]+$")
_NEVER_FINAL = re.compile(
    r"adm|al|approx|capt|cf|cpl|dr|e\.g|esp|gen|gov|hon|i\.e|lt|maj|messrs|mr|mrs|ms|mt|prof|rep|rev|"
    r"sen|sgt|st|supt|viz|vs",
    re.IGNORECASE,
)
_BEFORE_NUMBERS = re.compile(
    r"apr|art|aug|ca|ch|chap|dec|eq|eqs|feb|fig|figs|jan|jul|jun|mar|no|nos|nov|oct|p|para|pp|ref|refs|"
    r"sec|sep|sept|tab|vol|vols",
    re.IGNORECASE,
)
_CLOSING = frozenset(".!?…:;。！？｡।۔؟။።\"'”’»)]」』）")
HEADING_WORDS = 12


class Sentence(NamedTuple):
    """Hold the span of one sentence, without white space around it, and whether it is a heading.

    A heading is a short paragraph of its own that doesn't end as a sentence does.
    """

    start: int
    end: int
    words: int
    is_heading: bool


def count_words(text: str) -> int:
    """Return the number of words: runs of non-space, or their likes in scripts without spaces."""
    if text.isascii() or not _UNSPACED.search(text):
        return len(text.split())
    return len(_ANY_WORD.findall(text))


def word_spans(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the span of every word in text[start:end], counted as `count_words` does."""
    pattern = _WORD if text.isascii() else _ANY_WORD
    return (match.span() for match in pattern.finditer(text, start, end))


def sentences(text: str) -> Iterator[Sentence]:
    """Yield the sentences of a text in order; together they cover all that isn't white space.

    A sentence ends at a full stop, question or exclamation mark (of several scripts) that is followed by
    white space and not by a lower-case letter, unless an abbreviation or an initial stands before it; at
    a blank line; and before a list item.
    """
    start, opens_paragraph = 0, True
    for match in _BOUNDARY.finditer(text):
        if match["gap"] is not None and "\n\n" not in match["gap"] and not _is_final(text, match):
            continue
        is_paragraph = match["paragraph"] is not None
        yield from _sentence(text, start, match.end(), opens_paragraph and is_paragraph)
        start, opens_paragraph = match.end(), is_paragraph or "\n\n" in (match["gap"] or "")
    yield from _sentence(text, start, len(text), False)


def _sentence(text: str, start: int, end: int, is_paragraph: bool) -> Iterator[Sentence]:
    piece = text[start:end]
    bare = piece.strip()
    if bare:
        begin = start + len(piece) - len(piece.lstrip())
        words = count_words(bare)
        is_heading = is_paragraph and words <= HEADING_WORDS and bare[-1] not in _CLOSING
        yield Sentence(begin, begin + len(bare), words, is_heading)


def _is_final(text: str, match: re.Match[str]) -> bool:
    following = text[match.end() : match.end() + 1]
    if following.islower():
        return False
    if match["stop"] != "." or match.end("stop") != match.start("gap"):
        return True
    word = _LAST_WORD.search(text, max(0, match.start() - 20), match.start())
    if word is None:
        return True
    last = word.group()
    if len(last) == 1 and last.isupper() and last != "I":
        return False  # an initial
    if _BEFORE_NUMBERS.fullmatch(last):
        return not following.isdigit()
    return not _NEVER_FINAL.fullmatch(last)
