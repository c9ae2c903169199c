"""Read Parquet files, some rows at a time."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from compactds.indexer.errors import RecordError
from compactds.indexer.sources.lines import damaged, unreadable
from compactds.indexer.sources.options import SKIP_REMEDY, InputFile, Record, Reject
from compactds.indexer.sources.records import DocumentShape

ROWS_PER_BATCH = 256


def read_parquet(file: InputFile, shape: DocumentShape, reject: Reject) -> Iterator[Record]:
    """Yield one record per row, numbered from 1; only the columns that are wanted are read.

    Timestamps come with microseconds. Raise SourceError if there is no column for the text.
    """
    number = 0
    try:
        with pq.ParquetFile(file.path) as table:
            names = table.schema_arrow.names
            shape.check_columns(names, str(file.path))
            for batch in table.iter_batches(ROWS_PER_BATCH, columns=shape.columns(names), use_threads=False):
                for values in _rows(batch, shape.vector_key):
                    number += 1
                    origin = f"{file.path}: row {number}"
                    if isinstance(values, dict):
                        yield Record(origin, values)
                    else:
                        reject(RecordError(str(values), origin=origin, remedy=SKIP_REMEDY), "")
    except (FileNotFoundError, PermissionError) as error:
        raise unreadable(file.path, error) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last for names of columns
        reject(damaged(file.path, error), "")


def _rows(batch: pa.RecordBatch, vector_key: str | None) -> Iterator[dict[str, Any] | Exception]:
    """Yield the rows of a batch as Python values, or what kept one from becoming that."""
    columns = dict(zip(batch.schema.names, map(_in_microseconds, batch.columns), strict=True))
    vectors = columns.pop(vector_key, None) if vector_key else None
    rest = pa.RecordBatch.from_pydict(columns) if columns else None
    rows: Sequence[dict[str, Any] | Exception] = (
        [{} for _ in range(len(batch))] if rest is None else _values(rest)
    )
    for number, row in enumerate(rows):
        if vectors is not None and vector_key and isinstance(row, dict):
            row[vector_key] = _vector(vectors, number)
        yield row


def _values(batch: pa.RecordBatch) -> Sequence[dict[str, Any] | Exception]:
    try:
        return cast(list[dict[str, Any]], batch.to_pylist())
    except (ValueError, OverflowError) as error:
        if len(batch) > 1:
            return [row for number in range(len(batch)) for row in _values(batch.slice(number, 1))]
        if isinstance(error, UnicodeDecodeError):
            return [ValueError("invalid UTF-8")]
        return [ValueError("a date or time is outside the years 1 to 9999")]  # Python has no others


def _in_microseconds(column: pa.Array) -> pa.Array:
    """Round what counts nanoseconds, which Python's types can't, down to microseconds."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(pa.timestamp("us", tz=kind.tz), safe=False)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return column.cast(pa.duration("us"), safe=False)
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return column.cast(pa.time64("us"), safe=False)
    return column


def _vector(column: pa.Array, number: int) -> Any:
    """Return a list of numbers as an array without making Python numbers of it."""
    value = column[number]
    numbers = getattr(value, "values", None)
    return value.as_py() if numbers is None else numbers.to_numpy(zero_copy_only=False)
