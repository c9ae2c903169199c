"""The stages of a build over documents: read, filter, deduplicate, split. Each is marked when it is done."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from compactds.configs.recipe import Duplicates, Recipe, Source
from compactds.datastore.encoders.base import Encoder, Vectors
from compactds.datastore.files import write_atomic
from compactds.filters.corpus.duplicates import DuplicateSettings
from compactds.filters.corpus.duplicates_search import SignedShard, find_duplicates
from compactds.filters.schema import FieldType, Schema
from compactds.indexer.attributes import AttributeInference
from compactds.indexer.budgets import make_budgets, spend
from compactds.indexer.cutting import CutContext, CutShard, Tokenizer, cut_task, plan_cutting
from compactds.indexer.duplicates import SignTask, find_repeated, read_texts, sign_task
from compactds.indexer.errors import EmptyCorpusError
from compactds.indexer.execution import Executor, LocalExecutor
from compactds.indexer.filtering import (
    FilterContext,
    FilterStep,
    FilterTask,
    compiled,
    filter_task,
    kept_shard,
    unknown_attributes,
)
from compactds.indexer.given_vectors import open_given_vectors
from compactds.indexer.ledger import Ledger
from compactds.indexer.passages import Measure, PassageOptions
from compactds.indexer.progress import Progress
from compactds.indexer.reading import ReadContext, ReadTask, raw_shard, read_task
from compactds.indexer.repeated_passages import drop_repeated_passages, shard_without
from compactds.indexer.sifting import Sieve
from compactds.indexer.sources import Notices, SourceOptions
from compactds.indexer.stages import run_stage
from compactds.indexer.workspace import READING_FOLDER, ShardSizes, Workspace, settled

SHARDS = ShardSizes()


@dataclass(slots=True)
class Documents:
    """Hold what reading and filtering came to.

    `records` counts everything read, usable or not; `kept` has (source, documents, characters) of each
    shard after the filters; `inference` knows the attributes of the documents kept.
    """

    inference: AttributeInference
    records: int = 0
    kept: list[tuple[int, int, int]] = field(default_factory=list)
    readings: list[dict[str, Any]] = field(default_factory=list)

    def schema(self) -> Schema:
        """Return the types of attributes."""
        return self.inference.schema()


@dataclass(frozen=True, slots=True)
class Passages:
    """Hold what splitting came to: the passages of each shard, and the source each is of."""

    lengths: tuple[int, ...]
    sources: tuple[int, ...]

    @property
    def shards(self) -> int:
        """Return the number of shards."""
        return len(self.lengths)

    @property
    def total(self) -> int:
        """Return the number of passages."""
        return sum(self.lengths)


class Pipeline:
    """Run the stages over one workspace with one executor, and keep the account."""

    def __init__(
        self,
        workspace: Workspace,
        recipe: Recipe,
        sources: Sequence[SourceOptions],
        steps: tuple[FilterStep, ...],
        executor: Executor,
        progress: Progress,
    ) -> None:
        self.ledger = Ledger(options.source_name for options in sources)
        self._workspace = workspace
        self._recipe = recipe
        self._duplicates = recipe.duplicates
        self._sources = tuple(sources)
        self._steps = steps
        self._executor = executor
        self._progress = progress
        self._overrides = {name: FieldType(kind) for name, kind in recipe.attributes.items()}

    def documents(self, tasks: Sequence[ReadTask], vectors: Path | None = None) -> Documents:
        """Read and filter documents, and find those that repeat others.

        If the recipe skips what is invalid, documents are left out whose row of the file `vectors` is zero or
        not finite. Raises BuildError if that file has not one row for each record, EmptyCorpusError if no
        document is left, saying which filter removed them.
        """
        documents = Documents(AttributeInference(self._overrides))
        with self.ledger.timed("read"):
            shards = self._read(tasks, documents)
        given = None if vectors is None else open_given_vectors(vectors, documents.records)
        with self.ledger.timed("filter"):
            self._filter(shards, documents, given)
        if not any(count for _, count, _ in documents.kept):
            raise self._empty()
        with self.ledger.timed("deduplicate"):
            self._deduplicate(documents)
        return documents

    def passages(
        self, documents: Documents, options: PassageOptions | None, measures: Sequence[Encoder]
    ) -> Passages:
        """Split documents into passages; with no options, only count what would be split.

        Raises EmptyCorpusError if none is left once duplicates and budgets are accounted for.
        """
        with self.ledger.timed("split"):
            self._spend(documents)
            cut = self._cut(documents, options, measures)
        passages = self._adopt(cut)
        if not any(line.documents_out for line in self.ledger.sources):
            raise self._empty()
        return passages

    def _read(self, tasks: Sequence[ReadTask], documents: Documents) -> list[FilterTask]:
        """Read all sources; return the shards there are now, as tasks of the next stage."""
        self._progress.stage("reading", None)
        context = ReadContext(self._workspace.root, self._sources, SHARDS)
        folder = self._workspace.root / READING_FOLDER
        results = run_stage(folder, self._executor, read_task, context, tasks, self._progress.advance)
        shards: list[FilterTask] = []
        notices = Notices()
        for task, result in zip(tasks, results, strict=True):
            documents.readings.append(result)
            self.ledger.read(result)
            notices.add(Notices(**result["notices"]))
            for shard in range(result["shards"]):
                shards.append(FilterTask(len(shards), task.number, shard, task.source, documents.records))
            documents.records += result["documents"] + result["rejected"]
        for sentence in notices.sentences():
            self._progress.note(sentence)
        return shards

    def _filter(self, shards: Sequence[FilterTask], documents: Documents, given: Vectors | None) -> None:
        total = sum(line.documents for line in self.ledger.sources)
        self._progress.stage("filtering", total)
        lenient = self._recipe.skip_invalid
        sieve = Sieve(self._workspace, self._overrides, SHARDS, given)
        context = FilterContext(
            self._workspace.root, self._sources, self._steps, self._overrides, SHARDS, lenient
        )
        folder = self._workspace.root / "filtering"
        results = run_stage(folder, self._executor, filter_task, context, shards, self._progress.advance)
        judged = []
        for task, filtered in zip(shards, results, strict=True):
            raw_shard(self._workspace, task.reader, task.shard).unlink(missing_ok=True)
            if lenient:
                result = sieve.sift(task.number, filtered, documents.inference)
                self.ledger.reject(result)
            else:
                result = filtered
                documents.inference.merge(result["attributes"])
            self.ledger.remove(result)
            documents.kept.append((result["source"], result["documents"], result["characters"]))
            judged.append(result)
        for sentence in unknown_attributes(self._steps, judged):
            self._progress.note(sentence)

    def _deduplicate(self, documents: Documents) -> None:
        target = self._drops[0]
        if target.exists():
            return
        near = self._duplicates is not None and self._duplicates.of_documents
        self._progress.stage("finding duplicates", sum(k[1] for k in documents.kept) if near else None)
        target.parent.mkdir(exist_ok=True)
        kept = [
            kept_shard(self._workspace, number)
            for number, (_, count, _) in enumerate(documents.kept)
            if count
        ]
        signed = self._sign(kept)
        with settled(target) as beside:
            find_repeated(kept, target.parent, beside, signed)

    def _spend(self, documents: Documents) -> None:
        """List the documents no budget has room for, once it is known which others are left out."""
        repeated, target, held = self._drops
        budgets = make_budgets(self._steps)
        if not budgets or target.exists():
            return
        shards = [
            (kept_shard(self._workspace, number), source, self._sources[source].source_name)
            for number, (source, count, _) in enumerate(documents.kept)
            if count
        ]
        with settled(target) as beside:
            spend(shards, budgets, (repeated, held), beside)

    def _sign(self, kept: Sequence[Path]) -> tuple[Path, DuplicateSettings] | None:
        """Sign all documents and compare what was signed, if the recipe asks for it."""
        if self._duplicates is None or not self._duplicates.of_documents:
            return None
        settings = _settings(self._duplicates)
        folder = self._workspace.root / "deduplicating"
        tasks = [SignTask(shard, folder / f"{shard.stem}.signed.parquet") for shard in kept]
        (folder / "signing").mkdir(exist_ok=True)
        done = run_stage(
            folder / "signing", self._executor, sign_task, settings, tasks, self._progress.advance
        )
        for _ in done:
            pass
        shards = [SignedShard(task.signed, partial(read_texts, task.shard)) for task in tasks]
        return find_duplicates(shards, folder / "search", settings), settings

    def _cut(
        self, documents: Documents, options: PassageOptions | None, encoders: Sequence[Encoder]
    ) -> list[CutShard]:
        tasks = list(plan_cutting(documents.kept, SHARDS.task_characters))
        self._progress.stage("splitting", sum(count for _, count, _ in documents.kept))
        measures, executor = self._measures(options, encoders)
        context = CutContext(self._workspace.root, self._sources, self._drops, SHARDS, options, measures)
        (self._workspace.root / "passages").mkdir(exist_ok=True)
        folder = self._workspace.root / "splitting"
        results = list(run_stage(folder, executor, cut_task, context, tasks, self._progress.advance))
        for result in results:
            self.ledger.cut(result)
        return [
            CutShard(task.number, task.source, number, length)
            for task, result in zip(tasks, results, strict=True)
            for number, length in enumerate(result["passages"])
        ]

    def _adopt(self, cut: Sequence[CutShard]) -> Passages:
        """Give shards of passages their numbers, without passages that repeat others if so asked."""
        files = [(shard.path(self._workspace), shard.passages, shard.source) for shard in cut]
        if self._duplicates is not None and self._duplicates.of_passages:
            with self.ledger.timed("deduplicate passages"):
                files = self._without_repeated(cut, _settings(self._duplicates))
        for number, (path, _, _) in enumerate(files):
            self._workspace.adopt_shard(number, path)
        return Passages(tuple(length for _, length, _ in files), tuple(source for _, _, source in files))

    def _without_repeated(
        self, cut: Sequence[CutShard], settings: DuplicateSettings
    ) -> list[tuple[Path, int, int]]:
        """Return the (file, passages, source) of each shard that has passages left."""
        results = drop_repeated_passages(
            self._workspace, self._sources, settings, cut, self._executor, self._progress
        )
        for result in results:
            self.ledger.drop_passages(result)
        kept = [length for result in results for length in result["passages"]]
        for shard, length in zip(cut, kept, strict=True):
            if length != shard.passages:
                shard.remove(self._workspace)
        return [
            (shard_without(self._workspace, shard, length), length, shard.source)
            for shard, length in zip(cut, kept, strict=True)
            if length
        ]

    def _measures(
        self, options: PassageOptions | None, encoders: Sequence[Encoder]
    ) -> tuple[tuple[Measure | Tokenizer, ...], Executor]:
        """Return what texts are measured with, and who can do it.

        Another process gets the tokenizer of an encoder. An encoder that does not give its tokenizer away
        measures in this process.
        """
        if options is None:
            return (), self._executor
        tokenizers = write_tokenizers(self._workspace, encoders)
        return (tuple(encoders), LocalExecutor(1)) if tokenizers is None else (tokenizers, self._executor)

    @property
    def _drops(self) -> tuple[Path, Path, Path]:
        folder = self._workspace.root / "deduplicating"
        return folder / "duplicates.parquet", folder / "budgets.parquet", held_list(self._workspace)

    def _empty(self) -> EmptyCorpusError:
        lines = self.ledger.sources
        rejected, read = sum(line.rejected for line in lines), sum(line.documents for line in lines)
        where = ", ".join(source.path for source in self._recipe.sources)
        if read:
            return EmptyCorpusError(
                f"the filters leave none of {read:,} documents: {self.ledger.blame()}.",
                value=read,
                remedy="Loosen or leave out the filters named; --dry-run shows examples of what they remove.",
            )
        return EmptyCorpusError(
            f"no documents to index in {where}"
            + (f": all {rejected} records were rejected." if rejected else "."),
            value=rejected,
            remedy="Check the paths, and the reasons for rejections if there are any.",
        )


def _settings(table: Duplicates) -> DuplicateSettings:
    return DuplicateSettings(threshold=table.threshold, words=table.words, near=table.near)


def passage_options(recipe: Recipe) -> PassageOptions:
    """Return how the recipe's documents become passages."""
    passages = recipe.passages
    return PassageOptions(
        words=passages.words,
        min_words=passages.min_words,
        split=passages.split and not recipe.has_vectors,
        embed_title=passages.embed_title,
    )


