"""`compactds doctor`: whether this machine is ready."""

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from compactds.cli.command import FAILED, Json
from compactds.cli.output import say, say_json

_WIDTH = 80
_INDENT = 19
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(
    path: Annotated[Path, typer.Option(help="The folder where stores are to be built.")] = Path(),
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to be served on.")] = 8080,
    json: Json = False,
) -> None:
    """Check whether this machine is ready.

    It looks at Python, packages, processor, memory, disk, encoder and port; the exit code is 1 on a problem.
    """
    from compactds.cli.checks import all_checks

    checks = []
    for check in all_checks(path, port):
        checks.append(check)
        if not json:
            say(f"{check.state:<8}", fg=_COLOURS[check.state], nl=False)
            first, *more = _wrapped(check.detail)
            say(f" {check.name:<9} {first}")
            for line in (*more, *_wrapped(check.remedy)):
                say(f"{'':{_INDENT}}{line}")
    problems = sum(check.state == "problem" for check in checks)
    if json:
        say_json({"ok": not problems, "checks": [asdict(check) for check in checks]})
    if problems:
        raise typer.Exit(FAILED)


def _wrapped(detail: str) -> list[str]:
    """Return what fits beside a check's name, line by line; paths and names stay whole."""
    return textwrap.wrap(detail, _WIDTH - _INDENT, break_long_words=False, break_on_hyphens=False)
