"""The third stage of a build: documents that repeat an earlier one are found, in bounded memory."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from compactds.filters.corpus.duplicates import DuplicateSettings, sign_shard
from compactds.indexer.document_shards import DOCUMENT_SCHEMA
from compactds.indexer.errors import DuplicateIdError
from compactds.indexer.execution import Report
from compactds.indexer.ledger import DUPLICATES
from compactds.indexer.workspace import read_table

SORT_MEMORY = "256MB"

_LISTED = ["document_id", "ordinal", "origin", "id_from_content"]
_REPEATED = """
    CREATE TEMP TABLE repeated AS
    SELECT ordinal, document_id, origin, id_from_content,
        lag(origin) OVER copies AS before, lag(id_from_content) OVER copies AS before_from_content
    FROM read_parquet($listing)
    WHERE document_id IN (
        SELECT document_id FROM read_parquet($listing) GROUP BY document_id HAVING count(*) > 1
    )
    WINDOW copies AS (PARTITION BY document_id ORDER BY ordinal)
"""
_CLASHING = """
    SELECT document_id, before, origin FROM repeated
    WHERE before IS NOT NULL AND NOT (id_from_content AND before_from_content)
    ORDER BY ordinal LIMIT 1
"""
_SAME = """
    CREATE TEMP TABLE dropped AS
    SELECT ordinal, 'same_document' AS reason, document_id AS value, NULL::VARCHAR AS "limit"
    FROM repeated WHERE before IS NOT NULL
"""
_NONE = 'CREATE TEMP TABLE dropped (ordinal BIGINT, reason VARCHAR, value VARCHAR, "limit" VARCHAR)'
_SIMILAR = """
    INSERT INTO dropped
    SELECT found.ordinal, CASE found.kind WHEN 'exact' THEN 'same_words' ELSE 'near_duplicate' END,
        listing.document_id, CASE found.kind WHEN 'exact' THEN NULL ELSE $threshold END
    FROM read_parquet($found) AS found
    JOIN read_parquet($listing) AS listing ON listing.ordinal = found.kept
    ANTI JOIN dropped ON dropped.ordinal = found.ordinal
"""
_DROPPED = """
    COPY (
        SELECT ordinal, '{filter}' AS filter, reason, value, "limit" FROM dropped ORDER BY ordinal
    ) TO '{target}' (FORMAT parquet, ROW_GROUP_SIZE 10000)
"""


@dataclass(frozen=True, slots=True)
class SignTask:
    """Name a shard of documents, and the file its signatures go to."""

    shard: Path
    signed: Path


def sign_task(settings: DuplicateSettings, task: SignTask, report: Report) -> dict[str, Any]:
    """Sign the documents of a shard, so that similar ones can be found."""
    documents = list(read_texts(task.shard))
    sign_shard(task.signed, documents, settings)
    report(len(documents))
    return {"documents": len(documents)}


def read_texts(shard: Path) -> Iterator[tuple[int, str]]:
    """Yield (ordinal, text) of the documents of a shard."""
    for batch in read_table(shard, ["ordinal", "text"]).to_batches(max_chunksize=256):
        yield from zip(batch.column("ordinal").to_pylist(), batch.column("text").to_pylist(), strict=True)


def find_repeated(
    shards: Sequence[Path], folder: Path, target: Path, similar: tuple[Path, DuplicateSettings] | None
) -> None:
    """Write to `target` which documents repeat an earlier one, and the id of the one that is kept.

    Those are documents of the same title and text where neither came with an id, and those `similar`
    lists. The first copy stays. Raises DuplicateIdError when two documents were given one id.
    """
    schema = DOCUMENT_SCHEMA.empty_table().select(_LISTED).schema
    listed = (read_table(shard, _LISTED).select(_LISTED) for shard in shards)
    with _listed(folder, schema, listed) as (connection, listing):
        connection.execute(_REPEATED, {"listing": str(listing)})
        clash = connection.execute(_CLASHING).fetchone()
        if clash is not None:
            raise _clashing(*clash)
        connection.execute(_SAME)
        if similar is not None:
            _insert_similar(connection, listing, *similar)
        _write_dropped(connection, target, DUPLICATES)


def _clashing(name: str, before: str, origin: str) -> DuplicateIdError:
    """Return the error of two documents of one id; the name of a file does not tell two in it apart."""
    if before.rpartition(":")[0] == origin.rpartition(":")[0] != "":
        new = 'ids = "content" in the source (--ids content)'
    else:
        new = (
            'ids = "file" in the source (--ids file) to put the file\'s name before each, or ids = "content"'
        )
    return DuplicateIdError(
        f"two documents have the id {name!r}: {before} and {origin}.",
        value=name,
        remedy=f"Give every document an id of its own, or set {new} to make new ones.",
    )


def list_similar(
    named: Iterable[pa.Table], folder: Path, target: Path, similar: tuple[Path, DuplicateSettings], name: str
) -> None:
    """Write to `target` which ordinals `similar` lists, and the ids of what is kept, as drops by `name`.

    `named` has the ordinals of everything, and the ids, in columns "ordinal" and "document_id".
    """
    schema = pa.schema([("ordinal", pa.int64()), ("document_id", pa.string())])
    with _listed(folder, schema, named) as (connection, listing):
        connection.execute(_NONE)
        _insert_similar(connection, listing, *similar)
        _write_dropped(connection, target, name)


@contextmanager
def _listed(
    folder: Path, schema: pa.Schema, tables: Iterable[pa.Table]
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Write tables to a file for as long as it is queried, in bounded memory."""
    listing = folder / "listing.parquet"
    with pq.ParquetWriter(listing, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
    settings = {"memory_limit": SORT_MEMORY, "threads": 1, "temp_directory": str(folder / "duckdb")}
    with duckdb.connect(config=settings) as connection:
        yield connection, listing
    listing.unlink()


def _insert_similar(
    connection: duckdb.DuckDBPyConnection, listing: Path, found: Path, compared: DuplicateSettings
) -> None:
    given = {"found": str(found), "listing": str(listing), "threshold": f"{compared.threshold:g}"}
    connection.execute(_SIMILAR, given)


def _write_dropped(connection: duckdb.DuckDBPyConnection, target: Path, name: str) -> None:
    connection.execute(_DROPPED.format(filter=name, target=str(target).replace("'", "''")))
