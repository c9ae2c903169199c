"""Typed attribute columns: Parquet on disk, and what a where expression names of them in memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.errors import DamagedStoreError, StoreError
from compactds.datastore.segment_filter import SegmentFilter
from compactds.filters.schema import FieldType, Schema

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
    """Read columns of one segment's attribute file; `filter` answers where expressions over its `live` rows.

    A field of the schema that the file does not have came to the store after the segment: it is missing in
    all rows.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        *,
        live: Bitmap | None = None,
        columns_bytes: int | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        self._path = path
        self._schema = schema
        try:
            self._map = pa.memory_map(str(path))  # held open: a newer build may remove the file meanwhile
        except OSError as error:
            raise self._damaged(error) from error
        self._stored: frozenset[str] = frozenset()
        with self._opened() as file:
            self._stored = frozenset(file.schema_arrow.names)
        self.filter = SegmentFilter(self, live=live, columns_bytes=columns_bytes, cache_bytes=cache_bytes)

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        with self._opened() as file:
            return int(file.metadata.num_rows)

    @property
    def ram_bytes(self) -> int:
        """Return how much memory the filter holds at present."""
        return self.filter.ram_bytes

    def kind(self, name: str) -> FieldType:
        """Return the type of a field."""
        return self._schema[name]

    def read(self, name: str) -> pa.ChunkedArray:
        """Return the column of a field, strings dictionary-encoded; nulls are missing values."""
        with self._opened(name) as file:
            if name not in self._stored:
                return pa.chunked_array(
                    self._missing(name, file.metadata.num_rows), ARROW_TYPES[self.kind(name)]
                )
            return file.read(columns=[name]).column(name)  # by name: "a" also selects "a.b"

    def column(self, name: str) -> pa.Array:
        """Return the column of a field as one array."""
        column = self.read(name)
        if pa.types.is_dictionary(column.type):
            column = column.unify_dictionaries()
        combined = column.combine_chunks()
        return combined.combine_chunks() if isinstance(combined, pa.ChunkedArray) else combined

    def parts(self, name: str) -> Iterator[pa.Array]:
        """Yield the column of a field in pieces of at most ROWS_PER_GROUP rows, in row order."""
        with self._opened(name) as file:
            if name not in self._stored:
                yield from self._missing(name, file.metadata.num_rows)
                return
            for batch in file.iter_batches(ROWS_PER_GROUP, columns=[name]):
                yield batch.column(name)

    def tables(self) -> Iterator[pa.Table]:
        """Yield all fields of the schema in pieces of at most ROWS_PER_GROUP rows, in row order."""
        with self._opened() as file:
            for batch in file.iter_batches(ROWS_PER_GROUP):
                columns = [
                    batch.column(name)
                    if name in batch.schema.names
                    else next(self._missing(name, batch.num_rows))
                    for name in self._schema
                ]
                yield pa.Table.from_arrays(columns, schema=arrow_schema(self._schema))

    def stored(self, name: str) -> tuple[int, int]:
        """Return the bytes of a column in the file before compression, and its elements, missing ones too."""
        with self._opened() as file:
            metadata = file.metadata
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            places = [
                place
                for place in range(metadata.num_columns)
                if metadata.schema.column(place).path in (name, f"{name}.list.element")
            ]
            parts = [group.column(place) for group in groups for place in places]
            return sum(part.total_uncompressed_size for part in parts), sum(part.num_values for part in parts)

    def close(self) -> None:
        """Let go of the file and of the columns read so far."""
        self.filter.clear()
        self._map.close()

    def _missing(self, name: str, rows: int) -> Iterator[pa.Array]:
        """Yield missing values for all rows: the field is younger than the segment."""
        whole = pa.nulls(min(rows, ROWS_PER_GROUP), ARROW_TYPES[self.kind(name)])
        for start in range(0, rows, ROWS_PER_GROUP):
            yield whole.slice(0, rows - start)

    @contextmanager
    def _opened(self, name: str | None = None) -> Iterator[pq.ParquetFile]:
        """Open the file, with strings of field `name` dictionary-encoded; say what is wrong with it."""
        if self._map.closed:
            raise StoreError(f"the store of {self._path} is closed.", remedy="Open it again.")
        encoded = [name] if name in self._stored and self._schema[name] is FieldType.STRING else []
        try:
            yield pq.ParquetFile(self._map, read_dictionary=encoded, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DamagedStoreError:
        return DamagedStoreError(
            f"{self._path} cannot be read: {error}.",
            value=str(self._path),
            remedy="Run `compactds verify`, then restore the store from a copy or build it again.",
        )
