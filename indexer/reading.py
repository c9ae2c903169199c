"""The first stage of a build: read documents, split them, and write passages to shards.

All errors of the input surface here, before anything is encoded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from compactds.filters.schema import FieldType
from compactds.indexer.attributes import AttributeInference, plain_attributes
from compactds.indexer.documents import Document
from compactds.indexer.errors import BuildError
from compactds.indexer.passages import Passager
from compactds.indexer.progress import Progress
from compactds.indexer.sources import Rejection, SourceOptions, read_documents
from compactds.indexer.workspace import Workspace

SHARD_PASSAGES = 2_048
REJECTS_FILE = "rejects.jsonl"

SHARD_SCHEMA = pa.schema(
    [
        pa.field("ordinal", pa.int64()),
        pa.field("document_id", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("title", pa.string()),
        pa.field("text", pa.string()),
        pa.field("source", pa.string()),
        pa.field("start", pa.int64()),
        pa.field("end", pa.int64()),
        pa.field("attributes", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("id_from_content", pa.bool_()),
    ]
)


@dataclass(slots=True)
class SourceCount:
    """Count what one source gave."""

    name: str
    documents: int = 0
    words: int = 0
    rejected: int = 0
    duplicates: int = 0
    passages: int = 0

    @property
    def records(self) -> int:
        """Return how many records were read, usable or not."""
        return self.documents + self.rejected


@dataclass(slots=True)
class ReadState:
    """Hold how far reading has come; saved whenever a shard is."""

    shards: int = 0
    passages: int = 0
    reject_bytes: int = 0
    sources: list[SourceCount] = field(default_factory=list)
    inference: dict[str, Any] = field(default_factory=dict)
    done: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ReadState":
        """Read what `to_json` wrote."""
        return cls(**{**data, "sources": [SourceCount(**count) for count in data["sources"]]})


def read_sources(
    workspace: Workspace,
    sources: Sequence[SourceOptions],
    passager: Passager,
    overrides: dict[str, FieldType],
    progress: Progress,
) -> ReadState:
    """Read all sources into shards, going on where an earlier run stopped; return the final state."""
    saved = workspace.read_state("read")
    state = ReadState() if saved is None else ReadState.from_json(saved)
    if state.done:
        return state
    _Reading(workspace, sources, passager, overrides, progress, state).run()
    return state


class _Reading:
    """One run of the stage over one workspace."""

    def __init__(
        self,
        workspace: Workspace,
        sources: Sequence[SourceOptions],
        passager: Passager,
        overrides: dict[str, FieldType],
        progress: Progress,
        state: ReadState,
    ) -> None:
        self._workspace = workspace
        self._sources = sources
        self._passager = passager
        self._progress = progress
        self._state = state
        self._inference = (
            AttributeInference.from_json(state.inference, overrides)
            if state.inference
            else AttributeInference(overrides)
        )
        self._rows: list[dict[str, Any]] = []
        self._given: list[Any] = []
        self._rejects = workspace.root / REJECTS_FILE
        self._skip_rejects = 0

    def run(self) -> None:
        self._cut_rejects()
        self._progress.stage("reading", None)
        self._progress.advance(sum(count.documents for count in self._state.sources))
        finished = max(0, len(self._state.sources) - 1)
        ordinal = sum(count.records for count in self._state.sources[:finished])
        for options in self._sources[finished:]:
            resumed = len(self._state.sources) > finished
            if not resumed:
                self._state.sources.append(SourceCount(options.source_name))
            count = self._state.sources[finished]
            for document in self._documents(options, count):
                self._add(document, ordinal + count.records - 1, count)
            ordinal += count.records
            finished += 1
        self._flush(done=True)

    def _documents(self, options: SourceOptions, count: SourceCount) -> Iterator[Document]:
        """Yield the documents not yet in a shard; rejected records are counted on the way."""
        skip, self._skip_rejects = count.documents, count.rejected

        def reject(rejection: Rejection) -> None:
            if self._skip_rejects:
                self._skip_rejects -= 1
                return
            count.rejected += 1
            with self._rejects.open("ab") as file:
                file.write(orjson.dumps(asdict(rejection)) + b"\n")

        for number, document in enumerate(read_documents(options, reject if options.skip_invalid else None)):
            if number >= skip:
                count.documents += 1
                yield document

    def _add(self, document: Document, ordinal: int, count: SourceCount) -> None:
        self._inference.observe(document)
        count.words += len(document.text.split())
        attributes = orjson.dumps(plain_attributes(document.attributes)).decode()
        spans = self._passager.split(document)
        for position, span in enumerate(spans):
            self._rows.append(
                {
                    "ordinal": ordinal,
                    "document_id": document.id,
                    "position": position,
                    "title": document.title,
                    "text": document.text[span.start : span.end],
                    "source": document.source,
                    "start": span.start,
                    "end": span.end,
                    "attributes": attributes,
                    "origin": document.origin,
                    "id_from_content": document.id_from_content,
                }
            )
            if document.vector is not None:
                self._given.append(document.vector)
        count.passages += len(spans)
        self._progress.advance(1)
        if len(self._rows) >= SHARD_PASSAGES:
            self._flush(done=False)

    def _flush(self, *, done: bool) -> None:
        """Save the rows gathered so far as a shard, then the state that counts it."""
        state = self._state
        if self._rows:
            self._workspace.write_shard(state.shards, pa.Table.from_pylist(self._rows, SHARD_SCHEMA))
            if self._given:
                self._workspace.write_vectors(state.shards, "given", _stack(self._given), "<f4")
            state.shards += 1
            state.passages += len(self._rows)
        self._rows, self._given = [], []
        state.inference = self._inference.to_json()
        state.reject_bytes = self._rejects.stat().st_size if self._rejects.exists() else 0
        state.done = done
        self._workspace.write_state("read", state.to_json())

    def _cut_rejects(self) -> None:
        """Forget rejections written after the last saved state; they will be met again."""
        if self._rejects.exists():
            with self._rejects.open("r+b") as file:
                file.truncate(self._state.reject_bytes)


def _stack(vectors: list[Any]) -> Any:
    lengths = {len(vector) for vector in vectors}
    if len(lengths) > 1:
        raise BuildError(
            f"vectors of {min(lengths)} and of {max(lengths)} dimensions in one source.",
            value=sorted(lengths),
            remedy="All vectors of a store need one dimension.",
        )
    return np.stack(vectors)


def rejects_path(workspace: Workspace) -> Path:
    """Return the file that lists rejected records."""
    return workspace.root / REJECTS_FILE
