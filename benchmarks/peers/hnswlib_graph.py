"""hnswlib: a graph over full vectors in memory, 16 links, construction beam of 200."""

from pathlib import Path
from typing import Any

import hnswlib
from benchmarks.peers.blocks import blocks, graph_bytes
from benchmarks.peers.worker import K

PACKAGES = ("hnswlib", "numpy")
LINKS = 16
BEAMS = (10, 12, 16, 20, 24, 32, 36, 40, 48, 64, 96, 128, 192, 256, 384, 512)


def build(vectors: Any, folder: Path, threads: int, _options: dict[str, Any]) -> None:
    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=LINKS, ef_construction=200, random_seed=1)
    for block in blocks(vectors):
        index.add_items(block, num_threads=threads)
    index.save_index(str(folder / "index.hnsw"))
    (folder / "dimension").write_text(str(vectors.shape[1]))


class Graph:
    def __init__(self, index: Any, dimension: int, threads: int) -> None:
        self.index = index
        self.threads = threads
        self.settings = [{"ef": beam} for beam in BEAMS]
        self.ram_bytes = graph_bytes(index.element_count, 4 * dimension)

    def prepare(self, setting: dict[str, Any]) -> Any:
        self.index.set_ef(setting["ef"])
        query = self.index.knn_query

        def one(vector: Any) -> Any:
            return query(vector, k=K, num_threads=1)[0][0]

        def many(batch: Any) -> Any:
            return query(batch, k=K, num_threads=self.threads)[0]

        return one, many

    def close(self) -> None:
        del self.index


def open_index(folder: Path, threads: int, _options: dict[str, Any]) -> Graph:
    dimension = int((folder / "dimension").read_text())
    index = hnswlib.Index(space="ip", dim=dimension)
    index.load_index(str(folder / "index.hnsw"))
    return Graph(index, dimension, threads)
