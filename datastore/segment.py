"""A segment: an immutable part of a store, opened for searching."""

from dataclasses import dataclass
from pathlib import Path

from compactds.datastore.ann.base import AnnIndex
from compactds.datastore.ann.flat import open_flat
from compactds.datastore.ann.hnsw import open_hnsw
from compactds.datastore.ann.ivf import open_ivf
from compactds.datastore.attributes import AttributeColumns
from compactds.datastore.errors import DamagedStoreError, StoreFormatError
from compactds.datastore.files import find_damage
from compactds.datastore.lookup import DocumentLookup
from compactds.datastore.manifest import IndexRecord, Manifest, SegmentRecord
from compactds.datastore.passages import PassageReader
from compactds.datastore.vectors import SUFFIXES, ExactVectors

SEGMENTS_FOLDER = "segments"
PASSAGES_FILE = "passages.arrow"
ATTRIBUTES_FILE = "attributes.parquet"
DOCUMENTS_FILE = "documents.lookup"
LEDGER_FILE = "ledger.json"


@dataclass(frozen=True, slots=True)
class Segment:
    """Hold the open parts of one segment; rows are numbered from 0 in it."""

    record: SegmentRecord
    path: Path
    passages: PassageReader
    attributes: AttributeColumns
    vectors: ExactVectors
    index: AnnIndex
    lookup: DocumentLookup

    @property
    def rows(self) -> int:
        """Return the number of passages."""
        return self.record.passages

    def close(self) -> None:
        """Give back files and maps."""
        self.passages.close()
        self.attributes.close()
        self.vectors.close()


def exact_file(dtype: str) -> str:
    """Return the name of the exact vectors' file for a dtype: exact.f16 or exact.f32."""
    return f"exact.{SUFFIXES[dtype]}"


def open_segment(root: Path, manifest: Manifest, record: SegmentRecord) -> Segment:
    """Open one segment; raise DamagedStoreError when a file is missing, truncated or damaged.

    Sizes of all files are checked, checksums of small ones; `verify` checks all of them.
    """
    path = root / SEGMENTS_FOLDER / record.name
    if problems := find_damage(path, record.files, deep=False):
        raise DamagedStoreError(
            problems[0],
            value=str(path),
            remedy="Run `compactds verify`, then restore the store from a copy or build it again.",
        )
    return Segment(
        record=record,
        path=path,
        passages=PassageReader(path / PASSAGES_FILE),
        attributes=AttributeColumns(path / ATTRIBUTES_FILE, manifest.schema),
        vectors=ExactVectors(
            path / exact_file(record.exact_dtype),
            rows=record.passages,
            dimension=manifest.exact_encoder.dimension,
            dtype=record.exact_dtype,
        ),
        index=open_index(path, record.index, dimension=manifest.encoder.dimension),
        lookup=DocumentLookup(path / DOCUMENTS_FILE),
    )


def open_index(folder: Path, record: IndexRecord, *, dimension: int) -> AnnIndex:
    """Open a segment's ANN index by its kind."""
    path = folder / record.file
    try:
        match record.kind:
            case "flat":
                return open_flat(path)
            case "hnsw":
                return open_hnsw(path, dimension=dimension)
            case "ivf":
                return open_ivf(path)
    except RuntimeError as error:
        raise DamagedStoreError(
            f"{path} cannot be read: {str(error).splitlines()[0]}",
            value=str(path),
            remedy="Restore the store from a copy, or build it again.",
        ) from error
    raise StoreFormatError(
        f"{path} is an index of kind {record.kind!r}, which this version of compactds does not know.",
        value=record.kind,
        remedy="Install a version of compactds that reads it, or build the store again.",
    )
