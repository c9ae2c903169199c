"""Try a recipe on a sample: what would its filters remove, and why, before hours are spent."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compactds.configs.recipe import Recipe
from compactds.datastore.encoders.base import Encoder
from compactds.datastore.encoders.vectors import VectorsEncoder, vectors_spec
from compactds.indexer.errors import BuildError, EmptyCorpusError
from compactds.indexer.execution import Executor, LocalExecutor
from compactds.indexer.pipeline import Pipeline, filter_steps, passage_options, source_options
from compactds.indexer.progress import LoggedProgress, Progress
from compactds.indexer.reading import ReadTask
from compactds.indexer.removals import REMOVED_FILE, gather_removed, read_examples, removed_files
from compactds.indexer.sources import InputFile, SourceOptions, list_input_files
from compactds.indexer.sources.formats import DOCUMENT_FORMATS
from compactds.indexer.workspace import Workspace

RECORD_FILES = 20
"""Of a folder of record files, this many are sampled at most."""


def survey(
    recipe: Recipe, *, sample: int = 1000, progress: Progress | None = None, executor: Executor | None = None
) -> dict[str, Any]:
    """Run the recipe's filters, duplicates and decontamination over a sample, and return the account.

    About `sample` documents are taken, equally many of each source, from the beginnings of files spread
    evenly over it. Nothing is encoded or kept; no encoder is loaded. The account is as a store's ledger,
    with "examples" of what was removed. If passages are compared, they end by words alone here, since no
    encoder says how many tokens those have. Broken records are counted, whatever the recipe says of them.

    Raises CompactdsError as a build does.
    """
    if sample < 1:
        raise BuildError(f"a sample of {sample} documents.", value=sample, remedy="Give at least 1.")
    sources = [replace(options, skip_invalid=True, max_documents=None) for options in source_options(recipe)]
    files = [list_input_files(options) for options in sources]
    steps = filter_steps(recipe)
    with TemporaryDirectory(prefix="compactds-") as folder:
        workspace, _ = Workspace.open(Path(folder), "survey", "survey")
        pipeline = Pipeline(
            workspace, recipe, sources, steps, executor or LocalExecutor(), progress or LoggedProgress()
        )
        tasks = list(sampled_tasks(sources, files, -(-sample // len(sources))))
        try:
            documents = pipeline.documents(tasks)
            compared = recipe.duplicates is not None and recipe.duplicates.of_passages
            options = passage_options(recipe) if compared else None
            pipeline.passages(documents, options, _split_by_words(recipe))
        except EmptyCorpusError:
            if not any(line.documents for line in pipeline.ledger.sources):
                raise
        found = Path(folder) / REMOVED_FILE
        removed = gather_removed(removed_files(workspace), found)
        return {**pipeline.ledger.to_json(), "examples": read_examples(found) if removed else []}


def _split_by_words(recipe: Recipe) -> tuple[Encoder, ...]:
    """Return what documents are split with where no encoder is there to limit passages."""
    return () if recipe.has_vectors else (VectorsEncoder(vectors_spec(1, normalized=True)),)


def sampled_tasks(
    sources: Sequence[SourceOptions], files: Sequence[Sequence[InputFile]], wanted: int
) -> Iterator[ReadTask]:
    """Yield tasks that read about `wanted` documents of each source."""
    numbers = count()
    for source, options in enumerate(sources):
        if options.is_hub_dataset:
            yield ReadTask(next(numbers), source, None, wanted)
            continue
        single = all(file.format in DOCUMENT_FORMATS for file in files[source])
        most = min(wanted, len(files[source])) if single else min(wanted, RECORD_FILES, len(files[source]))
        step = len(files[source]) / most
        for place in range(most):
            share = wanted // most + (place < wanted % most)
            yield ReadTask(next(numbers), source, (files[source][int(place * step)],), share)
