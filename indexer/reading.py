"""The first stage of a build: sources are read, file by file, into shards of documents."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from compactds.indexer.document_shards import DocumentRows
from compactds.indexer.documents import Document, spaced_words
from compactds.indexer.execution import Report
from compactds.indexer.sources import InputFile, Notices, Rejection, SourceOptions, read_documents
from compactds.indexer.sources.formats import DOCUMENT_FORMATS
from compactds.indexer.workspace import READING_FOLDER, ShardSizes, Workspace

REJECTS_FILE = "rejects.jsonl"
TASK_FILES = 64
TASK_BYTES = 16_000_000
"""Files that are one document each are read so many at a time; a file of records is read by itself."""


@dataclass(frozen=True, slots=True)
class ReadContext:
    """Say where the build works, what its sources are, and how large a shard is."""

    root: Path
    sources: tuple[SourceOptions, ...]
    sizes: ShardSizes


@dataclass(frozen=True, slots=True)
class ReadTask:
    """Name files to read one after another: all of one source's, or some; None for a dataset on the hub.

    `limit` is the most documents to read, for a sample.
    """

    number: int
    source: int
    files: tuple[InputFile, ...] | None
    limit: int | None = None


@dataclass(slots=True)
class ReadCount:
    """Count what a task has read, and how much of it is safe in shards."""

    documents: int = 0
    words: int = 0
    rejected: int = 0
    shards: int = 0
    reject_bytes: int = 0


def plan_reading(
    sources: Sequence[SourceOptions], files: Sequence[Sequence[InputFile]]
) -> Iterator[ReadTask]:
    """Yield the tasks of the stage in order.

    A source of which only so many documents are wanted is one task, since they are counted over its files.
    """
    number = 0
    for source, options in enumerate(sources):
        groups: Iterator[Sequence[InputFile] | None] = (
            iter([None])
            if options.is_hub_dataset
            else iter([files[source]])
            if options.max_documents is not None
            else _groups(files[source])
        )
        for group in groups:
            yield ReadTask(number, source, None if group is None else tuple(group))
            number += 1


def _groups(files: Sequence[InputFile]) -> Iterator[Sequence[InputFile]]:
    group: list[InputFile] = []
    for file in files:
        alone = file.format not in DOCUMENT_FORMATS
        held = sum(one.size_bytes for one in group)
        if group and (alone or len(group) >= TASK_FILES or held + file.size_bytes > TASK_BYTES):
            yield group
            group = []
        group.append(file)
        if alone:
            yield group
            group = []
    if group:
        yield group


def read_task(context: ReadContext, task: ReadTask, report: Report) -> dict[str, Any]:
    """Read the files of a task into shards of documents, going on where an earlier run stopped."""
    return _Reading(context, task, report).run()


class _Reading:
    """One run of one task."""

    def __init__(self, context: ReadContext, task: ReadTask, report: Report) -> None:
        self._workspace = Workspace(context.root)
        self._options = context.sources[task.source]
        self._task = task
        self._report = report
        self._state = f"{READING_FOLDER}/{task.number:06d}.part"
        self._count = ReadCount(**(self._workspace.read_state(self._state) or {}))
        self._rows = DocumentRows(context.sizes)
        self._rejects = rejects_of(self._workspace, task.number)
        self._skip_rejects = self._count.rejected

    def run(self) -> dict[str, Any]:
        self._cut_rejects()
        notices = Notices()
        skip, count = self._count.documents, self._count
        self._report(skip)
        documents = read_documents(self._options, self._reject, files=self._task.files, notices=notices)
        for number, document in enumerate(islice(documents, self._task.limit)):
            if number >= skip:
                self._add(document)
        if self._rows:
            self._flush()
        return {**asdict(count), "source": self._task.source, "notices": asdict(notices)}

    def _add(self, document: Document) -> None:
        words = spaced_words(document.text)
        self._rows.add(document, self._count.documents + self._count.rejected, words)
        self._count.documents += 1
        self._count.words += words
        if self._rows.full:
            self._flush()
        self._report(1)

    def _flush(self) -> None:
        """Save the documents gathered so far as a shard, then the count that tells of it."""
        self._rows.write(raw_shard(self._workspace, self._task.number, self._count.shards))
        self._count.shards += 1
        self._count.reject_bytes = self._rejects.stat().st_size if self._rejects.exists() else 0
        self._workspace.write_state(self._state, asdict(self._count))

    def _reject(self, rejection: Rejection) -> None:
        if self._skip_rejects:
            self._skip_rejects -= 1
            return
        self._count.rejected += 1
        with self._rejects.open("ab") as file:
            file.write(orjson.dumps(asdict(rejection)) + b"\n")

    def _cut_rejects(self) -> None:
        """Forget rejections written after the last saved count; they will be met again."""
        if self._rejects.exists():
            with self._rejects.open("r+b") as file:
                file.truncate(self._count.reject_bytes)


def raw_shard(workspace: Workspace, task: int, number: int) -> Path:
    """Return the file of a task's documents as they were read."""
    return workspace.documents / f"{task:06d}-{number:06d}.arrow"


def rejects_of(workspace: Workspace, task: int) -> Path:
    """Return the file that lists the records a task rejected."""
    return workspace.root / READING_FOLDER / f"{task:06d}.rejects.jsonl"
