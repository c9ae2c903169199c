"""Read plain queries, for measures that need no judgements."""

from pathlib import Path
from typing import Any

from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.lines import read_lines, read_records, text_field

FIELDS = ("text", "query", "question")


def load_queries(path: str | Path) -> list[str]:
    """Read the queries of a file or folder, leaving blank lines out.

    A `.jsonl[.gz]` file holds records with a text, query or question; of a test collection's folder,
    `queries.jsonl` is read; any other file has one query per line. Raises EvaluationError naming file
    and line.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "queries.jsonl"
    if file.name.endswith((".jsonl", ".jsonl.gz")):
        queries = [text_field(place, record, _field(place, record)) for place, record in read_records(file)]
    else:
        queries = [line for _, line in read_lines(file) if line.strip()]
    if not queries:
        raise EvaluationError(
            f"{path} holds no query.", value=str(path), remedy="Check that it is the right file."
        )
    return queries


def _field(place: str, record: dict[str, Any]) -> str:
    """Return the field of a record that holds its query; raise EvaluationError without one."""
    for name in FIELDS:
        if name in record:
            return name
    raise EvaluationError(
        f"{place}: there is no field {', '.join(map(repr, FIELDS[:-1]))} or {FIELDS[-1]!r}.",
        value=sorted(record)[:10],
        remedy="A record holds its query in one of them.",
    )
