"""`compactds inspect`: what a store is, what went into it, and what it takes on disk and in memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from compactds.cli.command import Json
from compactds.cli.output import say, say_json, table


def inspect(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder of a store.")],
    json: Json = False,
) -> None:
    """Say what a store holds, how it was built, and what it takes on disk and in memory."""
    from compactds.datastore import Datastore

    with Datastore.open(store) as opened:
        described = opened.describe()
        ledgers = opened.ledgers()
    if json:
        say_json({**described, "ledgers": ledgers})
        return
    for title, lines in _sections(described, ledgers):
        say(title, bold=True)
        for line in lines:
            say(f"  {line}")
        say()


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
    yield "attributes", table(list(store["schema"].items()), header=("field", "type"))
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


def _ledger(ledger: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield a table for each list of records in a ledger, and a line for everything else."""
    lines = []
    for name, value in ledger.items():
        if isinstance(value, list) and value:
            columns = list(value[0])
            yield name, table([[_shown(row.get(key)) for key in columns] for row in value], header=columns)
        elif isinstance(value, Mapping):
            lines.append(f"{name}: " + ", ".join(f"{key} {_shown(item)}" for key, item in value.items()))
        else:
            lines.append(f"{name}: {_shown(value)}")
    yield "build", lines


def _shown(value: Any) -> str:
    return f"{value:,}" if type(value) is int else str(value)


def _encoders(store: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    one = store["encoder"] == store["exact_encoder"]
    stages = {"both": "encoder"} if one else {"index": "encoder", "exact": "exact_encoder"}
    for stage, key in stages.items():
        spec = store[key]
        yield stage, spec["model"] or "none", spec["kind"], str(spec["dimension"]), spec["fingerprint"][:12]
