"""Remember how where expressions were read: those that come again cost no parsing."""

import marshal
from typing import Any

from compactds.filters.limits import size_bytes
from compactds.filters.parsing import Where, parse_where
from compactds.filters.schema import Schema
from compactds.filters.where import Expression

MOST_REMEMBERED = 1_024
MOST_BYTES = 8 << 20
LARGEST_BYTES = 256 << 10
UNKNOWN = object()
PLAIN = frozenset((str, int, float, bool, type(None)))
WITHOUT_REFERENCES = 2
"""The form of `marshal` in which equal objects give equal bytes, however often they are referred to."""


class ParsedWheres:
    """Read where expressions over a schema as `parse_where` does, from any number of threads.

    Those in JSON and SQL are remembered, unless they are very long, by their bytes: 1, 1.0 and True differ in
    those.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._known: dict[str | bytes, Expression | None] = {}
        self._bytes = 0

    def parse(self, where: Where) -> Expression | None:
        """Return what `parse_where` returns, or raise what it raises."""
        key = _key(where)
        known: Expression | object | None = UNKNOWN if key is None else self._known.get(key, UNKNOWN)
        if known is None or isinstance(known, Expression):
            return known
        expression = parse_where(where, self._schema)
        if key is None or not (type(where) is str or _is_plain(where)):
            return expression
        size = len(key) + (0 if expression is None else size_bytes(expression))
        if size <= LARGEST_BYTES:
            if len(self._known) >= MOST_REMEMBERED or self._bytes + size > MOST_BYTES:
                self._known.clear()
                self._bytes = 0
            self._known[key] = expression
            self._bytes += size
        return expression


def _key(where: Any) -> str | bytes | None:
    """Return what tells a plain expression from all others, None for one that is not remembered.

    `marshal` writes the exact types that JSON is made of in ways that no other object is written in.
    """
    if type(where) is str:
        return where
    try:
        return marshal.dumps(where, WITHOUT_REFERENCES) if type(where) is dict else None
    except (ValueError, RecursionError):  # other types, or nested far too deep
        return None


def _is_plain(value: Any) -> bool:
    """Tell whether a value is what JSON is made of: of other things, the bytes do not tell the type."""
    kind = type(value)
    if kind is dict:
        return all(type(name) is str and _is_plain(each) for name, each in value.items())
    if kind is list:
        return PLAIN.issuperset(map(type, value)) or all(map(_is_plain, value))
    return kind in PLAIN
