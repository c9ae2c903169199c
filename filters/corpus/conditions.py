"""Where expressions over single documents, whose attributes have no schema yet.

They mean what they mean in a query, and are evaluated by the same code: each value's type is its own, and
a field that a document lacks is a missing value. Text that is compared with a number, a truth value or a
date is read as one where it can be, as the types of csv files are found later.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from math import isnan
from typing import Any

import pyarrow as pa

from compactds.filters.binding import bind
from compactds.filters.corpus.base import Record
from compactds.filters.corpus.errors import FilterError, UncomparableError
from compactds.filters.errors import CompactdsError, reported, shown
from compactds.filters.evaluate import evaluate
from compactds.filters.limits import walk
from compactds.filters.schema import FieldType, Schema
from compactds.filters.values import family
from compactds.filters.where import And, Compare, Contains, Exists, Expression, Not, Or, Prefix, field_of
from compactds.filters.where_sql import from_sql

_ARROW = {
    FieldType.BOOL: pa.bool_(),
    FieldType.INT64: pa.int64(),
    FieldType.FLOAT64: pa.float64(),
    FieldType.STRING: pa.string(),
    FieldType.DATE: pa.date32(),
    FieldType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    FieldType.STRING_LIST: pa.list_(pa.string()),
    FieldType.INT64_LIST: pa.list_(pa.int64()),
}
_TRUTH = {"true": True, "false": False}
_CACHED_SCHEMAS = 256
_OF_DOCUMENTS = frozenset({"document_id", "title", "source"})


@dataclass(frozen=True, slots=True)
class _Row:
    """Give the fields of one document as columns of one row."""

    values: Mapping[str, Any]
    schema: Schema

    def column(self, name: str) -> pa.Array:
        return pa.array([self.values[name]], type=_ARROW[self.schema[name]])


class Condition:
    """Tell of single documents whether a where expression allows them."""

    def __init__(self, where: str) -> None:
        """Read an SQL condition; raises WhereError."""
        self.where = where
        self._expression = from_sql(where)
        self._compared = _compared_values(self._expression)
        self._bound = lru_cache(maxsize=_CACHED_SCHEMAS)(self._bind)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Return the names of the attributes that the expression asks for, sorted."""
        return tuple(sorted(self._compared.keys() - _OF_DOCUMENTS))

    def allows(self, document: Record) -> bool:
        """Tell whether the expression allows a document.

        Raises UncomparableError if a field of it cannot be compared as the expression wants.
        """
        values: dict[str, Any] = {}
        types: dict[str, FieldType] = {}
        try:
            for name, sample in self._compared.items():
                values[name], types[name] = _typed(_value_of(document, name), sample)
            schema = Schema(types)
            bound = self._bound(tuple(types.items()))
            return bool(evaluate(bound, _Row(values, schema), 1)[0])
        except (CompactdsError, pa.ArrowInvalid, OverflowError, UnicodeEncodeError) as error:
            origin = getattr(document, "origin", "")
            reason = error.message if isinstance(error, CompactdsError) else str(error)
            raise UncomparableError(
                f"{f'{origin}: ' if origin else ''}document {shown(document.id)} cannot be compared with "
                f"{self.where!r}: {reason}",
                value=reported(document.id),
                remedy="Correct the value, or leave it out, or change the condition.",
            ) from error

    def _bind(self, types: tuple[tuple[str, FieldType], ...]) -> Expression:
        return bind(self._expression, Schema(dict(types)))


def _compared_values(expression: Expression) -> dict[str, Any]:
    """Return each field with a value it is compared with, None if it is only asked whether it exists.

    A field whose elements are asked for is given a list.
    """
    found: dict[str, Any] = {}
    for node, _ in walk(expression):
        if isinstance(node, And | Or | Not):
            continue
        name = field_of(node)
        sample = _compared(node)
        if sample is not None or name not in found:
            found[name] = sample
    return found


def _compared(node: Expression) -> Any:
    match node:
        case Exists():
            return None
        case Compare(_, _, value) | Prefix(_, value):
            return value
        case Contains(_, value):
            return [value]
        case _:
            values = getattr(node, "values", ())
            first = values[0] if values else None
            return [first] if type(node).__name__.startswith("Contains") else first


def _value_of(document: Record, name: str) -> Any:
    match name:
        case "document_id":
            return document.id
        case "title":
            return document.title
        case "source":
            return document.source
        case _:
            return document.attributes.get(name)


def _typed(value: Any, sample: Any) -> tuple[Any, FieldType]:
    """Return a document's value and its type; for a missing value, the type that `sample` has."""
    if value is None or (isinstance(value, float) and isnan(value)):
        return None, _type_of("" if sample is None else sample)
    if isinstance(value, str) and sample is not None and not isinstance(sample, str | list):
        value = _read(value, sample)
    if isinstance(value, list | tuple) and not value and isinstance(sample, list):
        return [], _type_of(sample)
    return value, _type_of(value)


def _type_of(value: Any) -> FieldType:
    match value:
        case bool():
            return FieldType.BOOL
        case int():
            return FieldType.INT64
        case float():
            return FieldType.FLOAT64
        case datetime():
            return FieldType.TIMESTAMP
        case date():
            return FieldType.DATE
        case list() | tuple():
            numbers = bool(value) and all(isinstance(item, int) for item in value)
            return FieldType.INT64_LIST if numbers else FieldType.STRING_LIST
        case str():
            return FieldType.STRING
    raise FilterError(f"{shown(value)} is of no type an attribute has.", value=reported(value))


def _read(text: str, sample: Any) -> Any:
    """Return text as the kind of value the sample is, or as it is if it cannot be read so."""
    kind = family(sample)
    try:
        if kind == "number":
            return int(text) if text.strip().lstrip("+-").isdecimal() else float(text)
        if kind == "date":
            return datetime.fromisoformat(text) if isinstance(sample, datetime) else date.fromisoformat(text)
    except ValueError:
        return text
    return _TRUTH.get(text.strip().lower(), text)
