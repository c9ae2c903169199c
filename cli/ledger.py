"""How a ledger is shown: as tables on the terminal, as JSON, and as one HTML page with examples."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from json import dumps
from pathlib import Path
from typing import Any

from compactds.cli.output import table
from compactds.configs.sizes import counted
from compactds.indexer.ledger import merged as merged

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color: #222 }
table { border-collapse: collapse; margin: 0.5rem 0 2rem }
th, td { border-bottom: 1px solid #ddd; padding: 0.3rem 0.8rem; text-align: left; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.bar { background: #e9ecef; width: 12rem; height: 0.8rem; display: inline-block }
.bar span { background: #b23b3b; height: 100%; display: block }
details { margin: 0.3rem 0 } summary { cursor: pointer }
blockquote { margin: 0.3rem 0 1rem; padding: 0.3rem 0.8rem; border-left: 3px solid #ccc;
  white-space: pre-wrap; overflow-wrap: anywhere; background: #fafafa }
.place { color: #666; font-size: 0.85rem }
"""
_SOURCE_COLUMNS = (
    "documents",
    "words",
    "rejected",
    "removed",
    "duplicates",
    "contaminated",
    "documents_out",
    "words_out",
    "passages",
    "duplicate_passages",
    "truncated",
)
_PASSAGE_COLUMNS = ("source", "filter", "reason", "passages", "words")


