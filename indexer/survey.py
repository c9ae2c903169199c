"""Try a recipe on a sample: what would its filters remove, and why, before hours are spent."""

from dataclasses import replace
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
from compactds.indexer.removals import REMOVED_FILE, gather_removed, read_examples, removed_files
from compactds.indexer.sampling import choose_sample, find_stops
from compactds.indexer.sources import list_input_files
from compactds.indexer.workspace import Workspace


def survey(
    recipe: Recipe, *, sample: int = 1000, progress: Progress | None = None, executor: Executor | None = None
) -> dict[str, Any]:
    """Run the recipe's filters, duplicates and decontamination over a sample, and return the account.

    About `sample` documents are taken, equally many of each source, as `choose_sample` does. Nothing is
    encoded or kept; no encoder is loaded. The account is as a store's ledger, with "examples" of what was
    removed, "sampled", how many of all "files" there are, and "stops", the errors at which a build would stop
    in these files, the first of each. If passages are compared, they end by words alone here, since no
    encoder says how many tokens those have. Broken records are counted, whatever the recipe says of them.

    Raises CompactdsError as a build does.
    """
    if sample < 1:
        raise BuildError(f"a sample of {sample} documents.", value=sample, remedy="Give at least 1.")
    asked = source_options(recipe)
    sources = [replace(options, skip_invalid=True, max_documents=None) for options in asked]
    files = [list_input_files(options) for options in sources]
    steps = filter_steps(recipe)
    with TemporaryDirectory(prefix="compactds-") as folder:
        workspace, _ = Workspace.open(Path(folder), "survey", "survey")
        pipeline = Pipeline(
            workspace, recipe, sources, steps, executor or LocalExecutor(), progress or LoggedProgress()
        )
        chosen = choose_sample(sources, files, -(-sample // len(sources)))
        try:
            documents = pipeline.documents(chosen.tasks)
            compared = recipe.duplicates is not None and recipe.duplicates.of_passages
            options = passage_options(recipe) if compared else None
            pipeline.passages(documents, options, _split_by_words(recipe))
        except EmptyCorpusError:
            if not any(line.documents for line in pipeline.ledger.sources):
                for stop in find_stops(workspace, asked, chosen.tasks):
                    raise stop from None
                raise
        found = Path(folder) / REMOVED_FILE
        removed = gather_removed(removed_files(workspace), found)
        return {
            **pipeline.ledger.to_json(),
            "examples": read_examples(found) if removed else [],
            "sampled": {"files": chosen.files, "all_files": chosen.all_files},
            "stops": [str(stop) for stop in find_stops(workspace, asked, chosen.tasks)],
        }


def _split_by_words(recipe: Recipe) -> tuple[Encoder, ...]:
    """Return what documents are split with where no encoder is there to limit passages."""
    return () if recipe.has_vectors else (VectorsEncoder(vectors_spec(1, normalized=True)),)
