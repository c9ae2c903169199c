"""Translate sqlglot's syntax trees of conditions into where expressions; refuse all other nodes.

Every node is taken only with the arguments known here, so that a flag that a later parser adds (a
negation, say) is refused and not overlooked.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from sqlglot import exp

from compactds.filters.errors import WhereError, reported, shown
from compactds.filters.values import NoDate, UnfitError, parse_instant
from compactds.filters.where import (
    And,
    Compare,
    Contains,
    ContainsAll,
    ContainsAny,
    Exists,
    Expression,
    In,
    Operator,
    Or,
    Prefix,
    negation,
)

FUNCTIONS = ("list_contains", "list_has_any", "list_has_all", "starts_with")
OPAQUE = "where_"
"""What function names start with when they reach the parser, which then gives them no meaning of its own."""

REMEDY = (
    "Compare fields with literals using = <> < <= > >=, IN, BETWEEN, LIKE 'abc%', IS NULL, "
    "list_contains, list_has_any, list_has_all, starts_with; combine with AND, OR, NOT."
)
_LIST_REMEDY = "For lists write list_contains(f, 'x'), list_has_any(f, ['x']) or list_has_all(f, ['x'])."

_COMPARISONS: dict[type, tuple[Operator, Operator]] = {  # as written, and with its sides exchanged
    exp.EQ: (Operator.EQ, Operator.EQ),
    exp.NEQ: (Operator.NE, Operator.NE),
    exp.GT: (Operator.GT, Operator.LT),
    exp.GTE: (Operator.GTE, Operator.LTE),
    exp.LT: (Operator.LT, Operator.GT),
    exp.LTE: (Operator.LTE, Operator.GTE),
}
_TIMESTAMPS = (
    exp.DataType.Type.TIMESTAMP,
    exp.DataType.Type.TIMESTAMPNTZ,
    exp.DataType.Type.TIMESTAMPTZ,
)
_ARGUMENTS: dict[type, frozenset[str]] = {
    exp.In: frozenset(("this", "expressions", "field", "query")),
    exp.Between: frozenset(("this", "low", "high")),
    exp.Like: frozenset(("this", "expression", "negate")),
    exp.Column: frozenset(("this", "table", "db", "catalog")),
    exp.Anonymous: frozenset(("this", "expressions")),
    exp.Array: frozenset(("expressions",)),
    exp.Cast: frozenset(("this", "to")),
    exp.Literal: frozenset(("this", "is_string")),
}
_USUAL_ARGUMENTS = frozenset(("this", "expression"))
_WHOLE = re.compile(r"[0-9]{1,40}")
_DECIMAL = re.compile(r"[0-9]*\.?[0-9]*([eE][+-]?[0-9]+)?")


def translate(node: Any, groups: Mapping[str, Expression]) -> Expression:
    """Return the expression of a node that is true or false for a row.

    `groups` holds the conditions that were in parentheses, by the name that stands for each.
    """
    kind = type(node)
    _check_arguments(node)
    if kind is exp.And or kind is exp.Or:
        parts = tuple(translate(part, groups) for part in _chain(node))
        return And(parts) if kind is exp.And else Or(parts)
    if kind is exp.Not:
        return negation(translate(node.this, groups))
    if kind is exp.Column and node.name in groups:
        return groups[node.name]
    if kind is exp.Column or kind is exp.Dot:
        return Compare(_name(node), Operator.EQ, True)
    if kind in _COMPARISONS:
        return _comparison(node)
    leaf = _LEAVES.get(kind)
    if leaf is None:
        raise _unsupported(node)
    return leaf(node)


def _check_arguments(node: Any) -> None:
    known = _ARGUMENTS.get(type(node), _USUAL_ARGUMENTS)
    if not isinstance(node, exp.Expression) or any(
        value and name not in known for name, value in node.args.items()
    ):
        raise _unsupported(node)


def _chain(node: Any) -> list[Any]:
    """Return the parts of `a AND b AND c`, which the parser nests to the left."""
    kind, parts = type(node), []
    while type(node) is kind:
        _check_arguments(node)
        parts.append(node.expression)
        node = node.this
    return [node, *reversed(parts)]


def _comparison(node: Any) -> Expression:
    operator, exchanged = _COMPARISONS[type(node)]
    if type(node.this) in (exp.Column, exp.Dot):
        return Compare(_name(node.this), operator, _value(node.expression))
    if type(node.expression) in (exp.Column, exp.Dot):
        return Compare(_name(node.expression), exchanged, _value(node.this))
    raise _unsupported(node.this)


def _in(node: Any) -> Expression:
    if node.args.get("field"):
        raise refusal("IN with a field on its right", node.args["field"].name, _LIST_REMEDY)
    if node.args.get("query"):
        raise refusal("IN with a sub-query", "IN", "Write the values: year IN (2015, 2016).")
    return In(_name(node.this), tuple(_value(value) for value in node.expressions))


def _between(node: Any) -> Expression:
    name = _name(node.this)
    return And(
        (
            Compare(name, Operator.GTE, _value(node.args["low"])),
            Compare(name, Operator.LTE, _value(node.args["high"])),
        )
    )


def _is(node: Any) -> Expression:
    name = _name(node.this)
    if type(node.expression) is exp.Null:
        return negation(Exists(name))
    if type(node.expression) is exp.Boolean:
        return Compare(name, Operator.EQ, _value(node.expression))
    raise _unsupported(node.expression)


def _like(node: Any) -> Expression:
    name, pattern = _name(node.this), _value(node.expression)
    prefix = pattern.removesuffix("%") if isinstance(pattern, str) else None
    if prefix is None or prefix == pattern or "%" in prefix or "_" in prefix:
        raise refusal(
            f"LIKE {shown(pattern)}",
            pattern,
            "LIKE takes a prefix and one final %: title LIKE 'abc%'; or write starts_with(title, 'abc').",
        )
    like = Prefix(name, prefix)
    return negation(like) if node.args.get("negate") else like


def _function(node: Any) -> Expression:
    """Translate a call of one of FUNCTIONS, each of a field and a value or list."""
    function = str(node.this).removeprefix(OPAQUE).lower()
    if len(node.expressions) != 2:
        raise refusal(f"{function} of {len(node.expressions)} arguments", function, _LIST_REMEDY)
    name, argument = _name(node.expressions[0]), node.expressions[1]
    match function:
        case "starts_with":
            return Prefix(name, _value(argument))
        case "list_contains":
            return Contains(name, _value(argument))
        case "list_has_any":
            return ContainsAny(name, _list(function, argument))
        case "list_has_all":
            return ContainsAll(name, _list(function, argument))
    raise _unsupported(node)


def _list(function: str, node: Any) -> tuple[Any, ...]:
    if type(node) is not exp.Array:
        raise refusal(f"{function} without a list", function, _LIST_REMEDY)
    _check_arguments(node)
    return tuple(_value(value) for value in node.expressions)


_LEAVES: dict[type, Callable[[Any], Expression]] = {
    exp.In: _in,
    exp.Between: _between,
    exp.Is: _is,
    exp.Like: _like,
    exp.Anonymous: _function,
}


def _name(node: Any) -> str:
    """Return the name of a field; dots without quotes are part of it."""
    parts: list[str] = []
    while type(node) is exp.Dot:
        parts.append(_part(node.expression))
        node = node.this
    if type(node) is not exp.Column:
        raise _unsupported(node)
    parts.extend(_part(part) for part in reversed(node.parts))
    return ".".join(reversed(parts))


def _part(node: Any) -> str:
    if type(node) is not exp.Identifier:
        raise _unsupported(node)
    if "\0" in node.name:
        raise refusal("a condition where a field or a value belongs", "( )", REMEDY)
    return str(node.name)


def _value(node: Any) -> bool | int | float | str | date | datetime | NoDate:
    """Return the value of a literal."""
    kind = type(node)
    _check_arguments(node)
    if kind is exp.Literal:
        return str(node.this) if node.is_string else _number(str(node.this))
    if kind is exp.Neg and type(node.this) is exp.Literal and not node.this.is_string:
        return -_number(str(node.this.this))
    if kind is exp.Boolean:
        return bool(node.this)
    if kind is exp.Cast and type(node.this) is exp.Literal and node.this.is_string:
        return _dated(node)
    if kind is exp.Null:
        raise refusal("a comparison with NULL", None, "Write IS NULL or IS NOT NULL.")
    if kind in (exp.Column, exp.Dot):
        raise refusal(
            f"field {shown(_name(node))} in place of a value", _name(node), "Write strings in single quotes."
        )
    raise _unsupported(node)


def _number(text: str) -> int | float:
    if _WHOLE.fullmatch(text):
        return int(text)
    if not _DECIMAL.fullmatch(text):
        raise refusal(f"number {shown(text)}", text, "Write 2015, -1, 0.5 or 1e-3.")
    return float(text)


def _dated(node: Any) -> date | datetime | NoDate:
    """Return the value of DATE '…' or TIMESTAMP '…', which the parser gives as a cast.

    One that does not exist is refused when its field is known, as it is in the other front ends.
    """
    text, kind = str(node.this.this), node.to.this
    if kind is not exp.DataType.Type.DATE and kind not in _TIMESTAMPS:
        raise _unsupported(node)
    try:
        instant = parse_instant(text)
    except UnfitError as error:
        return NoDate(text, str(error))
    if kind in _TIMESTAMPS:
        return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    if len(text) > len("2024-01-31"):
        raise refusal(f"DATE {shown(text)}", text, "Write TIMESTAMP for a date with a time.")
    return instant.date()


def _unsupported(node: Any) -> WhereError:
    if type(node) in (exp.Literal, exp.Boolean, exp.Null):
        return refusal("a value where a field belongs", str(node.this), REMEDY)
    what = node.key if isinstance(node, exp.Expression) else str(node)
    return refusal(f"{shown(what)} is not supported", what, REMEDY)


def refusal(what: str, value: object, remedy: str) -> WhereError:
    """Return the error for something a condition cannot hold."""
    return WhereError(f"SQL condition: {what}.", value=reported(value), remedy=remedy)
