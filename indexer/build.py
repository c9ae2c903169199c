"""Build a datastore from a recipe."""

import time
from pathlib import Path

from compactds.configs.recipe import Recipe
from compactds.datastore.encoders import Encoder
from compactds.indexer.build_result import BuildResult, build_result
from compactds.indexer.build_run import BuildRun
from compactds.indexer.embedding_cache import CacheOptions
from compactds.indexer.execution import Executor, LocalExecutor
from compactds.indexer.progress import LoggedProgress, Progress
from compactds.indexer.workspace import locked


def build(
    recipe: Recipe,
    out: Path,
    *,
    progress: Progress | None = None,
    encoder: Encoder | None = None,
    executor: Executor | None = None,
    cache: CacheOptions | None = None,
    replace: bool = False,
) -> BuildResult:
    """Build the datastore that `recipe` describes into the folder `out`, and publish it.

    A store already there stays as it is until the new one replaces it in one step. An interrupted
    build is gone on with when the same recipe over the same inputs is built again; if nothing changed
    since the store was built, nothing is done. `encoder` is used in place of loading the recipe's.
    `executor` runs the stages over documents, this process if left out; the store is the same whoever does.
    One that spreads encoding has its workers load the recipe's encoders, if those compute on a CPU.
    Vectors that `cache` holds are taken from there, and new ones are kept in it. A store that was added to
    or deleted from since it was built, and whose recipe or inputs have changed, is built over with `replace`
    only.

    Raises CompactdsError: SourceError, RecordError, DuplicateIdError, AttributeTypeError,
    EmptyCorpusError, EncoderError, BudgetError, StoreBusyError, GrownStoreError or BuildError. If there is
    work to go on with, a note of the error says where it is kept.
    """
    started = time.perf_counter()
    with locked(out):
        run = BuildRun(
            recipe,
            out,
            progress or LoggedProgress(),
            encoder,
            executor or LocalExecutor(),
            cache,
            undoes_growth=replace,
        )
        return build_result(out, run.run(), time.perf_counter() - started)
