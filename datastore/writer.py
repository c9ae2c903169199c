"""Write one segment: the only code that creates what the rest of this package reads."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from compactds.datastore.ann.choose import IndexPlan
from compactds.datastore.ann.flat import build_flat
from compactds.datastore.ann.hnsw import build_hnsw
from compactds.datastore.ann.ivf_build import LEAST_TRAINING_ROWS, build_ivf, training_rows
from compactds.datastore.attributes import ROWS_PER_GROUP, arrow_schema
from compactds.datastore.calibration import calibrate, held_out_rows, hold_out
from compactds.datastore.costs import measure_costs
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.errors import StoreError
from compactds.datastore.files import FileRecord, record_file, sync_file, sync_folder, write_array
from compactds.datastore.lookup import ENTRY, lookup_entries, sort_lookup
from compactds.datastore.manifest import CalibrationPoint, IndexRecord, SegmentRecord
from compactds.datastore.passages import PassageWriter
from compactds.datastore.segment import (
    ATTRIBUTES_FILE,
    DOCUMENTS_FILE,
    LEDGER_FILE,
    PASSAGES_FILE,
    exact_file,
    open_index,
)
from compactds.datastore.vectors import EXACT_DTYPES, ExactVectors
from compactds.filters.schema import Schema

INDEX_FILES = {"flat": "ann.faiss", "ivf": "ann.faiss", "hnsw": "ann.hnsw"}


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """Name the finished row files of a segment, however long ago they were written."""

    folder: Path
    rows: int
    documents: int
    dimension: int
    dtype: str

    def open_vectors(self) -> ExactVectors:
        """Open the vectors."""
        return ExactVectors(
            self.folder / exact_file(self.dtype), rows=self.rows, dimension=self.dimension, dtype=self.dtype
        )


class SegmentWriter:
    """Write the row files of a segment into a folder: passages, attributes, exact vectors, lookup.

    Rows are appended in order, in pieces of any size, and leave memory again. A context manager: the
    files are finished when it ends.
    """

    def __init__(self, folder: Path, schema: Schema, *, dimension: int, dtype: str) -> None:
        self.folder = folder
        self.rows = 0
        self.documents = 0
        self._appended_documents = 0
        self._last_document: str | None = None
        self._dimension = dimension
        self._dtype = dtype
        self._passages = PassageWriter(folder / PASSAGES_FILE)
        self._attributes = pq.ParquetWriter(
            folder / ATTRIBUTES_FILE, arrow_schema(schema), compression="zstd", write_page_checksum=True
        )
        self._pending: list[pa.Table] = []
        self._vectors: BinaryIO = (folder / exact_file(dtype)).open("wb")
        self._lookup: BinaryIO = (folder / DOCUMENTS_FILE).open("wb")

    def append(self, passages: pa.Table, attributes: pa.Table, vectors: Vectors) -> None:
        """Add rows: equally many passages, attribute rows and vectors, shape (n, dimension)."""
        if not len(passages) == len(attributes) == len(vectors):
            raise ValueError(
                f"{len(passages)} passages, {len(attributes)} attributes, {len(vectors)} vectors"
            )
        self._passages.append(passages)
        self._pending.append(attributes)
        if sum(map(len, self._pending)) >= ROWS_PER_GROUP:
            self._write_attributes()
        write_array(self._vectors, self._stored(vectors))
        names = passages.column("document_id")
        firsts = np.flatnonzero(self._begins(names, passages.column("position").to_numpy())).tolist()
        entries = lookup_entries((names[offset].as_py(), self.rows + offset) for offset in firsts)
        write_array(self._lookup, entries)
        self._appended_documents += len(entries)
        self.rows += len(passages)

    def __enter__(self) -> "SegmentWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish all row files, or just let go of them after an error."""
        if kind is None:
            self._passages.finish()
            self._write_attributes(all_rows=True)
        self._passages.close()
        self._attributes.close()
        self._vectors.close()
        self._lookup.close()
        if kind is None:
            self.documents = sort_lookup(self.folder / DOCUMENTS_FILE)
            self._check_sizes()

    def written(self) -> WrittenRows:
        """Return the rows just written."""
        return WrittenRows(self.folder, self.rows, self.documents, self._dimension, self._dtype)

    def open_vectors(self) -> ExactVectors:
        """Open the vectors just written."""
        return self.written().open_vectors()

    def _begins(self, names: pa.ChunkedArray, positions: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Tell which rows begin a document: the first of its passages need not be that at position 0."""
        begins: NDArray[np.bool_] = positions == 0
        if len(names):
            begins[0] |= names[0].as_py() != self._last_document
            begins[1:] |= pc.not_equal(names.slice(1), names.slice(0, len(names) - 1)).to_numpy()
            self._last_document = names[-1].as_py()
        return begins

    def _stored(self, vectors: Vectors) -> NDArray[np.floating]:
        """Return the vectors as they are stored; raise StoreError for ones that cannot be."""
        if vectors.ndim != 2 or vectors.shape[1] != self._dimension:
            raise ValueError(f"vectors of shape {vectors.shape}, expected (n, {self._dimension})")
        with np.errstate(over="ignore"):
            stored: NDArray[np.floating] = np.ascontiguousarray(vectors, dtype=EXACT_DTYPES[self._dtype])
        bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
        if len(bad):
            raise StoreError(
                f"{len(bad)} of {len(stored)} vectors are not finite in {self._dtype}, "
                f"the first of them that of row {self.rows + int(bad[0])}.",
                value=len(bad),
                remedy="Leave them out, or set exact.dtype = 'float32' if they are large.",
            )
        return stored

    def _check_sizes(self) -> None:
        """Raise StoreError if a file does not hold all that was written to it."""
        itemsize = np.dtype(EXACT_DTYPES[self._dtype]).itemsize
        for name, expected in (
            (exact_file(self._dtype), self.rows * self._dimension * itemsize),
            (DOCUMENTS_FILE, self._appended_documents * ENTRY.itemsize),
        ):
            size = (self.folder / name).stat().st_size
            if size != expected:
                raise StoreError(
                    f"{self.folder / name} has {size} bytes, {expected} were written.",
                    value=size,
                    remedy="Check the disk and how full it is, then run the same command again.",
                )

    def _write_attributes(self, *, all_rows: bool = False) -> None:
        """Write whole groups of rows, so that the file's bytes do not depend on the pieces they came in."""
        if not self._pending:
            return
        rows = pa.concat_tables(self._pending)
        whole = len(rows) if all_rows else len(rows) - len(rows) % ROWS_PER_GROUP
        for start in range(0, whole, ROWS_PER_GROUP):
            group = rows.slice(start, min(ROWS_PER_GROUP, whole - start))
            self._attributes.write_table(group.combine_chunks(), row_group_size=ROWS_PER_GROUP)
        self._pending = [rows.slice(whole)] if whole < len(rows) else []


def write_index(folder: Path, plan: IndexPlan, vectors: ExactVectors, *, seed: int = 0) -> IndexRecord:
    """Build the planned index over all vectors, read from disk block by block, and record it.

    Only the training sample is held in memory besides the index itself.
    """
    path = folder / INDEX_FILES[plan.kind]
    blocks = (block for _, block in vectors.blocks(release=True))
    parameters: dict[str, int] = {}
    match plan.kind:
        case "flat":
            build_flat(path, blocks, dimension=vectors.dimension)
        case "hnsw":
            build_hnsw(path, blocks, dimension=vectors.dimension, rows=vectors.rows)
        case "ivf":
            sample = _sample(vectors, training_rows(vectors.rows, vectors.dimension, plan.lists), seed)
            parameters = build_ivf(
                path,
                blocks,
                sample=sample,
                lists=plan.lists,
                shape=plan.shape(vectors.dimension),
            )
    return IndexRecord(plan.kind, path.name, parameters, plan.ram_bytes, plan.reason)


def finish_segment(
    writer: SegmentWriter | WrittenRows,
    index: IndexRecord,
    *,
    proposing: ExactVectors,
    deciding: ExactVectors,
    dtype: str,
    ledger: Mapping[str, Any],
    extra_files: Iterable[str] = (),
) -> SegmentRecord:
    """Calibrate the index, write the ledger, and return the record of the finished segment.

    The segment's name carries a digest of its content; the ledger, which holds timings, is not in it.
    """
    opened = open_index(writer.folder, index, dimension=proposing.dimension)
    points: tuple[CalibrationPoint, ...] = ()
    if not opened.exact:
        held_out = hold_out(proposing, deciding, held_out_rows(deciding.rows))
        points = calibrate(opened, deciding, held_out)
    costs = measure_costs(opened, proposing, deciding)
    index = replace(index, ram_bytes=opened.ram_bytes)
    content = (PASSAGES_FILE, ATTRIBUTES_FILE, DOCUMENTS_FILE, exact_file(dtype), index.file, *extra_files)
    files = {name: _synced_record(writer.folder / name) for name in content}
    digest = hashlib.sha256(
        "".join(f"{name}:{files[name].sha256}\n" for name in sorted(files)).encode()
    ).hexdigest()
    (writer.folder / LEDGER_FILE).write_text(json.dumps(ledger, indent=1, ensure_ascii=False) + "\n")
    files[LEDGER_FILE] = _synced_record(writer.folder / LEDGER_FILE)
    sync_folder(writer.folder)
    return SegmentRecord(
        name=digest[:16],
        passages=writer.rows,
        documents=writer.documents,
        exact_dtype=dtype,
        index=index,
        files=files,
        calibration=points,
        costs=costs,
    )


def _sample(vectors: ExactVectors, count: int, seed: int) -> Vectors:
    """Return up to `count` rows to train on, without those that calibrate, if there are enough others."""
    rows = np.delete(np.arange(vectors.rows), held_out_rows(vectors.rows))
    if len(rows) < LEAST_TRAINING_ROWS:
        rows = np.arange(vectors.rows)
    if len(rows) > count:
        rows = np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))
    sample = np.empty((len(rows), vectors.dimension), np.float32)
    done = 0
    for _, block in vectors.blocks(rows, release=True):
        sample[done : done + len(block)] = block
        done += len(block)
    return sample


def _synced_record(path: Path) -> FileRecord:
    sync_file(path)
    return record_file(path)
