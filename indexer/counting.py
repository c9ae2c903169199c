"""Count the records of sources, or estimate how many there are, without reading them all."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from compactds.indexer.errors import BuildError, RecordError
from compactds.indexer.sources import InputFile, SourceOptions
from compactds.indexer.sources.formats import DOCUMENT_FORMATS
from compactds.indexer.sources.jsonl import read_json
from compactds.indexer.sources.lines import unreadable

HEAD_BYTES = 4 << 20
"""How many bytes of a file of lines are looked at, compressed as it is; a smaller one is counted."""
LOOKED_AT_FILES = 20
_CODECS = {".gz": "gzip", ".zst": "zstd"}
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RecordCount:
    """Hold how many records there are; `counted` tells that it is no estimate."""

    records: float
    counted: bool

    def __add__(self, other: "RecordCount") -> "RecordCount":
        return RecordCount(self.records + other.records, self.counted and other.counted)


def count_records(options: SourceOptions, files: Sequence[InputFile]) -> RecordCount:
    """Return how many records a source has.

    Files of text, Markdown, HTML and PDF are one each; Parquet files tell their rows; lines that are not
    blank are counted in the first 4 MiB of up to 20 files, and those of the rest follow from their sizes. A
    record that cannot be used counts. Raises BuildError for a Hugging Face dataset without a limit: how long
    it is shows only when it is read.
    """
    limit = options.max_documents
    if options.is_hub_dataset:
        if limit is None:
            raise BuildError(
                f"{options.no_such_path}How many records the dataset {options.path} has is not known before "
                "it is read.",
                value=options.path,
                remedy="Check the path, if that is what it is. " * options.is_hub_by_looks
                + "Set max_documents for this source in a recipe to plan with so many.",
            )
        return RecordCount(limit, counted=False)
    lines = [file for file in files if file.format in ("jsonl", "csv")]
    total = _count_lines(lines)
    for file in files:
        if file.format in DOCUMENT_FORMATS:
            total += RecordCount(1, counted=True)
        elif file.format == "parquet":
            total += RecordCount(_parquet_rows(file), counted=True)
        elif file.format == "json":
            total += RecordCount(_json_records(file), counted=True)
    if limit is not None and limit < total.records:
        return RecordCount(limit, counted=total.counted)
    return total


def _count_lines(files: Sequence[InputFile]) -> RecordCount:
    step = max(1, -(-len(files) // LOOKED_AT_FILES))
    looked_at = files[::step]
    lines = read = 0
    whole = len(looked_at) == len(files)
    for file in looked_at:
        found, used, ended = _head_lines(file)
        lines, read, whole = lines + found, read + used, whole and ended
    size = sum(file.size_bytes for file in files)
    headers = sum(file.format == "csv" for file in files)
    if whole:  # a value of a csv file may hold line breaks
        return RecordCount(max(0, lines - headers), counted=not headers)
    return RecordCount(max(0.0, lines * size / max(1, read) - headers), counted=False)


def _head_lines(file: InputFile) -> tuple[int, int, bool]:
    """Return the lines in the head of a file, the bytes of the file they took, and whether it was all.

    Blank lines do not count: they are no records.
    """
    lines, begun = 0, b""  # of the line that goes on, whether there is something in it: a byte, or none
    try:
        with file.path.open("rb") as raw:
            codec = _CODECS.get(file.path.suffix.lower())
            stream = raw if codec is None else pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec)
            block = stream.read(_READ_BYTES).removeprefix(codecs.BOM_UTF8)
            while block:
                *whole, last = (begun + block).split(b"\n")
                lines += sum(map(bool, map(bytes.strip, whole)))
                begun = last.strip()[:1]
                if raw.tell() >= HEAD_BYTES:
                    break
                block = stream.read(_READ_BYTES)
            used, ended = raw.tell(), not block
    except OSError as error:
        raise unreadable(file.path, error) from None
    return lines + (ended and bool(begun)), max(1, used), ended


def _parquet_rows(file: InputFile) -> int:
    try:
        return int(pq.read_metadata(file.path).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file.path, OSError(str(error))) from None


def _json_records(file: InputFile) -> int:
    """Return how many records a .json file has; why some cannot be read, the build will tell."""
    unusable = 0

    def count(_error: RecordError, _raw: str) -> None:
        nonlocal unusable
        unusable += 1

    return sum(1 for _ in read_json(file, count)) + unusable
