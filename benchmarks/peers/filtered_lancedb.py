"""LanceDB with prefilter: its inverted lists, and an index for each attribute."""

from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from benchmarks.peers import lancedb_lists
from benchmarks.peers.blocks import blocks
from benchmarks.peers.filtered_where import Where, read_attributes, to_sql
from benchmarks.peers.worker import K

PACKAGES = lancedb_lists.PACKAGES
PROBES = (10, 20, 80)
REFINE = 10
FEW_VALUES = 1_000


def build(vectors: Any, folder: Path, _threads: int, options: dict[str, Any]) -> None:
    rows, dimension = vectors.shape
    attributes = pa.Table.from_pylist(read_attributes(options["attributes"], rows))
    own = [pa.field("row", pa.int64()), pa.field("vector", pa.list_(pa.float32(), dimension))]
    schema = pa.schema([*own, *attributes.schema])

    def batches() -> Any:
        first = 0
        for block in blocks(vectors):
            values = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), dimension)
            numbers = pa.array(np.arange(first, first + len(block)))
            part = attributes.slice(first, len(block)).combine_chunks()
            columns = [column.combine_chunks() for column in part.columns]
            yield pa.record_batch([numbers, values, *columns], schema=schema)
            first += len(block)

    table = lancedb.connect(str(folder)).create_table("rows", batches(), schema=schema)
    table.create_index(
        metric="dot",
        vector_column_name="vector",
        index_type="IVF_PQ",
        num_partitions=max(1, round(rows**0.5)),
        num_sub_vectors=lancedb_lists.sub_vectors(dimension),
    )
    for name in attributes.column_names:
        kind = attributes.schema.field(name).type
        if pa.types.is_list(kind):
            table.create_scalar_index(name, index_type="LABEL_LIST")
        else:
            few = len(attributes[name].unique()) <= FEW_VALUES and not pa.types.is_integer(kind)
            table.create_scalar_index(name, index_type="BITMAP" if few else "BTREE")


class Lists(lancedb_lists.Lists):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        lists = round(self.table.count_rows() ** 0.5)
        probes = sorted({*(count for count in PROBES if count < lists), lists})
        self.settings = [{"nprobes": count, "refine": REFINE} for count in probes]
        self.settings.append({"nprobes": 0, "refine": 0})  # without the index of vectors: exact
        names = [name for name in self.table.schema.names if name not in ("row", "vector")]
        self.missing = frozenset(name for name in names if self.table.count_rows(f"{name} IS NULL"))

    def prepare_filtered(self, setting: dict[str, Any], where: Where | None) -> Any:
        condition = where and to_sql(where, "array_has", "array_has_any", self.missing)

        def one(vector: Any) -> Any:
            query = self.table.search(vector, vector_column_name="vector").distance_type("dot").limit(K)
            if condition:
                query = query.where(condition, prefilter=True)
            if setting["nprobes"]:
                query = query.nprobes(setting["nprobes"]).refine_factor(setting["refine"])
            else:
                query = query.bypass_vector_index()
            return query.select(["row", "_distance"]).to_arrow()["row"].to_pylist()

        return one


def open_index(folder: Path, _threads: int, _options: dict[str, Any]) -> Lists:
    return Lists(folder)
