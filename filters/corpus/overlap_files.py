"""Read evaluation questions from files: JSON lines, MMLU's CSV, BEIR's queries, plain lines."""

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compactds.filters.corpus.overlap import OverlapError
from compactds.filters.corpus.overlap_questions import Question
from compactds.filters.errors import reported

TEXT_FIELDS = ("query", "question", "text", "prompt", "input")
CHOICE_FIELDS = ("choices", "options", "endings")
ID_FIELDS = ("id", "_id", "query_id", "qid")
SUFFIXES = (".jsonl", ".csv", ".tsv", ".txt")
FOLDER_SUFFIXES = (".jsonl", ".csv")
MOST_LINE_BYTES = 1 << 24

_CHOICE_COLUMNS = ("A", "B", "C", "D")


def read_question_files(path: Path) -> list[Question]:
    """Return the questions of a file, or of the files below a folder in the order of their names.

    Of a folder only `.jsonl` and `.csv` are read, and only `queries.jsonl` where there is one, as in BEIR.
    `.jsonl` holds an object a line, with the question in the first of TEXT_FIELDS that is there and any
    options in one of CHOICE_FIELDS; `.csv` has either a header with such names or MMLU's columns without
    one: question, four options, letter; `.tsv` has an id and a question a line; `.txt` a question a line.
    All may be gzipped. Ids are those of the file, or its name and the line. Raises OverlapError, naming
    file and line, for what holds no question.
    """
    files = _question_files(path)
    found = [question for file in files for question in _read(file)]
    if not found:
        raise OverlapError(
            f"{path} holds no questions.",
            value=str(path),
            remedy=f"Give files ending in {', '.join(SUFFIXES)}, optionally with .gz.",
        )
    return found


def _question_files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if file.is_file() and _suffix(file) in FOLDER_SUFFIXES
        )
        queries = [file for file in files if file.name.removesuffix(".gz") == "queries.jsonl"]
        return queries or files
    if not path.is_file():
        raise OverlapError(
            f"there are no questions at {path}.",
            value=str(path),
            remedy="Give a file of questions, or a folder of such files.",
        )
    return [path]


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _read(path: Path) -> Iterator[Question]:
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as raw:
            lines = io.TextIOWrapper(io.BufferedReader(raw), "utf-8-sig", newline="")
            match _suffix(path):
                case ".jsonl":
                    yield from _json_questions(path, lines)
                case ".csv":
                    yield from _csv_questions(path, lines)
                case ".tsv":
                    yield from _tsv_questions(path, lines)
                case _:
                    yield from _plain_questions(path, lines)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise OverlapError(
            f"the questions in {path} cannot be read: {error}.",
            value=str(path),
            remedy="Give a readable file in UTF-8.",
        ) from error


def _json_questions(path: Path, lines: io.TextIOWrapper) -> Iterator[Question]:
    for number, line in _numbered(path, lines):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _bad(path, number, "is no JSON object", line) from error
        if not isinstance(record, dict):
            raise _bad(path, number, "is no JSON object", line)
        text = next((record[name] for name in TEXT_FIELDS if isinstance(record.get(name), str)), None)
        if text is None:
            raise _bad(path, number, f"has none of the fields {', '.join(TEXT_FIELDS)}", line)
        given = next((record[name] for name in ID_FIELDS if record.get(name) is not None), None)
        yield Question(text, _choices(record), str(given) if given is not None else f"{path.name}:{number}")


def _choices(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the options of a record: a list of texts, or one under "text", or a text for each letter."""
    found = next((record[name] for name in CHOICE_FIELDS if record.get(name)), None)
    if isinstance(found, dict):
        found = found.get("text", list(found.values()))
    if isinstance(found, list):
        return tuple(str(choice) for choice in found if isinstance(choice, str | int | float))
    letters = [record[name] for name in _CHOICE_COLUMNS if isinstance(record.get(name), str)]
    return tuple(letters)


def _csv_questions(path: Path, lines: io.TextIOWrapper) -> Iterator[Question]:
    rows = csv.reader(lines, strict=True)
    header: list[str] | None = None
    for row in rows:
        if rows.line_num == 1 or header is None:
            names = [name.strip().lower() for name in row]
            header = names if set(names) & set(TEXT_FIELDS) else []
            if header:
                continue
        if not any(cell.strip() for cell in row):
            continue
        identifier = f"{path.name}:{rows.line_num}"
        if not header:
            yield Question(row[0], tuple(row[1:-1]), identifier)
            continue
        record = dict(zip(header, row, strict=False))
        text = next((record[name] for name in TEXT_FIELDS if record.get(name)), None)
        if text is None:
            raise _bad(path, rows.line_num, "has no question", ",".join(row))
        letters = tuple(record[name.lower()] for name in _CHOICE_COLUMNS if record.get(name.lower()))
        yield Question(text, letters, record.get("id") or identifier)


def _tsv_questions(path: Path, lines: io.TextIOWrapper) -> Iterator[Question]:
    for number, line in _numbered(path, lines):
        identifier, tab, text = line.partition("\t")
        if not tab:
            raise _bad(path, number, "has no tab between id and question", line)
        yield Question(text, (), identifier)


def _plain_questions(path: Path, lines: io.TextIOWrapper) -> Iterator[Question]:
    for number, line in _numbered(path, lines):
        yield Question(line, (), f"{path.name}:{number}")


def _numbered(path: Path, lines: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank with their numbers, without reading any that is far too long."""
    number = 0
    while line := lines.readline(MOST_LINE_BYTES):
        number += 1
        if len(line) == MOST_LINE_BYTES:
            raise _bad(path, number, f"is longer than {MOST_LINE_BYTES} characters", line[:100])
        if line.strip():
            yield number, line.strip("\r\n")


def _bad(path: Path, number: int, what: str, line: str) -> OverlapError:
    return OverlapError(
        f"{path}, line {number}, {what}.",
        value=reported(line[:200]),
        remedy="Correct the line, or leave it out.",
    )
