"""What subcommands print: results on standard output, everything else on standard error."""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

NAME = "compactds"
_COMMAND = re.compile(rf"`{NAME} (?=[a-z])")


def say(text: str = "", **style: Any) -> None:
    """Print a line on standard output; `style` is what typer.secho takes, used on terminals only."""
    typer.secho(_encodable(clean(text), sys.stdout.encoding), **style)


def say_restart() -> None:
    """Tell on standard error that servers have to be started again to show what was changed."""
    warn("servers that are running keep the store they opened until they are restarted", dim=True)


def warn(text: str, *, multiline: bool = False, **style: Any) -> None:
    """Print a line on standard error; `multiline` keeps the line breaks in it."""
    lines = [clean(line) for line in text.split("\n")] if multiline else [clean(text)]
    typer.secho(_encodable("\n".join(lines), sys.stderr.encoding), err=True, **style)


def say_json(document: Any) -> None:
    """Print a JSON document on standard output, escaped where the terminal's encoding needs it."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(document, indent=2)
    typer.echo(text)


def clean(text: str) -> str:
    """Return the text as one line without control characters, so that data cannot drive a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def program() -> str:
    """Return what starts this program from the user's shell: its name if that is found, or its path."""
    started, found = sys.argv[0], shutil.which(NAME)
    if Path(started).name != NAME or (found and Path(found).absolute() == Path(started).absolute()):
        return NAME
    return shlex.quote(started)


def runnable(text: str) -> str:
    """Return a text in which commands of this program, in backticks, can be pasted into the user's shell."""
    return _COMMAND.sub(lambda _: f"`{program()} ", text)


def plain(value: Any) -> str:
    """Return JSON data as words: "true", "1,000", "a, b", "kind flat, passages 101"; "none" for nothing."""
    if value is None or (isinstance(value, list | Mapping) and not value):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        separator = "; " if any(isinstance(item, Mapping) for item in value) else ", "
        return separator.join(map(plain, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(rows: Sequence[Sequence[str]], *, header: Sequence[str]) -> list[str]:
    """Return lines with columns aligned: those that hold only numbers to the right, all else to the left."""
    columns = [[clean(cell) for cell in column] for column in zip(header, *rows, strict=True)]
    aligned = []
    for title, *cells in columns:
        width = max(map(len, (title, *cells)))
        numbers = bool(cells) and all(cell[:1].isdigit() for cell in cells)
        aligned.append([cell.rjust(width) if numbers else cell.ljust(width) for cell in (title, *cells)])
    return ["  ".join(line).rstrip() for line in zip(*aligned, strict=True)]


def _encodable(text: str, encoding: str | None) -> str:
    encoding = encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
