"""What kind each character is, in tables that NumPy looks up for a whole text at once.

The tables follow the Unicode version of the running Python.
"""

import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

SPACE: Final = 1  # str.isspace, what str.split splits at
LETTER: Final = 2  # str.isalpha
SOLID: Final = 4  # neither a space, nor punctuation, a symbol or a control character: letters, digits, marks
GARBLED: Final = 8  # no text: control characters, U+FFFD, lone surrogates, unassigned and private ones

CHUNK_CHARACTERS: Final = 65_536
_ASSIGNED_END = 0x33480  # above it stand tags, variation selectors, and planes for private use
_PLAIN_CONTROLS = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85"

Flags = NDArray[np.uint8]
CodePoints = NDArray[np.uint8] | NDArray[np.uint32]


@cache
def table() -> Flags:
    """Return the flags of every code point, shape (0x110000,)."""
    flags = np.full(0x110000, GARBLED, dtype=np.uint8)
    for code in (*range(_ASSIGNED_END), *range(0xE0000, 0xE0200)):
        flags[code] = _flags(chr(code))
    flags.flags.writeable = False
    return flags


def _flags(character: str) -> int:
    category = unicodedata.category(character)
    found = SPACE if character.isspace() else 0
    found |= LETTER if character.isalpha() else 0
    if category[0] in "LNM":
        found |= SOLID
    if (category in ("Cc", "Cs", "Co", "Cn") and character not in _PLAIN_CONTROLS) or character == "\ufffd":
        found |= GARBLED
    return found


def code_points(text: str) -> CodePoints:
    """Return the code point of each character, lone surrogates included, shape (len(text),)."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    return np.array([text]).view(np.uint32)


def flags_of(text: str, codes: CodePoints) -> Flags:
    """Return the flags of each character of a text, whose code points these are, shape (len(text),)."""
    if codes.dtype == np.uint8:
        return np.frombuffer(text.encode("ascii").translate(_ascii_table()), dtype=np.uint8)
    return table().take(codes)


@cache
def _ascii_table() -> bytes:
    return table()[:256].tobytes()


def chunks(text: str) -> Iterator[tuple[int, str]]:
    """Yield offsets and pieces of at most CHUNK_CHARACTERS, cut at a space where there is one.

    A word longer than a chunk comes in several pieces: memory stays bounded on a text without spaces.
    """
    start = 0
    while start < len(text):
        piece = text[start : start + CHUNK_CHARACTERS]
        if start + len(piece) < len(text):
            spaces = np.flatnonzero(flags_of(piece, code_points(piece)) & SPACE)
            if spaces.size:
                piece = piece[: int(spaces[-1]) + 1]
        yield start, piece
        start += len(piece)
