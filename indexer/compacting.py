"""Compact a store: all segments become one without deleted rows, and nothing is encoded again."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from compactds.configs.recipe import Index, Passages
from compactds.datastore.ann.choose import IndexPlan, choose_index
from compactds.datastore.attributes import AttributeColumns
from compactds.datastore.deletions import read_deleted
from compactds.datastore.encoders import load_spec
from compactds.datastore.errors import DamagedStoreError
from compactds.datastore.files import find_damage, sync_file, sync_folder, write_array
from compactds.datastore.manifest import MANIFEST_NAME, IndexRecord, Manifest, SegmentRecord, read_manifest
from compactds.datastore.passages import PassageReader
from compactds.datastore.publishing import publish
from compactds.datastore.segment import (
    ATTRIBUTES_FILE,
    LEDGER_FILE,
    PASSAGES_FILE,
    SEGMENTS_FOLDER,
    exact_file,
)
from compactds.datastore.vectors import EXACT_DTYPES, ExactVectors
from compactds.datastore.writer import SegmentWriter, WrittenRows, finish_segment, write_index
from compactds.indexer.damage import check_undamaged
from compactds.indexer.disk import COMPACT_FOLDER, disk_errors, remove_leftovers
from compactds.indexer.encoding import encode_texts
from compactds.indexer.filtering import CONTAMINATED_FILE
from compactds.indexer.growth import DROPPED
from compactds.indexer.ledger import installed_version, merged
from compactds.indexer.passages import PassageOptions, Passager
from compactds.indexer.progress import LoggedProgress, Progress
from compactds.indexer.reading import REJECTS_FILE
from compactds.indexer.removals import REMOVED_FILE, REMOVED_SCHEMA, join_files
from compactds.indexer.repredicting import with_memory_of
from compactds.indexer.workspace import Workspace, build_key, locked, noting_work, write_npy

ROWS_AT_ONCE = 4_096
LEAST_CLUSTERED_ROWS = 16
"""Fewer rows cannot be clustered, whatever kind of index the recipe asks for."""


@dataclass(frozen=True, slots=True)
class CompactResult:
    """Say what compacting came to: segments and rows before, and what the store holds now.

    `resumed` tells that it went on from an earlier run, `unchanged` that there was one segment without
    deleted rows, and nothing to do.
    """

    path: Path
    segments: int
    dropped: int
    documents: int
    passages: int
    index: str
    bytes_before: int
    bytes_after: int
    seconds: float
    resumed: bool
    unchanged: bool


def compact(
    store: Path, *, memory_bytes: int | None = None, progress: Progress | None = None
) -> CompactResult:
    """Merge all segments of a store into one and drop deleted rows.

    Passages, attributes and vectors are copied in the order of segments and rows; the index is chosen,
    trained and calibrated for their number, in the memory the store was built with or `memory_bytes`.
    The old store stays whole until the new one replaces it in one step, and readers that have it open keep
    it. It needs room for both on the disk. Stopped, it goes on where it was, if the store has not changed:
    rows that are copied, texts that are encoded and an index that is filled are not done again.

    A store with two encoders keeps no vectors of the first but in its index, so that those are encoded again.

    Raises StoreNotFoundError, StoreBusyError, DamagedStoreError, BudgetError, EncoderError or BuildError.
    """
    started = time.perf_counter()
    read_manifest(store)  # where there is no store, nothing is made
    with locked(store):
        manifest = read_manifest(store)
        check_undamaged(store, manifest)
        published, resumed = manifest, False
        if len(manifest.segments) > 1 or any(record.deletions for record in manifest.segments):
            run = _Compaction(store, manifest, memory_bytes, progress or LoggedProgress())
            with noting_work(store / COMPACT_FOLDER, run.holds_work), disk_errors(store):
                published, resumed = run.run()
        remove_leftovers(store)
    return CompactResult(
        path=store,
        segments=len(manifest.segments),
        dropped=sum(record.passages for record in manifest.segments) - published.passages,
        documents=published.documents,
        passages=published.passages,
        index=published.segments[0].index.kind if published.segments else "none",
        bytes_before=_bytes(manifest),
        bytes_after=_bytes(published),
        seconds=time.perf_counter() - started,
        resumed=resumed,
        unchanged=published is manifest,
    )


class _Compaction:
    """One run of a compaction.

    The new segment is made in a folder of its own, with a mark for each step that is done: "rows" for the
    row files, a file for each piece of vectors that is encoded, "index" for the index of a plan.
    """

    def __init__(self, store: Path, manifest: Manifest, memory_bytes: int | None, progress: Progress) -> None:
        self._store = store
        self._manifest = manifest
        self._records = [record for record in manifest.segments if record.live_passages]
        self._marks = Workspace(store / COMPACT_FOLDER)
        self._folder = self._marks.segment
        self._memory_bytes = memory_bytes
        self._progress = progress

    def run(self) -> tuple[Manifest, bool]:
        """Return the published manifest, and whether this went on from an earlier run."""
        changed = replace(self._manifest, segments=(), recipe=self._recipe())
        if not self._records:
            return self._publish(changed, None), False
        started = time.perf_counter()
        plan = self._plan()  # a budget too small is told before hours of work
        resumed = self._goes_on()
        rows, extra = self._rows()
        deciding = rows.open_vectors()
        proposing = self._proposing(rows) or deciding
        record = finish_segment(
            rows,
            self._index(plan, proposing),
            proposing=proposing,
            deciding=deciding,
            dtype=self._dtype,
            ledger=self._ledger(time.perf_counter() - started),
            extra_files=extra,
        )
        return self._publish(replace(changed, segments=(record,)), self._folder), resumed

    def _publish(self, changed: Manifest, folder: Path | None) -> Manifest:
        changed = with_memory_of(self._manifest, changed)
        return publish(self._store, folder, changed, replaces=self._manifest)

    def holds_work(self) -> bool:
        """Tell whether there is work of a compaction of this very store to go on with."""
        saved, rows = self._marks.read_state("key"), self._marks.read_state("rows")
        return saved == self._key() and rows is not None and self._folder.is_dir()

    def _key(self) -> str:
        return build_key(
            {
                "manifest": (self._store / MANIFEST_NAME).read_text(errors="surrogatepass"),
                "software": installed_version("compactds"),
            }
        )

    def _goes_on(self) -> bool:
        """Tell whether there is work to go on with; remove any other."""
        if self.holds_work():
            self._progress.note("Going on where an earlier compaction stopped.")
            return True
        self._check()
        self._marks.clear()
        self._folder.mkdir(parents=True)
        self._marks.write_state("key", self._key())
        return False

    def _rows(self) -> tuple[WrittenRows, list[str]]:
        """Return the row files of the new segment, and the names of the lists beside them."""
        done = self._marks.read_state("rows")
        if done is None:
            try:
                done = self._written_rows()
            except BaseException:  # half of them are of no use, and a full disk needs the room
                self._marks.clear()
                raise
            self._marks.write_state("rows", done)
        dimension = self._manifest.exact_encoder.dimension
        return WrittenRows(self._folder, done["rows"], done["documents"], dimension, self._dtype), done[
            "extra"
        ]

    def _written_rows(self) -> dict[str, Any]:
        """Write the row files and the lists beside them to the disk, and return what tells of them."""
        writer = self._copy_rows()
        extra = self._extra_files()
        for path in self._folder.iterdir():
            sync_file(path)
        sync_folder(self._folder)
        return {"rows": writer.rows, "documents": writer.documents, "extra": extra}

    def _index(self, plan: IndexPlan, proposing: ExactVectors) -> IndexRecord:
        """Return the planned index, which an earlier run may have made."""
        self._progress.stage("indexing", None)
        done = self._marks.read_state("index")
        if done is not None and done["plan"] == asdict(plan):
            return IndexRecord(**done["record"])
        (self._marks.root / "index.json").unlink(missing_ok=True)
        if done is not None:
            (self._folder / done["record"]["file"]).unlink(missing_ok=True)
        index = write_index(self._folder, plan, proposing)
        sync_file(self._folder / index.file)
        self._marks.write_state("index", {"plan": asdict(plan), "record": asdict(index)})
        return index

    def _recipe(self) -> dict[str, Any]:
        """Return the manifest's recipe, which goes on telling that rows were deleted when they are gone."""
        recipe = dict(self._manifest.recipe)
        rows = sum(record.passages for record in self._manifest.segments)
        dropped = recipe.get(DROPPED, 0) + rows - self._manifest.passages
        return {**recipe, DROPPED: dropped} if dropped else recipe

    def _check(self) -> None:
        """Raise DamagedStoreError for a damaged file: a copy would be given a checksum that fits it."""
        self._progress.stage("checking", None)
        for record in self._manifest.segments:
            path = self._store / SEGMENTS_FOLDER / record.name
            for problem in find_damage(path, record.files, deep=False, whole=record.files):
                raise DamagedStoreError(
                    problem, value=str(path), remedy="Restore the store from a copy, or build it again."
                )

    @property
    def _dtype(self) -> str:
        return self._records[0].exact_dtype

    def _plan(self) -> IndexPlan:
        settings = Index(**self._manifest.recipe.get("resolved", {}).get("index", {}))
        rows = self._manifest.passages
        return choose_index(
            rows,
            self._manifest.encoder.dimension,
            memory_bytes=settings.memory_bytes if self._memory_bytes is None else self._memory_bytes,
            kind="auto" if rows < LEAST_CLUSTERED_ROWS else settings.kind,
        )

    def _copy_rows(self) -> SegmentWriter:
        """Stream the live rows of all segments into the row files of a new one."""
        self._progress.stage("copying", self._manifest.passages)
        dimension = self._manifest.exact_encoder.dimension
        with SegmentWriter(
            self._folder, self._manifest.schema, dimension=dimension, dtype=self._dtype
        ) as writer:
            for record in self._records:
                for passages, attributes, vectors in self._pieces(record):
                    writer.append(passages, attributes, vectors)
                    self._progress.advance(len(passages))
        return writer

    def _pieces(self, record: SegmentRecord) -> Iterator[tuple[pa.Table, pa.Table, NDArray[np.float32]]]:
        """Yield the live rows of a segment, some at a time."""
        path = self._store / SEGMENTS_FOLDER / record.name
        live = (~read_deleted(self._store, record.deletions, record.passages)).mask()
        vectors = ExactVectors(
            path / exact_file(record.exact_dtype),
            rows=record.passages,
            dimension=self._manifest.exact_encoder.dimension,
            dtype=record.exact_dtype,
        )
        with (
            closing(PassageReader(path / PASSAGES_FILE)) as passages,
            closing(AttributeColumns(path / ATTRIBUTES_FILE, self._manifest.schema)) as attributes,
        ):
            start = 0
            for table in attributes.tables():
                for offset in range(0, len(table), ROWS_AT_ONCE):
                    piece = table.slice(offset, ROWS_AT_ONCE)
                    places = np.flatnonzero(live[start + offset :][: len(piece)])
                    if len(places):
                        rows = start + offset + places
                        yield passages.table(rows), piece.take(pa.array(places)), vectors.gather(rows)
                start += len(table)

    def _proposing(self, rows: WrittenRows) -> ExactVectors | None:
        """Encode the passages for the index, if it has an encoder of its own; None if it has not."""
        manifest = self._manifest
        if manifest.encoder.fingerprint == manifest.exact_encoder.fingerprint:
            return None
        self._progress.stage("encoding (ann)", rows.rows)
        starts = range(0, rows.rows, ROWS_AT_ONCE)
        pieces = [self._marks.root / f"ann-{number:06d}.npy" for number in range(len(starts))]
        missing = [(start, path) for start, path in zip(starts, pieces, strict=True) if not path.exists()]
        self._progress.advance(rows.rows - sum(min(ROWS_AT_ONCE, rows.rows - start) for start, _ in missing))
        if missing:
            self._encode(rows, missing)
        whole = self._marks.root / "ann.vectors"
        with whole.open("wb") as file:
            for path in pieces:
                write_array(file, np.load(path, allow_pickle=False))
        return ExactVectors(whole, rows=rows.rows, dimension=manifest.encoder.dimension, dtype="float16")

    def _encode(self, rows: WrittenRows, missing: Sequence[tuple[int, Path]]) -> None:
        """Write the vectors of passages for the index, from some rows on, to a file for each of those."""
        manifest = self._manifest
        encoder, exact = (
            load_spec(spec, store_root=self._store) for spec in (manifest.encoder, manifest.exact_encoder)
        )
        settings = Passages(**manifest.recipe.get("resolved", {}).get("passages", {}))
        options = PassageOptions(split=settings.split, embed_title=settings.embed_title)
        passager = Passager(options, [encoder, exact])
        with closing(PassageReader(self._folder / PASSAGES_FILE)) as reader:
            for start, path in missing:
                table = reader.table(np.arange(start, min(start + ROWS_AT_ONCE, rows.rows)))
                pairs = zip(table.column("title").to_pylist(), table.column("text").to_pylist(), strict=True)
                texts = [passager.encoded_text(title, text) for title, text in pairs]
                vectors = encode_texts(encoder, texts, self._progress)
                write_npy(path, np.asarray(vectors, EXACT_DTYPES["float16"]))

    def _ledger(self, seconds: float) -> dict[str, Any]:
        """Return the accounts of all segments as one, with what compacting did."""
        parts = [
            json.loads((self._store / SEGMENTS_FOLDER / record.name / LEDGER_FILE).read_bytes())
            for record in self._manifest.segments
        ]
        rows = sum(record.passages for record in self._manifest.segments)
        account = merged(parts)
        account["passages"] = self._manifest.passages
        account["dropped"] = account.get("dropped", 0) + rows - self._manifest.passages
        account["seconds"] = {**account.get("seconds", {}), "compact": round(seconds, 3)}
        return account

    def _extra_files(self) -> list[str]:
        """Join the lists of what was rejected and removed; return the names of those there are."""
        paths = [self._store / SEGMENTS_FOLDER / record.name for record in self._manifest.segments]
        names = [
            name
            for name in (REJECTS_FILE, CONTAMINATED_FILE)
            if join_files([path / name for path in paths if (path / name).exists()], self._folder / name)
        ]
        removed = [path / REMOVED_FILE for path in paths if (path / REMOVED_FILE).exists()]
        if removed:
            with pq.ParquetWriter(self._folder / REMOVED_FILE, REMOVED_SCHEMA, compression="zstd") as writer:
                for path in removed:
                    with pq.ParquetFile(path) as file:
                        for batch in file.iter_batches():
                            writer.write_batch(batch)
            names.append(REMOVED_FILE)
        return names


def _bytes(manifest: Manifest) -> int:
    return sum(file.bytes for record in manifest.segments for file in record.files.values())
