"""The distinct values of a column in ascending order: the rank of a value is its code.

Every comparison of a column is a run of codes, because codes are in the order of the values.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from sys import getsizeof
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compactds.filters.schema import FieldType

Codes = NDArray[np.int64]

_PASSED_PER_SEARCH = 200
"""A search among all distinct strings takes as long as passing so many of them in one pass."""

_SIGNPOST_EVERY = 64
"""One string in so many is held as a Python object, too, so that most steps of a search are quick."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_STORED = {
    FieldType.BOOL: np.uint8,
    FieldType.INT64: np.int64,
    FieldType.FLOAT64: np.float64,
    FieldType.DATE: np.int32,
    FieldType.TIMESTAMP: np.int64,
}


class Values(Protocol):
    """Find codes among distinct values, of which there are `len(values)`."""

    @property
    def nbytes(self) -> int:
        """Return the bytes the values hold."""

    def __len__(self) -> int: ...

    def left(self, value: Any) -> int:
        """Return how many values are below this one."""

    def right(self, value: Any) -> int:
        """Return how many values are at most this one."""

    def find(self, wanted: Sequence[Any]) -> Codes:
        """Return the codes of those wanted values that there are, in ascending order, without repeats."""

    def value(self, code: int) -> Any:
        """Return the value of a code as JSON has it, dates and times in ISO 8601."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Hold distinct numbers, dates (days), timestamps (microseconds) or truth values."""

    kind: FieldType
    stored: NDArray[Any]

    @property
    def nbytes(self) -> int:
        """Return the bytes the values hold."""
        return self.stored.nbytes

    def __len__(self) -> int:
        return len(self.stored)

    def left(self, value: Any) -> int:
        """Return how many values are below this one."""
        return int(np.searchsorted(self.stored, self._array((value,))[0], "left"))

    def right(self, value: Any) -> int:
        """Return how many values are at most this one."""
        return int(np.searchsorted(self.stored, self._array((value,))[0], "right"))

    def find(self, wanted: Sequence[Any]) -> Codes:
        """Return the codes of those wanted values that there are."""
        if not len(self.stored):
            return np.empty(0, np.int64)
        array = self._array(wanted)
        places = np.minimum(np.searchsorted(self.stored, array), len(self.stored) - 1)
        return np.unique(places[self.stored[places] == array])

    def value(self, code: int) -> Any:
        """Return the value of a code as JSON has it."""
        stored = self.stored[code].item()
        match self.kind:
            case FieldType.BOOL:
                return bool(stored)
            case FieldType.DATE:
                return date.fromordinal(_EPOCH_DAY + stored).isoformat()
            case FieldType.TIMESTAMP:
                return (_EPOCH + timedelta(microseconds=stored)).isoformat()
        return stored

    def _array(self, values: Sequence[Any]) -> NDArray[Any]:
        return np.array([_stored(value) for value in values], dtype=_STORED[self.kind])


def _stored(value: Any) -> Any:
    """Return a bound value as the number that a column holds for it."""
    match value:
        case datetime():
            return (value - _EPOCH) // timedelta(microseconds=1)
        case date():
            return value.toordinal() - _EPOCH_DAY
    return value


