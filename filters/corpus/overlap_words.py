"""Reduce text to the words that copies have in common, and hash runs of them, with NumPy.

A word is a run of letters and digits after Unicode NFKC and case folding; everything else only
separates words. In scripts written without spaces each character is a word. So two texts that differ
in case, punctuation, typographic quotes, full-width letters or invisible characters have equal words.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

Hashes = NDArray[np.uint64]

PIECE = 1 << 16
"""Text is worked on in pieces of about this size, which bounds the memory that a long document takes."""

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]+")
_NOT_A_WORD = re.compile(r"[^\w\x00-\x7f]+")
_WITHOUT_SPACES = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff])"
)
_PILED = re.compile(r"([^\w\x00-\x7f]{30})[^\w\x00-\x7f]+")
_STANDS_ALONE = re.compile(
    "[\u0080-\u024f\u0370-\u0482\u048a-\u052f\u2000-\u206f\u20a0-\u20cf\u2100-\u2bff\ufb00-\ufb06\ufeff"
    "\U0001d400-\U0001d7ff]"
)
_FEW = 64
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
        text = " ".join(map(_in_plain_words, _pieces(text)))
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


def _pieces(text: str) -> Iterator[str]:
    """Cut a text at spaces into pieces that take little memory to work on."""
    start = 0
    while start < len(text):
        end = text.find(" ", start + PIECE)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end


def _in_plain_words(text: str) -> str:
    """Return a text with its words in Unicode NFKC, case-folded, and nothing but ASCII between them."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    others = codes[codes > 127]
    if len(others) * 8 < len(codes):
        characters = [chr(code) for code in np.unique(others).tolist()]
        if len(characters) <= _FEW and all(map(_STANDS_ALONE.match, characters)):
            for character in characters:
                text = text.replace(character, _alone(character))
            return text
    text = _INVISIBLE.sub("", text)
    text = _PILED.sub(r"\1 ", text)  # putting marks in order takes quadratic time
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _WITHOUT_SPACES.sub(r" \1 ", _NOT_A_WORD.sub(" ", text))


@lru_cache(maxsize=1024)
def _alone(character: str) -> str:
    """Return what becomes of a character that no other one beside it changes."""
    text = _INVISIBLE.sub("", character)
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _NOT_A_WORD.sub(" ", text)


def _blocks(words: bytes) -> Iterator[bytes]:
    """Cut words at spaces into pieces; a word longer than a piece is one by itself."""
    start = 0
    while start < len(words):
        end = words.find(b" ", start + PIECE)
        end = len(words) if end < 0 else end
        last = words.rfind(b" ", start, end) + 1
        if end - max(last, start) > PIECE:
            last = max(last, start)
            yield words[start:last]
            yield words[last:end]
        else:
            yield words[start:end]
        start = end


def _hash_block(block: bytes) -> Hashes:
    """Hash the words of a block: a sum of bytes times a random number for each place in the word."""
    if len(block) > PIECE and b" " not in block:
        return np.array([xxh3_64_intdigest(block)], np.uint64)
    codes = np.frombuffer(b" %b " % block, np.uint8)
    is_word = codes != _SPACE
    edges = np.flatnonzero(is_word[1:] != is_word[:-1])
    if not len(edges):
        return np.empty(0, np.uint64)
    lengths = edges[1::2] - edges[0::2]
    firsts = np.cumsum(lengths) - lengths
    places = np.arange(int(lengths.sum()), dtype=np.int32) - np.repeat(firsts.astype(np.int32), lengths)
    terms = _coefficients()[places & (_COEFFICIENTS - 1)] * codes[is_word]
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
