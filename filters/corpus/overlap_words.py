"""Reduce text to the words that copies have in common, and hash runs of them, with NumPy.

A word is a run of letters and digits after Unicode NFKC and case folding; everything else only
separates words. In scripts written without spaces each character is a word. So two texts that differ
in case, punctuation, typographic quotes, full-width letters or invisible characters have equal words.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

Hashes = NDArray[np.uint64]

BLOCK_BYTES = 1 << 20
"""Text is hashed in blocks of about this size, which bounds the memory that a long document takes."""

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]+")
_NOT_A_WORD = re.compile(r"[^\w\x00-\x7f]+")
_WITHOUT_SPACES = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff])"
)
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"
)
_PILED_MARKS = re.compile(f"([{_MARKS}]{{30}})[{_MARKS}]+")
_BYTES = bytes(
    ord(chr(code).lower()) if code < 128 and chr(code).isalnum() else code if code >= 128 else 32
    for code in range(256)
)
_SPACE = 32
_COEFFICIENTS = 256
_MIX = np.uint64(0xFF51AFD7ED558CCD)


def normalized(text: str) -> bytes:
    """Return the words of a text in UTF-8 with at least one space between any two."""
    if not text.isascii():
        text = _INVISIBLE.sub("", text)
        text = _PILED_MARKS.sub(r"\1", text)  # sorting marks takes quadratic time
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        text = _WITHOUT_SPACES.sub(r" \1 ", _NOT_A_WORD.sub(" ", text))
    return text.encode("utf-8").translate(_BYTES)


def words_of(text: str) -> list[bytes]:
    """Return the words of a text in order."""
    return normalized(text).split()


def word_hashes(words: bytes) -> Hashes:
    """Return a 64-bit hash of each word of a normalised text; it depends on nothing but the word."""
    parts = [_hash_block(block) for block in _blocks(words)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def gram_hashes(hashes: Hashes, length: int, at: NDArray[np.int64] | None = None) -> Hashes:
    """Return a hash of each run of `length` words, or of those that begin at the positions `at`."""
    coefficients = _coefficients()
    count = max(len(hashes) - length + 1, 0)
    total = np.zeros(count if at is None else len(at), np.uint64)
    for offset in range(length):
        run = hashes[offset : offset + count] if at is None else hashes[at + offset]
        total += run * coefficients[offset % _COEFFICIENTS]
    return _mixed(total)


def _blocks(words: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(words):
        end = words.find(b" ", start + BLOCK_BYTES)
        end = len(words) if end < 0 else end
        yield words[start:end]
        start = end


def _hash_block(block: bytes) -> Hashes:
    """Hash the words of a block: a sum of bytes times a random number for each place in the word."""
    codes = np.frombuffer(block, np.uint8)
    edges = np.flatnonzero(np.diff(codes != _SPACE, prepend=False, append=False))
    starts, ends = edges[0::2], edges[1::2]
    if not len(starts):
        return np.empty(0, np.uint64)
    lengths = ends - starts
    total = int(lengths.sum())
    firsts = np.cumsum(lengths) - lengths
    places = np.arange(total) - np.repeat(firsts, lengths)
    terms = _coefficients()[places % _COEFFICIENTS] * codes[codes != _SPACE]
    return _mixed(np.add.reduceat(terms, firsts) + lengths.astype(np.uint64))


def _mixed(values: Hashes) -> Hashes:
    """Spread the difference between two values over all bits, as MurmurHash3 ends."""
    values = values ^ (values >> np.uint64(33))
    values *= _MIX
    return values ^ (values >> np.uint64(29))


@cache
def _coefficients() -> Hashes:
    """Return fixed random odd numbers, the same on every machine."""
    drawn = [xxh3_64_intdigest(f"place {place}".encode()) | 1 for place in range(_COEFFICIENTS)]
    return np.array(drawn, np.uint64)
