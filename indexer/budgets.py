"""Hold sources to their budgets: a pass over the words of the documents that stay, in their order."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from compactds.filters.corpus.base import Drop
from compactds.filters.corpus.budget import Budget
from compactds.filters.corpus.catalogue import make_filter
from compactds.indexer.dropped import DROPS_SCHEMA, read_drops
from compactds.indexer.filtering import FilterStep
from compactds.indexer.workspace import read_table


def make_budgets(steps: Sequence[FilterStep]) -> list[tuple[frozenset[int], Budget]]:
    """Return the budgets among a recipe's filters, nothing spent yet, with the sources they are for."""
    tables = [(step.sources, json.loads(step.options)) for step in steps]
    made = [(sources, make_filter(table)) for sources, table in tables if "filter" in table]
    return [(sources, one) for sources, one in made if isinstance(one, Budget)]


def spend(
    shards: Sequence[tuple[Path, int, str]],
    budgets: Sequence[tuple[frozenset[int], Budget]],
    dropped: Sequence[Path],
    target: Path,
) -> None:
    """Write to `target` which documents no budget has room for.

    `shards` are (file, number of the source, its name) in order; documents listed in `dropped` cost nothing.
    """
    with pq.ParquetWriter(target, DROPS_SCHEMA, compression="zstd") as writer:
        for path, source, name in shards:
            table = read_table(path, ["ordinal", "words"])
            gone = read_drops(dropped, path)
            rows = []
            pairs = zip(table.column("ordinal").to_pylist(), table.column("words").to_pylist(), strict=True)
            for ordinal, words in pairs:
                drop = None if ordinal in gone else _refused(budgets, source, name, words)
                if drop is not None:
                    rows.append(_row(ordinal, drop))
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, DROPS_SCHEMA))


def _refused(
    budgets: Sequence[tuple[frozenset[int], Budget]], source: int, name: str, words: int
) -> Drop | None:
    """Return why a budget has no room for a document; only one that all have room for is counted."""
    asked = [budget for sources, budget in budgets if source in sources]
    for budget in asked:
        if (drop := budget.refuse(name, words)) is not None:
            return drop
    for budget in asked:
        budget.admit(name, words)
    return None


def _row(ordinal: int, drop: Drop) -> dict[str, object]:
    limit = None if drop.limit is None else f"{drop.limit:g}"
    return {
        "ordinal": ordinal,
        "filter": drop.filter,
        "reason": drop.reason,
        "value": f"{drop.value:g}",
        "limit": limit,
    }
