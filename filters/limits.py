"""How large a where expression may be, and how an error shows a value that may be huge or hostile."""

from collections.abc import Iterator

from compactds.filters.errors import WhereError, shown
from compactds.filters.where import (
    And,
    Compare,
    Contains,
    ContainsAll,
    ContainsAny,
    Expression,
    In,
    Not,
    NotIn,
    Or,
    Prefix,
)

MAX_DEPTH = 64
"""Levels of $and, $or and $not inside each other."""

MAX_NODES = 4_096
"""Conditions in one expression: comparisons, and each $and, $or and $not."""

MAX_IN_VALUES = 131_072
"""Values in one list of $in, $nin, $contains_any or $contains_all."""

MAX_STRING_BYTES = 65_536
"""UTF-8 bytes of one string value."""

MAX_TEXT_BYTES = 65_536
"""UTF-8 bytes of one SQL condition."""


def walk(expression: Expression) -> Iterator[tuple[Expression, int]]:
    """Yield every node with its depth, from 1, without recursion."""
    pending = [(expression, 1)]
    while pending:
        node, depth = pending.pop()
        yield node, depth
        if isinstance(node, And | Or):
            pending.extend((part, depth + 1) for part in node.parts)
        elif isinstance(node, Not):
            pending.append((node.part, depth + 1))


def size_bytes(expression: Expression) -> int:
    """Return about how much memory a bound expression takes, without its field names' share."""
    total = 0
    for node, _ in walk(expression):
        total += 128
        match node:
            case In(_, values) | NotIn(_, values) | ContainsAny(_, values) | ContainsAll(_, values):
                total += 64 * len(values)
                if isinstance(values[0], str):  # and so are all others
                    total += 4 * sum(map(len, values))
            case Compare(_, _, value) | Contains(_, value) | Prefix(_, value):
                total += 64 + 4 * len(value) if isinstance(value, str) else 64
    return total


def check_depth(depth: int) -> None:
    """Raise WhereError for more than MAX_DEPTH levels."""
    if depth > MAX_DEPTH:
        raise WhereError(
            f"where expression: nested deeper than {MAX_DEPTH} levels.",
            remedy="Write one $and or $or over all parts instead of nesting them.",
        )


def check_nodes(count: int) -> None:
    """Raise WhereError for more than MAX_NODES conditions."""
    if count > MAX_NODES:
        raise WhereError(
            f"where expression: more than {MAX_NODES:,} conditions.",
            remedy="Use $in for many values of one field.",
        )


def check_values(name: str, count: int) -> None:
    """Raise WhereError for a list of no or more than MAX_IN_VALUES values."""
    if count == 0:
        raise WhereError(
            f"field {shown(name)}: an empty list of values.",
            value=[],
            remedy="Give at least one value, or leave the condition out.",
            field=name,
        )
    if count > MAX_IN_VALUES:
        raise WhereError(
            f"field {shown(name)}: {count:,} values are more than {MAX_IN_VALUES:,}.",
            value=count,
            remedy="Split the list over several queries.",
            field=name,
        )
