"""Bound the memory of a column by what its file says, before the column is built."""

from dataclasses import dataclass

import numpy as np

from compactds.datastore.bitmaps import packed_bytes
from compactds.filters.schema import FieldType

_VALUE_BYTES = {FieldType.BOOL: 1, FieldType.DATE: 4, FieldType.STRING: 4}
"""Bytes of a distinct value, in the file as well as in memory: of a string, besides its text."""
_SIGNPOST_BYTES = 48
"""What a string takes once more if it is a signpost, besides its text."""


@dataclass(frozen=True, slots=True)
class ColumnMemory:
    """Hold what a field takes in memory once a where expression has named it: its form and bytes.

    A column too large to be held has the form "file": it is read from disk by every query that names it.
    """

    name: str
    kind: FieldType
    form: str
    ram_bytes: int
    bytes_per_row: float


def most_bytes(kind: FieldType, rows: int, stored_bytes: int, elements: int) -> int:
    """Return the most that a column takes in memory, by its size and elements in the file, uncompressed.

    A distinct value is in the file at least once, which bounds how many there are and what they take.
    """
    least = _VALUE_BYTES.get(kind.element, 8)
    distinct = min(elements if kind.is_list else rows, stored_bytes // least)
    if kind is FieldType.BOOL:
        distinct = min(distinct, 2)
    values = distinct * least
    if kind.element is FieldType.STRING:
        values = stored_bytes + stored_bytes // 64 + (distinct // 64 + 1) * _SIGNPOST_BYTES
    counts = (distinct + 1) * np.min_scalar_type(max(rows, elements)).itemsize
    if kind.is_list:
        return values + counts + 4 * elements + packed_bytes(rows)
    return values + counts + rows * np.min_scalar_type(distinct).itemsize