class Strings:
    """Hold distinct strings in the order of their UTF-8 bytes, which is that of their code points."""

    __slots__ = ("_bytes", "_ends", "_signposts", "stored")

    def __init__(self, stored: pa.StringArray) -> None:
        self.stored = stored
        _, ends, data = stored.buffers()
        self._ends = memoryview(ends).cast("i")[stored.offset :] if len(stored) else memoryview(b"")
        self._bytes = memoryview(data or b"")
        self._signposts = [self._encoded(code) for code in range(0, len(stored), _SIGNPOST_EVERY)]

    @property
    def nbytes(self) -> int:
        """Return the bytes the values hold."""
        return int(self.stored.nbytes) + sum(map(getsizeof, self._signposts))

    def __len__(self) -> int:
        return len(self.stored)

    def left(self, value: Any) -> int:
        """Return how many values are below this one."""
        text = value.encode()
        places = self._between(bisect_left(self._signposts, text))
        return bisect_left(self._all, text, *places, key=self._encoded)

    def right(self, value: Any) -> int:
        """Return how many values are at most this one."""
        text = value.encode()
        places = self._between(bisect_right(self._signposts, text))
        return bisect_right(self._all, text, *places, key=self._encoded)

    def find(self, wanted: Sequence[Any]) -> Codes:
        """Return the codes of those wanted values that there are."""
        if len(wanted) * _PASSED_PER_SEARCH > len(self.stored):
            found = pc.is_in(self.stored, value_set=pa.array(wanted, self.stored.type))
            return np.flatnonzero(found.to_numpy(zero_copy_only=False))
        codes = [
            code for code, value in ((self.left(value), value) for value in wanted) if self._is(code, value)
        ]
        return np.array(sorted(codes), dtype=np.int64)

    def starting_with(self, prefix: str) -> tuple[int, int]:
        """Return the run of codes, from and up to, of the values that start with a prefix."""
        start = prefix.encode()
        size = len(start)
        stop = bisect_right(self._all, start, key=lambda code: self._encoded(code)[:size])
        return self.left(prefix), stop

    def value(self, code: int) -> Any:
        """Return the value of a code."""
        return self.stored[code].as_py()

    @property
    def _all(self) -> range:
        return range(len(self.stored))

    def _between(self, signpost: int) -> tuple[int, int]:
        """Return the places before one signpost and after the one before it."""
        end = signpost * _SIGNPOST_EVERY
        return max(end - _SIGNPOST_EVERY, 0), min(end, len(self.stored))

    def _encoded(self, code: int) -> bytes:
        return bytes(self._bytes[self._ends[code] : self._ends[code + 1]])

    def _is(self, code: int, value: str) -> bool:
        return code < len(self.stored) and self._encoded(code) == value.encode()


def ranked(kind: FieldType, column: pa.ChunkedArray) -> tuple[Values, NDArray[np.int64]]:
    """Return the distinct values of a scalar column, and every row's code; missing is one past the last.

    NaN is missing, and zero has one sign.
    """
    distinct, places = _encoded(column if kind is not FieldType.FLOAT64 else _without_nan(column))
    order = pc.sort_indices(distinct)  # nulls at the end
    count = len(distinct) - distinct.null_count
    ranks = np.full(len(distinct) + 1, count, np.int64)
    ranks[order.to_numpy()[:count]] = np.arange(count)
    return _values(kind, distinct.take(order[:count])), ranks[places]


def _encoded(column: pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return distinct values in any order, and every row's place among them; missing is one past the last."""
    if not len(column):
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        return pa.array([], kind), np.empty(0, np.int64)
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    chunks = encoded.unify_dictionaries().chunks
    distinct = chunks[0].dictionary
    places = [pc.fill_null(chunk.indices.cast(pa.int64()), len(distinct)) for chunk in chunks]
    return distinct, np.concatenate([place.to_numpy(zero_copy_only=False) for place in places])


def _without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    missing = pa.scalar(None, pa.float64())
    return pc.add(pc.if_else(pc.is_nan(column), missing, column), 0.0)  # -0.0 + 0.0 is 0.0


def _values(kind: FieldType, distinct: pa.Array) -> Values:
    if kind is FieldType.STRING:
        return Strings(distinct.cast(pa.string()))
    if kind is FieldType.BOOL:
        distinct = distinct.cast(pa.uint8())
    stored = distinct.to_numpy(zero_copy_only=False)
    if kind is FieldType.TIMESTAMP:
        stored = stored.astype("datetime64[us]").view(np.int64)
    elif kind is FieldType.DATE:
        stored = distinct.cast(pa.int32()).to_numpy(zero_copy_only=False)
    return Numbers(kind, np.array(stored, _STORED[kind]))
