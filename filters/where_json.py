"""Where expressions as JSON, in MongoDB's manner.

`{"subject": "physics", "year": {"$gte": 2015, "$lt": 2020}}`: a bare value means equality, several
operators on a field and several fields mean and. `{"author": {"name": "x"}}` is about `author.name`.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

from compactds.filters.errors import WhereError, nearest, reported, shown
from compactds.filters.limits import check_depth, check_nodes
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
    as_values,
)

_COMPARISONS = {f"${operator.value}": operator for operator in Operator}
_LISTS: dict[str, type[In | NotIn | ContainsAny | ContainsAll]] = {
    "$in": In,
    "$nin": NotIn,
    "$contains_any": ContainsAny,
    "$contains_all": ContainsAll,
}
_LIST_NAMES = {kind: name for name, kind in _LISTS.items()}
_GROUPS: dict[str, type[And | Or]] = {"$and": And, "$or": Or}
_FIELD_OPERATORS = (*_COMPARISONS, *_LISTS, "$contains", "$prefix", "$exists", "$not")


def from_json(where: Mapping[str, Any]) -> Expression:
    """Read a JSON object; raise WhereError for one that is no where expression.

    The expression is not bound: names and types are checked against a schema by `bind`.
    """
    return _Reader().condition(where, 1)


class _Reader:
    """Read nested objects while counting them, so that size is refused before it costs anything."""

    __slots__ = ("nodes",)

    def __init__(self) -> None:
        self.nodes = 0

    def condition(self, where: object, depth: int) -> Expression:
        """Read an object of fields and of $and, $or, $not."""
        check_depth(depth)
        if type(where) is not dict and not isinstance(where, Mapping):
            raise WhereError(
                f"where expression: expected an object, not {shown(where)}.",
                value=reported(where),
                remedy='Write {"field": value} or {"field": {"$gte": value}}.',
            )
        parts = []
        for name, value in where.items():
            parts.append(self._entry(name, value, depth))
            self._count()
        return _together(where, parts)

    def _entry(self, name: object, value: Any, depth: int) -> Expression:
        if not isinstance(name, str):
            raise WhereError(
                f"where expression: {shown(name)} is not a field name.",
                value=reported(name),
                remedy="Name the field in a string.",
            )
        if name[:1] != "$":
            return self._field(name, value, depth)
        if name in _GROUPS:
            return _GROUPS[name](self._parts(name, value, depth))
        if name == "$not":
            return Not(self.condition(value, depth + 1))
        raise _unknown_operator(name, ("$and", "$or", "$not"), "where expression")

    def _count(self) -> None:
        """Count a condition that was read."""
        self.nodes += 1
        check_nodes(self.nodes)

    def _field(self, name: str, value: Any, depth: int) -> Expression:
        """Read what is said of one field: a value, operators, or fields whose names start with its own."""
        if type(value) is dict or isinstance(value, Mapping):
            return self._operators(name, value, depth)
        return Compare(name, Operator.EQ, value)

    def _parts(self, name: str, value: object, depth: int) -> tuple[Expression, ...]:
        if not isinstance(value, list | tuple) or not value:
            raise WhereError(
                f"where expression: {name} needs a list of at least one object, not {shown(value)}.",
                value=reported(value),
                remedy=f'Write {{"{name}": [{{"field": value}}, …]}}.',
            )
        return tuple(self.condition(part, depth + 1) for part in value)

    def _operators(self, name: str, operators: Mapping[Any, Any], depth: int) -> Expression:
        """Read the operator object of one field."""
        check_depth(depth)
        parts = []
        for key, value in operators.items():
            parts.append(self._operator(name, key, value, depth))
            self._count()
        return _together(operators, parts, name)

    def _operator(self, name: str, key: object, value: Any, depth: int) -> Expression:
        if key in _COMPARISONS:
            return Compare(name, _COMPARISONS[str(key)], value)
        if key in _LISTS:
            return _LISTS[str(key)](name, as_values(name, value))
        if isinstance(key, str) and not key.startswith("$") and f"${key}" not in _FIELD_OPERATORS:
            return self._field(f"{name}.{key}", value, depth + 1)
        match key:
            case "$contains":
                return Contains(name, value)
            case "$prefix":
                return Prefix(name, value)
            case "$exists":
                if not isinstance(value, bool):
                    raise WhereError(
                        f"field {shown(name)}: $exists needs true or false, not {shown(value)}.",
                        value=reported(value),
                        remedy='Write {"$exists": true}, or false for no value.',
                        field=name,
                    )
                return Exists(name) if value else Not(Exists(name))
            case "$not":
                if not isinstance(value, Mapping):
                    raise WhereError(
                        f"field {shown(name)}: $not needs an object of operators, not {shown(value)}.",
                        value=reported(value),
                        remedy='Write {"$not": {"$gte": value}}, or use $ne.',
                        field=name,
                    )
                return Not(self._operators(name, value, depth + 1))
        raise _unknown_operator(key, _FIELD_OPERATORS, f"field {shown(name)}", name)


def _together(source: Mapping[Any, Any], parts: list[Expression], field: str | None = None) -> Expression:
    """Join what one object says, perhaps of a `field`: alone, or with and."""
    if not parts:
        place = "where expression" if field is None else f"field {shown(field)}"
        raise WhereError(
            f"{place}: an empty object {shown(source)}.",
            remedy="Leave the condition out to allow all rows.",
            field=field,
        )
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _unknown_operator(
    name: object, known: tuple[str, ...], place: str, field: str | None = None
) -> WhereError:
    """Return the error for an operator of a `field`, or for one of several conditions, that there is not."""
    remedy = f"Known here: {', '.join(known)}."
    if f"${name}" in known:
        remedy = f"Did you mean '${name}'?"
    elif field is not None and isinstance(name, str):  # $nor is near $or, and means another thing
        near = nearest(name.casefold(), known)
        remedy = f"Did you mean {near!r}? {remedy}" if near else remedy
    return WhereError(
        f"{place}: unknown operator {shown(name)}.", value=reported(name), remedy=remedy, field=field
    )


def to_json(expression: Expression) -> dict[str, Any]:
    """Return the JSON object that `from_json` reads as this expression, dates as ISO strings.

    Raise WhereError for a field whose name starts with `$`: JSON has no way to write it.
    """
    match expression:
        case Compare(name, Operator.EQ, value):
            return {_key(name): _plain(value)}
        case Compare(name, operator, value):
            return {_key(name): {f"${operator.value}": _plain(value)}}
        case In(name, values) | NotIn(name, values) | ContainsAny(name, values) | ContainsAll(name, values):
            return {_key(name): {_LIST_NAMES[type(expression)]: [_plain(value) for value in values]}}
        case Contains(name, value):
            return {_key(name): {"$contains": _plain(value)}}
        case Prefix(name, prefix):
            return {_key(name): {"$prefix": _plain(prefix)}}
        case Exists(name):
            return {_key(name): {"$exists": True}}
        case Not(Exists(name)):
            return {_key(name): {"$exists": False}}
        case And(parts):
            return {"$and": [to_json(part) for part in parts]}
        case Or(parts):
            return {"$or": [to_json(part) for part in parts]}
        case Not(part):
            return {"$not": to_json(part)}
    raise WhereError(f"where expression: {shown(expression)} is not a part of one.")


def _key(name: str) -> str:
    if name.startswith("$"):
        raise WhereError(
            f"field {shown(name)}: a name that starts with $ cannot be written in JSON.",
            value=reported(name),
            remedy="Use SQL or Python for this field.",
        )
    return name


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; a value that no field can hold is refused."""
    match value:
        case date():
            return value.isoformat()
        case bool() | int() | float() | str():
            return value
    raise WhereError(
        f"where expression: {shown(value)} cannot be written in JSON.",
        value=reported(value),
        remedy="Bind the expression to a schema first.",
    )
