"""Say what a build will make and take before any of it is done: passages, memory, disk, time."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from compactds.configs.recipe import Recipe
from compactds.datastore.advisor import sample_rows
from compactds.datastore.ann.choose import IndexPlan, choose_index
from compactds.datastore.encoders import Encoder, EncoderOptions, Vectors, load_encoder
from compactds.datastore.encoders.static import StaticEncoder
from compactds.datastore.expectation import SAMPLE_ROWS
from compactds.datastore.lookup import ENTRY
from compactds.datastore.memory import held_bytes
from compactds.datastore.vectors import EXACT_DTYPES
from compactds.filters.errors import CompactdsError
from compactds.indexer.counting import RecordCount
from compactds.indexer.encoder_names import check_encoders, encoder_configs
from compactds.indexer.errors import EmptyCorpusError
from compactds.indexer.execution import LocalExecutor
from compactds.indexer.given_vectors import (
    check_dimension,
    given_dimension,
    open_given_vectors,
    refuse_unusable,
    unusable_rows,
)
from compactds.indexer.ledger import Ledger
from compactds.indexer.passages import PassageOptions, Passager
from compactds.indexer.pipeline import Documents, Pipeline, filter_steps, source_options
from compactds.indexer.progress import LoggedProgress, Progress, SilentProgress
from compactds.indexer.reading import ReadTask
from compactds.indexer.sampling import Sample, choose_sample, estimate_records, find_stops, known_records
from compactds.indexer.sources import SourceOptions, list_input_files
from compactds.indexer.workspace import Workspace

SAMPLED_DOCUMENTS = 500
TIMED_PASSAGES = 64
COMPRESSED_TOGETHER = 16
BYTES_PER_PASSAGE = 110
"""What a passage takes on disk besides its text and attributes: its place, its batch, built-in columns."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Hold what a sample of the sources says about all of them.

    `counted` tells that `records` is no estimate; `exact` that `passages` is none either, because every
    record is a passage. `passage_bytes` is what the text of a passage takes on disk. `stops` are the errors
    at which the build would stop in the `sampled_files`, the first of each.
    """

    records: int
    passages: int
    counted: bool
    exact: bool
    sampled_documents: int
    sampled_passages: int
    passage_bytes: float
    records_per_s: float
    texts: tuple[str, ...]
    dimension: int | None
    sampled_files: int
    files: int
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EncoderCost:
    """Hold what encoders were measured to take: memory, and passages a second; the rate is 0 without any.

    `options` load each of them again; a model distilled for the plan from the folder it was given.
    """

    dimensions: tuple[int, ...]
    memory_bytes: int
    passages_per_s: float
    options: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """Hold what a build will make: its corpus, encoders, index and bytes on disk."""

    corpus: Corpus
    encoders: EncoderCost
    index: IndexPlan
    dimension: int
    disk_bytes: int


def plan_build(recipe: Recipe, folder: Path, *, progress: Progress | None = None) -> BuildPlan:
    """Return what a build of `recipe` will make, from counting and sampling its sources.

    Nothing is written but into `folder`, where a distilled model is kept, and a temporary one. Encoders are
    loaded, to count tokens with and to time. Raises what a build does for sources, filters, encoders,
    ready-made vectors and a memory budget that is too small.
    """
    shown = progress or LoggedProgress()
    filter_steps(recipe)
    given = given_dimension(recipe.vectors)
    before = held_bytes()
    encoders = _load_encoders(recipe, shown)
    loaded = max(0, held_bytes() - before) if encoders else 0
    if given is not None and encoders:
        check_dimension(given, encoders[-1].spec)
    corpus = sample_corpus(recipe, encoders, progress=shown)
    if corpus.dimension is not None and encoders:
        check_dimension(corpus.dimension, encoders[-1].spec)
    dimension = corpus.dimension or encoders[0].spec.dimension
    index = choose_index(
        corpus.passages, dimension, memory_bytes=recipe.index.memory_bytes, kind=recipe.index.kind
    )
    cost = replace(
        _time_encoders(encoders, corpus, recipe, shown, loaded), options=_options(recipe, encoders, folder)
    )
    deciding = corpus.dimension or cost.dimensions[-1]
    row_bytes = deciding * np.dtype(EXACT_DTYPES[recipe.exact.dtype]).itemsize + corpus.passage_bytes
    disk = corpus.passages * row_bytes + corpus.records * ENTRY.itemsize + index.ram_bytes
    return BuildPlan(corpus, cost, index, dimension, round(disk))


def sample_corpus(
    recipe: Recipe,
    encoders: Sequence[Encoder] = (),
    *,
    sample: int = SAMPLED_DOCUMENTS,
    progress: Progress | None = None,
) -> Corpus:
    """Count records, and run about `sample` of them through filters and splitting.

    What occurs twice shows in a sample only if both are in it, so that duplicates make fewer passages than
    this says. Raises EmptyCorpusError if nothing of the sample is left, and BuildError for a file of vectors
    that has not one for each record, if the number of these is known.
    """
    shown = progress or LoggedProgress()
    sources = source_options(recipe)
    files = [list_input_files(options) for options in sources]
    shown.stage("counting", None)
    counts = [estimate_records(options, found) for options, found in zip(sources, files, strict=True)]
    told = counts
    if recipe.vectors is not None and len(counts) == 1:
        told = [RecordCount(len(open_given_vectors(recipe.vectors)), counted=True)]  # one for each record
    samplers = [replace(options, skip_invalid=True, max_documents=None) for options in sources]
    with TemporaryDirectory(prefix="compactds-") as folder:
        workspace, _ = Workspace.open(Path(folder), "plan", "plan")
        executor = LocalExecutor()
        pipeline = Pipeline(workspace, recipe, samplers, filter_steps(recipe), executor, shown)
        chosen = choose_sample(samplers, files, -(-sample // len(sources)))
        _warm_up(recipe, samplers, chosen.tasks)
        documents = _read_sample(pipeline, workspace, sources, chosen)
        stops = tuple(str(stop) for stop in find_stops(workspace, sources, chosen.tasks))
        if recipe.vectors is not None and not stops:
            _check_rows(recipe.vectors, sources, counts, chosen, pipeline.ledger)
        options = passage_options(recipe)
        measures = () if recipe.has_vectors else tuple(encoders)
        passages = pipeline.passages(documents, options, measures)
        seconds = sum(pipeline.ledger.seconds[stage] for stage in ("read", "filter", "split"))
        if not passages.total:
            raise EmptyCorpusError(
                "nothing of the sample is left to index.",
                remedy="Run with --dry-run to see what the filters remove.",
            )
        tables = [workspace.read_shard(number) for number in range(passages.shards)]
        dimension = _given_dimension(recipe, workspace)
    rows = pa.concat_tables(tables)
    read = sum(line.documents + line.rejected for line in pipeline.ledger.sources)
    return Corpus(
        records=round(sum(count.records for count in told)),
        passages=_passages(told, pipeline.ledger),
        counted=all(count.counted for count in told),
        exact=all(count.counted for count in told) and recipe.has_vectors and not recipe.filters,
        sampled_documents=read,
        sampled_passages=passages.total,
        passage_bytes=_compressed_bytes(rows) + BYTES_PER_PASSAGE,
        records_per_s=read / max(1e-6, seconds),
        texts=_texts_to_time(rows, Passager(options, measures)),
        dimension=dimension,
        sampled_files=chosen.files,
        files=chosen.all_files,
        stops=stops,
    )


def sampled_vectors(recipe: Recipe) -> Vectors | None:
    """Return a sample of the recipe's ready-made vectors, shape (n, d); None if they are not in a file.

    Those that a build leaves out with `skip_invalid` are left out here. Raises BuildError as a build does.
    """
    if recipe.vectors is None:
        return None
    vectors = open_given_vectors(recipe.vectors)
    rows = sample_rows(*vectors.shape, most=SAMPLE_ROWS)
    unusable = unusable_rows(vectors, rows)
    if not recipe.skip_invalid:
        refuse_unusable(unusable)
    return np.asarray(vectors[[row for row in rows.tolist() if row not in unusable]], np.float32)


def passage_options(recipe: Recipe) -> PassageOptions:
    """Return how a recipe's documents become passages."""
    passages = recipe.passages
    return PassageOptions(
        words=passages.words,
        min_words=passages.min_words,
        split=passages.split and not recipe.has_vectors,
        embed_title=passages.embed_title,
    )


