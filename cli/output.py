"""What subcommands print: results on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import typer


def say(text: str = "", **style: Any) -> None:
    """Print a line on standard output; `style` is what typer.secho takes, used on terminals only."""
    typer.secho(_encodable(clean(text), sys.stdout.encoding), **style)


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
