"""Find documents that share an id, with memory that does not grow with the corpus."""

from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from compactds.indexer.errors import DuplicateIdError
from compactds.indexer.progress import Progress
from compactds.indexer.reading import SHARD_SCHEMA, ReadState
from compactds.indexer.workspace import Workspace

SORT_MEMORY = "256MB"

REPEATED_DOCUMENTS = """
    SELECT document_id, ordinal, origin, id_from_content
    FROM read_parquet($listing)
    WHERE document_id IN (
        SELECT document_id FROM read_parquet($listing) GROUP BY document_id HAVING count(*) > 1
    )
    ORDER BY document_id, ordinal
"""


def drop_duplicates(workspace: Workspace, state: ReadState, progress: Progress) -> None:
    """Drop documents that repeat an earlier one word for word, where neither came with an id.

    The first copy stays. The counts in `state` are brought up to date. Raises DuplicateIdError when
    two documents were given one id.
    """
    counts = workspace.read_state("duplicates")
    if counts is None:
        repeated = workspace.read_state("repeated")
        if repeated is None:
            progress.stage("checking ids", None)
            repeated = _find_repeated(workspace, state)
            workspace.write_state("repeated", repeated)
        counts = _drop(workspace, state, np.asarray(repeated, dtype=np.int64))
        workspace.write_state("duplicates", counts)
    for source, duplicates, passages in zip(
        state.sources, counts["duplicates"], counts["passages"], strict=True
    ):
        source.duplicates, source.passages = duplicates, passages
    state.passages = sum(counts["passages"])


def _find_repeated(workspace: Workspace, state: ReadState) -> list[int]:
    """Return the ordinals of documents to drop."""
    listing = workspace.root / "documents.parquet"
    _list_documents(workspace, state, listing)
    settings = {"memory_limit": SORT_MEMORY, "threads": 1, "temp_directory": str(workspace.root / "duckdb")}
    with duckdb.connect(config=settings) as connection:
        rows = connection.execute(REPEATED_DOCUMENTS, {"listing": str(listing)}).fetchall()
    listing.unlink()
    repeated = []
    for before, row in pairwise(rows):
        if before[0] != row[0]:
            continue
        if not (before[3] and row[3]):
            raise DuplicateIdError(
                f"two documents have the id {row[0]!r}: {before[2]} and {row[2]}.",
                value=row[0],
                remedy="Give every document an id of its own, or leave ids out.",
            )
        repeated.append(int(row[1]))
    return repeated


def _list_documents(workspace: Workspace, state: ReadState, path: Path) -> None:
    names = ["document_id", "ordinal", "origin", "id_from_content"]
    schema = SHARD_SCHEMA.empty_table().select(names).schema
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for number in range(state.shards):
            shard = workspace.read_shard(number, [*names, "position"])
            writer.write_table(shard.filter(pc.equal(shard.column("position"), 0)).select(names))


def _drop(workspace: Workspace, state: ReadState, repeated: np.ndarray) -> dict[str, list[int]]:
    """Rewrite the shards that hold repeated documents; return duplicates and passages per source."""
    if not len(repeated):
        return {
            "duplicates": [0] * len(state.sources),
            "passages": [source.passages for source in state.sources],
        }
    bounds = np.cumsum([source.records for source in state.sources])
    passages = np.zeros(len(bounds), dtype=np.int64)
    for number in range(state.shards):
        ordinals = workspace.read_shard(number, ["ordinal"]).column("ordinal").to_numpy()
        kept = ~np.isin(ordinals, repeated)
        if not kept.all():
            shard = workspace.read_shard(number)
            if workspace.has_vectors(number, "given"):
                given = workspace.read_vectors(number, "given")
                if len(given) == len(kept):
                    workspace.write_vectors(number, "given", given[kept], "<f4")
            workspace.write_shard(number, shard.filter(kept))
        passages += np.bincount(np.searchsorted(bounds, ordinals[kept], "right"), minlength=len(bounds))
    duplicates = np.bincount(np.searchsorted(bounds, repeated, "right"), minlength=len(bounds))
    return {"duplicates": duplicates.tolist(), "passages": passages.tolist()}
