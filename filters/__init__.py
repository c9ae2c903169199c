"""Decide what may enter a store and what a query may return."""

from compactds.filters.binding import bind
from compactds.filters.errors import CompactdsError, FieldTypeError, UnknownFieldError, WhereError
from compactds.filters.evaluate import Columns, evaluate
from compactds.filters.parsed import ParsedWheres
from compactds.filters.parsing import Where, parse_where
from compactds.filters.schema import FieldType, Schema
from compactds.filters.where import Expression, Field, field
from compactds.filters.where_json import from_json, to_json
from compactds.filters.where_sql import from_sql, to_sql

__all__ = [
    "Columns",
    "CompactdsError",
    "Expression",
    "Field",
    "FieldType",
    "FieldTypeError",
    "ParsedWheres",
    "Schema",
    "UnknownFieldError",
    "Where",
    "WhereError",
    "bind",
    "evaluate",
    "field",
    "from_json",
    "from_sql",
    "parse_where",
    "to_json",
    "to_sql",
]
