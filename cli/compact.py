"""`compactds compact`: the segments of a store become one, without what was deleted."""

from dataclasses import asdict
from typing import Annotated

import typer

from compactds.cli.command import Json
from compactds.cli.output import say, say_json, say_restart
from compactds.cli.progress import progress
from compactds.cli.stores import StoreFolder


def compact(
    store: StoreFolder,
    memory: Annotated[
        str | None, typer.Option(help="Memory the index may take, such as 2GB [as it was built].")
    ] = None,
    json: Json = False,
) -> None:
    """Merge what was added and drop what was deleted.

    The index is built anew. Interrupted, the same command goes on.
    """
    from compactds.configs.sizes import counted, format_bytes, parse_bytes
    from compactds.indexer.compacting import compact as compact_store

    limit = None if memory is None else parse_bytes(memory)
    with progress() as shown:
        result = compact_store(store, memory_bytes=limit, progress=shown)
    if json:
        say_json({**asdict(result), "path": str(store)})
    elif result.unchanged:
        say(f"{store} is compact already: {counted(result.passages, 'passage')}, nothing deleted")
    else:
        if result.resumed:
            say("went on where an earlier compaction stopped")
        merged = "1 segment" if result.segments == 1 else f"{result.segments} segments became one"
        say(f"{store}: {merged}, {counted(result.dropped, 'deleted passage')} dropped", bold=True)
        sizes = f"{format_bytes(result.bytes_before)} became {format_bytes(result.bytes_after)}"
        left = f"{counted(result.documents, 'document')}, {counted(result.passages, 'passage')}"
        say(f"{left}, {result.index} index; {sizes}")
        say_restart()
