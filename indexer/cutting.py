"""The fourth stage of a build: documents that stay are split into passages, in shards of bounded size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from compactds.datastore.encoders.base import EncoderSpec
from compactds.datastore.encoders.tokens import TokenCounter
from compactds.indexer.document_shards import read_shard_documents
from compactds.indexer.documents import Document
from compactds.indexer.dropped import read_drops
from compactds.indexer.errors import BuildError
from compactds.indexer.execution import Report
from compactds.indexer.filtering import kept_shard
from compactds.indexer.passages import Measure, PassageOptions, Passager, TokenMeasure
from compactds.indexer.removals import Removals
from compactds.indexer.sources import SourceOptions
from compactds.indexer.workspace import ShardSizes, Workspace, write_npy, write_table

SHARD_SCHEMA = pa.schema(
    [
        pa.field("ordinal", pa.int64()),
        pa.field("document_id", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("title", pa.string()),
        pa.field("text", pa.string()),
        pa.field("source", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("start", pa.int64()),
        pa.field("end", pa.int64()),
        pa.field("attributes", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Name the file of an encoder's tokenizer, None if it has no limit, and hold what the encoder allows."""

    path: Path | None
    spec: EncoderSpec


@dataclass(frozen=True, slots=True)
class CutContext:
    """Say where the build works, how documents become passages, and which are left out.

    `measures` holds encoders, or their tokenizers where another process is to do the work; none if
    documents are kept whole. `options` is None if nothing is to be written: documents are only counted.
    """

    root: Path
    sources: tuple[SourceOptions, ...]
    drops: tuple[Path, ...]
    sizes: ShardSizes
    options: PassageOptions | None
    measures: tuple[Measure | Tokenizer, ...] = ()


@dataclass(frozen=True, slots=True)
class CutTask:
    """Name the shards of kept documents, of one source, that are split together."""

    number: int
    source: int
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CutShard:
    """Name a shard of passages that a task of one source wrote, and say how many there are."""

    task: int
    source: int
    number: int
    passages: int

    def path(self, workspace: Workspace) -> Path:
        """Return its file, before all shards have their numbers."""
        return cut_shard(workspace, self.task, self.number)

    def remove(self, workspace: Workspace) -> None:
        """Remove its files, if they are still there."""
        for path in (self.path(workspace), _given(self.path(workspace))):
            path.unlink(missing_ok=True)


def plan_cutting(filtered: Sequence[tuple[int, int, int]], most_characters: int) -> Iterator[CutTask]:
    """Yield tasks of about equal size, in order, from (source, documents, characters) of each shard."""
    number, source, held = 0, -1, 0
    shards: list[int] = []
    for shard, (of_source, documents, characters) in enumerate(filtered):
        if not documents:
            continue
        if shards and (of_source != source or held + characters > most_characters):
            yield CutTask(number, source, tuple(shards))
            number, shards, held = number + 1, [], 0
        source = of_source
        shards.append(shard)
        held += characters
    if shards:
        yield CutTask(number, source, tuple(shards))


def cut_task(context: CutContext, task: CutTask, report: Report) -> dict[str, Any]:
    """Split the documents of a task; write their passages, and tell of the documents left out."""
    workspace = Workspace(context.root)
    removals = Removals(context.sources[task.source])
    passager = None if context.options is None else _passager(context.options, context.measures)
    rows = _PassageRows(workspace, task.number, context.sizes)
    documents = words = 0
    for shard in task.shards:
        drops = read_drops(context.drops, kept_shard(workspace, shard))
        for document, ordinal, count in read_shard_documents(kept_shard(workspace, shard)):
            if ordinal in drops:
                removals.add(document, count, drops[ordinal])
            else:
                documents, words = documents + 1, words + count
                if passager is not None:
                    rows.add(document, ordinal, passager)
            report(1)
    rows.finish()
    removals.write(workspace.removed / f"duplicates-{task.number:06d}.arrow")
    return {
        "source": task.source,
        "documents": documents,
        "words": words,
        "passages": rows.lengths,
        "removed": removals.counts(),
    }


def cut_shard(workspace: Workspace, task: int, number: int) -> Path:
    """Return the file of a task's passages before all shards have their numbers."""
    return workspace.root / "passages" / f"{task:06d}-{number:06d}.arrow"


class _PassageRows:
    """Gather passages and write them in shards; a long document may fill several."""

    def __init__(self, workspace: Workspace, task: int, sizes: ShardSizes) -> None:
        self._workspace = workspace
        self._task = task
        self._sizes = sizes
        self._rows: list[dict[str, Any]] = []
        self._given: list[Any] = []
        self._characters = 0
        self.lengths: list[int] = []

    def add(self, document: Document, ordinal: int, passager: Passager) -> None:
        attributes = orjson.dumps(document.attributes).decode()
        for position, span in enumerate(passager.split(document)):
            self._rows.append(
                {
                    "ordinal": ordinal,
                    "document_id": document.id,
                    "position": position,
                    "title": document.title,
                    "text": document.text[span.start : span.end],
                    "source": document.source,
                    "origin": document.origin,
                    "start": span.start,
                    "end": span.end,
                    "attributes": attributes,
                }
            )
            self._characters += span.end - span.start
            if document.vector is not None:
                self._given.append(document.vector)
            if len(self._rows) >= self._sizes.passages or self._characters >= self._sizes.characters:
                self.finish()

    def finish(self) -> None:
        """Write what was gathered as a shard."""
        if not self._rows:
            return
        path = cut_shard(self._workspace, self._task, len(self.lengths))
        if self._given:
            write_npy(_given(path), _stack(self._given).astype("<f4"))
        write_table(path, pa.Table.from_pylist(self._rows, SHARD_SCHEMA))
        self.lengths.append(len(self._rows))
        self._rows, self._given, self._characters = [], [], 0


@lru_cache(maxsize=2)
def _passager(options: PassageOptions, measures: tuple[Measure | Tokenizer, ...]) -> Passager:
    loaded = [token_measure(measure) if isinstance(measure, Tokenizer) else measure for measure in measures]
    return Passager(options, loaded)


def token_measure(tokenizer: Tokenizer) -> TokenMeasure:
    """Read a tokenizer, to measure texts with it."""
    if tokenizer.path is None:
        return TokenMeasure(tokenizer.spec, None)
    serialised = tokenizer.path.read_text(encoding="utf-8")
    return TokenMeasure(tokenizer.spec, TokenCounter.from_json(serialised, tokenizer.spec.passage_prompt))


def _given(shard: Path) -> Path:
    return shard.with_suffix(".given.npy")


def _stack(vectors: list[Any]) -> Any:
    lengths = {len(vector) for vector in vectors}
    if len(lengths) > 1:
        raise BuildError(
            f"vectors of {min(lengths)} and of {max(lengths)} dimensions in one source.",
            value=sorted(lengths),
            remedy="All vectors of a store need one dimension.",
        )
    return np.stack(vectors)
