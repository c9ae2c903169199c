"""The last stages of a build: shards into one segment, its index, and the manifest that publishes it."""

import datetime
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from compactds.datastore.ann.choose import IndexPlan
from compactds.datastore.attributes import full_schema
from compactds.datastore.encoders.base import EncoderSpec
from compactds.datastore.files import FileRecord, record_file, write_array, write_atomic
from compactds.datastore.manifest import Manifest, SegmentRecord
from compactds.datastore.passages import PASSAGE_SCHEMA
from compactds.datastore.segment import LEDGER_FILE
from compactds.datastore.vectors import EXACT_DTYPES, ExactVectors
from compactds.datastore.writer import SegmentWriter, finish_segment, write_index
from compactds.filters.schema import Schema
from compactds.indexer.attributes import to_arrow, to_jsonable
from compactds.indexer.ledger import Ledger
from compactds.indexer.progress import Progress
from compactds.indexer.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Assembly:
    """Hold what the segment is assembled from."""

    shards: int
    passages: int
    attributes: Schema
    encoder: EncoderSpec
    exact_encoder: EncoderSpec
    exact_dtype: str
    plan: IndexPlan

    @property
    def two_encoders(self) -> bool:
        """Tell whether the index and the exact stage have vectors of their own."""
        return self.encoder.fingerprint != self.exact_encoder.fingerprint


def assemble_rows(workspace: Workspace, assembly: Assembly, progress: Progress) -> SegmentWriter:
    """Stream all shards into the row files of a new segment."""
    shutil.rmtree(workspace.segment, ignore_errors=True)
    workspace.segment.mkdir()
    progress.stage("writing", assembly.passages)
    with SegmentWriter(
        workspace.segment,
        full_schema(assembly.attributes.fields),
        dimension=assembly.exact_encoder.dimension,
        dtype=assembly.exact_dtype,
    ) as writer:
        for number in range(assembly.shards):
            shard = workspace.read_shard(number)
            records = [orjson.loads(text) for text in shard.column("attributes").to_pylist()]
            writer.append(
                _passages(shard, records, assembly.attributes),
                _attributes(shard, records, assembly.attributes),
                workspace.read_vectors(number, "exact"),
            )
            progress.advance(len(shard))
    return writer


def build_index(
    workspace: Workspace,
    assembly: Assembly,
    writer: SegmentWriter,
    account: dict[str, Any],
    extra_files: Sequence[str],
    ledger: Ledger,
    progress: Progress,
) -> SegmentRecord:
    """Train, fill and calibrate the index of an assembled segment, and return the segment's record.

    `account` is what the segment's ledger file says; the seconds of these last stages are put into it.
    """
    progress.stage("indexing", None)
    deciding = writer.open_vectors()
    proposing = _proposing_vectors(workspace, assembly) if assembly.two_encoders else deciding
    with ledger.timed("index"):
        index = write_index(writer.folder, assembly.plan, proposing)
    with ledger.timed("calibrate"):
        record = finish_segment(
            writer,
            index,
            proposing=proposing,
            deciding=deciding,
            dtype=assembly.exact_dtype,
            ledger=account,
            extra_files=extra_files,
        )
    account["seconds"] = ledger.to_json()["seconds"]
    path = writer.folder / LEDGER_FILE
    write_atomic(path, json.dumps(account, indent=1, ensure_ascii=False).encode() + b"\n")
    return replace(record, files={**record.files, LEDGER_FILE: record_file(path)})


def make_manifest(
    assembly: Assembly,
    record: SegmentRecord,
    *,
    name: str,
    software: str,
    recipe: Mapping[str, Any],
    encoder_files: Mapping[str, FileRecord],
) -> Manifest:
    """Return the manifest of a store with this one segment."""
    return Manifest(
        name=name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        software=software,
        encoder=assembly.encoder,
        exact_encoder=assembly.exact_encoder,
        schema=full_schema(assembly.attributes.fields),
        segments=(record,),
        recipe=recipe,
        encoder_files=encoder_files,
    )


def _passages(shard: pa.Table, records: list[dict[str, Any]], schema: Schema) -> pa.Table:
    texts = [orjson.dumps(to_jsonable(record, schema)).decode() for record in records]
    table = shard.select([name for name in PASSAGE_SCHEMA.names if name != "attributes"])
    return table.append_column("attributes", pa.array(texts, pa.string()))


def _attributes(shard: pa.Table, records: list[dict[str, Any]], schema: Schema) -> pa.Table:
    table = shard.select(["document_id", "title", "source"])
    typed = to_arrow(records, schema)
    for name in schema:
        table = table.append_column(typed.schema.field(name), typed.column(name))
    return table


def _proposing_vectors(workspace: Workspace, assembly: Assembly) -> ExactVectors:
    """Gather the index encoder's vectors into one temporary file, and open it."""
    path: Path = workspace.root / "ann.vectors"
    dtype = "float16"
    with path.open("wb") as file:
        for number in range(assembly.shards):
            vectors = workspace.read_vectors(number, "ann")
            write_array(file, np.asarray(vectors, dtype=EXACT_DTYPES[dtype]))
    return ExactVectors(path, rows=assembly.passages, dimension=assembly.encoder.dimension, dtype=dtype)
