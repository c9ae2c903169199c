"""What rules need to know of a text, each computed once, when a rule first asks.

Words are runs of characters between white space, as `str.split` has them, held as arrays rather than as
strings: a document of ten million words costs 8 bytes a word to count and 8 more to compare. The only
difference from `str.split`: a run longer than 65,536 characters may count as several words.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from compactds.filters.corpus import characters

_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n\s*|\Z)")
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that its powers never run out; the golden ratio's 64 bits
_MIXER = 0xD6E8FEB86659FD93


@dataclass(frozen=True, slots=True)
class Piece:
    """Hold the characters of a part of a text: where it begins, code points and flags, shape (length,)."""

    offset: int
    codes: characters.CodePoints
    flags: characters.Flags


@dataclass(frozen=True, slots=True)
class Words:
    """Hold all words of a text as arrays of shape (n,): where each begins and its length in characters."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)


class TextStatistics:
    """Measure one text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def pieces(self) -> Iterator[Piece]:
        """Yield the text's characters in pieces that end between words; those of a short text are kept."""
        if len(self.text) <= characters.CHUNK_CHARACTERS:
            if self.text:
                yield self._whole
            return
        for offset, text in characters.chunks(self.text):
            yield _piece(offset, text)

    @cached_property
    def _whole(self) -> Piece:
        return _piece(0, self.text)

    @cached_property
    def words(self) -> Words:
        """Return where the words are."""
        bounds = [_bounds(piece) for piece in self.pieces()] or [np.empty(0, np.int64)]
        joined = bounds[0] if len(bounds) == 1 else np.concatenate(bounds)
        return Words(joined[::2], joined[1::2] - joined[::2])

    def words_with(self, flag: int) -> NDArray[np.bool_]:
        """Return which words have a character with this flag, shape (n,)."""
        found = [_counts(piece.flags & flag != 0, *self._inside(piece)) > 0 for piece in self.pieces()]
        return found[0] if len(found) == 1 else np.concatenate([np.empty(0, np.bool_), *found])

    @cached_property
    def word_hashes(self) -> NDArray[np.uint64]:
        """Return 64 bits for each word that depend on nothing but the word, shape (n,)."""
        hashes = [_hashes(piece.codes, *self._inside(piece)) for piece in self.pieces()]
        return hashes[0] if len(hashes) == 1 else np.concatenate([np.empty(0, np.uint64), *hashes])

    def _inside(self, piece: Piece) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the words of a piece begin and end, counted from its beginning."""
        words = self.words
        first, last = 0, len(words)
        if len(piece.codes) < len(self.text):
            first, last = np.searchsorted(words.starts, (piece.offset, piece.offset + len(piece.codes)))
        starts = words.starts[first:last] - piece.offset
        return starts, starts + words.lengths[first:last]

    @cached_property
    def lines(self) -> list[str]:
        """Return the lines that are not blank, without the white space around them."""
        return [line for line in map(str.strip, self.text.splitlines()) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        """Return the pieces between blank lines, without the white space around them."""
        text = self.text.replace("\r\n", "\n") if "\r" in self.text else self.text
        return [piece for piece in map(str.strip, _BLANK_LINES.split(text)) if piece]


def _piece(offset: int, text: str) -> Piece:
    codes = characters.code_points(text)
    return Piece(offset, codes, characters.flags_of(text, codes))


def _bounds(piece: Piece) -> NDArray[np.int64]:
    """Return where words begin and end, in turns, shape (2 * words,)."""
    inside = np.zeros(len(piece.flags) + 2, dtype=np.bool_)
    np.equal(piece.flags & characters.SPACE, 0, out=inside[1:-1])
    return np.flatnonzero(inside[1:] != inside[:-1]) + piece.offset


def _counts(
    marked: NDArray[np.bool_], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Return how many characters of each word are marked."""
    total = np.zeros(len(marked) + 1, dtype=np.int32)
    np.cumsum(marked, out=total[1:])
    return total[ends] - total[starts]


def _hashes(
    codes: characters.CodePoints, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Return a polynomial hash of each word, modulo 2^64, from one running sum over the characters."""
    powers, inverses = _powers()
    total = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.multiply(codes, powers[: len(codes)], out=total[1:])
    np.cumsum(total[1:], out=total[1:])
    found = total[ends]
    found -= total[starts]
    found *= inverses[starts]
    found ^= found >> np.uint64(32)
    found *= np.uint64(_MIXER)
    found ^= found >> np.uint64(32)
    return found


@cache
def _powers() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the multiplier's powers 0, 1, 2 … and their inverses modulo 2^64, one for each place."""
    inverse = pow(_MULTIPLIER, -1, 2**64)
    rows = []
    for base in (_MULTIPLIER, inverse):
        powers = np.full(characters.CHUNK_CHARACTERS + 1, base, dtype=np.uint64)
        powers[0] = 1
        rows.append(np.cumprod(powers))
    return rows[0], rows[1]


class _Latest(threading.local):
    statistics: TextStatistics | None = None


_LATEST = _Latest()


def statistics_of(text: str) -> TextStatistics:
    """Return the statistics of a text, those of the last text asked for by this thread if it is the same.

    Filters judge a document one after another, so that each statistic is computed once a document.
    """
    latest = _LATEST.statistics
    if latest is None or latest.text is not text:
        latest = _LATEST.statistics = TextStatistics(text)
    return latest
