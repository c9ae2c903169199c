"""Split documents into passages that end where sentences end and never exceed their limits."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

import numpy as np
from numpy.typing import NDArray

from compactds.indexer.errors import BuildError
from compactds.indexer.sentences import count_words, sentences, word_spans

TokenOffsets = Callable[[Sequence[str]], Sequence[NDArray[np.int64]]]
"""Gives the character span of every token of each text, one (n, 2) array a text."""

CHARACTERS_PER_WORD = 12
_BLOCK_CHARACTERS = 2_048
_BLOCKS_PER_CALL = 256
_GROUPS = 8  # an overlong clause is cut into pieces of one part in so many of a passage
_LONGEST_CLUSTER = 16
_LINE = re.compile(r"[^\n]+")
_SPACES = frozenset(" \t\n\r")
_CLAUSE_END = re.compile(r"(?<![;:,—])[;:,—]++\s+|[，、；：]\s*")


@dataclass(frozen=True, slots=True)
class PassageLimits:
    """Say how long a passage may be.

    `max_tokens` is what an encoder leaves for a passage's own tokens, None for no limit. A last passage
    of fewer than `min_words` words is joined to the one before it, or shares with it. No passage has more
    than `characters` characters either, which only text without spaces comes to feel.
    """

    words: int = 256
    max_tokens: int | None = None
    min_words: int = 32

    def __post_init__(self) -> None:
        for name, value in (("words", self.words), ("max_tokens", self.max_tokens)):
            if value is not None and value < 1:
                raise BuildError(
                    f"a passage cannot be limited to {name} = {value}.",
                    value=value,
                    remedy="Allow more words, or choose an encoder with a higher token limit.",
                )

    @property
    def characters(self) -> int:
        """Return the most characters a passage may have."""
        return self.words * CHARACTERS_PER_WORD


@dataclass(frozen=True, slots=True)
class Span:
    """Hold where a passage starts and ends in its document's text, and its tokens if they were counted."""

    start: int
    end: int
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class _Unit:
    """A piece of text that is kept whole: a sentence, or a part of one that fits no passage."""

    start: int
    end: int
    words: int
    ends_sentence: bool = True
    is_heading: bool = False


def split(
    text: str,
    limits: PassageLimits,
    token_offsets: TokenOffsets | None = None,
    *,
    tokens_end_at_spaces: bool = False,
) -> list[Span]:
    """Return the passages of a text in order: they cover all but white space, each character once.

    A passage ends at a sentence end wherever one lies within the limits, and not on a heading. Sentences
    that fit no passage are cut at lines, then at commas and their kind, then between words, then inside a
    word. `max_tokens` holds only with `token_offsets`; each passage's tokens are then counted on its own,
    as an encoder meets it, and are in its span. `tokens_end_at_spaces` promises that what stands between
    spaces has the same tokens whatever is around it, which saves counting most passages a second time.
    Takes linear time; text without content gives no passage.
    """
    measure = _Measure(text, limits)
    units = [_Unit(s.start, s.end, s.words, is_heading=s.is_heading) for s in sentences(text)]
    if limits.max_tokens is None or token_offsets is None:
        return [Span(start, end) for start, end in _pack(_fitting(units, measure), measure)]
    units = list(_fitting(units, measure))
    blocks = list(_blocks(units))
    token_ends = _token_ends(text, blocks, token_offsets)
    measure = _Measure(text, limits, token_ends)
    passages = _pack(_fitting(units, measure), measure)
    if tokens_end_at_spaces and all(_between_spaces(text, *block) for block in blocks):
        return list(_known(text, passages, token_ends, limits.max_tokens, token_offsets))
    return list(_counted(text, passages, limits.max_tokens, token_offsets))


class _Measure:
    """Tell whether pieces of one text are within the limits."""

    def __init__(self, text: str, limits: PassageLimits, token_ends: NDArray[np.int64] | None = None) -> None:
        self.text = text
        self.limits = limits
        self._characters = limits.characters
        self._token_ends = token_ends

    def fits(self, start: int, end: int, words: int | None = None) -> bool:
        """Tell whether a piece fits one passage; its words are counted if they are not given."""
        if end - start > self._characters:
            return False
        if (count_words(self.text[start:end]) if words is None else words) > self.limits.words:
            return False
        if self._token_ends is None or self.limits.max_tokens is None:
            return True
        first, last = self._token_ends.searchsorted((start, end), "right")
        return bool(last - first <= self.limits.max_tokens)


