"""The second stage of a build: every document is judged and edited by the recipe's filters, in order."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from compactds.filters.corpus.base import CorpusFilter, Drop, TextEditor
from compactds.filters.corpus.budget import Budget
from compactds.filters.corpus.decontamination import (
    ContaminatedDocuments,
    contaminated,
    removal_record,
    without,
)
from compactds.filters.corpus.overlap import OverlapIndex
from compactds.filters.corpus.overlap_files import read_question_files
from compactds.filters.corpus.selection import Where
from compactds.filters.errors import nearest
from compactds.filters.schema import FieldType
from compactds.indexer.attributes import AttributeInference
from compactds.indexer.document_shards import DocumentRows, read_shard_documents
from compactds.indexer.documents import Document, spaced_words
from compactds.indexer.errors import AttributeTypeError
from compactds.indexer.execution import Report
from compactds.indexer.ledger import DECONTAMINATION, NOTHING_LEFT
from compactds.indexer.reading import raw_shard
from compactds.indexer.removals import Removals
from compactds.indexer.sources import SourceOptions
from compactds.indexer.workspace import ShardSizes, Workspace, settled

CONTAMINATED_FILE = "contaminated.jsonl"
_NAMES_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class FilterStep:
    """Hold one filter as the recipe has it, in JSON, and the numbers of the sources it is for.

    A table with "questions" and no "filter" is the recipe's [decontamination].
    """

    options: str
    sources: frozenset[int]


@dataclass(frozen=True, slots=True)
class FilterContext:
    """Say where the build works, what its sources and filters are, and which types attributes are given.

    With `lenient`, an attribute of a wrong type stops nothing: that a shard has one is told.
    """

    root: Path
    sources: tuple[SourceOptions, ...]
    steps: tuple[FilterStep, ...]
    overrides: Mapping[str, FieldType]
    sizes: ShardSizes
    lenient: bool = False


@dataclass(frozen=True, slots=True)
class FilterTask:
    """Name one shard of documents: the task that read it, its number there, and its number among all.

    `first_record` is the place of the task's first record among all records.
    """

    number: int
    reader: int
    shard: int
    source: int
    first_record: int


def filter_task(context: FilterContext, task: FilterTask, report: Report) -> dict[str, Any]:
    """Judge the documents of one shard; write those that stay, and what became of the others."""
    workspace = Workspace(context.root)
    filters = [step for step in compiled(context.steps) if task.source in step.sources]
    removals = Removals(context.sources[task.source])
    inference = AttributeInference(context.overrides)
    rows, edits = DocumentRows(context.sizes), _Edits()
    asks = any(isinstance(step.filter, Where) for step in filters)
    names: set[str] = set()
    mixed = False
    documents = words = characters = 0
    for document, ordinal, count in read_shard_documents(raw_shard(workspace, task.reader, task.shard)):
        if asks and len(names) < _NAMES_KEPT:
            names.update(document.attributes)
        edited, drop = _judge(document, filters, edits)
        if drop is not None:
            removals.add(document, count, drop)
        else:
            mixed = mixed or not _fits(edited, inference, lenient=context.lenient)
            if edited is not document:
                count = spaced_words(edited.text)
            rows.add(edited, task.first_record + ordinal, count)
            documents, words = documents + 1, words + count
            characters += len(edited.text)
        report(1)
    if rows:
        rows.write(kept_shard(workspace, task.number))
    removals.write(removed_by_filters(workspace, task.number))
    edits.write(contaminated_by(workspace, task.number))
    return {
        "source": task.source,
        "documents": documents,
        "words": words,
        "characters": characters,
        "removed": removals.counts(),
        "edits": edits.counts(),
        "contaminated": edits.contaminated,
        "attributes": inference.to_json(),
        "mixed": mixed,
        "names": sorted(names),
    }


def _fits(document: Document, inference: AttributeInference, *, lenient: bool) -> bool:
    """Take note of a document's attributes, and return whether they go with those before.

    Raise AttributeTypeError if they do not, unless `lenient`; then what was noted is of no use, and whether
    the document stays is settled later (`sifting`).
    """
    try:
        inference.observe(document)
    except AttributeTypeError:
        if not lenient:
            raise
        return False
    return True


def unknown_attributes(steps: tuple[FilterStep, ...], results: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each attribute that a condition asks for and no document has, of those judged.

    `results` are those of `filter_task`. Where there are more names than are kept, nothing is said.
    """
    names: dict[int, set[str]] = {}
    for result in results:
        if result["documents"] or result["removed"]:
            names.setdefault(result["source"], set()).update(result["names"])
    for step in compiled(steps):
        judged = [names[source] for source in sorted(step.sources) if source in names]
        known = set().union(*judged)
        if not isinstance(step.filter, Where) or not judged or len(known) >= _NAMES_KEPT:
            continue
        for name in step.filter.attributes:
            if name not in known:
                near = nearest(name, sorted(known))
                meant = f" Did you mean {near!r}?" if near else ""
                yield f"No document has the attribute {name!r}, which a filter's condition asks for.{meant}"


