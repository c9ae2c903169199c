"""`compactds build`: documents in, datastore out."""

import shlex
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compactds.cli.command import Json
from compactds.cli.output import program, say, say_json
from compactds.cli.progress import progress

if TYPE_CHECKING:
    from compactds.configs.recipe import Recipe
    from compactds.datastore.encoders import Encoder
    from compactds.indexer.build_result import BuildResult
    from compactds.indexer.embedding_cache import CacheOptions
    from compactds.indexer.execution import Executor


TRUNCATED = "passage is longer than the encoder reads", "passages are longer than the encoder reads"
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        file_okay=False,
        help="Where vectors are kept from one build to the next [~/.cache/compactds].",
    ),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep no vectors, and use none kept before.")]


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
    ids: Annotated[
        str | None,
        typer.Option(help="record, file (the file's name before each id) or content [record]."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that read, filter and split [the cores, up to 8].")
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Where those run: local, or ray (a cluster of Ray).")
    ] = "local",
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Build over a store that was added to or deleted from.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what the filters remove from a sample; build nothing.")
    ] = False,
    sample: Annotated[int, typer.Option(min=1, help="Documents that --dry-run tries.")] = 1000,
    ledger: Annotated[
        Path | None,
        typer.Option(help="Write what --dry-run found to this file, HTML or .json."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be built and what it would take; build nothing.")
    ] = False,
    print_recipe: Annotated[
        bool, typer.Option("--print-recipe", help="Print the complete recipe as TOML and build nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Build a store from documents. Interrupted, the same command goes on where it was."""
    from compactds.cli.plan import Account
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
        "attributes": attribute_types(attribute or []),
        "skip_invalid": skip_invalid or None,
        "sources.ids": ids,
    }
    recipe = recipe_for(sources, {key: value for key, value in overrides.items() if value is not None})
    if print_recipe:
        _check_filters(recipe)
        typer.echo("# Files are named by absolute paths; a relative one starts at this recipe's folder.")
        typer.echo(to_toml(recipe.tables()), nl=False)
        return
    if dry_run:
        _survey(recipe, sample, workers, executor, ledger, json=json)
        return
    if ledger is not None:
        raise typer.BadParameter(
            "goes with --dry-run; a store's is written by compactds inspect STORE --ledger",
            param_hint="'--ledger'",
        )
    if plan:
        _plan(recipe, workers, json=json)
        return
    if out is None:
        raise typer.BadParameter("name the folder of the store", param_hint="'--out' / '-o'")
    kept = cache_options(cache, no_cache=no_cache)
    with Account(_processes(workers, executor)) as account:
        result = run(recipe, out, workers=workers, engine=executor, cache=kept, replace=replace)
    account.keep(result)
    if json:
        say_json({**asdict(result), "path": str(result.path)})
    else:
        _summarise(result)


def run(
    recipe: "Recipe",
    out: Path,
    *,
    encoder: "Encoder | None" = None,
    workers: int | None = None,
    engine: str = "local",
    cache: "CacheOptions | None" = None,
    replace: bool = False,
) -> "BuildResult":
    """Build with progress on standard error.

    `encoder` is used in place of loading the recipe's.
    """
    from compactds.indexer.build import build as build_store

    with progress() as shown, closing(make_executor(engine, workers)) as executor:
        return build_store(
            recipe, out, progress=shown, encoder=encoder, executor=executor, cache=cache, replace=replace
        )


def cache_options(folder: Path | None, *, no_cache: bool) -> "CacheOptions | None":
    """Return where vectors are kept: the user's cache folder if none is named, None for nowhere."""
    from compactds.indexer.embedding_cache import CacheOptions, default_cache_folder

    if no_cache and folder is not None:
        raise typer.BadParameter("contradicts --cache; give one of the two", param_hint="'--no-cache'")
    if no_cache:
        return None
    return CacheOptions(default_cache_folder() if folder is None else folder.absolute())


def make_executor(engine: str, workers: int | None) -> "Executor":
    """Return what runs the stages over documents; raise BadParameter for an engine that there is not."""
    from compactds.indexer.execution import LocalExecutor, default_workers

    if engine == "local":
        return LocalExecutor(workers or default_workers())
    if engine == "ray":
        from compactds.indexer.ray_execution import RayExecutor

        return RayExecutor(workers)
    raise typer.BadParameter(f"{engine!r} is neither local nor ray", param_hint="'--executor'")


def _processes(workers: int | None, engine: str) -> int:
    """Return how many processes of this machine read and split besides this one."""
    from compactds.indexer.execution import default_workers

    return (workers or default_workers()) if engine == "local" else 1


def _plan(recipe: "Recipe", workers: int | None, *, json: bool) -> None:
    """Print what a build would make and take."""
    from compactds.cli.plan import plan, show

    planned = plan(recipe, _processes(workers, "local"))
    if json:
        say_json(planned)
    else:
        show(planned)


def _check_filters(recipe: "Recipe") -> None:
    """Make the recipe's filters once, so that a mistake in them is told before a recipe is printed."""
    from compactds.indexer.pipeline import filter_steps

    filter_steps(recipe)


def _survey(
    recipe: "Recipe", sample: int, workers: int | None, engine: str, ledger: Path | None, *, json: bool
) -> None:
    """Print what the recipe's filters would remove from a sample, with examples."""
    from compactds.cli.ledger import example_lines, ledger_tables, write_ledger
    from compactds.cli.plan import in_files, tell_stops
    from compactds.configs.sizes import counted
    from compactds.indexer.survey import survey

    with progress() as shown, closing(make_executor(engine, workers)) as executor:
        found = survey(recipe, sample=sample, progress=shown, executor=executor)
    if ledger is not None:
        write_ledger(ledger, f"{recipe.name}: a sample", found)
    if json:
        say_json(found)
        return
    for title, lines in ledger_tables(found):
        say(title, bold=True)
        for line in lines:
            say(f"  {line}")
    for line in example_lines(found["examples"]):
        say(f"  {line}")
    read = sum(line["documents"] for line in found["sources"])
    kept = sum(line["documents_out"] for line in found["sources"])
    tell_stops(found["stops"])
    where = in_files(found["sampled"]["files"], found["sampled"]["all_files"])
    say(f"{kept:,} of {counted(read, 'document')} sampled{where} would be kept; nothing was built")


def attribute_types(pairs: Sequence[str]) -> dict[str, str] | None:
    """Return what --attribute says; raise BadParameter for what is not NAME=TYPE."""
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
    from compactds.configs.sizes import counted, format_bytes

    command, store = program(), shlex.quote(str(result.path))
    how = "up to date:" if result.unchanged else "went on and finished" if result.resumed else "built"
    say(f"{how} {result.path}", bold=True)
    held = f"{counted(result.documents, 'document')}, {counted(result.passages, 'passage')}"
    say(f"{held}, {result.index} index")
    if result.unchanged:
        return
    working_s = result.seconds - result.loading_s
    rate = result.passages / working_s if working_s > 0 else 0.0
    say(
        f"{result.seconds:,.1f} s, {rate:,.0f} passages/s, "
        f"peak memory {format_bytes(result.peak_rss_bytes)}, "
        f"{result.bytes_per_passage:,.0f} bytes a passage on disk"
    )
    if result.replaced is not None:
        say(f"replaced the store that was there: {result.replaced}", fg="yellow")
    listed = ", ".join(str(path) for path in sorted(result.path.glob("segments/*/rejects.jsonl")))
    for count, one, many, more in (
        (result.rejected, "record left out", "records left out", f"where and why: {listed}"),
        (
            result.removed - result.duplicates,
            "document removed by filters",
            "documents removed by filters",
            f"what and why: {command} inspect {store}",
        ),
        (
            result.contaminated,
            "document held evaluation questions",
            "documents held evaluation questions",
            "",
        ),
        (result.duplicates, "document occurred twice", "documents occurred twice", "one copy is kept"),
        (
            result.duplicate_passages,
            "passage repeats another and is left out",
            "passages repeat others and are left out",
            "",
        ),
        (result.truncated, *TRUNCATED, "what is beyond was cut"),
    ):
        if count:
            say("; ".join(filter(None, (counted(count, one, many), more))), fg="yellow")
    if result.takes_text:
        say(f'next: {command} search {store} "your question"')
    else:
        say("no encoder is named, so queries come as vectors, from Python or over HTTP", fg="yellow")
        say(f"next: {command} serve {store}")
