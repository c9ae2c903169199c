"""What a build left out: a row for every document or passage, and excerpts of the first few of a kind."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from compactds.filters.corpus.base import Drop
from compactds.indexer.documents import Document
from compactds.indexer.sources import SourceOptions
from compactds.indexer.workspace import Workspace, read_table, write_table

REMOVED_FILE = "removed.parquet"
EXAMPLES = 5
"""Documents, or passages, of which an excerpt is kept, for each source, filter and reason."""
EXCERPT_CHARACTERS = 400

REMOVED_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("document_id", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("origin", pa.string()),
        pa.field("title", pa.string()),
        pa.field("words", pa.int64()),
        pa.field("filter", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("value", pa.string()),
        pa.field("limit", pa.string()),
        pa.field("excerpt", pa.string()),
    ]
)


class Removals:
    """Gather the documents, or passages, one task leaves out, and count them by filter and reason."""

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._rows: list[dict[str, Any]] = []
        self._counts: dict[tuple[str, str], list[int]] = {}

    def add(self, document: Document, words: int, drop: Drop, *, position: int | None = None) -> None:
        """Take a document that is left out, and why; or, with its position, a passage of it."""
        count = self._counts.setdefault((drop.filter, drop.reason), [0, 0])
        count[0] += 1
        count[1] += words
        excerpt = document.text[:EXCERPT_CHARACTERS] if count[0] <= EXAMPLES else None
        self._rows.append(
            {
                "source": self._options.source_name,
                "document_id": document.id,
                "position": position,
                "origin": portable_origin(self._options, document.origin),
                "title": document.title,
                "words": words,
                "filter": drop.filter,
                "reason": drop.reason,
                "value": _text(drop.value),
                "limit": None if drop.limit is None else _text(drop.limit),
                "excerpt": excerpt,
            }
        )

    def write(self, path: Path) -> None:
        """Save the rows, if there are any."""
        if self._rows:
            write_table(path, pa.Table.from_pylist(self._rows, REMOVED_SCHEMA))

    def counts(self) -> list[list[Any]]:
        """Return [filter, reason, documents or passages, words] for each kind."""
        return [[*kind, *count] for kind, count in self._counts.items()]


def portable_origin(options: SourceOptions, origin: str) -> str:
    """Return where a record came from, without the folders above its source: stores may travel."""
    folder = str(Path(options.path).parent)
    return origin.removeprefix(folder).lstrip("/") if not options.is_hub_dataset else origin


def removed_files(workspace: Workspace) -> list[Path]:
    """Return the files that tell what was removed: by filters, as duplicates, and passages as such."""
    repeated = workspace.root / "repeated"
    kinds = (
        (workspace.removed, "filters"),
        (workspace.removed, "duplicates"),
        (repeated, "documents"),
        (repeated, "passages"),
    )
    return [path for folder, kind in kinds for path in sorted(folder.glob(f"{kind}-*.arrow"))]


def gather_removed(paths: Iterable[Path], target: Path) -> bool:
    """Write the rows of all files to one Parquet file; return whether there were any.

    Of each source, filter and reason only the first few rows keep their excerpts.
    """
    shown: dict[tuple[str, str, str], int] = {}
    writer = None
    for path in paths:
        if not path.exists():
            continue
        table = _with_first_excerpts(read_table(path), shown)
        writer = writer or pq.ParquetWriter(target, REMOVED_SCHEMA, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()
    return writer is not None


def join_files(paths: Sequence[Path], target: Path) -> bool:
    """Write the content of all files, one after another, to one; return whether there is any."""
    with target.open("wb") as out:
        for path in paths:
            with path.open("rb") as file:
                shutil.copyfileobj(file, out)
        if out.tell():
            return True
    target.unlink()
    return False


def read_examples(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a gathered file that have an excerpt."""
    rows: list[dict[str, Any]] = []
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(65_536):
            rows += batch.filter(pc.is_valid(batch.column("excerpt"))).to_pylist()
    return rows


def _with_first_excerpts(table: pa.Table, shown: dict[tuple[str, str, str], int]) -> pa.Table:
    kinds: Sequence[Sequence[str]] = [
        table.column(name).to_pylist() for name in ("source", "filter", "reason")
    ]
    excerpts = table.column("excerpt").to_pylist()
    for row, kind in enumerate(zip(*kinds, strict=True)):
        if excerpts[row] is not None:
            shown[kind] = shown.get(kind, 0) + 1
            if shown[kind] > EXAMPLES:
                excerpts[row] = None
    place = table.schema.get_field_index("excerpt")
    return table.set_column(place, REMOVED_SCHEMA.field("excerpt"), pa.array(excerpts, pa.string()))


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