def held_list(workspace: Workspace) -> Path:
    """Return the file that lists documents to leave out because the store they are added to holds them."""
    return workspace.root / "deduplicating" / "held.parquet"


def source_options(recipe: Recipe) -> list[SourceOptions]:
    """Return the recipe's sources as readers take them."""
    return [_source_options(source, recipe) for source in recipe.sources]


def _source_options(source: Source, recipe: Recipe) -> SourceOptions:
    fields = dict(source.fields) | ({"vector": source.vector} if source.vector else {})
    return SourceOptions(
        path=source.path,
        format=source.format,
        name=source.name or "",
        fields=fields,
        attributes=None if source.attributes is None else tuple(source.attributes),
        skip_invalid=recipe.skip_invalid,
        max_documents=source.max_documents,
        allow_empty_text=recipe.has_vectors,
        config=source.config,
        split=source.split or "train",
        revision=source.revision,
        ids=source.ids,
        files=source.files,
    )


def filter_steps(recipe: Recipe) -> tuple[FilterStep, ...]:
    """Return the recipe's filters as tasks take them, checked: each is made once.

    Raises CompactdsError for a filter that does not exist or an option it does not take.
    """
    steps = tuple(
        FilterStep(
            json.dumps(table.model_dump(mode="json", exclude={"sources"}), sort_keys=True),
            recipe.sources_of(table),
        )
        for table in recipe.filters
    )
    if recipe.decontamination is not None:
        everywhere = frozenset(range(len(recipe.sources)))
        options = json.dumps(recipe.decontamination.model_dump(mode="json"), sort_keys=True)
        steps = (*steps, FilterStep(options, everywhere))
    compiled(steps)
    return steps


def write_tokenizers(workspace: Workspace, encoders: Sequence[Encoder]) -> tuple[Tokenizer, ...] | None:
    """Write the tokenizers of encoders for other processes; None if an encoder gives its own not away."""
    tokenizers: list[Tokenizer] = []
    for number, encoder in enumerate(encoders):
        if encoder.spec.max_tokens is None:
            tokenizers.append(Tokenizer(None, encoder.spec))
            continue
        tokenizer = tokenizer_json(encoder)
        if tokenizer is None:
            return None
        path = workspace.root / f"tokenizer-{number}.json"
        write_atomic(path, tokenizer.encode())
        tokenizers.append(Tokenizer(path, encoder.spec))
    return tuple(tokenizers)


def tokenizer_json(encoder: Encoder) -> str | None:
    """Return an encoder's tokenizer in its serialised form, or None if it gives none away.

    Raises EncoderError for a tokenizer that cannot be given, and for a limit that leaves no room for text.
    """
    given: str | None = getattr(encoder, "tokenizer_json", None)
    if given is not None:
        assert encoder.overhead_tokens >= 0  # what raises for such a limit
    return given