def _warm_up(recipe: Recipe, sources: Sequence[SourceOptions], tasks: Sequence[ReadTask]) -> None:
    """Read and filter a record of each source: what is loaded for the first is no time that records take."""
    firsts = {task.source: replace(task, limit=1) for task in reversed(tasks) if task.files is not None}
    with TemporaryDirectory(prefix="compactds-") as folder, suppress(CompactdsError):  # the sample tells
        workspace, _ = Workspace.open(Path(folder), "plan", "plan")
        steps = filter_steps(recipe)
        pipeline = Pipeline(workspace, recipe, sources, steps, LocalExecutor(), SilentProgress())
        pipeline.documents(list(firsts.values()))


def _passages(counts: Sequence[RecordCount], ledger: Ledger) -> int:
    """Return how many passages all records make if they are as those of the sample, source by source."""
    total = 0.0
    for count, line in zip(counts, ledger.sources, strict=True):
        read = line.documents + line.rejected
        total += count.records * line.passages / read if read else 0.0
    return max(1, round(total))


def _read_sample(
    pipeline: Pipeline, workspace: Workspace, sources: Sequence[SourceOptions], sample: Sample
) -> Documents:
    """Return the documents of a sample; raise what stops the build in it if there are none."""
    try:
        return pipeline.documents(sample.tasks)
    except EmptyCorpusError:
        for stop in find_stops(workspace, sources, sample.tasks):
            raise stop from None
        raise


