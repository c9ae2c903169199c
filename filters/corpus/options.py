"""The options of corpus filters: declared once on the filter, checked when a recipe names them.

A filter is a frozen dataclass whose fields are its options. Recipes are TOML, which has no null: `false`
switches a rule off where the option may be None.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from compactds.filters.corpus.errors import FilterError
from compactds.filters.errors import nearest, reported, shown

_WORDS_FOR = {int: "an integer", float: "a number", str: "a string", bool: "true or false", Path: "a path"}


def option(
    default: Any = MISSING, *, about: str, minimum: float | None = None, maximum: float | None = None
) -> Any:
    """Declare one option of a filter: its default, what it means, and the numbers it may take."""
    metadata = {"about": about, "minimum": minimum, "maximum": maximum}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Option:
    """Describe one option for documentation and messages; `default` is None too where there is none."""

    name: str
    type: str
    default: Any
    required: bool
    about: str


def options_of(made: type) -> tuple[Option, ...]:
    """Return the options of a filter class, in the order they are declared."""
    hints = get_type_hints(made)
    return tuple(
        Option(
            name=known.name,
            type=_described(hints[known.name]),
            default=None if known.default is MISSING else known.default,
            required=known.default is MISSING,
            about=known.metadata["about"],
        )
        for known in _declared(made)
    )


def path_options(made: type) -> frozenset[str]:
    """Return the names of a filter's options that are paths, or lists of paths."""
    hints = get_type_hints(made)
    return frozenset(known.name for known in _declared(made) if _holds_path(hints[known.name]))


def _holds_path(hint: Any) -> bool:
    return hint is Path or any(_holds_path(inside) for inside in get_args(hint))


def read_options(made: type, table: Mapping[str, Any], named: str) -> dict[str, Any]:
    """Return the checked options of a recipe's table, ready to make the filter with.

    Raises FilterError for a key that is unknown or missing and for a value of a wrong type or size.
    """
    declared = {known.name: known for known in _declared(made)}
    hints = get_type_hints(made)
    for key in table:
        if key not in declared:
            near = nearest(str(key), declared)
            remedy = f"Did you mean {near!r}?" if near else f"Options: {', '.join(declared)}."
            raise FilterError(
                f"filter {named!r}: unknown option {shown(key)}.", value=reported(key), remedy=remedy
            )
    for name, known in declared.items():
        if known.default is MISSING and name not in table:
            raise FilterError(
                f"filter {named!r}: option {name!r} is missing.", remedy=f"Give {name}: {_about(known)}"
            )
    return {key: _read(table[key], hints[key], declared[key], named) for key in table}


def _declared(made: type) -> list[Field[Any]]:
    return [known for known in fields(made) if "about" in known.metadata]


def _about(known: Field[Any]) -> str:
    return str(known.metadata["about"])


def _read(value: Any, hint: Any, known: Field[Any], named: str) -> Any:
    """Return a value as its type has it, or raise FilterError."""
    try:
        found = _convert(value, hint)
    except ValueError:
        raise FilterError(
            f"filter {named!r}: {known.name} is {shown(value)}, expected {_described(hint)}.",
            value=reported(value),
            remedy=f"{known.name}: {_about(known)}",
        ) from None
    _check_size(found, known, named)
    return found


def _check_size(value: Any, known: Field[Any], named: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    minimum, maximum = known.metadata["minimum"], known.metadata["maximum"]
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        allowed = f"from {minimum:g}" if minimum is not None else ""
        allowed += f" to {maximum:g}" if maximum is not None else ""
        raise FilterError(
            f"filter {named!r}: {known.name} is {shown(value)}, expected a number {allowed.strip()}.",
            value=reported(value),
            remedy=f"{known.name}: {_about(known)}",
        )


def _convert(value: Any, hint: Any) -> Any:
    """Return a TOML or Python value as the type has it; raise ValueError if it does not fit."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None or value is False:
            return None
        return _convert(value, next(part for part in inside if part is not NoneType))
    if origin is Literal:
        return _one_of(value, inside)
    if origin is tuple:
        return _sequence(value, inside)
    return _scalar(value, hint)


def _one_of(value: Any, allowed: tuple[Any, ...]) -> Any:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError
    return value


def _sequence(value: Any, inside: tuple[Any, ...]) -> tuple[Any, ...]:
    """Read a tuple of any length (`tuple[str, ...]`, for which one value will do) or of a fixed one."""
    if inside[-1] is Ellipsis:
        if isinstance(value, str) and inside[0] in (str, Path):
            value = [value]
        if not isinstance(value, list | tuple):
            raise ValueError
        return tuple(_convert(item, inside[0]) for item in value)
    if not isinstance(value, list | tuple) or len(value) != len(inside):
        raise ValueError
    return tuple(_convert(item, kind) for item, kind in zip(value, inside, strict=True))


def _scalar(value: Any, kind: type) -> Any:
    if kind is Path and isinstance(value, str | Path) and str(value) and "\0" not in str(value):
        return Path(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not isfinite(value):
            raise ValueError
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) and kind is not Path:
        return value
    raise ValueError


def _described(hint: Any) -> str:
    """Return how messages and documentation call a type."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        kind = next(part for part in inside if part is not NoneType)
        return f"{_described(kind)}, or false for none"
    if origin is Literal:
        return " or ".join(map(repr, inside))
    if origin is tuple and inside[-1] is Ellipsis:
        return f"a list, each {_described(inside[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_described, inside))}]"
    return _WORDS_FOR[hint]
