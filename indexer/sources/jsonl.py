"""Read JSON records: one a line, an array, or values one after another."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

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
    with opened(file.path) as stream:
        try:
            line = b""
            while not line.strip():
                line = stream.readline(MAX_LINE_BYTES)
                if not line:
                    return True
            return isinstance(parse(line.removeprefix(codecs.BOM_UTF8)), dict)
        except OSError:
            return True  # the line reader reports the damage
        except (ValueError, RecursionError):
            return False


def _values(file: InputFile) -> Iterator[tuple[int, Any]]:
    """Yield (number from 1, value) from a growing buffer that holds one value at most."""
    decoder = json.JSONDecoder()
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    with opened(file.path) as stream:
        buffer, position, number, ended = "", 0, 0, False
        in_array: bool | None = None
        while True:
            while position < len(buffer) and (
                buffer[position] in _SPACE or (number and buffer[position] == ",")
            ):
                position += 1
            if in_array is None and position < len(buffer):
                in_array = buffer[position] == "["
                position += in_array
                continue
            if in_array and buffer[position : position + 1] == "]":
                return
            try:
                value, position = decoder.raw_decode(buffer, position)
            except RecursionError as error:
                raise _invalid(f"invalid JSON: {error}", f"{file.path}: record {number + 1}") from None
            except ValueError as error:
                if ended:
                    if position >= len(buffer) and not in_array:
                        return
                    raise _invalid(f"invalid JSON: {error}", f"{file.path}: record {number + 1}") from None
                if len(buffer) - position > MAX_LINE_BYTES:
                    reason = f"record of more than {MAX_LINE_BYTES:,} characters, or invalid JSON: {error}"
                    raise _invalid(reason, f"{file.path}: record {number + 1}") from None
                # Doubling what is read keeps the repeated parsing of a long value linear.
                try:
                    chunk = stream.read(max(_CHUNK_BYTES, len(buffer) - position))
                    buffer, position = buffer[position:] + utf8.decode(chunk, final=not chunk), 0
                except UnicodeDecodeError:
                    raise _invalid("invalid UTF-8", f"{file.path}: record {number + 1}") from None
                except OSError as damage:
                    raise damaged(file.path, damage) from None
                ended = not chunk
                continue
            number += 1
            yield number, value


def _invalid(reason: str, origin: str) -> RecordError:
    return RecordError(reason, origin=origin, remedy=SKIP_REMEDY)


def _not_an_object(value: Any, origin: str) -> RecordError:
    return RecordError(
        f"a record must be a JSON object, not {type(value).__name__}",
        origin=origin,
        value=value,
        remedy=SKIP_REMEDY,
    )
