"""`compactds diff`: what two stores hold differently."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compactds.cli.command import Json
from compactds.cli.output import plain, say, say_json
from compactds.cli.stores import check_folder

if TYPE_CHECKING:
    from compactds.datastore.comparing import StoreDiff

_SHOWN_CHARACTERS = 60


def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="The folder of a store.", callback=check_folder)],
    second: Annotated[
        Path, typer.Argument(metavar="B", help="The folder of another.", callback=check_folder)
    ],
    examples: Annotated[int, typer.Option(min=0, max=1000, help="Ids to show of each kind.")] = 5,
    json: Json = False,
) -> None:
    """Say what two stores hold differently.

    It compares documents, their text and attributes, and what the stores were made with.
    """
    from compactds.configs.sizes import counted
    from compactds.datastore.comparing import diff as compare

    found = compare(first, second, examples=examples)
    if json:
        say_json({"first": str(first), "second": str(second), **found.to_json()})
        return
    if found.equal:
        say(f"no differences: {counted(found.same, 'document')}", fg="green")
        return
    for line in _lines(found, str(first), str(second)):
        say(line)


def _lines(found: "StoreDiff", first: str, second: str) -> Iterator[str]:
    from compactds.configs.sizes import counted

    same = counted(found.same, "document is", "documents are")
    yield f"{same} the same ({found.documents[0]:,} in A, {found.documents[1]:,} in B)"
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
        yield f"  {name}: differs in {counted(count, 'document')}"
    for name, (one, other) in found.settings.items():
        yield f"{name}: {_shown(one)} in A, {_shown(other)} in B"


def _shown(value: object) -> str:
    text = plain(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
