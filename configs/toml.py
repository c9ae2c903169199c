"""Read TOML with errors that name file and line, and write the little TOML a recipe needs."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compactds.configs.errors import ConfigFileError, ConfigSyntaxError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_TWICE = re.compile(r"Cannot mutate immutable namespace \((.*?),?\)")
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file; raise ConfigFileError or ConfigSyntaxError."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigFileError(
            f"{path}: no such file.", value=str(path), remedy="Check the path; a recipe is a TOML file."
        ) from None
    except OSError as error:
        raise ConfigFileError(
            f"{path}: cannot be read: {error.strerror}.",
            value=str(path),
            remedy="Check the path and its rights.",
        ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigSyntaxError(
            f"{path}, line {line}: not UTF-8.", value=str(path), remedy="Save the file as UTF-8."
        ) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = _PLACE.search(message)
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        problem = message[: place.start()] if place else message
        problem = _TWICE.sub(r"\1 is given twice, here and as a value or table further up", problem)
        raise ConfigSyntaxError(
            f"{path}, line {line}: not valid TOML: {problem}.",
            value=str(path),
            remedy='Keys are written as name = "value", tables as [name].',
        ) from error


def to_toml(tables: Mapping[str, Any]) -> str:
    """Write tables of strings, numbers, booleans and lists of them as TOML; None is left out."""
    return "\n".join(_lines(tables, "")) + "\n"


def _lines(table: Mapping[str, Any], prefix: str) -> list[str]:
    scalars: list[str] = []
    nested: list[str] = []
    for key, value in table.items():
        name = prefix + _key(key)
        if isinstance(value, Mapping):
            if value:
                nested += ["", f"[{name}]", *_lines(value, f"{name}.")]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for item in value:
                nested += ["", f"[[{name}]]", *_lines(item, f"{name}.")]
        elif value is not None:
            scalars.append(f"{_key(key)} = {_value(value)}")
    return scalars + nested


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, Path):
        value = str(value)
    # A JSON scalar is a TOML scalar, but for the one control character JSON leaves bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
