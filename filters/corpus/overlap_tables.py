"""Look runs of words up by their hash, for all positions of a text at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compactds.filters.corpus.overlap_words import Hashes, gram_hashes, word_hashes

Positions = NDArray[np.int64]

_SLOTS_PER_ENTRY = 32


@dataclass(frozen=True, slots=True)
class Found:
    """Hold where runs of a table stand in a text: row i says that a run of `part` begins at both places."""

    part: Positions
    in_part: Positions
    in_text: Positions


class RunTable:
    """Hold the hashes of runs of `length` words, sorted, with the part and the place each comes from."""

    def __init__(self, length: int, hashes: Hashes, parts: Positions, starts: Positions) -> None:
        order = np.lexsort((starts, parts, hashes))
        self.length = length
        self._hashes, self._parts, self._starts = hashes[order], parts[order], starts[order]
        bits = max(12, min(25, (len(hashes) * _SLOTS_PER_ENTRY).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._taken = np.zeros(1 << bits, np.bool_)
        self._taken[hashes >> self._shift] = True

    def places(self, hashes: Hashes) -> Positions:
        """Return the places of the hashes that are in the table."""
        likely = np.flatnonzero(self._taken[hashes >> self._shift])
        if not len(likely):
            return likely
        looked_up = hashes[likely]
        first = np.searchsorted(self._hashes, looked_up, "left")
        present: Positions = likely[self._hashes.take(first, mode="clip") == looked_up]
        return present

    def find(self, hashes: Hashes, at: Positions) -> Found:
        """Return what the table has of these hashes, which belong to the positions `at` of a text."""
        present = self.places(hashes)
        hashes, at = hashes[present], at[present]
        first = np.searchsorted(self._hashes, hashes, "left")
        counts = np.searchsorted(self._hashes, hashes, "right") - first
        total = int(counts.sum())
        rows = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
        return Found(self._parts[rows], self._starts[rows], np.repeat(at, counts))


def all_runs(parts: Sequence[Sequence[bytes]], numbers: Sequence[int], length: int) -> RunTable:
    """Return a table of every run of `length` words of these parts; the parts are known by `numbers`."""
    lengths = np.array([len(words) for words in parts], np.int64)
    hashes = word_hashes(b" ".join(b" ".join(words) for words in parts))
    ends = np.cumsum(lengths)
    counts = np.maximum(lengths - length + 1, 0)
    starts = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    at = starts + np.repeat(ends - lengths, counts)
    return RunTable(
        length,
        gram_hashes(hashes, length, at),
        np.repeat(np.array(numbers, np.int64), counts),
        starts,
    )


def openings(parts: Sequence[Sequence[bytes]], length: int) -> RunTable:
    """Return a table of the first `length` words of these parts, known by the lengths of the whole parts."""
    hashes = gram_hashes(word_hashes(b" ".join(b" ".join(words[:length]) for words in parts)), length)
    pairs = np.empty(len(parts), [("hash", np.uint64), ("length", np.int64)])
    pairs["hash"] = hashes[::length]
    pairs["length"] = [len(words) for words in parts]
    pairs = np.unique(pairs)
    return RunTable(length, pairs["hash"].copy(), pairs["length"].copy(), np.zeros(len(pairs), np.int64))


def merged_runs(found: Found, length: int) -> list[tuple[int, int, int, int]]:
    """Return (part, place in part, place in text, words) of the longest runs that the found ones make up."""
    diagonals = found.in_text - found.in_part
    order = np.lexsort((found.in_text, diagonals, found.part))
    part, diagonal, place = found.part[order], diagonals[order], found.in_text[order]
    if not len(order):
        return []
    opens = np.ones(len(order), np.bool_)
    opens[1:] = (np.diff(part) != 0) | (np.diff(diagonal) != 0) | (np.diff(place) > 1)
    first = np.flatnonzero(opens)
    last = np.append(first[1:], len(order)) - 1
    return list(
        zip(
            part[first].tolist(),
            (place - diagonal)[first].tolist(),
            place[first].tolist(),
            (place[last] - place[first] + length).tolist(),
            strict=True,
        )
    )
