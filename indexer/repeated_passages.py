"""Leave out passages that repeat an earlier one, once all documents are split: found as documents are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compactds.datastore.passages import passage_id
from compactds.filters.corpus.base import Drop
from compactds.filters.corpus.duplicates import DuplicateSettings, sign_shard
from compactds.filters.corpus.duplicates_search import SignedShard, find_duplicates
from compactds.indexer.cutting import CutShard, cut_shard
from compactds.indexer.documents import Document, spaced_words
from compactds.indexer.dropped import read_drops_between
from compactds.indexer.duplicates import list_similar
from compactds.indexer.execution import Executor, Report
from compactds.indexer.ledger import DUPLICATE_PASSAGES
from compactds.indexer.progress import Progress
from compactds.indexer.removals import EXCERPT_CHARACTERS, Removals
from compactds.indexer.sources import SourceOptions
from compactds.indexer.stages import run_stage
from compactds.indexer.workspace import Workspace, read_table, settled, write_npy, write_table

NO_PASSAGE_LEFT = "no_passage_left"
"""The reason of a document that is left out because all of its passages are."""


@dataclass(frozen=True, slots=True)
class PassageContext:
    """Say where the build works, what a duplicate is, and where passages to leave out are listed."""

    root: Path
    sources: tuple[SourceOptions, ...]
    settings: DuplicateSettings
    drops: Path


@dataclass(frozen=True, slots=True)
class PassageTask:
    """Name the passages of one task of the split.

    `lengths` are those of its shards; `first` is the number of its first passage, counted over all tasks.
    """

    number: int
    source: int
    first: int
    lengths: tuple[int, ...]

    @property
    def end(self) -> int:
        """Return the number of the passage after its last."""
        return self.first + sum(self.lengths)


def drop_repeated_passages(
    workspace: Workspace,
    sources: tuple[SourceOptions, ...],
    settings: DuplicateSettings,
    cut: Sequence[CutShard],
    executor: Executor,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Take passages that repeat an earlier one out of the shards of a split; return what each task says.

    Of all copies the first passage stays, in the order of the shards, which is that of the store. A shard
    that loses passages is written anew: `shard_without` says where what is left of a shard is.
    """
    folder = workspace.root / "repeated"
    folder.mkdir(exist_ok=True)
    tasks = list(_numbered(cut))
    context = PassageContext(workspace.root, sources, settings, folder / "drops.parquet")
    total = tasks[-1].end if tasks else 0
    if not context.drops.exists():
        progress.stage("finding duplicate passages", total)
        _find(workspace, context, tasks, executor, progress)
    progress.stage("leaving out duplicate passages", total)
    return list(run_stage(folder / "dropping", executor, drop_task, context, tasks, progress.advance))


def shard_without(workspace: Workspace, shard: CutShard, passages: int) -> Path:
    """Return the file of what is left of a shard: so many passages."""
    if passages == shard.passages:
        return shard.path(workspace)
    return _rewritten(workspace, shard.task, shard.number)


def sign_task(context: PassageContext, task: PassageTask, report: Report) -> dict[str, Any]:
    """Sign the passages of a task, so that similar ones can be found."""
    workspace = Workspace(context.root)
    sign_shard(_signed(workspace, task), _read_texts(workspace, task), context.settings)
    report(sum(task.lengths))
    return {"passages": sum(task.lengths)}


def drop_task(context: PassageContext, task: PassageTask, report: Report) -> dict[str, Any]:
    """Write the shards of a task that lose passages anew, and tell what was left out.

    A shard keeps nothing if none of its passages is left; a document that has none is told of, too. Words
    of passages add up to those of their documents, so that those of such a document count once.
    """
    workspace = Workspace(context.root)
    drops = read_drops_between([context.drops], task.first, task.end - 1)
    rows = _columns(workspace, task, ["ordinal", "start", "end"])
    kept = np.ones(len(rows["ordinal"]), np.bool_)
    kept[np.fromiter(drops, np.int64, len(drops)) - task.first] = False
    emptied = _Emptied(np.setdiff1d(rows["ordinal"], rows["ordinal"][kept]).tolist())
    passages = Removals(context.sources[task.source])
    place, lengths = 0, []
    for number, length in enumerate(task.lengths):
        stay = kept[place : place + length]
        if not stay.all():
            table = read_table(cut_shard(workspace, task.number, number))
            for offset in np.flatnonzero(~stay).tolist():
                row = place + offset
                drop = drops[task.first + row]
                (passage,) = table.slice(offset, 1).to_pylist()
                words = spaced_words(passage["text"]) - _continues_word(rows, row)
                passages.add(_document(passage), words, drop, position=passage["position"])
                emptied.add(passage, words, drop)
            _write_kept(workspace, task, number, table, stay)
        lengths.append(int(stay.sum()))
        place += length
        report(length)
    documents = emptied.removals(context.sources[task.source])
    passages.write(workspace.root / "repeated" / f"passages-{task.number:06d}.arrow")
    documents.write(workspace.root / "repeated" / f"documents-{task.number:06d}.arrow")
    return {
        "source": task.source,
        "passages": lengths,
        "removed_passages": passages.counts(),
        "removed": [[name, reason, count, 0] for name, reason, count, _ in documents.counts()],
    }


