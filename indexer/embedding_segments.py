"""Files of cached vectors: sorted keys, a checksum a row, and the vectors as they are stored."""

import logging
import mmap
import os
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from compactds.datastore.encoders.base import Vectors

_log = logging.getLogger(__name__)

SUFFIX = ".vectors"
KEY_BYTES = 16
_MAGIC = b"CDSVEC1\n"
_HEADER = struct.Struct("<8sQII")
_COLUMNS = 3
"""Eight-byte numbers a row besides its vector: the key's two halves and the checksum."""

Keys = NDArray[np.uint64]
"""Keys of texts, shape (n, 2): the two halves of each."""


@dataclass(frozen=True, slots=True)
class VectorSegment:
    """Look vectors up in one file, which is never changed; its keys are mapped, not read.

    A row that fails its checksum, which covers key and vector, is as good as absent. Reading raises
    FileNotFoundError if another process has removed the file.
    """

    path: Path
    rows: int
    dimension: int
    dtype: str
    size_bytes: int
    columns: Keys

    @classmethod
    def open(cls, path: Path, dimension: int, dtype: str) -> "VectorSegment | None":
        """Open a segment; return None, and tell the log, if it is not a whole one of this shape."""
        item_bytes = np.dtype(dtype).itemsize
        with path.open("rb") as file:
            header, size = file.read(_HEADER.size), os.fstat(file.fileno()).st_size
            if len(header) == _HEADER.size:
                magic, rows, found_dimension, found_bytes = _HEADER.unpack(header)
                expected = _HEADER.size + rows * (8 * _COLUMNS + dimension * item_bytes)
                facts = (magic, found_dimension, found_bytes, size)
                if rows and facts == (_MAGIC, dimension, item_bytes, expected):
                    end = _HEADER.size + 8 * _COLUMNS * rows
                    mapped = mmap.mmap(file.fileno(), end, access=mmap.ACCESS_READ)
                    columns: Keys = np.frombuffer(mapped, "<u8", offset=_HEADER.size).reshape(_COLUMNS, rows)
                    return cls(path, rows, dimension, dtype, size, columns)
        _log.warning("%s is damaged; its vectors are computed again", path)
        return None

    def locate(self, keys: Keys) -> NDArray[np.int64]:
        """Return the row of each key, shape (n,), -1 for those that are not here."""
        upper, lower, _ = self.columns
        rows = np.searchsorted(upper, keys[:, 0]).astype(np.int64)
        found = np.full(len(keys), -1, np.int64)
        pending = np.arange(len(keys))
        while len(pending):  # again only for upper halves that several keys share
            pending = pending[rows[pending] < self.rows]
            pending = pending[upper[rows[pending]] == keys[pending, 0]]
            same = lower[rows[pending]] == keys[pending, 1]
            found[pending[same]] = rows[pending[same]]
            pending = pending[~same]
            rows[pending] += 1
        return found

    def read(self, rows: NDArray[np.int64]) -> tuple[Vectors, NDArray[np.bool_]]:
        """Return the vectors of rows as they are stored, and which of them pass their checksums."""
        row_bytes = self.dimension * np.dtype(self.dtype).itemsize
        start = _HEADER.size + 8 * _COLUMNS * self.rows
        keys = np.ascontiguousarray(self.columns[:2, rows].T)
        good = np.zeros(len(rows), np.bool_)
        content = bytearray(len(rows) * row_bytes)
        with self.path.open("rb") as file:
            for place, row in enumerate(rows.tolist()):
                vector = os.pread(file.fileno(), row_bytes, start + row * row_bytes)
                good[place] = _checksum(keys[place].tobytes(), vector) == self.columns[2, row]
                content[place * row_bytes : place * row_bytes + len(vector)] = vector
        return np.frombuffer(bytes(content), self.dtype).reshape(len(rows), self.dimension), good

    def read_all(self) -> tuple[Keys, Vectors]:
        """Return the keys and the vectors of all rows that pass their checksums."""
        vectors, good = self.read(np.arange(self.rows))
        return np.ascontiguousarray(self.columns[:2].T[good]), vectors[good]


def write_segment(folder: Path, keys: Keys, vectors: Vectors) -> Path:
    """Write a segment of at least one row into a folder in one step, and return where it is.

    A key given more than once is kept once, with its first vector.
    """
    unique, firsts = np.unique(keys, axis=0, return_index=True)
    chosen = np.ascontiguousarray(vectors[firsts])
    row_bytes = chosen.dtype.itemsize * chosen.shape[1]
    content = memoryview(chosen.tobytes())
    checks = [
        _checksum(key.tobytes(), content[row * row_bytes : (row + 1) * row_bytes])
        for row, key in enumerate(unique)
    ]
    columns = np.empty((_COLUMNS, len(unique)), "<u8")
    columns[:2], columns[2] = unique.T, checks
    header = _HEADER.pack(_MAGIC, len(unique), chosen.shape[1], chosen.dtype.itemsize)
    path = folder / f"{uuid.uuid4().hex}{SUFFIX}"
    write_beside(path, header, columns.tobytes(), content)
    return path


def write_beside(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file in one step, as any number of processes may at once; a lost power may lose it."""
    beside = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("xb") as file:
            file.writelines(parts)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _checksum(key: bytes, vector: bytes | memoryview) -> int:
    digest = xxhash.xxh3_64(key)
    digest.update(vector)
    return digest.intdigest()
