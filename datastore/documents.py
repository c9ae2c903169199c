"""Find the rows of documents by their ids or a where expression, without opening a segment's index."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from compactds.datastore.attributes import AttributeColumns
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.deletions import read_deleted
from compactds.datastore.lookup import DocumentLookup
from compactds.datastore.manifest import Manifest, SegmentRecord
from compactds.datastore.segment import ATTRIBUTES_FILE, DOCUMENTS_FILE, SEGMENTS_FOLDER
from compactds.filters import Expression

QUERY_MEMORY = "256MB"
_AT_ONCE = 65_536
_IDS = pa.schema([pa.field("document_id", pa.string(), nullable=False)])
_ROWS = """
    SELECT stored.file_row_number, wanted.file_row_number
    FROM read_parquet($stored, file_row_number = true) AS stored
    JOIN read_parquet($wanted, file_row_number = true) AS wanted
    ON stored.document_id = wanted.document_id
"""


@dataclass(frozen=True, slots=True)
class Held:
    """Say what a segment holds of a list of ids: the live rows, and which places of the list were found."""

    rows: Bitmap
    places: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DocumentRows:
    """Hold what tells which rows of a segment are whose: its columns, its lookup, and its deleted rows."""

    record: SegmentRecord
    path: Path
    attributes: AttributeColumns
    lookup: DocumentLookup
    deleted: Bitmap

    def matching(self, expression: Expression) -> Bitmap:
        """Return the live rows that a bound where expression allows."""
        return self.attributes.filter.rows(expression) & ~self.deleted

    def held(self, ids: "IdList") -> Held:
        """Return the live rows of the documents with these ids.

        The attribute file is read only if the lookup knows the hash of one of them.
        """
        places = np.zeros(len(ids), np.bool_)
        rows = np.zeros(self.record.passages, np.bool_)
        if any(self.lookup.knows(part) for part in ids.parts()):
            deleted = self.deleted.mask()
            for found, wanted in _joined(self.path / ATTRIBUTES_FILE, ids.path):
                live = ~deleted[found]
                rows[found[live]] = True
                places[wanted[live]] = True
        return Held(Bitmap.from_mask(rows), places)

    def documents(self, rows: Bitmap) -> int:
        """Return how many documents the given rows are of; each document's rows are all given, or none."""
        mask = rows.mask()
        return sum(int(mask[part].sum()) for part in self.lookup.all_first_rows())


@contextmanager
def open_documents(root: Path, manifest: Manifest, record: SegmentRecord) -> Iterator[DocumentRows]:
    """Open what finds the rows of documents in a segment; raise DamagedStoreError for damaged files."""
    path = root / SEGMENTS_FOLDER / record.name
    deleted = read_deleted(root, record.deletions, record.passages)
    attributes = AttributeColumns(path / ATTRIBUTES_FILE, manifest.schema)
    try:
        yield DocumentRows(record, path, attributes, DocumentLookup(path / DOCUMENTS_FILE), deleted)
    finally:
        attributes.close()


class IdList:
    """Read a list of document ids that lies in a Parquet file, piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        """Return how many ids there are."""
        return int(pq.read_metadata(self.path).num_rows)

    def parts(self) -> Iterator[list[str]]:
        """Yield all ids in order, some at a time."""
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(_AT_ONCE, columns=_IDS.names):
                yield batch.column(0).to_pylist()

    def at(self, places: Iterable[int]) -> list[str]:
        """Return the ids at these places of the list, in ascending order of place."""
        wanted, found, start = sorted(places), [], 0
        for part in self.parts():
            found += [part[place - start] for place in wanted if start <= place < start + len(part)]
            start += len(part)
        return found


def write_ids(path: Path, parts: Iterable[Iterable[str]]) -> IdList:
    """Write ids, given some at a time, to a Parquet file; they must be text without lone surrogates."""
    with pq.ParquetWriter(path, _IDS, compression="zstd") as writer:
        for part in parts:
            writer.write_table(pa.table({"document_id": list(part)}, schema=_IDS))
    return IdList(path)


def _joined(stored: Path, wanted: Path) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield pairs of arrays: rows of one file, and the places in the other that have the same document id."""
    with tempfile.TemporaryDirectory(dir=wanted.parent, prefix="duckdb-") as folder:
        settings = {"memory_limit": QUERY_MEMORY, "threads": 1, "temp_directory": folder}
        with duckdb.connect(config=settings) as connection:
            result = connection.execute(_ROWS, {"stored": str(stored), "wanted": str(wanted)})
            while pairs := result.fetchmany(_AT_ONCE):
                rows, places = np.array(pairs, np.int64).T
                yield rows, places
