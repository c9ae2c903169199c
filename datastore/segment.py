"""A segment: an immutable part of a store, opened for searching."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from compactds.datastore.ann.base import AnnIndex
from compactds.datastore.ann.flat import open_flat
from compactds.datastore.ann.hnsw import open_hnsw
from compactds.datastore.ann.ivf import open_ivf
from compactds.datastore.attributes import AttributeColumns
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.deletions import read_deleted
from compactds.datastore.errors import DamagedStoreError, StoreError, StoreFormatError
from compactds.datastore.files import find_damage
from compactds.datastore.filtered import FilteredSearch, filtered_for
from compactds.datastore.lookup import DocumentLookup
from compactds.datastore.manifest import IndexRecord, Manifest, SegmentRecord
from compactds.datastore.passages import ROWS_PER_BATCH, PassageReader
from compactds.datastore.refining import Refiner, refiner_for
from compactds.datastore.vectors import SUFFIXES, ExactVectors
from compactds.filters import Expression

SEGMENTS_FOLDER = "segments"
PASSAGES_FILE = "passages.arrow"
ATTRIBUTES_FILE = "attributes.parquet"
DOCUMENTS_FILE = "documents.lookup"
LEDGER_FILE = "ledger.json"


@dataclass(frozen=True, slots=True)
class Segment:
    """Hold the open parts of one segment; rows are numbered from 0 in it.

    `live` are the rows that are not deleted, None if none is. `refiner` searches index and vectors in one
    step, `filtered` does so under filters; None if they are of kinds that those cannot take.
    """

    record: SegmentRecord
    path: Path
    passages: PassageReader
    attributes: AttributeColumns
    vectors: ExactVectors
    index: AnnIndex
    lookup: DocumentLookup
    ledger: bytes
    live: Bitmap | None = None
    refiner: Refiner | None = None
    filtered: FilteredSearch | None = None

    @property
    def rows(self) -> int:
        """Return the number of rows, deleted ones included."""
        return self.record.passages

    def allowed(self, expression: Expression | None) -> Bitmap | None:
        """Return the rows that a bound expression (None for all) allows and nobody deleted; None for all."""
        if expression is not None:
            return self.attributes.filter.rows(expression)
        if self.live is None:
            return None
        # What the caller unpacks belongs to the caller's bitmap, so that this one stays small.
        return Bitmap(self.live.bits, self.rows, self.live.count)

    @property
    def filters_ram_bytes(self) -> int:
        """Return what filters hold at present: columns, results, and lists copied for those in steady use."""
        copies = 0 if self.filtered is None else self.filtered.ram_bytes
        return self.attributes.ram_bytes + copies

    def is_deleted(self, row: int) -> bool:
        """Tell whether a row is deleted."""
        return self.live is not None and not int(self.live.bits[row // 8]) >> row % 8 & 1

    def close(self) -> None:
        """Give back files and maps; vectors and index go with the last search that uses them."""
        self.passages.close()
        self.attributes.close()


def exact_file(dtype: str) -> str:
    """Return the name of the exact vectors' file for a dtype: exact.f16 or exact.f32."""
    return f"exact.{SUFFIXES[dtype]}"


def open_segments(root: Path, manifest: Manifest, *, whole: bool = False) -> list[Segment]:
    """Open all segments of a store, as `open_segment` does; if `whole`, check its encoders' files, too."""
    problems = (
        find_damage(root, manifest.encoder_files, deep=False, whole=manifest.encoder_files) if whole else []
    )
    if problems:
        raise _damaged(root, problems[0])
    with ExitStack() as opened:
        segments = []
        for record in manifest.segments:
            segments.append(open_segment(root, manifest, record, whole=whole))
            opened.callback(segments[-1].close)
        opened.pop_all()
    return segments


def open_segment(root: Path, manifest: Manifest, record: SegmentRecord, *, whole: bool = False) -> Segment:
    """Open one segment; raise DamagedStoreError when a file is missing, truncated or damaged.

    Sizes of all files are checked, the checksums of small ones and of those `checked_whole` names, and of
    a sample of the others, or of all that they hold if `whole`. What the files hold has to fit the
    manifest. A file that somebody removes meanwhile is damage, too.
    """
    path = root / SEGMENTS_FOLDER / record.name
    files = record.files
    problems = [
        f"{path}: the manifest does not list {name}." for name in _needed_files(record) if name not in files
    ] or find_damage(path, files, deep=False, whole=files if whole else checked_whole(record))
    if problems:
        raise _damaged(path, problems[0])
    with ExitStack() as opened:
        segment = _open(path, manifest, record, opened)
        if problems := _misfits(segment):
            raise _damaged(path, problems[0])
        opened.pop_all()
    return segment


