"""LanceDB: inverted lists of product-quantised codes on disk, the best scored again with full vectors."""

from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from benchmarks.peers.blocks import blocks
from benchmarks.peers.worker import K

PACKAGES = ("lancedb", "pyarrow", "numpy")
PROBES = (5, 10, 20, 40, 80)
REFINE = (5, 10, 20)


def build(vectors: Any, folder: Path, _threads: int, _options: dict[str, Any]) -> None:
    rows, dimension = vectors.shape
    schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), dimension))])

    def batches() -> Any:
        first = 0
        for block in blocks(vectors):
            values = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), dimension)
            yield pa.record_batch([pa.array(np.arange(first, first + len(block))), values], schema=schema)
            first += len(block)

    table = lancedb.connect(str(folder)).create_table("rows", batches(), schema=schema)
    table.create_index(
        metric="dot",
        vector_column_name="vector",
        index_type="IVF_PQ",
        num_partitions=max(1, round(rows**0.5)),
        num_sub_vectors=sub_vectors(dimension),
    )


def sub_vectors(dimension: int) -> int:
    """Return how many codes a vector gets: one byte for eight dimensions, if they divide evenly."""
    return next(count for count in range(max(1, dimension // 8), 0, -1) if dimension % count == 0)


class Lists:
    def __init__(self, folder: Path) -> None:
        self.table = lancedb.connect(str(folder)).open_table("rows")
        self.settings = [{"nprobes": n, "refine": factor} for factor in REFINE for n in PROBES]
        dimension = self.table.schema.field("vector").type.list_size
        rows = self.table.count_rows()
        # The index is cached as it is read: a code and a row's address each, and the lists' centroids.
        self.ram_bytes = rows * (sub_vectors(dimension) + 8) + 4 * dimension * round(rows**0.5)

    def prepare(self, setting: dict[str, Any]) -> Any:
        def one(vector: Any) -> Any:
            query = self.table.search(vector, vector_column_name="vector").distance_type("dot").limit(K)
            query = query.nprobes(setting["nprobes"]).refine_factor(setting["refine"])
            return query.select(["row", "_distance"]).to_arrow()["row"].to_pylist()

        return one, None

    def close(self) -> None:
        del self.table


def open_index(folder: Path, _threads: int, _options: dict[str, Any]) -> Lists:
    return Lists(folder)
