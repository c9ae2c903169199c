"""Write files so that a crash leaves either the old content or the new, and check what is on disk."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKED_AT_OPEN_BYTES = 1 << 20
"""Files up to this size have their checksum checked whenever a store is opened."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Hold what the manifest knows of one file: its size and the SHA-256 of its content."""

    bytes: int
    sha256: str


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step: readers see the old file or the new one."""
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Flush a closed file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, so that renames in it survive a crash."""
    sync_file(path)


def record_file(path: Path) -> FileRecord:
    """Read a whole file once and return its size and checksum."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(bytes=path.stat().st_size, sha256=digest)


def find_damage(folder: Path, files: Mapping[str, FileRecord], *, deep: bool) -> list[str]:
    """Return one sentence per file that is missing, has the wrong size or fails its checksum.

    Large files are read only when `deep`; a file listed nowhere is not damage.
    """
    problems = []
    for name, expected in sorted(files.items()):
        path = folder / name
        try:
            size = path.stat().st_size
            if size != expected.bytes:
                problems.append(f"{path} has {size} bytes, the manifest says {expected.bytes}.")
            elif (deep or size <= CHECKED_AT_OPEN_BYTES) and record_file(path).sha256 != expected.sha256:
                problems.append(f"{path} fails its SHA-256 checksum.")
        except FileNotFoundError:
            problems.append(f"{path} is missing.")
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}.")
    return problems
