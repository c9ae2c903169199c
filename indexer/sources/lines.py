"""Read lines of plain, gzip and zstd files in bounded memory."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from compactds.indexer.errors import RecordError, SourceError
from compactds.indexer.sources.options import RAW_LIMIT, SKIP_REMEDY, Reject

MAX_LINE_BYTES = 64 << 20
_BUFFER_BYTES = 1 << 20
_CODECS = {".gz": "gzip", ".zst": "zstd"}
_BOMB_BYTES = 256 << 20
_BOMB_RATIO = 250  # text compresses to a tenth or so; what is made to fill a disk, to a thousandth
_SUSPECT = "Decompress it to see what it holds, or pass --skip-invalid to go on without the rest of it."
_DAMAGED = "Restore the file from where it came from, or pass --skip-invalid to go on without the rest of it."


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, decompressed by its suffix; raise SourceError if it can't be."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None
    with raw:
        codec = _CODECS.get(path.suffix.lower())
        if codec is None:
            yield raw
        else:
            # Arrow reports truncated streams of both codecs and reads concatenated ones.
            stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec)
            yield io.BufferedReader(_Expanding(stream, raw), _BUFFER_BYTES)


class ExpansionError(OSError):
    """Report compressed data that grows beyond all measure."""


class _Expanding(io.RawIOBase):
    """Read a compressed stream until it has grown far more than text can."""

    def __init__(self, stream: Any, compressed: BinaryIO) -> None:
        self._stream = stream
        self._compressed = compressed
        self._bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._stream.readinto(buffer)
        self._bytes += count
        if self._bytes > _BOMB_BYTES and self._bytes > _BOMB_RATIO * self._compressed.tell():
            raise ExpansionError(f"it expands to more than {_BOMB_RATIO} times its size, as no text does")
        return count


def unreadable(path: Path, error: OSError) -> SourceError:
    """Say that a file cannot be opened."""
    return SourceError(
        f"{path} cannot be read: {error.strerror or error}.",
        value=str(path),
        remedy="Check the path and its permissions.",
    )


def damaged(path: Path, error: Exception) -> RecordError:
    """Say that a file's content cannot be read to its end."""
    if isinstance(error, ExpansionError):
        return RecordError(f"not read to its end: {error}", origin=str(path), remedy=_SUSPECT)
    return RecordError(f"damaged or truncated file: {error}", origin=str(path), remedy=_DAMAGED)


def numbered_lines(path: Path, reject: Reject, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line without its line end), blank lines included.

    A line above `limit` bytes (MAX_LINE_BYTES) is rejected without being held in memory; a damaged
    file is rejected where the damage shows.
    """
    limit = MAX_LINE_BYTES if limit is None else limit
    with opened(path) as stream:
        number = 0
        try:
            while line := stream.readline(limit + 2):
                number += 1
                if len(line.rstrip(b"\r\n")) > limit:
                    start = line[:RAW_LIMIT].decode("utf-8", "replace")
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(_BUFFER_BYTES)
                    reason = f"line of more than {limit:,} bytes"
                    reject(RecordError(reason, origin=f"{path}:{number}", remedy=SKIP_REMEDY), start)
                    continue
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                yield number, line.rstrip(b"\r\n")
        except OSError as error:
            reject(damaged(path, error), "")
