"""DuckDB: a table of attributes and vectors, searched exactly by one SQL statement."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from benchmarks.peers.blocks import blocks
from benchmarks.peers.filtered_where import Where, read_attributes, to_sql
from benchmarks.peers.worker import K

PACKAGES = ("duckdb", "pyarrow", "numpy")


def build(vectors: Any, folder: Path, threads: int, options: dict[str, Any]) -> None:
    rows, dimension = vectors.shape
    attributes = pa.Table.from_pylist(read_attributes(options["attributes"], rows))
    columns = ", ".join(f'"{name}"' for name in attributes.column_names)
    with duckdb.connect(str(folder / "rows.duckdb"), config={"threads": threads}) as database:
        first = 0
        for block in blocks(vectors):
            part = attributes.slice(first, len(block))
            values = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), dimension)
            part = part.append_column("row", pa.array(np.arange(first, first + len(block))))
            part = part.append_column("vector", values)
            database.register("part", part)
            how = "INSERT INTO held" if first else "CREATE TABLE held AS"
            database.execute(f'{how} SELECT {columns}, "row", vector::FLOAT[{dimension}] AS vector FROM part')
            first += len(block)


class Table:
    def __init__(self, folder: Path, threads: int) -> None:
        path = folder / "rows.duckdb"
        self.database = duckdb.connect(str(path), read_only=True, config={"threads": threads})
        described = self.database.execute("DESCRIBE held").fetchall()
        kinds = {row[0]: row[1] for row in described}
        self.kind = kinds["vector"]
        names = [name for name in kinds if name not in ("row", "vector")]
        self.missing = frozenset(name for name in names if self._count(f'WHERE "{name}" IS NULL'))
        self.settings: list[dict[str, Any]] = [{"exact": True}]
        # The pages of the table, cached as they are read.
        self.ram_bytes = path.stat().st_size

    def _count(self, condition: str) -> int:
        found = self.database.execute(f"SELECT count(*) FROM held {condition}").fetchone()
        assert found is not None
        return int(found[0])

    def prepare(self, setting: dict[str, Any]) -> Any:
        return self.prepare_filtered(setting, None), None

    def prepare_filtered(self, _setting: dict[str, Any], where: Where | None) -> Any:
        condition = f"WHERE {to_sql(where, 'list_contains', 'list_has_any', self.missing)}" if where else ""
        statement = (
            f'SELECT "row" FROM held {condition} '
            f"ORDER BY array_inner_product(vector, ?::{self.kind}) DESC LIMIT {K}"
        )
        execute = self.database.execute

        def one(vector: Any) -> Any:
            return [row for (row,) in execute(statement, [vector]).fetchall()]

        return one

    def close(self) -> None:
        self.database.close()


def open_index(folder: Path, threads: int, _options: dict[str, Any]) -> Table:
    return Table(folder, threads)
