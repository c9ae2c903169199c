"""`compactds diff`: what two stores hold differently."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compactds.cli.command import Json
from compactds.cli.output import say, say_json

if TYPE_CHECKING:
    from compactds.datastore.comparing import StoreDiff

_SHOWN_CHARACTERS = 60


def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="The folder of a store.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The folder of another.")],
    examples: Annotated[int, typer.Option(min=0, max=1000, help="Ids to show of each kind.")] = 5,
    json: Json = False,
) -> None:
    """Say what two stores hold differently: documents, their text and attributes, and settings."""
    from compactds.datastore.comparing import diff as compare

    found = compare(first, second, examples=examples)
    if json:
        say_json({"first": str(first), "second": str(second), **found.to_json()})
        return
    if found.equal:
        say(f"no differences: {found.same:,} documents", fg="green")
        return
    for line in _lines(found, str(first), str(second)):
        say(line)


def _lines(found: "StoreDiff", first: str, second: str) -> Iterator[str]:
    yield f"{found.same:,} documents are the same ({found.documents[0]:,} in A, {found.documents[1]:,} in B)"
    for what, documents in (
        (f"only in A, {first}", found.only_in_first),
        (f"only in B, {second}", found.only_in_second),
        ("other text", found.changed_text),
        ("the same text, other passages", found.changed_passages),
        ("other attributes", found.changed_attributes),
    ):
        if documents.count:
            more = ", …" if documents.count > len(documents.examples) else ""
            yield f"{documents.count:,} {what}: {', '.join(documents.examples)}{more}"
    for name, count in found.fields.items():
        yield f"  {name}: differs in {count:,} documents"
    for name, (one, other) in found.settings.items():
        yield f"{name}: {_shown(one)} in A, {_shown(other)} in B"


def _shown(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
