"""Read JSON records: one a line, an array, or values one after another."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from compactds.indexer.errors import RecordError
from compactds.indexer.sources.lines import MAX_LINE_BYTES, damaged, numbered_lines, opened
from compactds.indexer.sources.options import RAW_LIMIT, SKIP_REMEDY, InputFile, Record, Reject

_CHUNK_BYTES = 1 << 18
_LONG_INTEGER = re.compile(rb"\d{19}")
_SPACE = " \t\r\n"


def read_jsonl(file: InputFile, reject: Reject) -> Iterator[Record]:
    """Yield one record per line that is not blank."""
    for number, line in numbered_lines(file.path, reject):
        if not line.strip():
            continue
        origin = f"{file.path}:{number}"
        try:
            value = parse(line)
        except UnicodeDecodeError as error:
            reason = f"invalid UTF-8 at byte {error.start + 1}"
            reject(_invalid(reason, origin), line[:RAW_LIMIT].decode("utf-8", "replace"))
            continue
        except (ValueError, RecursionError) as error:
            reject(_invalid(f"invalid JSON: {error}", origin), line[:RAW_LIMIT].decode("utf-8", "replace"))
            continue
        if not isinstance(value, dict):
            reject(_not_an_object(value, origin), line[:RAW_LIMIT].decode("utf-8", "replace"))
            continue
        yield Record(origin, value, line)


def parse(line: bytes) -> Any:
    """Parse one JSON value; raise ValueError, UnicodeDecodeError or RecursionError.

    orjson is fast, but reads integers beyond 64 bits as floats and refuses NaN and lone surrogates;
    the standard library takes over for those.
    """
    if not _LONG_INTEGER.search(line):
        try:
            return orjson.loads(line)
        except orjson.JSONDecodeError:
            pass
    return json.loads(line.decode("utf-8"))


def read_json(file: InputFile, reject: Reject) -> Iterator[Record]:
    """Yield the objects of a .json file: an array, lines, or values one after another."""
    if _holds_lines(file):
        yield from read_jsonl(file, reject)
        return
    try:
        for number, value in _values(file):
            origin = f"{file.path}: record {number}"
            if isinstance(value, dict):
                yield Record(origin, value)
            else:
                reject(_not_an_object(value, origin), json.dumps(value)[:RAW_LIMIT])
    except RecordError as error:
        reject(error, "")  # where one value ends is unknown, so the rest of the file is lost


def _holds_lines(file: InputFile) -> bool:
    """Tell whether the first line that isn't blank is an object of its own."""
    with opened(file.path) as stream:
        try:
            line = b""
            while not line.strip():
                line = stream.readline(_CHUNK_BYTES).removeprefix(codecs.BOM_UTF8)
                if not line:
                    return True
            if line.lstrip().startswith(b"["):
                return False
            if len(line) == _CHUNK_BYTES:
                line += stream.readline(MAX_LINE_BYTES)
            return isinstance(parse(line), dict)
        except OSError:
            return True  # the line reader reports the damage
        except (ValueError, RecursionError):
            return False


def _values(file: InputFile) -> Iterator[tuple[int, Any]]:
    """Yield (number from 1, value) of an array, or of values that stand one after another."""
    with opened(file.path) as stream:
        values = _ValueStream(stream, file)
        while opening := values.next_character():
            in_array = opening == "["
            values.position += in_array
            first = values.number
            while values.next_character() != ("]" if in_array else ""):
                if values.number > first:
                    values.pass_comma(needed=in_array)
                yield values.number, values.value()
                values.number += 1
            values.position += in_array


class _ValueStream:
    """Parse values off a stream from a buffer that holds little more than one value."""

    def __init__(self, stream: BinaryIO, file: InputFile) -> None:
        self._stream = stream
        self._path = file.path
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._decoder = json.JSONDecoder()
        self._buffer = ""
        self._ended = False
        self.position = 0
        self.number = 1

    def next_character(self) -> str:
        """Return the next character that is no white space, without taking it; "" at the end."""
        while True:
            while self.position < len(self._buffer):
                if self._buffer[self.position] not in _SPACE:
                    return self._buffer[self.position]
                self.position += 1
            if self._ended:
                return ""
            self._read()

    def pass_comma(self, *, needed: bool) -> None:
        """Take the comma before a value; raise RecordError if it has to be there and is not."""
        if self.next_character() == ",":
            self.position += 1
        elif needed:
            raise self._error("invalid JSON: no comma after the value before it")

    def value(self) -> Any:
        """Return the next value; raise RecordError if there is none, or only a part of one."""
        self.next_character()
        while True:
            try:
                value, self.position = self._decoder.raw_decode(self._buffer, self.position)
            except RecursionError as error:
                raise self._error(f"invalid JSON: {error}") from None
            except ValueError as error:
                held = len(self._buffer) - self.position
                if self._ended or held > MAX_LINE_BYTES:
                    reason = (
                        "" if self._ended else f"more than {MAX_LINE_BYTES:,} characters in one record, or "
                    )
                    raise self._error(f"{reason}invalid JSON: {error}") from None
                self._read()
            else:
                return value

    def _read(self) -> None:
        """Read as much as is held, which keeps the repeated parsing of a long value linear."""
        held = self._buffer[self.position :]
        try:
            chunk = self._stream.read(max(_CHUNK_BYTES, len(held)))
            self._buffer, self.position = held + self._utf8.decode(chunk, final=not chunk), 0
        except UnicodeDecodeError:
            raise self._error("invalid UTF-8") from None
        except OSError as error:
            raise damaged(self._path, error) from None
        self._ended = not chunk

    def _error(self, reason: str) -> RecordError:
        return _invalid(reason, f"{self._path}: record {self.number}")


def _invalid(reason: str, origin: str) -> RecordError:
    return RecordError(reason, origin=origin, remedy=SKIP_REMEDY)


def _not_an_object(value: Any, origin: str) -> RecordError:
    return RecordError(
        f"a record must be a JSON object, not {type(value).__name__}",
        origin=origin,
        value=value,
        remedy=SKIP_REMEDY,
    )
