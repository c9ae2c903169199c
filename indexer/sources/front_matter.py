"""Read the front matter of Markdown files: a few lines of settings between rules at the top."""

import re
import tomllib
from datetime import date
from typing import Any

_BLOCK = re.compile(r"\A(---|\+\+\+)[ \t]*\n(.*?)^(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_SETTING = re.compile(r"([^\s:#'\"\[{-][^:#]{0,200}?|\"[^\"]+\"|'[^']+')\s*:(?:\s+(.*))?")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ITEM = re.compile(r"\s*-\s+(.*)")
_ELEMENT = re.compile(r"\s*(\"[^\"]*\"|'[^']*'|[^,]+)")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'")
_COMMENT = re.compile(r"(?:^|\s)#")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_LEFT_OUT = object()
MAX_NAME_CHARACTERS = 200


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Return the settings at the top of a text, and the text after them.

    Between lines of `+++` stands TOML. Between lines of `---` stands what is common of YAML: `key: value`
    with a string, number, bool, date or null, a list in brackets or as lines with dashes, or text over
    several indented lines after `|` or `>`. Other YAML, such as nested mappings, is left out. A text
    without settings, or with a rule that only looks like their beginning, is returned whole.
    """
    match = _BLOCK.match(text)
    if match is None:
        return {}, text
    if match[1] == "+++":
        try:
            return tomllib.loads(match[2]), text[match.end() :]
        except tomllib.TOMLDecodeError:
            return {}, text
    settings = _settings(match[2].split("\n"))
    if not settings and match[2].strip():
        return {}, text
    return settings, text[match.end() :]


def _settings(lines: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        match = _SETTING.fullmatch(line.rstrip()) if ":" in line[:MAX_NAME_CHARACTERS] else None
        if match is None:
            continue
        following = position
        while following < len(lines) and (not lines[following].strip() or lines[following][0] in " \t-"):
            following += 1
        name, below = match[1].strip("\"'"), lines[position:following]
        position = following
        value = _value(_without_comment(match[2] or ""), [text for text in below if text.strip()])
        if value is not _LEFT_OUT:
            found[name] = value
    return found


def _value(written: str, below: list[str]) -> Any:
    """Return what a key stands for, given the text after it and the lines that belong to it."""
    if written[:1] in ("|", ">") and len(written) <= 2:
        separator = "\n" if written[0] == "|" else " "
        return separator.join(line.strip() for line in below)
    if written.startswith("["):
        inner = "".join([written, *map(str.strip, below)])
        return _list(_ELEMENT.findall(inner[1:-1])) if inner.endswith("]") else _LEFT_OUT
    if written.startswith(("{", "&", "*", "!")):
        return _LEFT_OUT
    if below and not written:
        items = [_ITEM.fullmatch(line) for line in below]
        return _list([_without_comment(item[1]) for item in items if item]) if all(items) else _LEFT_OUT
    return _scalar(" ".join([written, *map(str.strip, below)]))


def _list(elements: list[str]) -> list[Any]:
    """Return a list of integers if all are that, else of strings."""
    written = [element.strip() for element in elements if element.strip()]
    if written and all(_INTEGER.fullmatch(element) for element in written):
        return [int(element) for element in written]
    return [_unquoted(element) for element in written]


def _scalar(written: str) -> Any:
    if written.lower() in _WORDS:
        return _WORDS[written.lower()]
    if _INTEGER.fullmatch(written) and len(written) < 20:
        return int(written)
    if _NUMBER.fullmatch(written):
        return float(written)
    if _DAY.fullmatch(written):
        try:
            return date.fromisoformat(written)
        except ValueError:
            return written
    return _unquoted(written)


def _unquoted(written: str) -> str:
    if len(written) >= 2 and written[0] == written[-1] and written[0] in "\"'":
        inner = written[1:-1]
        return inner.replace("''", "'") if written[0] == "'" else inner.replace('\\"', '"')
    return written


def _without_comment(written: str) -> str:
    written = written.strip()
    quoted = _QUOTED.match(written)
    if quoted is not None:
        return quoted[0] if written[quoted.end() :].lstrip().startswith("#") else written
    return _COMMENT.split(written, maxsplit=1)[0].rstrip()
