"""Check a where expression against a schema and bring it into its one canonical form.

Bound expressions hold only values of their field's type (int, float, str, bool, `date`, `datetime`
in UTC), and expressions that say the same in different front ends are equal.
"""

from typing import Any

from compactds.filters.errors import FieldTypeError, WhereError, reported, shown
from compactds.filters.limits import check_depth, check_nodes, check_values
from compactds.filters.schema import LONGEST_NAME, FieldType, Schema
from compactds.filters.values import Scalar, UnfitError, are_plain, family, fit, is_plain
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
    negation,
)

# The exact meaning of `field <op> value` when only the largest value below it is in the type.
_BELOW = {
    Operator.GT: Operator.GT,
    Operator.GTE: Operator.GT,
    Operator.LT: Operator.LTE,
    Operator.LTE: Operator.LTE,
}


def bind(expression: Expression, schema: Schema) -> Expression:
    """Return the expression with names checked and values in their field's type.

    Raise UnknownFieldError for a field the schema does not have, FieldTypeError for a value that
    does not fit its field, WhereError for an expression that is too large or malformed.
    """
    return _Binder(schema).bind(expression, 1)


class _Binder:
    """Bind nodes while counting them, so that size is refused before it costs anything.

    Nodes whose values are as their field has them already are returned as they are.
    """

    __slots__ = ("nodes", "schema")

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.nodes = 0

    def bind(self, node: Expression, depth: int) -> Expression:
        self.nodes += 1
        check_depth(depth)
        check_nodes(self.nodes)
        match node:
            case Compare():
                return _compare(node, _type_of(node.field, self.schema))
            case And():
                return self._group(And, node.parts, depth)
            case In() | NotIn():
                check_values(node.field, len(node.values))
                kind = _scalar_type(node.field, self.schema, node.values, "$contains_any")
                return _listed(node, kind, kind)
            case Or():
                return self._group(Or, node.parts, depth)
            case Not():
                return negation(self.bind(node.part, depth + 1))
            case Contains(name, value):
                kind = _list_type(name, self.schema, value, "$eq")
                return Contains(name, _exactly(name, kind, kind.element, value))
            case ContainsAny() | ContainsAll():
                check_values(node.field, len(node.values))
                kind = _list_type(node.field, self.schema, node.values, "$in")
                return _listed(node, kind, kind.element)
            case Prefix(name, prefix):
                return _prefix(name, _type_of(name, self.schema), prefix)
            case Exists(name):
                _type_of(name, self.schema)
                return node
        raise WhereError(
            f"where expression: {shown(node)} is not a part of one.",
            value=reported(node),
            remedy='Build conditions with field("year") >= 2015 and combine them with & | ~.',
        )

    def _group(self, kind: type[And | Or], parts: tuple[Expression, ...], depth: int) -> Expression:
        """Bind the parts, and merge parts that are groups of the same kind."""
        if not parts:
            raise WhereError(
                f"where expression: ${kind.__name__.lower()} of nothing.", remedy="Leave it out."
            )
        merged: list[Expression] = []
        for part in parts:
            bound = self.bind(part, depth + 1)
            if isinstance(bound, kind):
                merged.extend(bound.parts)
            else:
                merged.append(bound)
        return merged[0] if len(merged) == 1 else kind(tuple(merged))


def _type_of(name: object, schema: Schema) -> FieldType:
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        raise WhereError(
            f"where expression: {shown(name)} is not a field name.",
            value=reported(name),
            remedy=f"Name the field in a string of at most {LONGEST_NAME:,} characters.",
        )
    return schema[name]


def _prefix(name: str, kind: FieldType, prefix: object) -> Prefix:
    if kind is not FieldType.STRING:
        raise _wrong_type(name, kind, prefix, "cannot be its prefix", "Only string fields take $prefix.")
    return Prefix(name, _exactly(name, kind, kind, prefix))


