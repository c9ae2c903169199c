"""Bring the values of a record to the few kinds an attribute can have."""

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import orjson

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_MAX_DEPTH = 32


def clean_text(text: str) -> str:
    """Return text that every store and encoder can take: no NUL, U+FFFD for lone surrogates."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    try:
        text.encode()
    except UnicodeEncodeError:
        # UTF-16 joins the surrogates that form a pair and leaves the lone ones to be replaced.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def flatten(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record with nested objects spread out under dotted names; raise ValueError if two meet."""
    if not any(isinstance(value, Mapping) for value in values.values()):
        return values
    flat: dict[str, Any] = {}
    _spread(values, "", flat, 0)
    return flat


def _spread(values: Mapping[str, Any], prefix: str, flat: dict[str, Any], depth: int) -> None:
    for key, value in values.items():
        name = prefix + str(key)
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            _spread(value, name + ".", flat, depth + 1)
        elif name in flat:
            raise ValueError(f"two values for {name!r}, one of them nested")
        else:
            flat[name] = value


def attribute_value(value: Any) -> Any:
    """Return None, bool, int, float, str, date, datetime, or a list of str or of int.

    NaN and infinities are missing, as are bytes. Integers beyond int64 become text, so that no digit is
    lost. Nulls inside lists are dropped; a list of anything but str or int becomes JSON text.
    """
    if value is None or isinstance(value, (bool, date)):  # a datetime is a date
        return value
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int):
        return value if INT64_MIN <= value <= INT64_MAX else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return _list_value([element for element in value if element is not None])
    return _foreign_value(value)


def _list_value(values: list[Any]) -> Any:
    if all(isinstance(value, str) for value in values):
        return [clean_text(value) for value in values]
    if all(type(value) is int and INT64_MIN <= value <= INT64_MAX for value in values):
        return values
    return json_text(values)


def _foreign_value(value: Any) -> Any:
    """Convert what Parquet and datasets bring beyond JSON's types."""
    match value:
        case bytes() | bytearray():
            return None
        case Decimal():
            return attribute_value(float(value))
        case time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return json_text(value)
        case _:
            return clean_text(str(value))


def json_text(value: Any) -> str:
    """Return compact JSON with dates in ISO 8601 and null for bytes."""
    try:
        return orjson.dumps(value, default=_json_default).decode()
    except TypeError:  # integers beyond 64 bits, lone surrogates, more than 254 levels
        pass
    try:
        text = json.dumps(value, default=_json_default, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise ValueError("lists and objects are nested too deep") from None
    return clean_text(text)


def _json_default(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return None
    return value.isoformat() if isinstance(value, (date, datetime, time)) else str(value)
