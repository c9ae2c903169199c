"""The tree every where expression becomes, and its Python front end.

An Expression says which rows are allowed. `field("year") >= 2015` makes one, `&`, `|` and `~`
combine them. The tree is the same whether it came from JSON, SQL or Python; values are as they were
written until `compactds.filters.binding.bind` checks them against a schema.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any, Never

from compactds.filters.errors import WhereError, reported, shown

_READ_AHEAD = 1_000_000  # an endless iterable ends here, far above any limit on lists


class Operator(StrEnum):
    """Name the comparisons of a field with one value."""

    EQ = "eq"
    NE = "ne"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"

    @property
    def is_order(self) -> bool:
        """Tell whether the comparison needs an order, not just equality."""
        return self not in (Operator.EQ, Operator.NE)


class Expression:
    """Say which rows are allowed; combine with `&`, `|` and `~`."""

    __slots__ = ()

    def __and__(self, other: "Expression") -> "Expression":
        if not isinstance(other, Expression):
            return NotImplemented
        return And(_spread(And, self) + _spread(And, other))

    def __or__(self, other: "Expression") -> "Expression":
        if not isinstance(other, Expression):
            return NotImplemented
        return Or(_spread(Or, self) + _spread(Or, other))

    def __invert__(self) -> "Expression":
        return Not(self)

    def to_json(self) -> dict[str, Any]:
        """Return the expression as a JSON object, as an HTTP request carries it."""
        from compactds.filters.where_json import to_json

        return to_json(self)

    def __bool__(self) -> bool:
        raise WhereError(
            "a where expression is neither true nor false until it meets a row.",
            remedy="Combine expressions with & | ~ instead of and, or, not, put each comparison in "
            "parentheses, and write (low <= f) & (f <= high) instead of low <= f <= high.",
        )


@dataclass(frozen=True, slots=True)
class Compare(Expression):
    """Allow rows whose value compares so with one value; `ne` allows all that `eq` does not."""

    field: str
    operator: Operator
    value: Any


@dataclass(frozen=True, slots=True)
class In(Expression):
    """Allow rows whose value is one of these."""

    field: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class NotIn(Expression):
    """Allow all rows that `In` does not, those without a value among them."""

    field: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Contains(Expression):
    """Allow rows whose list has this element."""

    field: str
    value: Any


@dataclass(frozen=True, slots=True)
class ContainsAny(Expression):
    """Allow rows whose list has at least one of these elements."""

    field: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ContainsAll(Expression):
    """Allow rows whose list has every one of these elements."""

    field: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Prefix(Expression):
    """Allow rows whose string starts with this one."""

    field: str
    prefix: Any


@dataclass(frozen=True, slots=True)
class Exists(Expression):
    """Allow rows that have a value; an empty list is a value."""

    field: str


@dataclass(frozen=True, slots=True)
class And(Expression):
    """Allow rows that every part allows."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or(Expression):
    """Allow rows that at least one part allows."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not(Expression):
    """Allow all rows that the part does not."""

    part: Expression


def negation(expression: Expression) -> Expression:
    """Return the complement in its shortest form: `$ne` for `$eq`, `$in` for `$nin`, nothing for not not."""
    match expression:
        case Not(part):
            return part
        case Compare(name, Operator.EQ, value):
            return Compare(name, Operator.NE, value)
        case Compare(name, Operator.NE, value):
            return Compare(name, Operator.EQ, value)
        case In(name, values):
            return NotIn(name, values)
        case NotIn(name, values):
            return In(name, values)
        case _:
            return Not(expression)


def field_of(condition: Expression) -> str:
    """Return the field that a condition is about; raise WhereError for a group or what is no condition."""
    match condition:
        case (
            Compare(name)
            | In(name)
            | NotIn(name)
            | Contains(name)
            | ContainsAny(name)
            | ContainsAll(name)
            | Prefix(name)
            | Exists(name)
        ):
            return name
    raise WhereError(f"where expression: {shown(condition)} is not a part of one.")


def _spread(kind: type[And] | type[Or], expression: Expression) -> tuple[Expression, ...]:
    """Return the parts of an expression of this kind, or the expression as the only part."""
    return expression.parts if isinstance(expression, kind) else (expression,)


class Field:
    """Stand for a field in Python: its comparisons make expressions."""

    __slots__ = ("name",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"field({self.name!r})"

    def __eq__(self, value: object) -> Expression:  # type: ignore[override]
        return Compare(self.name, Operator.EQ, value)

    def __ne__(self, value: object) -> Expression:  # type: ignore[override]
        return Compare(self.name, Operator.NE, value)

    def __gt__(self, value: Any) -> Expression:
        return Compare(self.name, Operator.GT, value)

    def __ge__(self, value: Any) -> Expression:
        return Compare(self.name, Operator.GTE, value)

    def __lt__(self, value: Any) -> Expression:
        return Compare(self.name, Operator.LT, value)

    def __le__(self, value: Any) -> Expression:
        return Compare(self.name, Operator.LTE, value)

    def isin(self, values: Iterable[Any]) -> Expression:
        """Allow rows whose value is one of these."""
        return In(self.name, as_values(self.name, values))

    def not_in(self, values: Iterable[Any]) -> Expression:
        """Allow rows whose value is none of these, or missing."""
        return NotIn(self.name, as_values(self.name, values))

    def contains(self, value: Any) -> Expression:
        """Allow rows whose list has this element."""
        return Contains(self.name, value)

    def contains_any(self, values: Iterable[Any]) -> Expression:
        """Allow rows whose list has at least one of these elements."""
        return ContainsAny(self.name, as_values(self.name, values))

    def contains_all(self, values: Iterable[Any]) -> Expression:
        """Allow rows whose list has every one of these elements."""
        return ContainsAll(self.name, as_values(self.name, values))

    def startswith(self, prefix: str) -> Expression:
        """Allow rows whose string starts with this one."""
        return Prefix(self.name, prefix)

    def exists(self) -> Expression:
        """Allow rows that have a value."""
        return Exists(self.name)

    def __bool__(self) -> Never:
        raise WhereError(f"{self!r} is a field, not a condition.", remedy=_PARENTHESES)

    def _lone(self, _other: object = None) -> Never:
        raise WhereError(f"{self!r} is combined before it is compared.", remedy=_PARENTHESES)

    __and__ = __rand__ = __or__ = __ror__ = __invert__ = _lone


_PARENTHESES = 'Compare it first, in parentheses: (field("year") >= 2015) & (field("ok") == True).'


def field(name: str) -> Field:
    """Return a field to compare: `field("year") >= 2015`."""
    return Field(name)


def as_values(name: str, values: object) -> tuple[Any, ...]:
    """Return the values of a list; raise WhereError for what is not one, a lone string among them."""
    if type(values) is list:
        return tuple(values[:_READ_AHEAD])
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | dict):
        raise WhereError(
            f"field {shown(name)}: expected a list of values, not {shown(values)}.",
            value=reported(values),
            remedy="Write [...] even around one value.",
            field=name,
        )
    return tuple(islice(values, _READ_AHEAD))