def checked_whole(record: SegmentRecord) -> list[str]:
    """Return the files whose whole checksum is compared when a segment is opened.

    The index is one, because opening reads it anyway. Vectors that take no more bytes than the index add
    little to that; those beside a compressed index would add most of it, and are sampled.
    """
    index, vectors = record.index.file, exact_file(record.exact_dtype)
    small = record.files[vectors].bytes <= record.files[index].bytes
    return [index, vectors] if small else [index]


def open_index(folder: Path, record: IndexRecord, *, dimension: int) -> AnnIndex:
    """Open a segment's ANN index by its kind; raise DamagedStoreError for a file that is none."""
    path = folder / record.file
    try:
        match record.kind:
            case "flat":
                return open_flat(path)
            case "hnsw":
                return open_hnsw(path, dimension=dimension)
            case "ivf":
                return open_ivf(path)
    except MemoryError as error:
        raise StoreError(
            f"{path} does not fit in memory.",
            value=record.ram_bytes,
            remedy=f"Free memory: the index takes {record.ram_bytes:,} bytes.",
        ) from error
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, OSError) as error:
        raise _damaged(path, _cannot_be_read(path, error)) from error
    raise StoreFormatError(
        f"{path} is an index of kind {record.kind!r}, which this version of compactds does not know.",
        value=record.kind,
        remedy="Install a version of compactds that reads it, or build the store again.",
    )


def _open(path: Path, manifest: Manifest, record: SegmentRecord, opened: ExitStack) -> Segment:
    """Open all parts; those that have to be closed when a later one fails are put on `opened`."""
    try:
        deletions = record.deletions
        live = None if deletions is None else ~read_deleted(path.parents[1], deletions, record.passages)
        passages = PassageReader(path / PASSAGES_FILE)
        opened.callback(passages.close)
        attributes = AttributeColumns(path / ATTRIBUTES_FILE, manifest.schema, live=live)
        opened.callback(attributes.close)
        vectors = ExactVectors(
            path / exact_file(record.exact_dtype),
            rows=record.passages,
            dimension=manifest.exact_encoder.dimension,
            dtype=record.exact_dtype,
        )
        index = open_index(path, record.index, dimension=manifest.encoder.dimension)
        return Segment(
            record=record,
            path=path,
            passages=passages,
            attributes=attributes,
            vectors=vectors,
            index=index,
            lookup=DocumentLookup(path / DOCUMENTS_FILE),
            ledger=(path / LEDGER_FILE).read_bytes(),
            live=live,
            refiner=refiner_for(index, vectors),
            filtered=filtered_for(index, vectors),
        )
    except (OSError, ValueError) as error:
        raise _damaged(path, _cannot_be_read(path, error)) from error


def _needed_files(record: SegmentRecord) -> list[str]:
    if record.exact_dtype not in SUFFIXES:
        raise StoreFormatError(
            f"segment {record.name} holds vectors of dtype {record.exact_dtype!r}, which this version of "
            "compactds does not know.",
            value=record.exact_dtype,
            remedy="Install a version of compactds that reads it, or build the store again.",
        )
    vectors = exact_file(record.exact_dtype)
    return [PASSAGES_FILE, ATTRIBUTES_FILE, DOCUMENTS_FILE, LEDGER_FILE, vectors, record.index.file]


def _misfits(segment: Segment) -> list[str]:
    """Return one sentence per file that holds another number of rows or documents than the manifest says."""
    record = segment.record
    counts = (
        (record.index.file, "rows", getattr(segment.index, "rows", record.passages), record.passages),
        (PASSAGES_FILE, "batches", segment.passages.batches, -(-record.passages // ROWS_PER_BATCH)),
        (ATTRIBUTES_FILE, "rows", segment.attributes.rows, record.passages),
        (DOCUMENTS_FILE, "entries", len(segment.lookup), record.documents),
    )
    return [
        f"{segment.path / name} has {found:,} {unit}, expected {expected:,}."
        for name, unit, found, expected in counts
        if found != expected
    ]


def _cannot_be_read(path: Path, error: Exception) -> str:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return f"{path} cannot be read: {reason}"


def _damaged(path: Path, problem: str) -> DamagedStoreError:
    return DamagedStoreError(
        problem,
        value=str(path),
        remedy="Run `compactds verify`, then restore the store from a copy or build it again.",
    )