def _check_rows(
    vectors: Path,
    sources: Sequence[SourceOptions],
    counts: Sequence[RecordCount],
    sample: Sample,
    ledger: Ledger,
) -> None:
    """Raise BuildError, as a build does, for a file of vectors that has not one for each record.

    Nothing is said where it is not known how many records there are.
    """
    records = 0
    for number, (options, count, line) in enumerate(zip(sources, counts, ledger.sources, strict=True)):
        read = line.documents + line.rejected
        known = known_records(options, count, read, has_all=sample.has_all(number, read))
        if known is None:
            return
        records += known
    open_given_vectors(vectors, records)


def _texts_to_time(rows: pa.Table, passager: Passager) -> tuple[str, ...]:
    """Return the first texts of a sample as an encoder is given them."""
    first = rows.slice(0, TIMED_PASSAGES)
    pairs = zip(first.column("title").to_pylist(), first.column("text").to_pylist(), strict=True)
    return tuple(passager.encoded_text(title, text) for title, text in pairs)


def _given_dimension(recipe: Recipe, workspace: Workspace) -> int | None:
    if recipe.vectors is not None:
        return given_dimension(recipe.vectors)
    return int(workspace.read_vectors(0, "given").shape[1]) if recipe.has_vectors else None


def _compressed_bytes(rows: pa.Table) -> float:
    """Return what a passage's text and attributes take once they are compressed as a store does."""
    codec = pa.Codec("zstd", compression_level=6)
    texts = rows.column("text").to_pylist()
    attributes = rows.column("attributes").to_pylist()
    size = 0
    for start in range(0, len(texts), COMPRESSED_TOGETHER):
        for column in (texts, attributes, attributes):  # attributes are kept as text and as columns
            joined = "".join(column[start : start + COMPRESSED_TOGETHER]).encode("utf-8", "replace")
            size += len(codec.compress(joined, asbytes=True))
    return size / max(1, len(texts))


def _load_encoders(recipe: Recipe, progress: Progress) -> list[Encoder]:
    """Return the encoder of the index and, if it is another, that of the exact stage, each warmed up."""
    configs = encoder_configs(recipe)
    if not configs:
        return []
    progress.stage("loading encoder", None)
    check_encoders(configs)
    encoders = [load_encoder(EncoderOptions(**config.model_dump())) for config in configs]
    for encoder in encoders:
        encoder.encode_queries(["light"])
    return encoders


def _options(recipe: Recipe, encoders: Sequence[Encoder], folder: Path) -> tuple[dict[str, Any], ...]:
    """Return options that load the encoders again as a server does: no distilling, no other machine."""
    options = []
    for number, encoder in enumerate(encoders):
        if isinstance(encoder, StaticEncoder):
            encoder.save(folder / str(number))
            options.append({"model": str(folder / str(number)), "kind": "static"})
        elif encoder.spec.kind == "sentence-transformers":
            options.append(encoder_configs(recipe)[number].model_dump())
    return tuple(options)


def _time_encoders(
    encoders: Sequence[Encoder], corpus: Corpus, recipe: Recipe, progress: Progress, loaded: int
) -> EncoderCost:
    dimensions = tuple(encoder.spec.dimension for encoder in encoders)
    if recipe.has_vectors or not encoders:
        return EncoderCost(dimensions, loaded, 0.0)
    progress.stage("timing the encoder", None)
    before, seconds = held_bytes(), 0.0
    for encoder in encoders:
        start = time.perf_counter()
        encoder.encode_passages(list(corpus.texts))
        seconds += time.perf_counter() - start
    grown = max(0, held_bytes() - before)
    return EncoderCost(dimensions, loaded + grown, len(corpus.texts) / max(1e-6, seconds))
