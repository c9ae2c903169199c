"""Stream datasets from the Hugging Face hub."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from compactds.indexer.errors import SourceError
from compactds.indexer.sources.options import Record, SourceOptions
from compactds.indexer.sources.records import DocumentShape

ASKING_TIMEOUT_S = 30.0
_COMMIT = re.compile(r"[0-9a-f]{40}")

logger = logging.getLogger(__name__)


def is_commit(revision: str) -> bool:
    """Tell whether a revision is a commit, which is always the same, and no branch or tag."""
    return _COMMIT.fullmatch(revision) is not None


def hub_commit(options: SourceOptions) -> str | None:
    """Return the commit that a dataset's revision is now; None for a local folder or if the hub is silent.

    Why it is silent, reading tells: it needs the hub, too.
    """
    if options.revision is not None and is_commit(options.revision):
        return options.revision
    name = options.path.removeprefix("hf:")
    if Path(name).exists():
        return None
    try:
        return _ask_for_commit(name, options.revision)
    # The hub, its HTTP client and checks of names raise errors of their own, without a common root.
    except Exception as error:  # noqa: BLE001
        logger.info("cannot tell the commit of the dataset %s: %s", name, error)
        return None


def _ask_for_commit(name: str, revision: str | None) -> str | None:
    from huggingface_hub import HfApi

    found = HfApi().dataset_info(name, revision=revision, timeout=ASKING_TIMEOUT_S)
    return found.sha


def read_hub(options: SourceOptions, shape: DocumentShape) -> Iterator[Record]:
    """Yield one record per example of a split, numbered from 1, without downloading it first.

    Raise SourceError if `datasets` is not installed, or the dataset, its configuration, split or revision
    cannot be had.
    """
    try:
        import datasets
    except ImportError:
        raise SourceError(
            f"{options.no_such_path}Reading it as a Hugging Face dataset needs the package 'datasets'."
            if options.no_such_path
            else "reading a Hugging Face dataset needs the package 'datasets'.",
            value=options.path,
            remedy=f"{'Check the path, or run' if options.no_such_path else 'Run'}: "
            "python -m pip install 'compactds[huggingface]'.",
        ) from None
    name = options.path.removeprefix("hf:")
    place = f"hf:{name}[{options.split}]"
    try:
        examples = datasets.load_dataset(
            name,
            options.config,
            data_files=options.files,
            split=options.split,
            revision=options.revision,
            streaming=True,
        )
        if examples.column_names:
            shape.check_columns(examples.column_names, place)
        for number, example in enumerate(examples, 1):
            yield Record(f"{place}: row {number}", example)
    except SourceError:
        raise
    # The hub, its HTTP client and each format's reader raise errors of their own, without a common root.
    except Exception as error:
        raise _unavailable(options, place, error) from error


def _unavailable(options: SourceOptions, place: str, error: Exception) -> SourceError:
    reason = " ".join(str(error).split())[:500] or type(error).__name__
    return SourceError(
        f"{options.no_such_path}{place} cannot be read: {reason}.",
        value=options.path,
        remedy="Check the path, if that is what it is. " * options.is_hub_by_looks
        + "Check the name, the configuration, the split, the revision, and the network.",
    )
