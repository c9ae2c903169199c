"""The root of every error compactds raises on purpose, and the errors of where expressions.

CompactdsError
├── WhereError            a where expression that cannot be used
│   ├── UnknownFieldError     it names a field the store does not have
│   └── FieldTypeError        it compares a field with a value of another type
├── (compactds.datastore.errors)   stores, encoders, searches
└── (compactds.indexer.errors)     sources and builds
"""

from collections.abc import Iterable
from difflib import get_close_matches
from math import isfinite
from reprlib import Repr
from typing import Any, ClassVar

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class CompactdsError(Exception):
    """Say what went wrong, with which value, and what to do about it.

    `code` is stable and machine-readable; `value` is the offending value where there is one;
    `remedy` is one sentence a user can act on.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, value: Any = None, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class WhereError(CompactdsError):
    """Refuse a where expression that is malformed, too large or too deep.

    `field` is the name of the field that it is wrong about, if it is about one; `place` is the expression's
    place in a list of them, from 0, if it is in one.
    """

    code = "invalid_where"

    def __init__(
        self, message: str, *, value: Any = None, remedy: str = "", field: str | None = None
    ) -> None:
        super().__init__(message, value=value, remedy=remedy)
        self.field = field
        self.place: int | None = None


class UnknownFieldError(WhereError):
    """Refuse a field name the store does not have; the remedy names the nearest valid one."""

    code = "unknown_field"


class FieldTypeError(WhereError):
    """Refuse a value whose type does not fit the field it is compared with."""

    code = "wrong_type"


def shown(value: Any) -> str:
    """Return a short printable form of any value, about 80 characters, control characters escaped."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python refuses to write integers of thousands of digits
        return f"a {type(value).__name__} too long to show"


def reported(value: Any) -> Any:
    """Return what an error carries as its value: a small JSON scalar as it is, else how it is shown."""
    match value:
        case None | bool():
            return value
        case int() if value.bit_length() < 64:
            return value
        case float() if isfinite(value):
            return value
        case str() if len(value) <= _SHORT.maxstring and value.isprintable():
            return value
        case _:
            return shown(value)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one is nearest to; None unless the spelling is near.

    One letter of four may be another, or two of them swapped; one may be missing or too many, and two of
    longer names.
    """
    of_its_length = [other for other in known if abs(len(other) - len(name)) <= 1 + len(name) // 8]
    near = get_close_matches(name, of_its_length, n=1, cutoff=0.75 if len(name) < 5 else 0.8)
    return near[0] if near else None
