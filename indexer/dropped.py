"""Lists of documents that are left out after all were read: as duplicates, or for a budget."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from compactds.filters.corpus.base import Drop
from compactds.indexer.workspace import read_table

DROPS_SCHEMA = pa.schema(
    [
        pa.field("ordinal", pa.int64()),
        pa.field("filter", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("value", pa.string()),
        pa.field("limit", pa.string()),
    ]
)


def read_drops(lists: Sequence[Path], shard: Path) -> Mapping[int, Drop]:
    """Return why documents of a shard are left out, by their ordinals; lists are sorted by these."""
    found: dict[int, Drop] = {}
    if not any(path.exists() for path in lists):
        return found
    bounds = pc.min_max(read_table(shard, ["ordinal"]).column("ordinal")).as_py()
    within = [("ordinal", ">=", bounds["min"]), ("ordinal", "<=", bounds["max"])]
    for path in lists:
        if path.exists():
            for row in pq.read_table(path, filters=within, use_threads=False).to_pylist():
                found[row["ordinal"]] = Drop(row["filter"], row["reason"], row["value"], row["limit"])
    return found
