"""Read lines and JSON records of plain or gzipped files, with errors that name file and line."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compactds.clients.evaluation.errors import EvaluationError


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end) of a UTF-8 file; `.gz` is decompressed."""
    number = 0
    try:
        with _open(path) as lines:
            for number, raw in enumerate(lines, start=1):
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, text.rstrip("\r\n")
    except FileNotFoundError:
        raise EvaluationError(f"{path} does not exist.", value=str(path), remedy="Check the path.") from None
    except UnicodeDecodeError as error:
        raise EvaluationError(
            f"{path}, line {number}: not UTF-8 ({error.reason}).",
            value=str(path),
            remedy="Convert the file to UTF-8.",
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise EvaluationError(
            f"{path} cannot be read: {error}.",
            value=str(path),
            remedy="Check that it is a readable, complete file.",
        ) from error


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, JSON object) of every line that is not blank; the place is for messages."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EvaluationError(
                f"{place}: not valid JSON ({error}).",
                value=line[:80],
                remedy="Each line must be one JSON object.",
            ) from None
        if not isinstance(record, dict):
            raise EvaluationError(
                f"{place}: a JSON {type(record).__name__}, expected an object.",
                value=line[:80],
                remedy="Each line must be one JSON object.",
            )
        yield place, record


def text_field(place: str, record: dict[str, Any], name: str) -> str:
    """Return a field that must be text with something in it."""
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise wrong_field(place, name, value, "text that is not blank")
    return value


def id_field(place: str, record: dict[str, Any], name: str) -> str:
    """Return a field that must be an id: text that is not empty, or a whole number."""
    value = record.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise wrong_field(place, name, value, "an id: text or a whole number")
    return value


def wrong_field(place: str, name: str, value: Any, expected: str) -> EvaluationError:
    """Return the error for a field that is missing or holds something else than expected."""
    shown = "missing" if value is None else repr(value)[:80]
    return EvaluationError(
        f"{place}: field {name!r} is {shown}, expected {expected}.",
        value=value,
        remedy="Correct the record.",
    )


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
