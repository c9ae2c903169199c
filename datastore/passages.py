"""Passages on disk: an Arrow IPC file of small compressed batches, read by row.

Sixteen rows a batch keeps the file near 0.4 of the raw text and a passage a fraction of a millisecond
away, without decompressing what was not asked for. Every batch carries a checksum of its rows and of its
place, so that a damaged one is told instead of returned.
"""

import threading
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64

from compactds.datastore.errors import DamagedStoreError, StoreError
from compactds.datastore.records import Passage

ROWS_PER_BATCH = 16
CHECKSUM = b"xxh3"

PASSAGE_SCHEMA = pa.schema(
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("attributes", pa.string(), nullable=False),  # a JSON object
    ]
)


def passage_id(document_id: str, position: int) -> str:
    """Return the id of a document's passage at `position`, counted from 0."""
    return f"{document_id}#{position}"


class PassageWriter:
    """Append passages to a new file, whatever the size of the pieces they come in."""

    def __init__(self, path: Path) -> None:
        options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=6))
        self._writer = pa.ipc.new_file(str(path), PASSAGE_SCHEMA, options=options)
        self._pending = PASSAGE_SCHEMA.empty_table()
        self._batches = 0

    def append(self, table: pa.Table) -> None:
        """Add rows with the columns of PASSAGE_SCHEMA."""
        rows = pa.concat_tables([self._pending, table.select(PASSAGE_SCHEMA.names).cast(PASSAGE_SCHEMA)])
        whole = len(rows) - len(rows) % ROWS_PER_BATCH
        self._write(rows.slice(0, whole))
        self._pending = rows.slice(whole)

    def finish(self) -> None:
        """Write the rows that do not fill a batch."""
        self._write(self._pending)
        self._pending = PASSAGE_SCHEMA.empty_table()

    def close(self) -> None:
        """Write the file's footer and close it."""
        self._writer.close()

    def _write(self, rows: pa.Table) -> None:
        if not len(rows):
            return
        (whole,) = rows.combine_chunks().to_batches()
        for start in range(0, len(rows), ROWS_PER_BATCH):
            # Taking copies, so that the file's bytes do not depend on the pieces the rows came in.
            batch = whole.take(pa.array(range(start, min(start + ROWS_PER_BATCH, len(rows)))))
            self._writer.write_batch(batch, {CHECKSUM: _checksum(batch, self._batches)})
            self._batches += 1


class PassageReader:
    """Read passages by row; every thread has a reader of its own over one memory map."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        try:
            self._map: pa.MemoryMappedFile | None = pa.memory_map(str(path))
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error
        reader = self._reader()
        if not reader.schema.equals(PASSAGE_SCHEMA):
            raise self._damaged("its columns are not those of passages")
        self.batches: int = reader.num_record_batches

    def fetch(self, rows: Sequence[int]) -> list[Passage]:
        """Return the passages at `rows`, in that order; each batch is decompressed once.

        Raises DamagedStoreError for a batch that fails its checksum, and for a row the file does not hold.
        """
        batches: dict[int, Any] = {}
        passages = []
        for row in rows:
            number, offset = divmod(int(row), ROWS_PER_BATCH)
            if number not in batches:
                batches[number] = self._batch(number)
            if offset >= batches[number].num_rows:
                raise self._damaged(f"it has no row {row}")
            try:
                passages.append(_passage(batches[number], offset))
            except (ValueError, TypeError) as error:  # of a file without checksums
                raise self._damaged(error) from error
        return passages

    def find(self, document_id: str, position: int, first: int, last: int) -> tuple[int, Passage]:
        """Return the row of a document's passage at `position`, and what is there: of `first` to `last`.

        The passages of a document follow each other from row `first` on, in the order of their positions;
        some positions may be missing, of passages that were left out. It is for the caller to compare the
        passage's id: something else is returned if the document has no such passage.
        """

        def is_reached(row: int) -> bool:
            (passage,) = self.fetch([row])
            return passage.document_id != document_id or passage.position >= position

        (passage,) = self.fetch([last])  # where it is if no position is missing
        if (passage.document_id, passage.position) == (document_id, position):
            return last, passage
        row = min(bisect_left(range(last), True, first, key=is_reached), last)
        return row, self.fetch([row])[0]

    def table(self, rows: NDArray[np.int64]) -> pa.Table:
        """Return the given rows, which ascend, with the columns of PASSAGE_SCHEMA, as they are stored.

        Raises DamagedStoreError as `fetch` does.
        """
        numbers, offsets = np.divmod(rows, ROWS_PER_BATCH)
        batches = [
            self._batch(int(number)).take(pa.array(offsets[numbers == number]))
            for number in np.unique(numbers)
        ]
        return pa.Table.from_batches(batches, PASSAGE_SCHEMA)

    def close(self) -> None:
        """Let go of the memory map; reads after this fail, those that run keep it until they end."""
        self._map = None
        self._local = threading.local()

    def _batch(self, number: int) -> pa.RecordBatch:
        reader = self._reader()
        if not 0 <= number < self.batches:
            raise self._damaged(f"it has no batch {number}")
        try:
            batch, metadata = reader.get_batch_with_custom_metadata(number)
            expected = metadata[CHECKSUM] if metadata is not None and CHECKSUM in metadata else None
        except (pa.ArrowException, ValueError, OSError) as error:
            raise self._damaged(error) from error
        if expected is not None and _checksum(batch, number) != expected:
            raise self._damaged(f"batch {number} fails its checksum")
        return batch

    def _reader(self) -> Any:
        reader = getattr(self._local, "reader", None)
        if reader is None:
            file = self._map
            if file is None:
                raise StoreError(f"the store of {self._path} is closed.", remedy="Open it again.")
            try:
                reader = self._local.reader = pa.ipc.open_file(file)
            except (pa.ArrowException, ValueError, OSError) as error:
                raise self._damaged(error) from error
        return reader

    def _damaged(self, error: Exception | str) -> DamagedStoreError:
        return DamagedStoreError(
            f"{self._path} cannot be read: {error}.",
            value=str(self._path),
            remedy="Run `compactds verify`, then restore the store from a copy or build it again.",
        )


def _checksum(batch: pa.RecordBatch, number: int) -> bytes:
    """Return the checksum of a batch and its number, over exactly the bytes that its values are made of."""
    rows = batch.num_rows
    checksum = xxh3_64(f"{number}:{rows}:{sum(column.null_count for column in batch.columns)}".encode())
    for column in batch.columns:
        first, *others = (memoryview(buffer or b"") for buffer in column.buffers()[1:])
        if others:  # text: where each value ends, then all values
            ends = first[: 4 * (rows + 1)]
            checksum.update(ends)
            checksum.update(others[0][: int.from_bytes(ends[-4:], "little")])
        else:
            checksum.update(first[: rows * column.type.byte_width])
    return checksum.hexdigest().encode()


def _passage(batch: pa.RecordBatch, offset: int) -> Passage:
    (row,) = batch.slice(offset, 1).to_pylist()
    row["attributes"] = orjson.loads(row["attributes"])
    return Passage(id=passage_id(row["document_id"], row["position"]), **row)