def _judge(
    document: Document, steps: Sequence["CompiledStep"], edits: "_Edits"
) -> tuple[Document, Drop | None]:
    """Return the document as the filters leave it, and why it is dropped if it is; note what was edited."""
    for step in steps:
        if step.filter is not None:
            drop = step.filter.judge(document)
            if drop is not None:
                return document, drop
        if step.editor is not None:
            text, changes = step.editor.edit(document.text)
            edits.add(step.editor.name, changes)
            if text != document.text:
                document = replace(document, text=text)
            if changes and not text.strip():
                return document, Drop(step.editor.name, NOTHING_LEFT, 0.0)
        if step.questions is not None:
            text = edits.decontaminate(document, step.questions)
            if text != document.text:
                document = replace(document, text=text)
                if not text.strip():
                    return document, Drop(DECONTAMINATION, NOTHING_LEFT, 0.0)
    return document, None


class _Edits:
    """Count what was changed in the documents of a task, and list what overlapped with questions."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._records: list[dict[str, Any]] = []
        self.contaminated = 0

    def add(self, name: str, changes: Mapping[str, int]) -> None:
        """Count the changes made to one document, by their kind."""
        for kind, places in changes.items():
            count = self._counts.setdefault((name, kind), [0, 0])
            count[0] += 1
            count[1] += places

    def decontaminate(self, document: Document, questions: OverlapIndex) -> str:
        """Return a document's text without the paragraphs that overlap with a question, and list those."""
        removals = contaminated(questions, document.text)
        if not removals:
            return document.text
        self.contaminated += 1
        self.add(DECONTAMINATION, Counter(f"paragraphs_{removal.match.kind}" for removal in removals))
        self._records += [removal_record(removal, questions, document.id) for removal in removals]
        return without(document.text, removals)

    def counts(self) -> list[list[Any]]:
        """Return [name, kind, documents, places] for each kind of change."""
        return [[*kind, *count] for kind, count in self._counts.items()]

    def write(self, path: Path) -> None:
        """Save the list of what overlapped, if there is any."""
        if self._records:
            with settled(path) as beside:
                beside.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in self._records))


@dataclass(frozen=True, slots=True)
class CompiledStep:
    """Hold what judges documents, or what edits them, and the numbers of the sources it is for."""

    sources: frozenset[int]
    filter: CorpusFilter | None = None
    editor: TextEditor | None = None
    questions: OverlapIndex | None = None


@lru_cache(maxsize=4)
def compiled(steps: tuple[FilterStep, ...]) -> list[CompiledStep]:
    """Return the steps with their filters, made once a process.

    Raises CompactdsError for a filter that does not exist, or an option it does not take.
    """
    return [_compiled(step.sources, json.loads(step.options)) for step in steps]


def _compiled(sources: frozenset[int], table: Mapping[str, Any]) -> CompiledStep:
    if "filter" not in table:
        questions = [found for path in table["questions"] for found in read_question_files(Path(path))]
        index = OverlapIndex(questions, table["mode"], words=table["words"], threshold=table["threshold"])
        if table["remove"] == "documents":
            return CompiledStep(sources, filter=ContaminatedDocuments(index))
        return CompiledStep(sources, questions=index)
    from compactds.filters.corpus.catalogue import make_filter

    encode = None
    if table["filter"] == "learned_quality" and isinstance(model := table.get("model"), str):
        from compactds.indexer.quality_encoder import QualityEncoder

        encode = QualityEncoder(Path(model))
    made: Any = make_filter(table, encode=encode)
    if isinstance(made, Budget):
        return CompiledStep(sources)  # which is spent when all that may stay is known
    if hasattr(made, "judge"):
        return CompiledStep(sources, filter=made)
    return CompiledStep(sources, editor=made)


def kept_shard(workspace: Workspace, number: int) -> Path:
    """Return the file of the documents of a shard that the filters keep."""
    return workspace.kept / f"{number:06d}.arrow"


def removed_by_filters(workspace: Workspace, number: int) -> Path:
    """Return the file that tells of the documents of a shard that filters removed."""
    return workspace.removed / f"filters-{number:06d}.arrow"


def contaminated_by(workspace: Workspace, number: int) -> Path:
    """Return the file that lists the paragraphs of a shard that overlapped with questions."""
    return workspace.removed / f"contaminated-{number:06d}.jsonl"
