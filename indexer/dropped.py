"""Lists of documents and passages left out after all were read: as duplicates, or for a budget."""

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
    if not any(path.exists() for path in lists):
        return {}
    bounds = pc.min_max(read_table(shard, ["ordinal"]).column("ordinal")).as_py()
    return read_drops_between(lists, bounds["min"], bounds["max"])


def read_drops_between(lists: Sequence[Path], first: int, last: int) -> Mapping[int, Drop]:
    """Return why those with ordinals from `first` to `last` are left out, by their ordinals."""
    found: dict[int, Drop] = {}
    within = [("ordinal", ">=", first), ("ordinal", "<=", last)]
    for path in lists:
        if path.exists():
            for row in pq.read_table(path, filters=within, use_threads=False).to_pylist():
                found[row["ordinal"]] = Drop(row["filter"], row["reason"], row["value"], row["limit"])
    return found
