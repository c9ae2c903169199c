"""Answer which rows of a segment a where expression allows, from columns in memory and cached bitmaps."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Protocol

import numpy as np
import pyarrow as pa

from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.bitmaps_cache import ByteLimitedCache
from compactds.datastore.column_memory import ColumnMemory, most_bytes
from compactds.datastore.columns import Column, build_column
from compactds.filters.errors import WhereError
from compactds.filters.evaluate import evaluate
from compactds.filters.limits import size_bytes, walk
from compactds.filters.schema import FieldType
from compactds.filters.where import And, Expression, Not, Or, field_of

_LEAST_COLUMNS_BYTES = 64 * 1024 * 1024
_LEAST_RESULTS_BYTES = 32 * 1024 * 1024
_LARGEST_KEY_BYTES = 256 << 10
"""Expressions larger than this, long lists say, are not kept as keys of the cache."""

MOST_READS = 64
"""Conditions of one expression on columns that are too large for memory."""


class ColumnFile(Protocol):
    """Hand out columns of a file."""

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        ...

    def kind(self, name: str) -> FieldType:
        """Return the type of a field."""
        ...

    def read(self, name: str) -> pa.ChunkedArray:
        """Return the column of a field, strings dictionary-encoded; nulls are missing values."""
        ...

    def parts(self, name: str) -> Iterator[pa.Array]:
        """Yield the column of a field piece by piece, in row order."""
        ...

    def stored(self, name: str) -> tuple[int, int]:
        """Return the bytes of a column in the file before compression, and its elements."""
        ...


def columns_limit_bytes(rows: int) -> int:
    """Return the most that the columns of a segment of `rows` hold in memory, unless told otherwise."""
    return max(_LEAST_COLUMNS_BYTES, 64 * rows)


def results_limit_bytes(rows: int) -> int:
    """Return the most that the cached results of a segment of `rows` hold, unless told otherwise."""
    return max(_LEAST_RESULTS_BYTES, 2 * rows)


class SegmentFilter:
    """Answer which rows of one segment a bound where expression allows, from any number of threads.

    Results hold none but `live` rows; all are, if it is None.
    A column is brought into memory when an expression first names it. All columns together take at most
    `columns_bytes` (by default 64 bytes a row, at least 64 MiB): the least recently used makes room, and
    one that is larger on its own is read from the file instead. Bitmaps of whole expressions and of the
    parts of their outermost $and are cached in `cache_bytes` (by default 2 bytes a row, at least 32 MiB).
    """

    def __init__(
        self,
        file: ColumnFile,
        *,
        live: Bitmap | None = None,
        columns_bytes: int | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        self._file = file
        self._live = live
        self._length = rows = file.rows
        self._columns = ByteLimitedCache[str, Column](
            columns_limit_bytes(rows) if columns_bytes is None else columns_bytes
        )
        self._bitmaps = ByteLimitedCache[Expression, Bitmap](
            results_limit_bytes(rows) if cache_bytes is None else cache_bytes
        )
        self._too_large: frozenset[str] = frozenset()
        self._building = threading.Lock()

    def rows(self, expression: Expression) -> Bitmap:
        """Return the live rows that a bound expression allows.

        A missing value fails every comparison; `$ne`, `$nin` and `$not` are exact complements.
        """
        return self._cached(expression, self._outermost)

    def column(self, name: str) -> Column | None:
        """Return the column of a field, built if need be, or None if it is too large to be held."""
        column = self._columns.get(name)
        if column is not None or name in self._too_large:
            return column
        with self._building:
            column = self._columns.get(name)
            if column is None and name not in self._too_large:
                column = self._built(name)
                if column is None or not self._columns.put(name, column, column.nbytes):
                    self._too_large |= {name}
                    return None
            return column

    def parts(self, name: str) -> Iterator[pa.Array]:
        """Yield the column of a field from the file, piece by piece."""
        return self._file.parts(name)

    @property
    def ram_bytes(self) -> int:
        """Return the bytes held at present: columns and cached bitmaps."""
        return self._columns.nbytes + self._bitmaps.nbytes

    @property
    def limit_bytes(self) -> int:
        """Return the bytes that columns and cached bitmaps may hold at most, for budgets."""
        return self._columns.limit_bytes + self._bitmaps.limit_bytes

    def measure(self, names: Iterable[str]) -> list[ColumnMemory]:
        """Return what each field takes in memory; columns not in memory are built, measured and let go."""
        return [self._measured(name) for name in names]

    def held(self, name: str) -> ColumnMemory | None:
        """Return what a field takes in memory if that is known: it is held, or too large for that."""
        column = self._columns.get(name)
        if column is None and name not in self._too_large:
            return None
        return self._memory(name, column)

    def at_most(self, name: str) -> ColumnMemory:
        """Return the most that a field takes in memory, by what its file says: nothing is built."""
        kind, (stored_bytes, elements) = self._file.kind(name), self._file.stored(name)
        if stored_bytes > self._columns.limit_bytes:
            return self._memory(name, None)
        bound = min(most_bytes(kind, self._length, stored_bytes, elements), self._columns.limit_bytes)
        return ColumnMemory(name, kind, "not in memory", bound, bound / max(self._length, 1))

    def clear(self) -> None:
        """Let go of all columns and bitmaps."""
        self._columns.clear()
        self._bitmaps.clear()

    def _built(self, name: str) -> Column | None:
        """Return a column as it is held in memory, or None if it is too large."""
        if self._file.stored(name)[0] > self._columns.limit_bytes:
            return None
        return build_column(self._file.kind(name), self._file.read(name))

    def _measured(self, name: str) -> ColumnMemory:
        column = self._columns.get(name) or self._built(name)
        if column is not None and column.nbytes > self._columns.limit_bytes:
            column = None
        return self._memory(name, column)

    def _memory(self, name: str, column: Column | None) -> ColumnMemory:
        kind = self._file.kind(name)
        if column is None:
            return ColumnMemory(name, kind, "file", 0, 0.0)
        return ColumnMemory(name, kind, column.form, column.nbytes, column.nbytes / max(self._length, 1))

    def _cached(self, expression: Expression, compute: Callable[[Expression], Bitmap]) -> Bitmap:
        found = self._bitmaps.get(expression)
        if found is None:
            found = compute(expression)
            if self._live is not None:
                found = found & self._live
            key_bytes = size_bytes(expression)
            if key_bytes <= _LARGEST_KEY_BYTES:
                self._bitmaps.put(expression, found, found.nbytes + key_bytes)
        # What the caller unpacks belongs to the caller's bitmap, so that the cache keeps its size.
        return Bitmap(found.bits, found.length, found.count)

    def _outermost(self, expression: Expression) -> Bitmap:
        self._check_reads(expression)
        if isinstance(expression, And):
            return self._all(self._cached(part, self._evaluated) for part in expression.parts)
        return self._evaluated(expression)

    def _check_reads(self, expression: Expression) -> None:
        """Raise WhereError for more conditions on columns that stay on disk than are worth waiting for."""
        conditions = [node for node, _ in walk(expression) if not isinstance(node, And | Or | Not)]
        if len(conditions) <= MOST_READS:
            return
        names = [field_of(condition) for condition in conditions]
        unheld = {name for name in names if self.column(name) is None}
        reads = sum(name in unheld for name in names)
        if reads > MOST_READS:
            raise WhereError(
                f"where expression: {reads:,} conditions on {', '.join(sorted(unheld))}, of which no more "
                f"than {MOST_READS} are answered, because each reads the column from disk.",
                value=reads,
                remedy="Use $in for many values of one field.",
            )

    def _evaluated(self, expression: Expression) -> Bitmap:
        match expression:
            case And(parts):
                return self._all(map(self._evaluated, parts))
            case Or(parts):
                return reduce(or_, map(self._evaluated, parts))
            case Not(part):
                return ~self._evaluated(part)
        return self._tested(expression)

    def _all(self, parts: Iterable[Bitmap]) -> Bitmap:
        """Return the rows in all parts; parts after an empty intersection are not computed."""
        found = Bitmap.all(self._length)
        for part in parts:
            found = found & part
            if not found.count:
                break
        return found

    def _tested(self, condition: Expression) -> Bitmap:
        name = field_of(condition)
        column = self.column(name)
        if column is not None:
            return column.allowed(condition)
        masks = [evaluate(condition, _Part(part), len(part)) for part in self._file.parts(name)]
        return Bitmap.from_mask(np.concatenate([np.empty(0, np.bool_), *masks]))


@dataclass(frozen=True, slots=True)
class _Part:
    """Hand out a piece of the one column that a condition names."""

    array: pa.Array

    def column(self, name: str) -> pa.Array:  # noqa: ARG002 - there is but one
        return self.array
