"""`compactds build`: documents in, datastore out."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compactds.cli.command import STOPPED, Json
from compactds.cli.output import say, say_json, warn
from compactds.cli.progress import progress

if TYPE_CHECKING:
    from compactds.configs.recipe import Recipe
    from compactds.datastore.encoders import Encoder
    from compactds.indexer.build import BuildResult


def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES",
            help="Files, folders, a Hugging Face dataset id, or one recipe.toml; flags win over the recipe.",
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder of the store.")] = None,
    name: Annotated[str | None, typer.Option(help="What the store is called.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Preset, path or hub id of the encoder [minilm].")
    ] = None,
    exact_encoder: Annotated[str | None, typer.Option(help="Another encoder for the exact stage.")] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="Ready-made vectors, a .npy file: row i for record i.")
    ] = None,
    vector_field: Annotated[
        str | None, typer.Option(help="The field of a record that holds its vector.")
    ] = None,
    index: Annotated[str | None, typer.Option(help="auto, flat, hnsw or ivf [auto].")] = None,
    memory: Annotated[
        str | None, typer.Option(help="Memory the index may take, such as 2GB [512MB].")
    ] = None,
    words: Annotated[int | None, typer.Option(min=1, help="The most words of a passage [256].")] = None,
    no_split: Annotated[bool, typer.Option("--no-split", help="Keep each document as one passage.")] = False,
    attribute: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TYPE", help="Type of an attribute: year=int64. Repeatable."),
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave out unusable records and list them in a file.")
    ] = False,
    print_recipe: Annotated[
        bool, typer.Option("--print-recipe", help="Print the complete recipe as TOML and build nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Build a store from documents. Interrupted, the same command goes on where it was."""
    from compactds.configs.recipe import recipe_for
    from compactds.configs.toml import to_toml

    overrides: dict[str, Any] = {
        "name": name,
        "encoder": {"model": encoder} if encoder else None,
        "exact_encoder": {"model": exact_encoder} if exact_encoder else None,
        "vectors": str(vectors.absolute()) if vectors else None,
        "sources.vector": vector_field,
        "index.kind": index,
        "index.memory": memory,
        "passages.words": words,
        "passages.split": False if no_split else None,
        "attributes": _attribute_types(attribute or []),
        "skip_invalid": skip_invalid or None,
    }
    recipe = recipe_for(sources, {key: value for key, value in overrides.items() if value is not None})
    if print_recipe:
        typer.echo(to_toml(recipe.model_dump(mode="json")), nl=False)
        return
    if out is None:
        raise typer.BadParameter("name the folder of the store", param_hint="'--out' / '-o'")
    result = run(recipe, out)
    if json:
        say_json({**asdict(result), "path": str(result.path)})
    else:
        _summarise(result)


def run(recipe: "Recipe", out: Path, *, encoder: "Encoder | None" = None) -> "BuildResult":
    """Build with progress on standard error; say how to go on when it is stopped.

    `encoder` is used in place of loading the recipe's.
    """
    from compactds.indexer.build import build as build_store

    try:
        with progress() as shown:
            return build_store(recipe, out, progress=shown, encoder=encoder)
    except KeyboardInterrupt as stop:
        warn("stopped; run the same command again to go on from here")
        raise typer.Exit(STOPPED) from stop


def _attribute_types(pairs: Sequence[str]) -> dict[str, str] | None:
    types = {}
    for pair in pairs:
        name, separator, kind = pair.rpartition("=")
        if not (separator and name and kind):
            raise typer.BadParameter(
                f"{pair!r} is not NAME=TYPE, such as year=int64", param_hint="'--attribute'"
            )
        types[name] = kind
    return types or None


def _summarise(result: "BuildResult") -> None:
    from compactds.configs.sizes import format_bytes

    how = "up to date:" if result.unchanged else "went on and finished" if result.resumed else "built"
    say(f"{how} {result.path}", bold=True)
    say(f"{result.documents:,} documents, {result.passages:,} passages, {result.index} index")
    if result.unchanged:
        return
    rate = result.passages / result.seconds if result.seconds else 0.0
    say(
        f"{result.seconds:,.1f} s, {rate:,.0f} passages/s, "
        f"peak memory {format_bytes(result.peak_rss_bytes)}, "
        f"{result.bytes_per_passage:,.0f} bytes a passage on disk"
    )
    if result.rejected:
        listed = ", ".join(str(path) for path in sorted(result.path.glob("segments/*/rejects.jsonl")))
        say(f"{result.rejected:,} records left out; where and why: {listed}", fg="yellow")
    if result.duplicates:
        say(f"{result.duplicates:,} documents occurred twice and are kept once", fg="yellow")
    if result.truncated:
        say(
            f"{result.truncated:,} passages are longer than the encoder reads; their ends were cut",
            fg="yellow",
        )
    say(f'next: compactds search {result.path} "your question"')