def _scalar_type(name: str, schema: Schema, value: object, instead: str) -> FieldType:
    kind = _type_of(name, schema)
    if kind.is_list:
        raise _wrong_type(
            name, kind, value, "cannot be compared with whole lists", f"Use {instead} for elements."
        )
    return kind


def _list_type(name: str, schema: Schema, value: object, instead: str) -> FieldType:
    kind = _type_of(name, schema)
    if not kind.is_list:
        hint = " (or $prefix)" if kind is FieldType.STRING else ""
        raise _wrong_type(
            name, kind, value, "cannot be an element of it", f"Use {instead}{hint} for this field."
        )
    return kind


def _compare(node: Compare, kind: FieldType) -> Compare:
    name, operator, value = node.field, node.operator, node.value
    if is_plain(kind, value):
        return node
    if kind.is_list:
        raise _wrong_type(
            name,
            kind,
            value,
            "cannot be compared with whole lists",
            "Use $contains for one element, list_contains(field, value) in SQL.",
        )
    if isinstance(value, list | tuple | set | frozenset):
        raise _wrong_type(name, kind, value, _MISFIT, "Use $in to allow several values.")
    if not operator.is_order:
        return Compare(name, operator, _exactly(name, kind, kind, value))
    if kind is FieldType.BOOL:
        raise _wrong_type(name, kind, value, f"has no order for ${operator}", "Use $eq with true or false.")
    if kind is FieldType.STRING and isinstance(value, int | float) and not isinstance(value, bool):
        remedy = (
            "Write a string, in quotes; strings are ordered by their characters. To order the values as "
            f"numbers, build the store with --attribute {name}=int64."
        )
        raise _wrong_type(name, kind, value, _MISFIT, remedy)
    scalar, exact = _fitted(name, kind, kind, value)
    return Compare(name, operator if exact else _BELOW[operator], scalar)


def _fitted(name: str, kind: FieldType, element: FieldType, value: Any) -> tuple[Scalar, bool]:
    if value is None:
        raise _wrong_type(name, kind, value, _MISFIT, "Use $exists to ask for missing values.")
    try:
        return fit(element, value)
    except UnfitError as error:
        raise _wrong_type(name, kind, value, _MISFIT, str(error)) from None
    except (OverflowError, ValueError):
        raise _wrong_type(name, kind, value, _MISFIT, _YEARS) from None


def _exactly(name: str, kind: FieldType, element: FieldType, value: Any) -> Scalar:
    scalar, exact = _fitted(name, kind, element, value)
    if not exact:
        raise _wrong_type(name, kind, value, "is never one of its values", f"The nearest below is {scalar}.")
    return scalar


def _listed(
    node: In | NotIn | ContainsAny | ContainsAll, kind: FieldType, element: FieldType
) -> In | NotIn | ContainsAny | ContainsAll:
    """Return the node with the distinct values of its list in order; refuse one that mixes kinds."""
    values = node.values
    if are_plain(element, values):
        distinct = tuple(dict.fromkeys(values))
        return node if len(distinct) == len(values) else type(node)(node.field, distinct)
    families = {family(value): value for value in {type(value): value for value in values}.values()}
    if len(families) > 1:
        samples = " and ".join(f"{each} {shown(families[each])}" for each in sorted(families))
        raise _wrong_type(node.field, kind, values, f"mixes {samples}", "Give values of one kind.")
    fitted = (_exactly(node.field, kind, element, value) for value in values)
    return type(node)(node.field, tuple(dict.fromkeys(fitted)))


_MISFIT = "cannot be compared with it"
_YEARS = "Write a year from 1 to 9999; numbers are seconds since 1970, not milliseconds."


def _wrong_type(name: str, kind: FieldType, value: object, reason: str, remedy: str) -> FieldTypeError:
    return FieldTypeError(
        f"field {name!r} has type {kind}, and {shown(value)} ({family(value)}) {reason}.",
        value=reported(value),
        remedy=remedy,
        field=name,
    )
