"""The shape of an IVF index: how many lists and bytes a code, and what that takes in memory."""

import math
from dataclasses import dataclass

LEAST_TRAINING_ROWS_PER_LIST = 39
LISTS_PER_ROOT = 1.4
CODE_BITS = 4
CODE_WORDS = 16
ID_BYTES = 8
BLOCK_ROWS = 32
"""A list's codes are kept in blocks of so many rows, the last one filled up."""
COARSE_CODES_FROM_LISTS = 256
"""From so many lists on, the nearest are found by codes of the centroids first, then by the centroids."""
COARSE_DIMENSIONS_PER_CODE = 4


@dataclass(frozen=True, slots=True)
class CodeShape:
    """Hold the shape of the codes: sub-quantisers of four bits, over a rotated vector's dimensions."""

    quantisers: int
    rotated: int

    @property
    def bytes(self) -> int:
        """Return the bytes of one code."""
        return (self.quantisers * CODE_BITS + 7) // 8


def code_shape(dimension: int, code_bytes: int) -> CodeShape:
    """Return the shape of codes of `code_bytes` for vectors of `dimension`.

    Every sub-quantiser takes equally many dimensions, so that the rotation may drop the few least
    important dimensions that do not divide evenly.
    """
    quantisers = max(2, min(2 * code_bytes, dimension))
    return CodeShape(quantisers, quantisers * max(1, dimension // quantisers))


def list_count(rows: int) -> int:
    """Return the number of lists for `rows` vectors: 1.4 times the square root, fewer where rows are few.

    More lists leave less to scan, and more to choose from.
    """
    most = max(1, rows // LEAST_TRAINING_ROWS_PER_LIST)
    return min(most, max(1, round(LISTS_PER_ROOT * math.sqrt(rows))))


def fixed_ram_bytes(dimension: int, lists: int, shape: CodeShape) -> int:
    """Return what an IVF index holds whatever the rows: rotation, centroids, codebooks, list headers."""
    rotation: int = 4 * dimension * shape.rotated
    codebooks = 4 * shape.rotated * CODE_WORDS
    if lists < COARSE_CODES_FROM_LISTS:
        return rotation + codebooks + lists * (4 * shape.rotated + 48)
    coarse = coarse_quantisers(shape.rotated)
    centroids = lists * (2 * shape.rotated + coarse // 2)
    return rotation + codebooks + centroids + lists * 48 + 4 * shape.rotated * CODE_WORDS


def ivf_ram_bytes(rows: int, dimension: int, lists: int, shape: CodeShape) -> int:
    """Return what an IVF index of `rows` is expected to hold: half a block of padding a list."""
    padded = rows + lists * BLOCK_ROWS // 2
    return padded * shape.bytes + rows * ID_BYTES + fixed_ram_bytes(dimension, lists, shape)


def coarse_quantisers(rotated: int) -> int:
    """Return the sub-quantisers of the centroids' own codes: an even number that divides `rotated`."""
    wanted = max(2, rotated // COARSE_DIMENSIONS_PER_CODE)
    return next((m for m in range(wanted, rotated + 1) if rotated % m == 0 and m % 2 == 0), rotated)
