"""Read plain queries, for measures that need no judgements."""

from pathlib import Path

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
        queries = [
            text_field(place, record, next((name for name in FIELDS if name in record), FIELDS[0]))
            for place, record in read_records(file)
        ]
    else:
        queries = [line for _, line in read_lines(file) if line.strip()]
    if not queries:
        raise EvaluationError(
            f"{path} holds no query.", value=str(path), remedy="Check that it is the right file."
        )
    return queries
