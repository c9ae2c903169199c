"""compactds: a store built through its Python interface from ready-made vectors.

`nearest` returns row numbers, as the others do; with {"fetch": true} `search` is asked, which returns
passages with their text.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.peers.worker import K

from compactds.configs.recipe import recipe_for
from compactds.datastore import Datastore
from compactds.indexer.build import build as build_store

PACKAGES = ("compactds", "faiss-cpu", "hnswlib", "numpy")
RECALLS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
CANDIDATES = (50, 100, 200)
MOST_EFFORTS = 12
WORDS = (
    "light",
    "of",
    "stars",
    "bends",
    "near",
    "a",
    "mass",
    "and",
    "cells",
    "divide",
    "when",
    "ice",
    "melts",
)
TEXT_WORDS = 100


def build(vectors: Any, folder: Path, _threads: int, options: dict[str, Any]) -> None:
    """Write records, each with a text of 100 words, and vectors; build a store; remove what it came from."""
    draw = np.random.default_rng(1)
    texts = (
        f"{row} " + " ".join(WORDS[number] for number in draw.integers(0, len(WORDS), TEXT_WORDS))
        for row in range(len(vectors))
    )
    records = ({"id": str(row), "text": text} for row, text in enumerate(texts))
    store_of(records, vectors, folder, options)


def store_of(rows: Iterable[dict[str, Any]], vectors: Any, folder: Path, options: dict[str, Any]) -> None:
    """Build a store of records with ready-made vectors, and remove the files it came from."""
    records, given = folder / "records.jsonl", folder / "vectors.npy"
    with records.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    np.save(given, vectors)
    recipe = recipe_for([str(records)], {"vectors": str(given), **options.get("recipe", {})})
    build_store(recipe, folder / "store")
    records.unlink()
    given.unlink()


class Store:
    def __init__(self, store: Datastore, fetch: bool) -> None:
        self.store = store
        described = store.describe()
        self.ram_bytes = sum(described["ram_bytes"].values())
        self.settings: list[dict[str, Any]] = [{"recall": recall} for recall in RECALLS]
        self.call: Any = self._search if fetch else self._nearest
        if not fetch:
            points = [point for segment in described["segments"] for point in segment["calibration"]]
            efforts = thinned(sorted({point["effort"] for point in points}))
            pairs = {(point["effort"], point["candidates"]) for point in points}
            pairs |= {(effort, count) for effort in efforts for count in CANDIDATES}
            self.settings += [{"effort": effort, "candidates": count} for effort, count in sorted(pairs)]

    def _nearest(self, vectors: Any, setting: dict[str, Any]) -> Any:
        return self.store.nearest(vectors, k=K, **setting).rows

    def _search(self, vectors: Any, setting: dict[str, Any]) -> Any:
        return [
            [int(hit.passage.document_id) for hit in hits]
            for hits in self.store.search(vectors=vectors, k=K, **setting)
        ]

    def prepare(self, setting: dict[str, Any]) -> Any:
        def one(vector: Any) -> Any:
            return self.call(vector[None], setting)[0]

        def many(batch: Any) -> Any:
            return self.call(batch, setting)

        return one, many

    def close(self) -> None:
        self.store.close()


def thinned(efforts: list[int]) -> list[int]:
    """Return at most so many of the efforts, evenly spread, with the first and the last."""
    if len(efforts) <= MOST_EFFORTS:
        return efforts
    return [efforts[place] for place in np.linspace(0, len(efforts) - 1, MOST_EFFORTS).round().astype(int)]


def open_index(folder: Path, _threads: int, options: dict[str, Any]) -> Store:
    return Store(Datastore.open(folder / "store"), options.get("fetch", False))