def _token_ends(
    text: str, blocks: Iterable[tuple[int, int]], token_offsets: TokenOffsets
) -> NDArray[np.int64]:
    """Return where each token of the text ends, tokenising blocks of whole units in small batches."""
    ends: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    remaining = iter(blocks)
    while batch := list(islice(remaining, _BLOCKS_PER_CALL)):
        spans = token_offsets([text[start:end] for start, end in batch])
        ends += [start + offsets[:, 1] for (start, _), offsets in zip(batch, spans, strict=True)]
    return np.maximum.accumulate(np.concatenate(ends))


def _blocks(units: Sequence[_Unit]) -> Iterator[tuple[int, int]]:
    start = end = None
    for unit in units:
        if start is not None and end is not None and unit.end - start > _BLOCK_CHARACTERS:
            yield start, end
            start = None
        start = unit.start if start is None else start
        end = unit.end
    if start is not None and end is not None:
        yield start, end


def _fitting(units: Iterable[_Unit], measure: _Measure) -> Iterator[_Unit]:
    """Yield the units, those that fit no passage in pieces that do."""
    for unit in units:
        if measure.fits(unit.start, unit.end, unit.words):
            yield unit
            continue
        for start, end in _pieces(unit.start, unit.end, measure, 0):
            words = count_words(measure.text[start:end])
            yield _Unit(start, end, words, ends_sentence=unit.ends_sentence and end == unit.end)


def _pieces(start: int, end: int, measure: _Measure, level: int) -> Iterator[tuple[int, int]]:
    """Yield the spans a piece is cut into, at the first level of _CUTS whose pieces fit."""
    if end - start == 1 or measure.fits(start, end):
        yield start, end
        return
    cut, following = _CUTS[level], min(level + 1, len(_CUTS) - 1)
    for first, last in cut(measure.text, start, end, measure.limits):
        piece = measure.text[first:last]
        bare = piece.strip()
        if bare:
            first += len(piece) - len(piece.lstrip())
            yield from _pieces(first, first + len(bare), measure, following)


_Cut = Callable[[str, int, int, PassageLimits], Iterator[tuple[int, int]]]


def _lines(text: str, start: int, end: int, _: PassageLimits) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _LINE.finditer(text, start, end))


def _clauses(text: str, start: int, end: int, _: PassageLimits) -> Iterator[tuple[int, int]]:
    for match in _CLAUSE_END.finditer(text, start, end):
        yield start, match.end()
        start = match.end()
    yield start, end


