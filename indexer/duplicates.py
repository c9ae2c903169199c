"""The third stage of a build: documents that repeat an earlier one are found, in bounded memory."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from compactds.indexer.document_shards import DOCUMENT_SCHEMA
from compactds.indexer.errors import DuplicateIdError
from compactds.indexer.workspace import read_table

SORT_MEMORY = "256MB"
DUPLICATES = "duplicates"
SAME_DOCUMENT = "same_document"

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
_DROPPED = f"""
    COPY (
        SELECT ordinal, '{DUPLICATES}' AS filter, '{SAME_DOCUMENT}' AS reason,
            document_id AS value, NULL::VARCHAR AS "limit"
        FROM repeated WHERE before IS NOT NULL ORDER BY ordinal
    ) TO '{{target}}' (FORMAT parquet, ROW_GROUP_SIZE 10000)
"""  # noqa: S608 - nothing in it comes from data


def find_repeated(shards: Sequence[Path], folder: Path, target: Path) -> None:
    """Write to `target` which documents repeat an earlier one word for word, neither having come with an id.

    The first copy stays. Raises DuplicateIdError when two documents were given one id.
    """
    listing = folder / "listing.parquet"
    schema = DOCUMENT_SCHEMA.empty_table().select(_LISTED).schema
    with pq.ParquetWriter(listing, schema, compression="zstd") as writer:
        for shard in shards:
            writer.write_table(read_table(shard, _LISTED).select(_LISTED))
    settings = {"memory_limit": SORT_MEMORY, "threads": 1, "temp_directory": str(folder / "duckdb")}
    with duckdb.connect(config=settings) as connection:
        connection.execute(_REPEATED, {"listing": str(listing)})
        clash = connection.execute(_CLASHING).fetchone()
        if clash is not None:
            raise DuplicateIdError(
                f"two documents have the id {clash[0]!r}: {clash[1]} and {clash[2]}.",
                value=clash[0],
                remedy='Give every document an id of its own, or set ids = "file" in the source (--ids file) '
                'to put the file\'s name before each, or ids = "content" to make new ones.',
            )
        connection.execute(_DROPPED.format(target=str(target).replace("'", "''")))
    listing.unlink()
