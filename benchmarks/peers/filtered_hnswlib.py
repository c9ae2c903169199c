"""hnswlib with its filter function, which asks a Python list whether a row is allowed."""

from pathlib import Path
from typing import Any

import hnswlib
from benchmarks.peers import hnswlib_graph
from benchmarks.peers.filtered_bitmaps import Bitmaps
from benchmarks.peers.filtered_where import Where
from benchmarks.peers.worker import K

PACKAGES = hnswlib_graph.PACKAGES
BEAMS = (16, 32, 64, 128, 512, 2048)

build = hnswlib_graph.build


class Graph(hnswlib_graph.Graph):
    def __init__(self, index: Any, dimension: int, threads: int, bitmaps: Bitmaps) -> None:
        super().__init__(index, dimension, threads)
        self.bitmaps = bitmaps
        self.settings = [{"ef": beam} for beam in BEAMS]

    def prepare_filtered(self, setting: dict[str, Any], where: Where | None) -> Any:
        if where is None:
            return self.prepare(setting)[0]
        self.index.set_ef(setting["ef"])
        mask = self.bitmaps.mask(where)
        allowed, k = mask.tolist().__getitem__, min(K, int(mask.sum()))
        query = self.index.knn_query

        def one(vector: Any) -> Any:
            try:
                return query(vector, k=k, num_threads=1, filter=allowed)[0][0]
            except RuntimeError:  # what it does when it finds fewer than k
                return []

        return one


def open_index(folder: Path, threads: int, options: dict[str, Any]) -> Graph:
    dimension = int((folder / "dimension").read_text())
    index = hnswlib.Index(space="ip", dim=dimension)
    index.load_index(str(folder / "index.hnsw"))
    return Graph(index, dimension, threads, Bitmaps(options["attributes"], index.element_count))
