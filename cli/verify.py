"""`compactds verify`: check every file of a store."""

import typer

from compactds.cli.command import FAILED, Json
from compactds.cli.output import runnable, say, say_json
from compactds.cli.stores import StoreFolder


def verify(
    store: StoreFolder,
    json: Json = False,
) -> None:
    """Check every checksum and file of a store. The exit code is 1 if anything is wrong."""
    from compactds.configs.sizes import counted
    from compactds.datastore.verify import verify as find_problems

    problems = find_problems(store)
    if json:
        say_json({"store": str(store), "ok": not problems, "problems": problems})
    elif problems:
        for problem in problems:
            say(runnable(problem), fg="red")
        say(f"{counted(len(problems), 'problem')}; build the store again, or restore it from a copy")
    else:
        say(f"{store} is whole", fg="green")
    if problems:
        raise typer.Exit(FAILED)
