"""What rules need to know of a text, each computed once, when a rule first asks.

Words are runs of characters between white space, as `str.split` has them, held as arrays rather than as
strings: a document of ten million words costs 8 bytes a word to count and 8 more to compare. The only
difference from `str.split`: a run longer than 65,536 characters may count as several words.
"""

import re
import threading
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from compactds.filters.corpus import characters

_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n\s*|\Z)")
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that its powers never run out; the golden ratio's 64 bits
_MIXER = 0xD6E8FEB86659FD93


@dataclass(frozen=True, slots=True)
class Words:
    """Hold all words of a text as arrays of shape (n,): where each begins and its length in characters.

    `flags` are those of its characters (see `characters`), or-ed.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    flags: characters.Flags

    def __len__(self) -> int:
        return len(self.starts)


class TextStatistics:
    """Measure one text."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> Words:
        """Return where the words are and what they consist of."""
        found = [_words(offset, piece) for offset, piece in characters.chunks(self.text)]
        if len(found) == 1:
            return Words(*found[0])
        none = np.empty(0, np.int64)
        starts, lengths, flags = zip(*found, strict=True) if found else ((none,), (none,), (none,))
        return Words(
            np.concatenate(starts),
            np.concatenate(lengths),
            np.concatenate(flags).astype(np.uint8, copy=False),
        )

    @cached_property
    def word_hashes(self) -> NDArray[np.uint64]:
        """Return 64 bits for each word that depend on nothing but the word, shape (n,)."""
        words = self.words
        hashes = np.empty(len(words), dtype=np.uint64)
        for offset, piece in characters.chunks(self.text):
            first, last = np.searchsorted(words.starts, (offset, offset + len(piece)))
            if first < last:
                starts = words.starts[first:last] - offset
                hashes[first:last] = _hashes(piece, starts, starts + words.lengths[first:last])
        return hashes

    @cached_property
    def lines(self) -> list[str]:
        """Return the lines that are not blank, without the white space around them."""
        return [line for line in map(str.strip, self.text.splitlines()) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        """Return the pieces between blank lines, without the white space around them."""
        text = self.text.replace("\r\n", "\n") if "\r" in self.text else self.text
        return [piece for piece in map(str.strip, _BLANK_LINES.split(text)) if piece]


def _words(offset: int, piece: str) -> tuple[NDArray[np.int64], NDArray[np.int64], characters.Flags]:
    flags = characters.table()[characters.code_points(piece)]
    inside = np.zeros(len(piece) + 2, dtype=np.int8)
    np.equal(flags & characters.SPACE, 0, out=inside[1:-1].view(np.bool_))
    bounds = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = bounds[::2], bounds[1::2]
    united = np.bitwise_or.reduceat(flags, starts) if starts.size else flags[:0]
    return starts + offset, ends - starts, united


def _hashes(piece: str, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a polynomial hash of each word, modulo 2^64, from one running sum over the characters."""
    powers, inverses = _powers()
    total = np.zeros(len(piece) + 1, dtype=np.uint64)
    terms = characters.code_points(piece) + np.uint64(1)
    terms *= powers[: len(piece)]
    np.cumsum(terms, out=total[1:])
    found = (total[ends] - total[starts]) * inverses[starts]
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
