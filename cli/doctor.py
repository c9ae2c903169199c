"""`compactds doctor`: whether this machine is ready."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from compactds.cli.command import FAILED, Json
from compactds.cli.output import say, say_json

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(
    path: Annotated[Path, typer.Option(help="The folder where stores are to be built.")] = Path(),
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to be served on.")] = 8080,
    json: Json = False,
) -> None:
    """Check Python, packages, processor, memory, disk, encoder and port; exit with 1 on a problem."""
    from compactds.cli.checks import all_checks

    checks = []
    for check in all_checks(path, port):
        checks.append(check)
        if not json:
            say(f"{check.state:<8}", fg=_COLOURS[check.state], nl=False)
            say(f" {check.name:<9} {check.detail}")
            if check.remedy:
                say(f"{'':18} {check.remedy}")
    problems = sum(check.state == "problem" for check in checks)
    if json:
        say_json({"ok": not problems, "checks": [asdict(check) for check in checks]})
    if problems:
        raise typer.Exit(FAILED)
