"""Read csv and tsv files, whose values are all text."""

import csv
import io
import re
from collections.abc import Iterator
from itertools import chain

from compactds.indexer.errors import RecordError, SourceError
from compactds.indexer.sources.formats import split_suffix
from compactds.indexer.sources.lines import MAX_LINE_BYTES, numbered_lines
from compactds.indexer.sources.options import RAW_LIMIT, SKIP_REMEDY, InputFile, Record, Reject
from compactds.indexer.sources.records import DocumentShape

_UNDECODED = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of bytes that are not UTF-8


def read_csv(file: InputFile, shape: DocumentShape, reject: Reject) -> Iterator[Record]:
    """Yield one record per row; an empty value is missing, and a column without a name is left out.

    The first row names the columns. It is an error if it repeats a name or has no column for the text.
    Values are separated by commas, in .tsv by tabs; by semicolons if the first row has those and no
    comma. Records name the line on which their row ends.
    """
    csv.field_size_limit(MAX_LINE_BYTES)  # the default, 131,072, is less than many a text has
    lines = _Lines(file, reject)
    first = next((line for line in lines if line.strip()), "")
    rows = csv.reader(chain([first], lines), delimiter=_delimiter(file, first), strict=True)
    header: list[str] | None = None
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            reject(_invalid(f"invalid csv: {error}", lines.origin), lines.last[:RAW_LIMIT])
            continue
        if row is None:
            return
        if header is None:
            header = _header(row, file, shape)
        elif reason := _fault(row, header):
            reject(_invalid(reason, lines.origin), _raw(row))
        elif row:
            yield Record(lines.origin, {n: value or None for n, value in zip(header, row, strict=True) if n})


class _Lines(Iterator[str]):
    """Hand out the lines of a file, and remember where that has come to."""

    def __init__(self, file: InputFile, reject: Reject) -> None:
        self._path = file.path
        self._lines = numbered_lines(file.path, reject)
        self._number = 1
        self.last = ""

    @property
    def origin(self) -> str:
        return f"{self._path}:{self._number}"

    def __next__(self) -> str:
        self._number, line = next(self._lines)
        self.last = line.decode("utf-8", "surrogateescape")
        return self.last + "\n"


def _delimiter(file: InputFile, first: str) -> str:
    if ".tsv" in split_suffix(file.name)[1]:
        return "\t"
    return ";" if ";" in first and "," not in first else ","


def _header(row: list[str], file: InputFile, shape: DocumentShape) -> list[str]:
    """Check the first row and return the names in it."""
    header = [name.strip() for name in row]
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    reason = "is not UTF-8" if _is_undecoded(header) else ""
    if repeated:
        reason = f"names {', '.join(map(repr, repeated))} more than once"
    if reason:
        raise SourceError(
            f"the header of {file.path} {reason}.",
            value=header,
            remedy="The first row must name each column once, and the file must be UTF-8.",
        )
    if any(header):
        shape.check_columns([name for name in header if name], str(file.path))
    return header


def _fault(row: list[str], header: list[str]) -> str:
    if row and len(row) != len(header):
        return f"{len(row)} values in a row, but the header names {len(header)} columns"
    return "invalid UTF-8" if _is_undecoded(row) else ""


def _is_undecoded(row: list[str]) -> bool:
    return any(not value.isascii() and _UNDECODED.search(value) for value in row)


def _raw(row: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(value[:RAW_LIMIT] for value in row)
    return out.getvalue()[:RAW_LIMIT].encode("utf-8", "replace").decode()


def _invalid(reason: str, origin: str) -> RecordError:
    return RecordError(reason, origin=origin, remedy=SKIP_REMEDY)
