"""What type a value has, which type several values share, and how a value becomes one of that type."""

import math
import re
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

import orjson

from compactds.filters.schema import FieldType

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")  # no leading zeros: those are codes, not numbers
_DIGITS = re.compile(r"[+-]?[0-9]{1,25}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?|[+-]?(nan|inf|infinity)", re.I)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?"
    r"\s?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)?"
)


class Kind(StrEnum):
    """Name what a single value looks like; TEXT_ kinds are csv text that reads as another type."""

    BOOL = "bool"
    INTEGER = "integer"
    NUMBER = "number"
    STRING = "string"
    DATE = "date"
    TIMESTAMP = "timestamp"
    STRINGS = "list of strings"
    INTEGERS = "list of integers"
    EMPTY_LIST = "empty list"
    TEXT_BOOL = "text of a bool"
    TEXT_INTEGER = "text of an integer"
    TEXT_NUMBER = "text of a number"


_TEXTUAL = frozenset(
    {Kind.STRING, Kind.DATE, Kind.TIMESTAMP, Kind.TEXT_BOOL, Kind.TEXT_INTEGER, Kind.TEXT_NUMBER}
)
# The first row that holds all the kinds seen gives the type.
_TYPES: tuple[tuple[frozenset[Kind], FieldType], ...] = (
    (frozenset({Kind.BOOL, Kind.TEXT_BOOL}), FieldType.BOOL),
    (frozenset({Kind.INTEGER, Kind.TEXT_INTEGER}), FieldType.INT64),
    (frozenset({Kind.INTEGER, Kind.NUMBER, Kind.TEXT_INTEGER, Kind.TEXT_NUMBER}), FieldType.FLOAT64),
    (frozenset({Kind.DATE}), FieldType.DATE),
    (frozenset({Kind.DATE, Kind.TIMESTAMP}), FieldType.TIMESTAMP),
    (frozenset({Kind.STRINGS, Kind.EMPTY_LIST}), FieldType.STRING_LIST),
    (frozenset({Kind.INTEGERS, Kind.EMPTY_LIST}), FieldType.INT64_LIST),
    (_TEXTUAL | {Kind.EMPTY_LIST}, FieldType.STRING),
)


def kind_of(value: Any, is_text: bool = False) -> Kind:
    """Return what a value that is not missing looks like; `is_text` tells that it comes from csv."""
    if isinstance(value, str):
        return _kind_of_string(value, is_text)
    if isinstance(value, bool):
        return Kind.BOOL
    if isinstance(value, int):
        return Kind.INTEGER
    if isinstance(value, float):
        return Kind.NUMBER
    if isinstance(value, datetime):
        return Kind.TIMESTAMP
    if isinstance(value, date):
        return Kind.DATE
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"an attribute cannot hold a {type(value).__name__}")
    if not value:
        return Kind.EMPTY_LIST
    return Kind.STRINGS if isinstance(value[0], str) else Kind.INTEGERS


def _kind_of_string(value: str, is_text: bool) -> Kind:
    if len(value) >= 10 and value[4] == "-" and (kind := _kind_of_time(value)):
        return kind
    if is_text:
        if value.lower() in ("true", "false"):
            return Kind.TEXT_BOOL
        if _INTEGER.fullmatch(value) and INT64_MIN <= int(value) <= INT64_MAX:
            return Kind.TEXT_INTEGER
        if _NUMBER.fullmatch(value) and not _is_code(value):
            return Kind.TEXT_NUMBER
    return Kind.STRING


def _is_code(value: str) -> bool:
    """Tell whether digits are too many or too oddly written to be read as a number without loss."""
    return value.lstrip("+-").isdigit()


def _kind_of_time(value: str) -> Kind | None:
    try:
        if _DATE.fullmatch(value):
            date.fromisoformat(value)
            return Kind.DATE
        if _TIMESTAMP.fullmatch(value):
            parse_timestamp(value)
            return Kind.TIMESTAMP
    except (ValueError, OverflowError):
        pass
    return None


def resolve(kinds: Collection[Kind]) -> FieldType | None:
    """Return the type that values of all these kinds share, None if there is none.

    A field that was always missing is a string; one that held only empty lists is a list of strings.
    """
    if not kinds:
        return FieldType.STRING
    seen = frozenset(kinds)
    return next((kind for holds, kind in _TYPES if seen <= holds), None)


def parse_timestamp(value: str) -> datetime:
    """Read an ISO 8601 timestamp as UTC; one without an offset is taken to be UTC already."""
    return _to_utc(
        datetime.fromisoformat(value.replace(",", ".").replace(" ", "T", 1).replace(" ", "").upper())
    )


def _to_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def convert(value: Any, kind: FieldType) -> Any:
    """Return the value as one of the type, None if it is missing; raise ValueError if it can't be.

    What to_arrow takes: bool, int, float, str, date, datetime in UTC, or a list of str or int.
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    try:
        return _CONVERTERS[kind](value)
    except (ValueError, TypeError, OverflowError, AttributeError):
        raise ValueError(f"{shown(value)} cannot be read as {kind.value}") from None


def shown(value: Any, limit: int = 80) -> str:
    """Return a value for a message, cut to `limit` characters."""
    text = repr(value.isoformat() if isinstance(value, date) else value)
    return text if len(text) <= limit else f"{text[:limit]}…"


def _to_bool(value: Any) -> bool:
    word = str(value).lower()
    if word in ("true", "1", "1.0"):
        return True
    if word in ("false", "0", "0.0"):
        return False
    raise ValueError


def _to_int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, str) and not _DIGITS.fullmatch(value)):
        raise ValueError
    number = int(value)
    if not INT64_MIN <= number <= INT64_MAX or (isinstance(value, float) and value != number):
        raise ValueError
    return number


def _to_float(value: Any) -> float | None:
    if isinstance(value, bool) or (isinstance(value, str) and not _NUMBER.fullmatch(value)):
        raise ValueError
    number = float(value)
    return number if math.isfinite(number) else None


def _to_string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return orjson.dumps(value).decode()
    return str(value)


def _to_date(value: Any) -> date:
    if isinstance(value, str):
        return (
            date.fromisoformat(value) if _DATE.fullmatch(value) else parse_timestamp(_timestamp(value)).date()
        )
    if isinstance(value, datetime):
        return _to_utc(value).date()
    if isinstance(value, date):
        return value
    raise ValueError


def _to_timestamp(value: Any) -> datetime:
    if isinstance(value, str):
        return parse_timestamp(value if _DATE.fullmatch(value) else _timestamp(value))
    if isinstance(value, datetime):
        return _to_utc(value)
    return datetime(value.year, value.month, value.day, tzinfo=UTC)


def _timestamp(value: str) -> str:
    if not _TIMESTAMP.fullmatch(value):
        raise ValueError
    return value


def _to_list(element: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return lambda value: [element(item) for item in (value if isinstance(value, (list, tuple)) else [value])]


_CONVERTERS: dict[FieldType, Callable[[Any], Any]] = {
    FieldType.BOOL: _to_bool,
    FieldType.INT64: _to_int,
    FieldType.FLOAT64: _to_float,
    FieldType.STRING: _to_string,
    FieldType.DATE: _to_date,
    FieldType.TIMESTAMP: _to_timestamp,
    FieldType.STRING_LIST: _to_list(_to_string),
    FieldType.INT64_LIST: _to_list(_to_int),
}