def _word_groups(text: str, start: int, end: int, limits: PassageLimits) -> Iterator[tuple[int, int]]:
    words = word_spans(text, start, end)
    size = max(1, limits.words // _GROUPS)
    while group := list(islice(words, size)):
        yield group[0][0], group[-1][1]


def _words(text: str, start: int, end: int, _: PassageLimits) -> Iterator[tuple[int, int]]:
    return word_spans(text, start, end)


def _windows(text: str, start: int, end: int, limits: PassageLimits) -> Iterator[tuple[int, int]]:
    size = min(limits.characters, max(_LONGEST_CLUSTER, limits.characters // _GROUPS))
    while end - start > size:
        cut = _between_characters(text, start, start + size)
        yield start, cut
        start = cut
    yield start, end


def _halves(text: str, start: int, end: int, _: PassageLimits) -> Iterator[tuple[int, int]]:
    middle = _between_characters(text, start, (start + end) // 2)
    yield start, middle
    yield middle, end


_CUTS: tuple[_Cut, ...] = (_lines, _clauses, _word_groups, _words, _windows, _halves)


def _between_characters(text: str, start: int, position: int) -> int:
    """Return a place at or before `position`, after `start`, that parts no accent from its letter."""
    for place in range(position, max(start, position - _LONGEST_CLUSTER), -1):
        joined = unicodedata.category(text[place])[0] == "M" or "\u200d" in text[place - 1 : place + 1]
        if not joined:
            return place
    return position


def _pack(units: Iterator[_Unit], measure: _Measure) -> Iterator[tuple[int, int]]:
    """Yield passages filled with units one after another, the last one long enough if possible."""
    minimum = measure.limits.min_words
    previous: list[_Unit] = []
    current: list[_Unit] = []
    words = 0
    for unit in units:
        while current and not measure.fits(current[0].start, unit.end, words + unit.words):
            if previous:
                yield previous[0].start, previous[-1].end
            cut = _last_good_end(current, minimum)
            previous, current = current[:cut], current[cut:]
            words = sum(carried.words for carried in current)
        current.append(unit)
        words += unit.words
    if previous and words < minimum:
        previous, current = _shared(previous + current, len(previous), measure)
    for passage in (previous, current):
        if passage:
            yield passage[0].start, passage[-1].end


def _last_good_end(passage: Sequence[_Unit], min_words: int) -> int:
    """Return after how many units a full passage ends: at a sentence end, and not on a heading."""
    words = list(accumulate(unit.words for unit in passage))
    count = len(passage)
    if not passage[-1].ends_sentence:
        ends = (
            n for n in range(count - 1, 0, -1) if passage[n - 1].ends_sentence and words[n - 1] >= min_words
        )
        count = next(ends, count)
    while count > 1 and passage[count - 1].is_heading and words[count - 2] >= min_words:
        count -= 1
    return count


def _shared(units: list[_Unit], before: int, measure: _Measure) -> tuple[list[_Unit], list[_Unit]]:
    """Join two passages if they fit into one; else cut them anew where they come closest in length."""
    words = [0, *accumulate(unit.words for unit in units)]
    if measure.fits(units[0].start, units[-1].end, words[-1]):
        return units, []
    best, least = before, min(words[before], words[-1] - words[before])
    for count in range(1, len(units)):
        left, right = words[count], words[-1] - words[count]
        if min(left, right) <= least or not units[count - 1].ends_sentence or units[count - 1].is_heading:
            continue
        first, second = units[:count], units[count:]
        if measure.fits(first[0].start, first[-1].end, left) and measure.fits(
            second[0].start, second[-1].end, right
        ):
            best, least = count, min(left, right)
    return units[:best], units[best:]


def _between_spaces(text: str, start: int, end: int) -> bool:
    """Tell whether a span begins and ends next to a space, or with the text."""
    return (start == 0 or text[start - 1] in _SPACES) and (end == len(text) or text[end] in _SPACES)


def _known(
    text: str,
    spans: Iterable[tuple[int, int]],
    token_ends: NDArray[np.int64],
    max_tokens: int,
    token_offsets: TokenOffsets,
) -> Iterator[Span]:
    """Yield the spans with their tokens: those the text has there, where a span stands between spaces."""
    for start, end in spans:
        first, last = token_ends.searchsorted((start, end), "right")
        if last - first <= max_tokens and _between_spaces(text, start, end):
            yield Span(start, end, int(last - first))
        else:
            yield from _counted(text, [(start, end)], max_tokens, token_offsets)


def _counted(
    text: str, spans: Iterable[tuple[int, int]], max_tokens: int, token_offsets: TokenOffsets
) -> Iterator[Span]:
    """Yield the spans with their tokens, counted on their own; one that exceeds the limit is cut in two.

    Most tokenizers give a passage the tokens its words have in the document, but none promises it.
    """
    remaining = iter(spans)
    while batch := list(islice(remaining, _BLOCKS_PER_CALL)):
        counts = [len(tokens) for tokens in token_offsets([text[start:end] for start, end in batch])]
        for (start, end), count in zip(batch, counts, strict=True):
            if count <= max_tokens or end - start == 1:
                yield Span(start, end, count)
            else:
                yield from _counted(text, _in_two(text, start, end), max_tokens, token_offsets)


def _in_two(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Cut a span near its middle: at a sentence end, else between words, else inside a word."""
    piece = text[start:end]
    middle = len(piece) // 2
    ends = [sentence.end for sentence in sentences(piece)][:-1] or [
        last for _, last in word_spans(piece, 0, len(piece))
    ][:-1]
    cut = min(ends, key=lambda place: abs(place - middle), default=_between_characters(piece, 0, middle))
    following = cut + len(piece[cut:]) - len(piece[cut:].lstrip())
    return [(start, start + cut), (start + following, end)]
