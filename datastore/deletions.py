"""Tombstones: which rows of a segment are deleted, in a small file beside the segment, which stays as it is.

The file holds one bit a row, set for deleted rows, padded with zeros to whole 8-byte words. Its name
carries a digest of it, and it is never changed: more deletions are another file.
"""

import hashlib
import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.errors import DamagedStoreError
from compactds.datastore.files import FileRecord, find_damage, record_file, write_atomic

DELETIONS_FOLDER = "deletions"
DELETION_NAME = re.compile(r"[0-9]+-[0-9a-f]{16}-[0-9a-f]{16}\.bits")


@dataclass(frozen=True, slots=True)
class DeletionRecord:
    """Hold what the manifest knows of a segment's deleted rows: the file that lists them, and their number.

    `documents` counts the documents the rows are of; a document is deleted as a whole.
    """

    file: str
    passages: int
    documents: int
    record: FileRecord


def write_deletions(root: Path, segment: str, deleted: Bitmap, documents: int) -> DeletionRecord:
    """Write down the deleted rows of a segment; a manifest has to name the file before it counts."""
    folder = root / DELETIONS_FOLDER
    folder.mkdir(exist_ok=True)
    content = deleted.bits.tobytes()
    name = f"{segment}-{hashlib.sha256(content).hexdigest()[:16]}.bits"
    write_atomic(folder / name, content)
    return DeletionRecord(name, deleted.count, documents, record_file(folder / name))


def read_deleted(root: Path, record: DeletionRecord | None, rows: int) -> Bitmap:
    """Return the deleted rows of a segment of so many rows.

    Raises DamagedStoreError for a file that is missing or damaged, or does not fit the segment.
    """
    if record is None:
        return Bitmap.none(rows)
    folder = root / DELETIONS_FOLDER
    problems = deletion_damage(root, record)
    if not problems:
        bits = np.frombuffer((folder / record.file).read_bytes(), np.uint8)
        if len(bits) == Bitmap.none(rows).nbytes:
            deleted = Bitmap(bits, rows)
            if deleted.count == record.passages and deleted == ~~deleted:
                return deleted
        problems = [f"{folder / record.file} does not fit its segment of {rows:,} rows."]
    raise DamagedStoreError(
        problems[0],
        value=str(folder / record.file),
        remedy="Run `compactds verify`, then restore the store from a copy or build it again.",
    )


def deletion_damage(root: Path, record: DeletionRecord) -> list[str]:
    """Return one sentence if the file of deleted rows is missing or damaged; all of it is read."""
    return find_damage(root / DELETIONS_FOLDER, {record.file: record.record}, deep=True)


def remove_deletions(root: Path, named: Container[str]) -> None:
    """Remove the files of deleted rows that no manifest names any more."""
    for path in (root / DELETIONS_FOLDER).glob("*.bits"):
        if path.name not in named and DELETION_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)
