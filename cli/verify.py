"""`compactds verify`: check every file of a store."""

from pathlib import Path
from typing import Annotated

import typer

from compactds.cli.command import FAILED, Json
from compactds.cli.output import say, say_json


def verify(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder of a store.")],
    json: Json = False,
) -> None:
    """Check every checksum and file of a store; exit with 1 if anything is wrong."""
    from compactds.datastore.verify import verify as find_problems

    problems = find_problems(store)
    if json:
        say_json({"store": str(store), "ok": not problems, "problems": problems})
    elif problems:
        for problem in problems:
            say(problem, fg="red")
        say(f"problems: {len(problems)}; build the store again, or restore it from a copy")
    else:
        say(f"{store} is whole", fg="green")
    if problems:
        raise typer.Exit(FAILED)
