"""What changes of a store share: errors of a full disk told as one, and a folder for what is temporary."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from duckdb import Error as DuckDBError
from pyarrow import ArrowException

from compactds.datastore.errors import DamagedStoreError
from compactds.indexer.errors import BuildError

CHANGE_FOLDER = ".change"
COMPACT_FOLDER = ".compact"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
FULL_DISK = ("No space left", "requested and")
LEAST_FREE_BYTES = 1 << 20


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn errors of a full disk into one that says what to do.

    Libraries tell of it in their own ways, or not at all: what fails when nothing is left fails by that.
    """
    try:
        yield
    except (OSError, RuntimeError, DuckDBError, ArrowException, DamagedStoreError) as error:
        told = _disk_error(out, error)
        if told is None:
            raise
        raise told from error


def _disk_error(out: Path, error: Exception) -> BuildError | None:
    """Return what to say instead of an error of a full disk; None for another error."""
    if getattr(error, "errno", None) == errno.EFBIG or "File too large" in str(error):
        return BuildError(
            f"the system does not let a file in {out} grow any further: it limits the size of files.",
            value=str(out),
            remedy="Raise the limit (ulimit -f) and run the same command again.",
        )
    free = shutil.disk_usage(out).free
    told = getattr(error, "errno", None) in NO_SPACE or any(words in str(error) for words in FULL_DISK)
    if told or free < LEAST_FREE_BYTES:
        return BuildError(
            f"no space left on the disk of {out} ({free:,} bytes free).",
            value=free,
            remedy="Free some space and run the same command again.",
        )
    return None


def remove_leftovers(store: Path) -> None:
    """Remove what stopped changes of a store left: they are done, or of a store that there is no more."""
    for name in (CHANGE_FOLDER, COMPACT_FOLDER):
        shutil.rmtree(store / name, ignore_errors=True)


@contextmanager
def change_folder(store: Path) -> Iterator[Path]:
    """Yield an empty folder in a store, for one change at a time; what a change left there is removed."""
    folder = store / CHANGE_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