def ledger_tables(ledger: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield (title, lines) for what came in and went out, what was removed and why, and what was edited."""
    sources = ledger.get("sources", ())
    if sources:
        columns = [name for name in ("name", *_SOURCE_COLUMNS) if name in sources[0]]
        rows = [[_shown(line[name]) for name in columns] for line in sources]
        yield "sources", table(rows, header=[name.replace("_", " ") for name in columns])
    read = {line["name"]: line["documents"] for line in sources}
    removed = [
        (
            row["source"],
            row["filter"],
            row["reason"],
            _shown(row["documents"]),
            f"{_share(row['documents'], read.get(row['source'], 0)):.1%}",
            _shown(row["words"]),
        )
        for row in ledger.get("removed", ())
    ]
    if removed:
        header = ("source", "filter", "reason", "documents", "of the source", "words")
        yield "removed", table(removed, header=header)
    repeated = [
        [_shown(row[name]) for name in _PASSAGE_COLUMNS] for row in ledger.get("removed_passages", ())
    ]
    if repeated:
        yield "removed passages", table(repeated, header=_PASSAGE_COLUMNS)
    for name in ("edited", "revisions"):
        rows = [[_shown(value) for value in row.values()] for row in ledger.get(name, ())]
        if rows:
            yield name, table(rows, header=list(ledger[name][0]))


def example_lines(examples: Sequence[Mapping[str, Any]], each: int = 2) -> Iterator[str]:
    """Yield lines that show the first few documents removed for each filter and reason."""
    shown: dict[tuple[str, str], int] = {}
    for example in examples:
        kind = example["filter"], example["reason"]
        shown[kind] = shown.get(kind, 0) + 1
        if shown[kind] > each:
            continue
        limit = f", limit {example['limit']}" if example["limit"] is not None else ""
        yield f"{kind[0]}, {kind[1]}: {example['value']}{limit}: {example['origin']}"
        yield f"    {' '.join(example['excerpt'].split())[:160]}"


def write_ledger(path: Path, title: str, ledger: Mapping[str, Any]) -> None:
    """Write a ledger with its examples: as JSON if the file's name ends so, else as an HTML page."""
    if path.suffix.lower() == ".json":
        path.write_text(dumps(ledger, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        path.write_text(ledger_page(title, ledger), encoding="utf-8", errors="replace")


def ledger_page(title: str, ledger: Mapping[str, Any]) -> str:
    """Return one page, complete in itself, that says what came in, what was removed and what came out."""
    sources = ledger.get("sources", [])
    total = {name: sum(line.get(name, 0) for line in sources) for name in _SOURCE_COLUMNS}
    passages = f", as {total['passages']:,} passages" if total["passages"] else ""
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{total['documents']:,} documents of {total['words']:,} words were read, "
        f"{total['documents_out']:,} of {total['words_out']:,} words stay{passages}. "
        f"{total['removed']:,} were removed ({_share(total['removed'], total['documents']):.1%}), "
        f"{counted(total['rejected'], 'record')} could not be used.</p>",
        "<h2>Sources</h2>",
        _html_table(("name", *_SOURCE_COLUMNS), sources),
        "<h2>Removed</h2>",
        *_removed_html(ledger, total["documents"]),
    ]
    if ledger.get("removed_passages"):
        body += ["<h2>Removed passages</h2>", *_removed_passages_html(ledger, total)]
    for name in ("edited", "revisions"):
        if ledger.get(name):
            body += [f"<h2>{name.capitalize()}</h2>", _html_table(tuple(ledger[name][0]), ledger[name])]
    if ledger.get("seconds"):
        rows = [{"stage": stage, "seconds": f"{taken:,.2f}"} for stage, taken in ledger["seconds"].items()]
        body += ["<h2>Time</h2>", _html_table(("stage", "seconds"), rows)]
    if ledger.get("software"):
        versions = ", ".join(f"{name} {number}" for name, number in ledger["software"].items())
        body.append(f"<p class='place'>{escape(versions)}</p>")
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _removed_passages_html(ledger: Mapping[str, Any], total: Mapping[str, int]) -> Iterator[str]:
    split = total["passages"] + total["duplicate_passages"]
    for row in ledger["removed_passages"]:
        yield from _kind_html(row, f"{row['passages']:,} passages", _share(row["passages"], split), ledger)


def _removed_html(ledger: Mapping[str, Any], documents: int) -> Iterator[str]:
    if not ledger.get("removed"):
        yield "<p>Nothing was removed.</p>"
    for row in ledger.get("removed", ()):
        share = _share(row["documents"], documents)
        yield from _kind_html(row, f"{row['documents']:,} documents", share, ledger)


def _kind_html(row: Mapping[str, Any], what: str, share: float, ledger: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for what was removed of a source for one reason, to be opened for examples."""
    kind = (row["source"], row["filter"], row["reason"])
    yield (
        f"<details><summary><b>{escape(row['filter'])}</b> {escape(row['reason'].replace('_', ' '))} "
        f"in {escape(row['source'])}: {what}, {row['words']:,} words "
        f"<span class='bar'><span style='width:{share:.1%}'></span></span> {share:.1%}</summary>"
    )
    for example in ledger.get("examples", ()):
        if (example["source"], example["filter"], example["reason"]) == kind:
            yield _example_html(example)
    yield "</details>"


def _example_html(example: Mapping[str, Any]) -> str:
    limit = f" (limit {escape(example['limit'])})" if example["limit"] is not None else ""
    return (
        f"<div class='place'>{escape(_name(example))}, {escape(example['origin'])}: "
        f"{escape(example['value'])}{limit}, {example['words']:,} words</div>"
        f"<blockquote>{escape(example['excerpt'])}</blockquote>"
    )


def _name(example: Mapping[str, Any]) -> str:
    """Return the id of what was removed: of a document, or of a passage."""
    position = example.get("position")
    name: str = example["document_id"]
    return name if position is None else f"{name}#{position}"


def _html_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    numeric = {name: all(isinstance(row.get(name, 0), int | float) for row in rows) for name in columns}
    kinds = {name: " class='number'" if numeric[name] else "" for name in columns}
    head = "".join(f"<th{kinds[name]}>{escape(name.replace('_', ' '))}</th>" for name in columns)
    body = "".join(
        "<tr>"
        + "".join(f"<td{kinds[name]}>{escape(_shown(row.get(name, '')))}</td>" for name in columns)
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _shown(value: Any) -> str:
    return f"{value:,}" if type(value) is int else str(value)
