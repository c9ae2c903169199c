"""`compactds inspect`: what a store is, what went into it, and what it takes on disk and in memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compactds.cli.command import Json
from compactds.cli.curves import curve_chart, curve_table
from compactds.cli.drawing import Chart, check_plot, draw, text
from compactds.cli.ledger import ledger_tables
from compactds.cli.output import plain, say, say_json, table
from compactds.cli.stores import StoreFolder

if TYPE_CHECKING:
    from compactds.datastore.manifest import Manifest

MEASURED_ROWS = 100_000
"""Columns of no more rows are built to see what they take: a moment's work."""


def inspect(
    store: StoreFolder,
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="Write what came in, what was removed and why to this file: HTML with examples, or .json."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the curve of recall and its cost into this .svg file.")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Build the column of each field to see what it takes in memory, however long."
        ),
    ] = False,
    recipe: Annotated[
        bool, typer.Option("--recipe", help="Print the recipe that the store was built from, as TOML.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what a store holds, how it was built and what it takes."""
    from compactds.datastore.manifest import read_manifest

    if plot is not None:
        check_plot(plot)
    manifest = read_manifest(store)  # and the ledgers: no index is read into memory
    if recipe:
        _print_recipe(store, manifest, json=json)
        return
    few = sum(segment.passages for segment in manifest.segments) <= MEASURED_ROWS
    filters = _filters(store, manifest, measure=measure or few)
    described = describe(manifest) | {"filters": filters} | _account(manifest)
    ledgers = [_read_ledger(store, segment.name) for segment in manifest.segments]
    if ledger is not None:
        _export(store, manifest, ledgers, ledger)
        return
    if plot is not None:
        draw(_chart(described), plot)
    if json:
        say_json({**described, "ledgers": ledgers})
        return
    for title, lines in _sections(described, ledgers):
        say(title, bold=True)
        for line in lines:
            say(f"  {line}")
        say()


def _print_recipe(store: Path, manifest: "Manifest", *, json: bool) -> None:
    """Print the recipe of a store, after comments on what it does not tell."""
    from compactds.configs.toml import to_toml
    from compactds.indexer.stored_recipe import stored_recipe, untold

    ledgers = (_read_ledger(store, segment.name) for segment in manifest.segments)
    tables = stored_recipe(manifest, [one for ledger in ledgers for one in ledger.get("revisions", ())])
    if json:
        say_json(tables)
        return
    for sentence in untold(manifest):
        say(f"# {sentence}")
    typer.echo(to_toml(tables), nl=False)


def _chart(store: Mapping[str, Any]) -> Chart:
    return curve_chart(store["name"], {part["name"]: part["calibration"] for part in store["segments"]})


def _export(store: Path, manifest: "Manifest", ledgers: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Write the ledgers of a store, with examples of what was removed, to one file."""
    from compactds.cli.ledger import merged, write_ledger
    from compactds.datastore.segment import SEGMENTS_FOLDER
    from compactds.indexer.removals import REMOVED_FILE, read_examples

    examples = [
        example
        for segment in manifest.segments
        if REMOVED_FILE in segment.files
        for example in read_examples(store / SEGMENTS_FOLDER / segment.name / REMOVED_FILE)
    ]
    write_ledger(target, manifest.name, {**merged(ledgers), "examples": examples})
    say(f"wrote {target}")


def describe(manifest: "Manifest") -> dict[str, Any]:
    """Return what `Datastore.describe` does, but for the memory that only an open store knows."""
    files: dict[str, int] = {}
    for segment in manifest.segments:
        for name, record in segment.files.items():
            files[name] = files.get(name, 0) + record.bytes
    facts = ("name", "format", "created", "software", "documents", "passages")
    kept = ("name", "exact_dtype", "index", "calibration")
    segments = [
        {name: asdict(segment)[name] for name in kept}
        | {"passages": segment.live_passages, "deleted": segment.passages - segment.live_passages}
        for segment in manifest.segments
    ]
    return {
        **{name: getattr(manifest, name) for name in facts},
        "schema": manifest.schema.to_json(),
        "encoder": manifest.encoder.to_json(),
        "exact_encoder": manifest.exact_encoder.to_json(),
        "segments": segments,
        "disk_bytes": files,
        "ram_bytes": {"index": sum(segment.index.ram_bytes for segment in manifest.segments)},
    }


def _filters(store: Path, manifest: "Manifest", *, measure: bool) -> dict[str, Any]:
    """Return what where expressions take in memory, as `Datastore.describe` does."""
    from contextlib import ExitStack

    from compactds.datastore.attributes import AttributeColumns
    from compactds.datastore.filter_memory import describe_filters
    from compactds.datastore.segment import ATTRIBUTES_FILE, SEGMENTS_FOLDER

    with ExitStack() as opened:
        files = []
        for segment in manifest.segments:
            path = store / SEGMENTS_FOLDER / segment.name / ATTRIBUTES_FILE
            files.append((segment, AttributeColumns(path, manifest.schema)))
            opened.callback(files[-1][1].close)
        return describe_filters(manifest.schema, files, measure=measure)


def _account(manifest: "Manifest") -> dict[str, Any]:
    """Return what builds and tuning noted about a store besides: its memory, and how it was calibrated."""
    records = {"predicted": manifest.predicted, "measured": manifest.measured}
    return {
        "memory": {name: None if record is None else asdict(record) for name, record in records.items()},
        "calibrated_on": [segment.calibrated_on for segment in manifest.segments],
    }


def _read_ledger(store: Path, segment: str) -> dict[str, Any]:
    from compactds.datastore.errors import DamagedStoreError
    from compactds.datastore.segment import LEDGER_FILE, SEGMENTS_FOLDER

    path = store / SEGMENTS_FOLDER / segment / LEDGER_FILE
    try:
        ledger: dict[str, Any] = loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedStoreError(
            f"{path} cannot be read: {error}.",
            value=str(path),
            remedy="Run `compactds verify`, then restore the store from a copy or build it again.",
        ) from error
    return ledger


def _sections(
    store: Mapping[str, Any], ledgers: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, list[str]]]:
    from compactds.configs.sizes import format_bytes

    passages = max(store["passages"], 1)
    on_disk = sum(store["disk_bytes"].values())
    facts = {
        "documents": f"{store['documents']:,}",
        "passages": f"{store['passages']:,}",
        "on disk": f"{format_bytes(on_disk)}, {on_disk / passages:,.0f} bytes a passage",
        "in memory": ", ".join(f"{name} {format_bytes(size)}" for name, size in store["ram_bytes"].items()),
        "built": f"{store['created']} by {store['software']}",
        "format": str(store["format"]),
    }
    yield store["name"], [f"{name:<10} {value}" for name, value in facts.items()]
    yield (
        "encoders",
        table(list(_encoders(store)), header=("stage", "model", "kind", "dimension", "fingerprint")),
    )
    yield (
        "segments",
        table(
            [
                (
                    part["name"],
                    f"{part['passages']:,}",
                    part["exact_dtype"],
                    part["index"]["kind"],
                    part["index"]["reason"],
                )
                for part in store["segments"]
            ],
            header=("name", "passages", "vectors", "index", "because"),
        ),
    )
    yield from _curves(store)
    yield from _memory(store)
    yield from _attributes(store["filters"])
    largest_first = sorted(store["disk_bytes"].items(), key=lambda item: -item[1])
    yield (
        "files",
        table(
            [(name, format_bytes(size), f"{size / passages:,.1f}") for name, size in largest_first],
            header=("file", "size", "bytes a passage"),
        ),
    )
    for ledger in ledgers:
        yield from _ledger(ledger)


def _curves(store: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield the curve of each segment that has one: a table, and all of them in one chart."""
    for part, queries in zip(store["segments"], store["calibrated_on"], strict=True):
        if part["calibration"]:
            title = f"recall@10 of {part['name']}, measured with {queries}"
            yield title, curve_table(part["calibration"])
    chart = _chart(store)
    if chart.series:
        yield chart.title, text(chart)


def _memory(store: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield what memory the store was predicted to take, and what it was measured to take."""
    from compactds.configs.sizes import format_bytes

    predicted, measured = store["memory"]["predicted"], store["memory"]["measured"]
    if predicted is None:
        return

    def shown(record: Mapping[str, int] | None, key: str) -> str:
        return format_bytes(record[key]) if record and record[key] else "-"

    rows = [
        (name, shown(predicted, key), shown(measured, key))
        for name, key in (
            ("to serve, the program included", "serving_bytes"),
            ("the program alone", "serving_base_bytes"),
            ("to build, at most", "building_bytes"),
        )
    ]
    yield "memory", table(rows, header=("what for", "predicted", "measured"))


def _attributes(filters: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield the fields with what each takes in memory once a condition names it, and the limits of all."""
    from compactds.configs.sizes import format_bytes

    rows = [
        (
            name,
            field["type"],
            field["form"],
            format_bytes(field["ram_bytes"]),
            f"{field['bytes_per_row']:,.2f}",
            "yes" if field["known"] != "at most" else "at most",
        )
        for name, field in filters["fields"].items()
    ]
    limits = {
        "columns": filters["columns_limit_bytes"],
        "results": filters["results_limit_bytes"],
        "map of lists": filters["list_map_bytes"],
        "copies of lists": filters["list_copies_limit_bytes"],
    }
    at_most = ", ".join(f"{name} {format_bytes(size)}" for name, size in limits.items() if size)
    yield (
        "attributes, and their memory once a condition names them",
        [
            *table(rows, header=("field", "type", "held as", "memory", "bytes a passage", "measured")),
            f"limits: {at_most}",
        ],
    )


def _ledger(ledger: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield the tables of a ledger, and a line for everything else."""
    yield from ledger_tables(ledger)
    lines = []
    for name, value in ledger.items():
        if isinstance(value, list):
            continue
        if isinstance(value, Mapping):
            lines.append(f"{name}: " + ", ".join(f"{key} {plain(item)}" for key, item in value.items()))
        else:
            lines.append(f"{name}: {plain(value)}")
    yield "build", lines


def _encoders(store: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    one = store["encoder"] == store["exact_encoder"]
    stages = {"both": "encoder"} if one else {"index": "encoder", "exact": "exact_encoder"}
    for stage, key in stages.items():
        spec = store[key]
        yield stage, spec["model"] or "none", spec["kind"], str(spec["dimension"]), spec["fingerprint"][:12]
