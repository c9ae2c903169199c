"""Typed attribute columns: Parquet on disk, loaded by column when a where expression names one."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.errors import DamagedStoreError
from compactds.filters.evaluate import evaluate
from compactds.filters.schema import FieldType, Schema
from compactds.filters.where import Expression

BUILT_IN_FIELDS = {"document_id": FieldType.STRING, "title": FieldType.STRING, "source": FieldType.STRING}
"""Fields every passage has, which can be filtered on like attributes."""

ARROW_TYPES = {
    FieldType.BOOL: pa.bool_(),
    FieldType.INT64: pa.int64(),
    FieldType.FLOAT64: pa.float64(),
    FieldType.STRING: pa.string(),
    FieldType.DATE: pa.date32(),
    FieldType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    FieldType.STRING_LIST: pa.list_(pa.string()),
    FieldType.INT64_LIST: pa.list_(pa.int64()),
}

ROWS_PER_GROUP = 65_536


def full_schema(attributes: Mapping[str, FieldType]) -> Schema:
    """Return the schema of everything a where expression can name: built-in fields and attributes."""
    return Schema({**BUILT_IN_FIELDS, **attributes})


def arrow_schema(schema: Schema) -> pa.Schema:
    """Return the Arrow schema of the attribute file; every field may be missing."""
    return pa.schema([pa.field(name, ARROW_TYPES[schema[name]]) for name in schema])


class AttributeColumns:
    """Hand out columns of one segment; each is read once, when first asked for, and kept.

    Strings are dictionary-encoded in memory, so that comparing one touches every distinct value once.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        self._path = path
        self._map = pa.memory_map(str(path))  # held open: a newer build may remove the file meanwhile
        self._schema = schema
        self._columns: dict[str, pa.Array] = {}

    def column(self, name: str) -> pa.Array:
        """Return the column of a field, typed as the schema says; nulls are missing values."""
        cached = self._columns.get(name)
        if cached is None:
            cached = self._columns[name] = self._read(name)
        return cached

    @property
    def ram_bytes(self) -> int:
        """Return how much memory the columns read so far hold."""
        return sum(column.nbytes for column in list(self._columns.values()))

    def close(self) -> None:
        """Let go of the file and of the columns read so far."""
        self._columns.clear()
        self._map.close()

    def _read(self, name: str) -> pa.Array:
        kind = self._schema[name]
        encoded = [name] if kind is FieldType.STRING else []
        try:
            file = pq.ParquetFile(self._map, read_dictionary=encoded)
            column = file.read(columns=[name]).column(0)
        except (pa.ArrowException, OSError) as error:
            raise DamagedStoreError(
                f"{self._path} cannot be read: {error}.",
                value=str(self._path),
                remedy="Run `compactds verify`, then restore the store from a copy or build it again.",
            ) from error
        if kind is FieldType.STRING:
            column = column.unify_dictionaries()
        combined = column.combine_chunks()
        return combined.combine_chunks() if isinstance(combined, pa.ChunkedArray) else combined


class SegmentFilter:
    """Answer which rows of one segment a bound where expression allows."""

    def __init__(self, columns: AttributeColumns, rows: int) -> None:
        self._columns = columns
        self._rows = rows

    def rows(self, expression: Expression) -> Bitmap:
        """Return the allowed rows of a bound expression."""
        return Bitmap.from_mask(evaluate(expression, self._columns, self._rows))
