"""Turn a value as it was written into a value of a field's type, exactly or not at all."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import floor, isfinite
from typing import Any

import numpy as np

from compactds.filters.errors import shown
from compactds.filters.limits import MAX_STRING_BYTES
from compactds.filters.schema import FieldType

Scalar = bool | int | float | str | date | datetime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DATE = date(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_MICROSECONDS_A_DAY = 86_400_000_000
_INT64 = range(-(2**63), 2**63)
_ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?", re.ASCII
)


class UnfitError(ValueError):
    """Say why a value does not fit a type; the message continues a sentence that names the field."""


@dataclass(frozen=True, slots=True)
class NoDate:
    """Stand for a date written as one that is none, until the field is known that refuses it."""

    text: str
    reason: str

    def __repr__(self) -> str:
        return f"DATE {self.text!r}"


def family(value: object) -> str:
    """Name the kind of a value as users know it; values of different kinds never share a list."""
    match value:
        case bool() | np.bool_():
            return "boolean"
        case int() | float() | np.integer() | np.floating():
            return "number"
        case str():
            return "string"
        case date() | NoDate():
            return "date"
        case None:
            return "null"
        case list() | tuple() | set() | frozenset():
            return "list"
        case _:
            return type(value).__name__


def fit(kind: FieldType, value: Any) -> tuple[Scalar, bool]:
    """Return the value in a scalar type, and whether it is exactly the value written.

    When it is not, it is the largest value of the type below it: 2015 for 2015.5 as int64, the day
    for an instant as a date. Raise UnfitError when no value of the type corresponds to it.
    """
    match kind:
        case FieldType.BOOL:
            return _boolean(value), True
        case FieldType.INT64:
            return _integer(value)
        case FieldType.FLOAT64:
            return _float(value), True
        case FieldType.STRING:
            return _string(value), True
        case FieldType.TIMESTAMP:
            return _timestamp(_microseconds(value)), True
        case FieldType.DATE:
            days, rest = divmod(_microseconds(value), _MICROSECONDS_A_DAY)
            return _EPOCH_DATE + timedelta(days=days), rest == 0
    raise UnfitError("is compared as a whole")


def is_plain(kind: FieldType, value: object) -> bool:
    """Tell quickly whether a value is plainly of a type, so that `fit` would give it as it is.

    What this does not recognise is not necessarily unfit.
    """
    if isinstance(value, str):
        return (
            kind is FieldType.STRING
            and type(value) is str
            and value.isascii()
            and len(value) <= MAX_STRING_BYTES
        )
    if isinstance(value, int):
        return kind is FieldType.INT64 and type(value) is int and value in _INT64
    return False


def are_plain(kind: FieldType, values: tuple[Any, ...]) -> bool:
    """Tell of all values what `is_plain` tells of one."""
    types = set(map(type, values))
    if kind is FieldType.INT64 and types == {int}:
        return min(values) in _INT64 and max(values) in _INT64
    if kind is FieldType.STRING and types == {str}:
        together = "".join(values)
        if together.isascii():
            return max(map(len, values)) <= MAX_STRING_BYTES
        try:
            together.encode()
        except UnicodeEncodeError:
            return False
        return max(map(len, values)) * 4 <= MAX_STRING_BYTES  # no character takes more bytes
    return False


def _boolean(value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise UnfitError("Write true or false.")
    return bool(value)


def _number(value: object) -> int | float:
    """Return a finite number as a plain int or float."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise UnfitError("Write a number, without quotes.")
    if isinstance(value, int | np.integer):
        return int(value)
    number = float(value)
    if not isfinite(number):
        raise UnfitError("Write a finite number, or use $exists for missing values.")
    return number


def _integer(value: object) -> tuple[int, bool]:
    number = _number(value)
    whole = floor(number)
    if whole not in _INT64:
        raise UnfitError("It is outside the range of 64-bit integers.")
    return whole, whole == number


def _float(value: object) -> float:
    try:
        return float(_number(value))
    except OverflowError:
        raise UnfitError("It is outside the range of 64-bit floats.") from None


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise UnfitError("Write a string, in quotes.")
    text = str.__str__(value)
    try:
        size_bytes = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise UnfitError("It holds a lone surrogate, which is not text.") from None
    if size_bytes > MAX_STRING_BYTES:
        raise UnfitError(f"It has {size_bytes:,} bytes, the limit is {MAX_STRING_BYTES:,}.")
    return text


def _microseconds(value: object) -> int:
    """Return an instant as microseconds since 1970 UTC: ISO string, date, datetime or epoch seconds."""
    match value:
        case str():
            return _since_epoch(parse_instant(value))
        case datetime():
            return _since_epoch(value)
        case date():
            return (value - _EPOCH_DATE).days * _MICROSECONDS_A_DAY
        case NoDate(_, reason):
            raise UnfitError(reason)
    try:
        seconds = _number(value)
    except UnfitError:
        raise UnfitError(_HOW_TO_WRITE_DATES) from None
    if 1_000 <= seconds <= 9_999 and seconds == int(seconds):  # a year, not a second of the night of 1970
        raise UnfitError(f'Write "{int(seconds)}-01-01": a number would be seconds since 1970.')
    return seconds * 1_000_000 if isinstance(seconds, int) else round(seconds * 1_000_000)


_HOW_TO_WRITE_DATES = 'Write "2024-01-31", "2024-01-31T12:00:00Z" or seconds since 1970.'


def parse_instant(text: str) -> datetime:
    """Read an ISO 8601 date or date and time; raise UnfitError for anything else."""
    if not _ISO.fullmatch(text):
        raise UnfitError(_HOW_TO_WRITE_DATES)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise UnfitError(f"There is no such date: {shown(text)}.") from None


def _since_epoch(instant: datetime) -> int:
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return (instant - EPOCH) // _MICROSECOND


def _timestamp(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)
