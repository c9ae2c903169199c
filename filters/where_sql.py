"""Where expressions as SQL conditions, in DuckDB's dialect.

`subject = 'physics' AND year >= 2015`: what could stand after WHERE, without sub-queries, functions
other than those for lists and prefixes, arithmetic and casts. A missing value fails every
comparison, and `<>`, `NOT IN` and `NOT` are exact complements, unlike NULL in SQL.
"""

from datetime import date, datetime
from typing import Any

from compactds.filters.errors import WhereError, reported, shown
from compactds.filters.where import (
    And,
    Compare,
    Contains,
    ContainsAll,
    ContainsAny,
    Exists,
    Expression,
    In,
    Not,
    NotIn,
    Operator,
    Or,
    Prefix,
)

_SYMBOLS = {
    Operator.EQ: "=",
    Operator.NE: "<>",
    Operator.GT: ">",
    Operator.GTE: ">=",
    Operator.LT: "<",
    Operator.LTE: "<=",
}


def from_sql(text: str) -> Expression:
    """Read an SQL condition; raise WhereError for text that is not one.

    The expression is not bound: names and types are checked against a schema by `bind`.
    """
    from compactds.filters.sql_reader import read_condition  # the parser takes long to import

    return read_condition(text)


def to_sql(expression: Expression) -> str:
    """Return the SQL condition that `from_sql` reads as this expression, names quoted."""
    match expression:
        case Compare(name, operator, value):
            return f"{_name(name)} {_SYMBOLS[operator]} {_literal(value)}"
        case In(name, values):
            return f"{_name(name)} IN ({_literals(values)})"
        case NotIn(name, values):
            return f"{_name(name)} NOT IN ({_literals(values)})"
        case Contains(name, value):
            return f"list_contains({_name(name)}, {_literal(value)})"
        case ContainsAny(name, values):
            return f"list_has_any({_name(name)}, [{_literals(values)}])"
        case ContainsAll(name, values):
            return f"list_has_all({_name(name)}, [{_literals(values)}])"
        case Prefix(name, prefix):
            return f"starts_with({_name(name)}, {_literal(prefix)})"
        case Exists(name):
            return f"{_name(name)} IS NOT NULL"
        case Not(Exists(name)):
            return f"{_name(name)} IS NULL"
        case Not(part):
            return f"NOT ({to_sql(part)})"
        case And(parts):
            return " AND ".join(_grouped(part) for part in parts)
        case Or(parts):
            return " OR ".join(_grouped(part) for part in parts)
    raise WhereError(f"where expression: {shown(expression)} is not a part of one.")


def _grouped(part: Expression) -> str:
    return f"({to_sql(part)})" if isinstance(part, And | Or) else to_sql(part)


def _name(name: str) -> str:
    if "\0" in name or not name:
        raise WhereError(
            f"field {shown(name)}: an empty name or one with NUL cannot be written in SQL.",
            value=reported(name),
            remedy="Use JSON or Python for this field.",
        )
    return '"' + name.replace('"', '""') + '"'


def _literals(values: tuple[Any, ...]) -> str:
    return ", ".join(_literal(value) for value in values)


def _literal(value: Any) -> str:
    match value:
        case bool():
            return "TRUE" if value else "FALSE"
        case int() | float():
            return repr(value)
        case str():
            return "'" + value.replace("'", "''") + "'"
        case datetime():
            return f"TIMESTAMPTZ '{value.isoformat(sep=' ')}'" if value.tzinfo else f"TIMESTAMP '{value}'"
        case date():
            return f"DATE '{value.isoformat()}'"
    raise WhereError(
        f"where expression: {shown(value)} cannot be written in SQL.",
        value=reported(value),
        remedy="Bind the expression to a schema first.",
    )
