"""`compactds search`: ask a store on disk or a server."""

import os
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from compactds.cli.command import Json
from compactds.cli.output import clean, say, say_json, warn
from compactds.cli.stores import (
    KEY_VARIABLE,
    check_recall,
    check_search,
    load_encoders,
    open_store,
    where_condition,
)

_SNIPPET_CHARACTERS = 400
_WIDTH = 100


def search(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="The folder of a store, or the URL of a server.")
    ],
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY", help="A question in plain words; put -- before one that starts with a dash."
        ),
    ],
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="How many hits.")] = 5,
    where: Annotated[
        str | None,
        typer.Option(help="Which passages may be returned: an SQL condition, or JSON if it starts with '{'."),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, help="How many rows the index hands to the exact stage.")
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(callback=check_recall, help="The recall to aim at, above 0 up to 1; 1 is exact search."),
    ] = None,
    exclude_overlap: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Evaluation questions, a file or folder: show no passage that overlaps."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Search a store for passages that answer a question."""
    from compactds.configs.sizes import counted

    condition = where_condition(where)
    options = {} if exclude_overlap is None else {"exclude_overlap_with": _questions(exclude_overlap)}
    with open_store(store, os.environ.get(KEY_VARIABLE)) as engine:
        check_search(engine, where=condition, k=k, candidates=candidates, recall=recall, queries=[query])
        load_encoders(engine)
        hits = engine.search(query, k=k, where=condition, candidates=candidates, recall=recall, **options)
    if json:
        say_json({"query": query, "hits": [asdict(hit) for hit in hits], "report": asdict(hits.report)})
        return
    for hit in hits:
        _show(hit)
    report = hits.report
    if getattr(report, "truncated", False):
        warn("the query is longer than the encoder reads; its end was not used")
    left_out = f"{report.excluded:,} left out for overlap, " if exclude_overlap is not None else ""
    took = sum(report.timings_ms.values())
    if not report.matching:
        say("no passage matches the condition", fg="yellow")
        return
    matching = counted(report.matching, "matching passage")
    say(
        f"{len(hits)} of {matching}, plan {report.plan}, "
        f"{report.candidates:,} scored exactly, {left_out}{took:.1f} ms",
        dim=True,
    )


def _questions(path: Path) -> list[str]:
    from compactds.clients.questions import overlap_texts
    from compactds.filters.corpus.overlap_files import read_question_files

    return overlap_texts(read_question_files(path))


def _show(hit: Any) -> None:
    passage = hit.passage
    say(f"{hit.rank}. {passage.title or passage.id}", bold=True, nl=False)
    say(f"  {hit.score:.4f}", fg="cyan")
    facts = [
        passage.id,
        passage.source,
        *(f"{name}={_short(value)}" for name, value in passage.attributes.items() if value != []),
    ]
    say("   " + "  ".join(fact for fact in facts if fact), dim=True)
    snippet = textwrap.shorten(clean(passage.text), _SNIPPET_CHARACTERS, placeholder=" …")
    for line in textwrap.wrap(snippet, _WIDTH, initial_indent="   ", subsequent_indent="   "):
        say(line)
    say()


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
