"""`compactds compact`: the segments of a store become one, without what was deleted."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from compactds.cli.command import STOPPED, Json
from compactds.cli.output import say, say_json, warn
from compactds.cli.progress import progress


def compact(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder of a store.")],
    memory: Annotated[
        str | None, typer.Option(help="Memory the index may take, such as 2GB [as it was built].")
    ] = None,
    json: Json = False,
) -> None:
    """Merge what was added, drop what was deleted, build the index anew. Interrupted, it goes on."""
    from compactds.configs.sizes import format_bytes, parse_bytes
    from compactds.indexer.compacting import compact as compact_store

    limit = None if memory is None else parse_bytes(memory)
    try:
        with progress() as shown:
            result = compact_store(store, memory_bytes=limit, progress=shown)
    except KeyboardInterrupt as stop:
        warn("stopped; run the same command again to go on from here")
        raise typer.Exit(STOPPED) from stop
    if json:
        say_json({**asdict(result), "path": str(store)})
    elif result.unchanged:
        say(f"{store} is compact already: {result.passages:,} passages, nothing deleted")
    else:
        if result.resumed:
            say("went on where an earlier compaction stopped")
        merged = "1 segment" if result.segments == 1 else f"{result.segments} segments became one"
        say(f"{store}: {merged}, {result.dropped:,} deleted passages dropped", bold=True)
        sizes = f"{format_bytes(result.bytes_before)} became {format_bytes(result.bytes_after)}"
        say(f"{result.documents:,} documents, {result.passages:,} passages, {result.index} index; {sizes}")
