"""compactds with filters: `nearest` with a where expression, the planner's choice or a plan forced on it."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.compactds_store import store_of
from benchmarks.peers.filtered_where import Where, read_attributes
from benchmarks.peers.worker import K

from compactds.datastore import Datastore
from compactds.datastore.attributes import AttributeColumns
from compactds.datastore.queries import MAX_EFFORT
from compactds.filters import parse_where

PACKAGES = ("compactds", "faiss-cpu", "hnswlib", "numpy")
PLANS = ("exact", "codes", "lists", "open")
RECALLS = (0.8, 0.9, 0.95, 0.98, 0.99)
TARGET = 0.95
STRICTER = (0.97, 0.98, 0.99, 0.995, 1.0)
EVERY_LIST = {"effort": MAX_EFFORT, "candidates": 512}
"""Finds all but everything, in less time than scoring every row."""


def build(vectors: Any, folder: Path, _threads: int, options: dict[str, Any]) -> None:
    """Build a store of records that hold their number as text, and the attributes."""
    records = (
        {name: value for name, value in attributes.items() if value is not None}
        | {"id": str(row), "text": f"row {row}"}
        for row, attributes in enumerate(read_attributes(options["attributes"], len(vectors)))
    )
    store_of(records, vectors, folder, options)


class Store:
    def __init__(self, folder: Path, curve: bool) -> None:
        self.folder = folder
        self.store = Datastore.open(folder)
        self.ram_bytes = sum(self.store.describe()["ram_bytes"].values())
        self.settings: list[dict[str, Any]] = [{"recall": TARGET}]
        if curve:
            self.settings = [{"recall": recall} for recall in RECALLS]
        else:
            self.settings += [{"recall": TARGET, "plan": plan} for plan in PLANS]
            self.settings += [*({"recall": recall} for recall in STRICTER), EVERY_LIST]
        self.plan: str | None = None
        self._uncached = [
            AttributeColumns(path, self.store.schema, cache_bytes=0)
            for path in sorted(folder.glob("segments/*/attributes.parquet"))
        ]

    def prepare(self, setting: dict[str, Any]) -> Any:
        return self.prepare_filtered(setting, None), None

    def prepare_filtered(self, setting: dict[str, Any], where: Where | None) -> Any:
        nearest = self.store.nearest

        def one(vector: Any) -> Any:
            found = nearest(vector, k=K, where=where, **setting)
            self.plan = getattr(found, "plan", None)
            return found.rows[0]

        return one

    def time_filter(self, where: Where, repeats: int) -> dict[str, float]:
        """Return milliseconds: reading the JSON, the bitmap with columns in memory, the bitmap from cache."""
        expression = parse_where(where, self.store.schema)
        assert expression is not None
        for columns in self._uncached:
            columns.filter.rows(expression)
        return {
            "parse_ms": median_ms(lambda: parse_where(where, self.store.schema), repeats),
            "first_ms": median_ms(
                lambda: [columns.filter.rows(expression) for columns in self._uncached], repeats
            ),
            "cached_ms": median_ms(lambda: self.store.count(where), repeats),
        }

    def close(self) -> None:
        for columns in self._uncached:
            columns.close()
        self.store.close()


def median_ms(task: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        task()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


def open_index(folder: Path, _threads: int, options: dict[str, Any]) -> Store:
    return Store(folder / "store", options.get("curve", False))
