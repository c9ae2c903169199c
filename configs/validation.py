"""Check tables against a pydantic model, with errors that name the key, its table and the remedy."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from compactds.configs.errors import ConfigError, InvalidValueError, UnknownKeyError

_MAX_SHOWN = 80

Model = TypeVar("Model", bound=BaseModel)


def validate(
    model: type[Model],
    tables: Mapping[str, Any],
    origin: str,
    *,
    flags: Collection[str] = (),
    strict: bool | None = None,
) -> Model:
    """Return the model filled from the tables; `origin` names their file in messages.

    `flags` are the dotted keys that came from the command line instead. `strict` says whether a value
    must have the very type, or may be converted to it; the model decides if left out. Raises
    UnknownKeyError for a key the model lacks, InvalidValueError for a missing or wrong one.
    """
    try:
        return model.model_validate(dict(tables), strict=strict)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A misspelt key often shows as a missing one too: name the misspelling first.
        problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
        problem = problems[0]
        keys = [part for part in problem["loc"] if isinstance(part, str)]
        from_flag = any(".".join(keys[:depth]) in flags for depth in range(1, len(keys) + 1))
        raise _explain(model, problem, "command line" if from_flag else origin) from None


def nearest_key(name: str, known: list[str]) -> str:
    """Return the remedy for an unknown key: the nearest known one, or all of them."""
    near = get_close_matches(name, known, n=1, cutoff=0.75 if len(name) < 5 else 0.8)
    return f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."


def _explain(model: type[BaseModel], problem: ErrorDetails, origin: str) -> ConfigError:
    location, value = problem["loc"], problem["input"]
    key = str(location[-1]) if location else ""
    table = location[:-1]
    holder = _model_at(model, table)
    fields = holder.model_fields if holder else {}
    if problem["type"] == "extra_forbidden":
        message = f"{origin}: unknown key {key!r} in {_table_name(table)}."
        remedy = nearest_key(key, list(fields))
        if len(location) > 1 and key in model.model_fields:
            remedy = f"{key!r} is a key of the whole: write it above all tables in brackets."
        return UnknownKeyError(message, value=key, remedy=remedy)
    description = (fields[key].description or "") if key in fields else ""
    remedy = f"{key}: {description}" if description else ""
    if problem["type"] == "missing":
        message = f"{origin}: {_table_name(table)} lacks the key {key!r}."
        return InvalidValueError(message, value=key, remedy=remedy)
    if problem["type"] in ("model_type", "dict_type"):
        problem["msg"] = "expected a table"
    expected = problem["msg"].removeprefix("Value error, ").replace("Input should be ", "expected ")
    expected = expected[0].lower() + expected[1:]
    if not location:
        return InvalidValueError(f"{origin}: {expected}.", remedy=remedy)
    if key in fields and SecretStr in get_args(fields[key].annotation):
        value = "a secret"  # never shown, not even a wrong one
    shown = repr(value)
    shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…"
    place = f"{key!r} in {_table_name(table)}" if isinstance(location[-1], str) else _table_name(location)
    message = f"{origin}: {place} is {shown}: {expected}."
    return InvalidValueError(message, value=value, remedy=remedy)


def _table_name(table: tuple[int | str, ...]) -> str:
    if not table:
        return "the top level"
    if isinstance(table[-1], int):
        return f"[[{'.'.join(map(str, table[:-1]))}]] number {table[-1] + 1}"
    return f"[{'.'.join(map(str, table))}]"


def _model_at(model: type[BaseModel], table: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Return the model a location stands for, or None where it is a plain dict."""
    current: type[BaseModel] | None = model
    for part in table:
        if isinstance(part, str) and current is not None:
            field = current.model_fields.get(part)
            current = _model_in(field.annotation) if field else None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
