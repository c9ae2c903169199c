"""`compactds delete`: documents out of a store."""

import shlex
from dataclasses import asdict
from typing import Annotated

import typer

from compactds.cli.command import Json
from compactds.cli.output import program, say, say_json, say_restart
from compactds.cli.stores import StoreFolder, where_condition

COMPACT_FROM_SHARE = 0.2
"""From this share of deleted rows on, compacting is suggested."""


def delete(
    store: StoreFolder,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="The id of a document to delete. Repeatable.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Delete the documents that this condition allows, SQL or JSON.")
    ] = None,
    ignore_missing: Annotated[
        bool, typer.Option("--ignore-missing", help="Delete the rest if the store lacks some of the ids.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted; change nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Delete documents from a store, by id or by a condition. All go in one step."""
    from compactds.configs.sizes import counted
    from compactds.indexer.deleting import delete as delete_documents

    if bool(ids) == (where is not None):
        raise typer.BadParameter("give --id or --where, one of the two", param_hint="'--id' / '--where'")
    condition = where_condition(where)
    result = delete_documents(
        store, ids=ids or None, where=condition, ignore_missing=ignore_missing, dry_run=dry_run
    )
    if json:
        say_json({**asdict(result), "path": str(store), "dry_run": dry_run})
        return
    for name in result.missing:
        say(f"not in the store: {name}", fg="yellow")
    what = "would delete" if dry_run else "deleted"
    gone = f"{counted(result.documents, 'document')}, {counted(result.passages, 'passage')}"
    say(f"{what} {gone}; {counted(result.left, 'is left', 'are left')}")
    if not dry_run and result.deleted_share >= COMPACT_FROM_SHARE:
        share = f"{result.deleted_share:.0%}"
        command = f"{program()} compact {shlex.quote(str(store))}"
        say(f"{share} of the passages on disk are deleted ones; to drop them: {command}")
    if not dry_run and result.documents:
        say_restart()
