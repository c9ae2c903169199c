"""Write files so that a crash leaves either the old content or the new, and check what is on disk."""

import hashlib
import os
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray

CHECKED_AT_OPEN_BYTES = 1 << 20
"""Files up to this size have their checksum checked whenever a store is opened; larger ones, a sample."""

SAMPLED_END_BYTES = 1 << 16
SAMPLED_PIECE_BYTES = 1 << 12
SAMPLED_PIECES = 62

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Hold what the manifest knows of one file: its size and the SHA-256 of its content.

    `xxh3` is a faster checksum of all of it (XXH3-128), `sample` one of its two ends and of pieces in
    between. A file that is small has no sample; a record written before there were these has neither.
    """

    bytes: int
    sha256: str
    xxh3: str = ""
    sample: str = ""


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step: readers see the old file or the new one."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_array(file: BinaryIO, array: NDArray[Any]) -> None:
    """Append the bytes of an array to a file opened by Python, whose errors are told.

    `ndarray.tofile` writes through a stream of its own: on a full disk it loses a small array silently.
    """
    file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


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
    """Read a whole file once and return its size and checksums."""
    sha256, xxh3, size = hashlib.sha256(), xxhash.xxh3_128(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_READ_BYTES):
            sha256.update(block)
            xxh3.update(block)
            size += len(block)
        sample = _sample(file.fileno(), size) if size > CHECKED_AT_OPEN_BYTES else ""
    return FileRecord(bytes=size, sha256=sha256.hexdigest(), xxh3=xxh3.hexdigest(), sample=sample)


def find_damage(
    folder: Path, files: Mapping[str, FileRecord], *, deep: bool, whole: Container[str] = ()
) -> list[str]:
    """Return one sentence per file that is missing, has the wrong size or fails its checksum.

    Small files are read whole, of larger ones a sample. Those named in `whole` are read whole, too, and
    compared by their faster checksum; `deep` compares the SHA-256 of all files. A file listed nowhere is
    not damage.
    """
    problems = []
    for name, expected in sorted(files.items()):
        path = folder / name
        try:
            size = path.stat().st_size
            if size != expected.bytes:
                problems.append(f"{path} has {size} bytes, the manifest says {expected.bytes}.")
            elif deep or size <= CHECKED_AT_OPEN_BYTES or (name in whole and not expected.xxh3):
                if _digest(path, hashlib.sha256()) != expected.sha256:
                    problems.append(f"{path} fails its SHA-256 checksum.")
            elif name in whole:
                if _digest(path, xxhash.xxh3_128()) != expected.xxh3:
                    problems.append(f"{path} fails its XXH3 checksum.")
            elif expected.sample and _sampled(path, size) != expected.sample:
                problems.append(f"{path} fails the checksum of a sample of it.")
        except FileNotFoundError:
            problems.append(f"{path} is missing.")
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}.")
    return problems


def _digest(path: Path, checksum: Any) -> str:
    with path.open("rb", buffering=0) as file:
        while block := file.read(_READ_BYTES):
            checksum.update(block)
    return str(checksum.hexdigest())


def _sampled(path: Path, size: int) -> str:
    with path.open("rb", buffering=0) as file:
        return _sample(file.fileno(), size)


def _sample(descriptor: int, size: int) -> str:
    """Return the checksum of both ends of a file, and of pieces spread evenly between them."""
    checksum = xxhash.xxh3_128()
    checksum.update(os.pread(descriptor, SAMPLED_END_BYTES, 0))
    for piece in range(1, SAMPLED_PIECES + 1):
        offset = piece * size // (SAMPLED_PIECES + 1)
        checksum.update(os.pread(descriptor, SAMPLED_PIECE_BYTES, offset - offset % SAMPLED_PIECE_BYTES))
    checksum.update(os.pread(descriptor, SAMPLED_END_BYTES, max(0, size - SAMPLED_END_BYTES)))
    return checksum.hexdigest()
