"""How much of a text repeats itself: n-grams of words, lines and paragraphs.

Words come as hashes and lengths (see `text_statistics`), so that n-grams are sums of arrays. All shares are
of the characters of the text.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SHIFT = 0xC2B2AE3D27D4EB4F  # odd; tells "a b" from "b a"
_BLOCK = 65_536  # places turned into Python integers at a time

Hashes = NDArray[np.uint64]
Lengths = NDArray[np.int64]


def repeated_pieces(pieces: Sequence[str]) -> tuple[int, int]:
    """Return how many lines or paragraphs stood before already, and the characters of those."""
    distinct = set(pieces)
    count = len(pieces) - len(distinct)
    return (count, sum(map(len, pieces)) - sum(map(len, distinct))) if count else (0, 0)


def ngram_hashes(words: Hashes, n: int, shorter: tuple[int, Hashes] | None = None) -> Hashes:
    """Return the hash of every run of n words, shape (max(len(words) - n + 1, 0),).

    `shorter` may give those of a smaller n, to go on from.
    """
    size, hashes = shorter or (1, words)
    for place in range(size, n):
        if len(words) <= place:
            return words[:0]
        hashes = hashes[:-1] * np.uint64(_SHIFT) + words[place:]
    return hashes


def spans_of(lengths: Lengths, n: int) -> Lengths:
    """Return the characters of every run of n words, spaces left out, shape (len(lengths) - n + 1,)."""
    total = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    return total[n:] - total[:-n]


def top_ngram_characters(ngrams: Hashes, lengths: Lengths, n: int, enough: float) -> int:
    """Return the characters of all occurrences of the most frequent n-gram, one space between words.

    Of n-grams equally frequent the longest counts; one that occurs once does not. Returns 0 as soon as it
    is clear that there are not more than `enough`.
    """
    if len(ngrams) < 2:
        return 0
    ordered = np.sort(ngrams)
    longest = n * int(lengths.max()) + n - 1
    least = max(2, int(enough) // longest + 1)  # of fewer occurrences, none can have more than enough
    if len(ordered) < least or not (ordered[least - 1 :] == ordered[: len(ordered) - least + 1]).any():
        return 0
    bounds = np.concatenate(([-1], np.flatnonzero(ordered[1:] != ordered[:-1]), [len(ordered) - 1]))
    counts = bounds[1:] - bounds[:-1]
    most = int(counts.max())
    members = np.isin(ngrams, ordered[bounds[1:][counts == most]])
    return most * (int(spans_of(lengths, n)[members].max()) + n - 1)


def repeats(ngrams: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where n-grams stand that occur more than once, in order, and a number for each n-gram."""
    order = np.argsort(ngrams)
    ordered = ngrams[order]
    same = ordered[1:] == ordered[:-1]
    if not same.any():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    shared = np.zeros(len(ngrams), np.bool_)
    shared[1:] = same
    shared[:-1] |= same
    groups = np.empty(len(ngrams), np.int64)
    groups[order[1:]] = np.cumsum(~same)
    groups[order[0]] = 0
    places = np.sort(order[shared])
    return places, groups[places]


def covered_characters(places: NDArray[np.int64], groups: NDArray[np.int64], lengths: Lengths, n: int) -> int:
    """Return the characters of words inside any occurrence but the first of a repeated n-gram.

    Counted so for n, no greater n can have more repeated characters.
    """
    _, firsts = np.unique(groups, return_index=True)
    later = np.delete(places, firsts)
    steps = np.zeros(len(lengths) + 1, np.int64)
    np.add.at(steps, later, 1)
    np.add.at(steps, later + n, -1)
    return int(lengths[np.cumsum(steps[:-1]) > 0].sum())


def repeated_characters(places: NDArray[np.int64], groups: NDArray[np.int64], spans: Lengths, n: int) -> int:
    """Return the characters of n-grams that occurred before, none counted twice.

    The text is read from its beginning; after a repeated n-gram reading goes on behind it, and n-grams that
    were jumped over count as never seen. `spans` are the characters of every n-gram.
    """
    seen: set[int] = set()
    total = behind = 0
    for start in range(0, len(places), _BLOCK):
        block = slice(start, start + _BLOCK)
        here = places[block]
        for place, group, span in zip(
            here.tolist(), groups[block].tolist(), spans[here].tolist(), strict=True
        ):
            if place < behind:
                continue
            if group in seen:
                total += span
                behind = place + n
            else:
                seen.add(group)
    return total
