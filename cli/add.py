"""`compactds add`: more documents into a store."""

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compactds.cli.build import TRUNCATED, CacheFolder, NoCache, attribute_types, cache_options, make_executor
from compactds.cli.command import Json
from compactds.cli.output import say, say_json, say_restart
from compactds.cli.progress import progress
from compactds.cli.stores import StoreFolder

if TYPE_CHECKING:
    from compactds.indexer.adding import AddResult


def add(
    store: StoreFolder,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES", help="Files, folders, a Hugging Face dataset id, or one recipe.toml."
        ),
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Let new documents take the places of those with their ids.")
    ] = False,
    vectors: Annotated[
        Path | None, typer.Option(help="Ready-made vectors, a .npy file: row i for record i.")
    ] = None,
    vector_field: Annotated[
        str | None, typer.Option(help="The field of a record that holds its vector.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Memory all indexes of the store may take [as it was built].")
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TYPE", help="Type of an attribute: year=int64. Repeatable."),
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave out unusable records and list them in a file.")
    ] = False,
    ids: Annotated[
        str | None, typer.Option(help="record, file (the file's name before each id) or content.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that read, filter and split [the cores, up to 8].")
    ] = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Add documents to a store, made as its own are. Interrupted, the same command goes on."""
    from compactds.indexer.adding import add as add_documents

    overrides: dict[str, Any] = {
        "vectors": str(vectors.absolute()) if vectors else None,
        "sources.vector": vector_field,
        "index.memory": memory,
        "attributes": attribute_types(attribute or []),
        "skip_invalid": skip_invalid or None,
        "sources.ids": ids,
    }
    kept = cache_options(cache, no_cache=no_cache)
    with progress() as shown, closing(make_executor("local", workers)) as executor:
        result = add_documents(
            store,
            sources,
            overrides={key: value for key, value in overrides.items() if value is not None},
            replace=replace,
            progress=shown,
            executor=executor,
            cache=kept,
        )
    if json:
        say_json({**asdict(result), "path": str(store)})
    else:
        _summarise(result)


def _summarise(result: "AddResult") -> None:
    from compactds.configs.sizes import counted

    done = "was added already:" if result.unchanged else "went on and added" if result.resumed else "added"
    new = f"{counted(result.documents, 'document')}, {counted(result.passages, 'passage')}"
    say(f"{done} {new}", bold=True)
    for count, noun, what in (
        (result.replaced, "document", "replaced"),
        (result.rejected, "record", "left out"),
        (result.duplicates, "document", "left out as repeated"),
        (result.duplicate_passages, "passage", "left out as repeated"),
        (result.removed - result.duplicates, "document", "removed by filters"),
    ):
        if count:
            say(f"{counted(count, noun)} {what}", fg="yellow")
    if result.truncated:
        say(f"{counted(result.truncated, *TRUNCATED)}; what is beyond was cut", fg="yellow")
    total = f"{counted(result.total_documents, 'document')}, {counted(result.total_passages, 'passage')}"
    say(f"{result.path}: {total}, {counted(result.segments, 'segment')}")
    if not result.unchanged:
        say_restart()
