"""Sets of rows as packed bits: what a where expression becomes, and what indexes are searched with."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]

_SPARSE = 64
"""Up to one row in so many, row numbers are looked for in the words that are not zero."""
BLOCK_ROWS, BLOCK_BYTES = 65_536, 1 << 17
"""Row numbers come in one block if they are so few, else from so many bytes of bits at a time."""


class Bitmap:
    """Hold an immutable set of row numbers from 0 to `length` - 1.

    `bits` has bit r % 8 of byte r // 8 set for every row r in the set (NumPy's bit order "little", as
    `faiss.IDSelectorBitmap` reads it); it is padded with zeros to whole 8-byte words, and read-only.
    `count` is the number of rows in the set.
    """

    __slots__ = ("_mask", "_rows", "bits", "count", "length")

    def __init__(self, bits: Bits, length: int, count: int | None = None) -> None:
        bits.flags.writeable = False
        self.bits: Final = bits
        self.length: Final = length
        self.count: Final = int(np.bitwise_count(_words(bits)).sum()) if count is None else count
        self._mask: Mask | None = None
        self._rows: Rows | None = None

    @classmethod
    def none(cls, length: int) -> "Bitmap":
        """Return the empty set."""
        return cls(np.zeros(packed_bytes(length), np.uint8), length, 0)

    @classmethod
    def all(cls, length: int) -> "Bitmap":
        """Return the set of all rows."""
        bits = np.full(packed_bytes(length), 0xFF, np.uint8)
        return cls(_without_padding(bits, length), length, length)

    @classmethod
    def from_mask(cls, mask: Mask) -> "Bitmap":
        """Return the rows at which a mask, shape (length,), is true."""
        bits = np.zeros(packed_bytes(len(mask)), np.uint8)
        bits[: (len(mask) + 7) // 8] = np.packbits(mask, bitorder="little")
        return cls(bits, len(mask))

    @classmethod
    def from_rows(cls, rows: NDArray[np.integer], length: int) -> "Bitmap":
        """Return the set of these row numbers, in any order, repeated or not."""
        mask = np.zeros(length, np.bool_)
        mask[rows] = True
        return cls.from_mask(mask)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the packed bits."""
        return self.bits.nbytes

    def mask(self) -> Mask:
        """Return one truth value a row, shape (length,), read-only; unpacked at the first call."""
        if self._mask is None:
            mask = np.unpackbits(self.bits, count=self.length, bitorder="little").view(np.bool_)
            mask.flags.writeable = False
            self._mask = mask
        return self._mask

    def rows(self) -> Rows:
        """Return the row numbers in ascending order, shape (count,), read-only; found at the first call."""
        if self._rows is None:
            rows = self._sparse_rows() if self.count * _SPARSE < self.length else np.flatnonzero(self.mask())
            rows.flags.writeable = False
            self._rows = rows
        return self._rows

    def row_blocks(self) -> Iterator[Rows]:
        """Yield the row numbers in ascending order, in bounded memory."""
        if self.count <= BLOCK_ROWS:
            yield self.rows()
            return
        for start in range(0, self.length, 8 * BLOCK_BYTES):
            bits = self.bits[start // 8 : start // 8 + BLOCK_BYTES]
            yield np.flatnonzero(np.unpackbits(bits, bitorder="little")) + start

    def holds(self, rows: NDArray[np.integer]) -> Mask:
        """Tell for each of some row numbers whether it is in the set, shape (len(rows),)."""
        held: Mask = (self.bits[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).view(np.bool_)
        return held

    def _sparse_rows(self) -> Rows:
        words = np.flatnonzero(_words(self.bits))
        places = np.flatnonzero(np.unpackbits(self.bits.reshape(-1, 8)[words], bitorder="little"))
        rows: Rows = words[places >> 6] * 64 + (places & 63)
        return rows

    def __and__(self, other: "Bitmap") -> "Bitmap":
        return Bitmap(_bytes(_words(self.bits) & _words(other.bits)), self.length)

    def __or__(self, other: "Bitmap") -> "Bitmap":
        return Bitmap(_bytes(_words(self.bits) | _words(other.bits)), self.length)

    def __invert__(self) -> "Bitmap":
        bits = _without_padding(~self.bits, self.length)
        return Bitmap(bits, self.length, self.length - self.count)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bitmap):
            return NotImplemented
        return self.length == other.length and np.array_equal(self.bits, other.bits)

    def __hash__(self) -> int:
        return hash((self.length, self.count))

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"Bitmap({self.count:,} of {self.length:,} rows)"


def places_of(mask: Mask) -> Rows:
    """Return the places at which a mask is true, ascending; quick where these are few."""
    whole = len(mask) // 8 * 8
    words = np.flatnonzero(mask[:whole].view(np.uint64))
    within = np.flatnonzero(mask[:whole].reshape(-1, 8)[words])
    rest: Rows = np.flatnonzero(mask[whole:]) + whole
    return np.concatenate([words[within >> 3] * 8 + (within & 7), rest])


def packed_bytes(length: int) -> int:
    """Return the bytes of the packed bits of so many rows."""
    return (length + 63) // 64 * 8


def _words(bits: Bits) -> NDArray[np.uint64]:
    return bits.view(np.uint64)


def _bytes(words: NDArray[np.uint64]) -> Bits:
    return words.view(np.uint8)


def _without_padding(bits: Bits, length: int) -> Bits:
    """Clear the bits of rows from `length` on, in place."""
    whole, rest = divmod(length, 8)
    if rest:
        bits[whole] &= (1 << rest) - 1
        whole += 1
    bits[whole:] = 0
    return bits
