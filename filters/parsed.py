"""Remember how where expressions were read: those that come again cost no parsing."""

import marshal
from typing import Any

from compactds.filters.parsing import Where, parse_where
from compactds.filters.schema import Schema
from compactds.filters.where import Expression

MOST_REMEMBERED = 1_024
MOST_KEY_BYTES = 1 << 20
LARGEST_KEY_BYTES = 1 << 13
WITHOUT_REFERENCES = 2
"""The form of `marshal` in which equal objects give equal bytes, however often they are referred to."""


class ParsedWheres:
    """Read where expressions over a schema as `parse_where` does, from any number of threads.

    Short ones in JSON and SQL are remembered, by their bytes: 1, 1.0 and True differ in them.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._known: dict[str | bytes, Expression | None] = {}
        self._bytes = 0

    def parse(self, where: Where) -> Expression | None:
        """Return what `parse_where` returns, or raise what it raises."""
        key = _key(where)
        if key is None:
            return parse_where(where, self._schema)
        try:
            return self._known[key]
        except KeyError:
            expression = parse_where(where, self._schema)
        if len(key) <= LARGEST_KEY_BYTES:
            if len(self._known) >= MOST_REMEMBERED or self._bytes > MOST_KEY_BYTES:
                self._known.clear()
                self._bytes = 0
            self._known[key] = expression
            self._bytes += len(key)
        return expression


def _key(where: Any) -> str | bytes | None:
    """Return what tells an expression from all others, None for one that is not remembered."""
    if type(where) is str:
        return where
    if type(where) is not dict:
        return None
    try:
        return marshal.dumps(where, WITHOUT_REFERENCES)
    except ValueError:  # dates, say, which JSON has no form for, or far too deep
        return None