class _Emptied:
    """Gather the documents of which no passage is left."""

    def __init__(self, ordinals: Sequence[int]) -> None:
        self._found: dict[int, tuple[Document, int, Drop]] = {}
        self._ordinals = frozenset(ordinals)

    def add(self, passage: dict[str, Any], words: int, drop: Drop) -> None:
        """Take a passage that is left out; where the first one is kept stands for the document."""
        ordinal = passage["ordinal"]
        if ordinal in self._found:
            document, known, first = self._found[ordinal]
            self._found[ordinal] = document, known + words, first
        elif ordinal in self._ordinals:
            why = Drop(DUPLICATE_PASSAGES, NO_PASSAGE_LEFT, drop.value)
            self._found[ordinal] = _document(passage), words, why

    def removals(self, options: SourceOptions) -> Removals:
        """Return them as a list of what was left out."""
        removals = Removals(options)
        for document, words, drop in self._found.values():
            removals.add(document, words, drop)
        return removals


def _numbered(cut: Sequence[CutShard]) -> Iterator[PassageTask]:
    first = 0
    for number, shards in groupby(cut, key=lambda shard: shard.task):
        (source, *_), lengths = zip(*((shard.source, shard.passages) for shard in shards), strict=True)
        yield PassageTask(number, source, first, lengths)
        first += sum(lengths)


def _find(
    workspace: Workspace,
    context: PassageContext,
    tasks: Sequence[PassageTask],
    executor: Executor,
    progress: Progress,
) -> None:
    """List the passages that repeat an earlier one, and the ids of those that are kept."""
    folder = context.drops.parent
    for _ in run_stage(folder / "signing", executor, sign_task, context, tasks, progress.advance):
        pass
    shards = [SignedShard(_signed(workspace, task), partial(_read_texts, workspace, task)) for task in tasks]
    found = find_duplicates(shards, folder / "search", context.settings)
    named = (table for task in tasks for table in _named(workspace, task))
    with settled(context.drops) as beside:
        list_similar(named, folder, beside, (found, context.settings), DUPLICATE_PASSAGES)


def _rewritten(workspace: Workspace, task: int, number: int) -> Path:
    return workspace.root / "repeated" / f"{task:06d}-{number:06d}.arrow"


def _signed(workspace: Workspace, task: PassageTask) -> Path:
    return workspace.root / "repeated" / f"{task.number:06d}.signed.parquet"


def _read_texts(workspace: Workspace, task: PassageTask) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of the passages of a task."""
    number = task.first
    for table in _shards(workspace, task, ["text"]):
        for batch in table.to_batches(max_chunksize=256):
            for text in batch.column(0).to_pylist():
                yield number, text
                number += 1


def _named(workspace: Workspace, task: PassageTask) -> Iterator[pa.Table]:
    """Yield the numbers of passages, and their ids."""
    number = task.first
    for table in _shards(workspace, task, ["document_id", "position"]):
        pairs = zip(*(table.column(name).to_pylist() for name in ("document_id", "position")), strict=True)
        ids = [passage_id(*pair) for pair in pairs]
        yield pa.table(
            {"ordinal": pa.array(range(number, number + len(ids)), pa.int64()), "document_id": ids}
        )
        number += len(ids)


def _columns(workspace: Workspace, task: PassageTask, names: list[str]) -> dict[str, NDArray[np.int64]]:
    tables = list(_shards(workspace, task, names))
    return {name: np.concatenate([table.column(name).to_numpy() for table in tables]) for name in names}


def _shards(workspace: Workspace, task: PassageTask, columns: list[str]) -> Iterator[pa.Table]:
    for number in range(len(task.lengths)):
        yield read_table(cut_shard(workspace, task.number, number), columns)


def _continues_word(rows: dict[str, NDArray[np.int64]], row: int) -> bool:
    """Tell whether a passage begins within a word: where the one before it ends, without a space between."""
    same_document = row > 0 and rows["ordinal"][row - 1] == rows["ordinal"][row]
    return bool(same_document and rows["end"][row - 1] == rows["start"][row])


def _document(passage: dict[str, Any]) -> Document:
    """Return what a list of removals says of a passage's document, with the beginning of the passage."""
    names = ("title", "source", "origin")
    facts = {name: passage[name] for name in names}
    return Document(id=passage["document_id"], text=passage["text"][:EXCERPT_CHARACTERS], **facts)


def _write_kept(
    workspace: Workspace, task: PassageTask, number: int, table: pa.Table, stay: NDArray[np.bool_]
) -> None:
    """Write what stays of a shard and of its given vectors; nothing if that is nothing."""
    if not stay.any():
        return
    target = _rewritten(workspace, task.number, number)
    given = cut_shard(workspace, task.number, number).with_suffix(".given.npy")
    if given.exists():
        write_npy(target.with_suffix(".given.npy"), np.load(given, allow_pickle=False)[stay])
    write_table(target, table.filter(pa.array(stay)))
