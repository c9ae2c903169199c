"""faiss: a graph with 16 links over 8-bit codes in memory, construction beam of 200."""

from pathlib import Path
from typing import Any

import faiss
from benchmarks.peers.blocks import blocks
from benchmarks.peers.worker import K

PACKAGES = ("faiss-cpu", "numpy")
LINKS = 16
BEAMS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)


def build(vectors: Any, folder: Path, threads: int, _options: dict[str, Any]) -> None:
    faiss.omp_set_num_threads(threads)
    index = faiss.index_factory(vectors.shape[1], f"HNSW{LINKS},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 200
    index.train(vectors[::3].astype("float32"))
    for block in blocks(vectors):
        index.add(block)
    faiss.write_index(index, str(folder / "index.faiss"))


class Graph:
    def __init__(self, index: Any) -> None:
        self.index = index
        self.settings = [{"efSearch": beam} for beam in BEAMS]
        links = index.hnsw.neighbors.size() * 4 + index.hnsw.offsets.size() * 8 + index.hnsw.levels.size() * 4
        self.ram_bytes = index.ntotal * index.d + links

    def prepare(self, setting: dict[str, Any]) -> Any:
        parameters = faiss.SearchParametersHNSW(efSearch=setting["efSearch"])

        def one(vector: Any) -> Any:
            return self.index.search(vector[None], K, params=parameters)[1][0]

        def many(batch: Any) -> Any:
            return self.index.search(batch, K, params=parameters)[1]

        return one, many

    def close(self) -> None:
        del self.index


def open_index(folder: Path, threads: int, _options: dict[str, Any]) -> Graph:
    faiss.omp_set_num_threads(threads)
    return Graph(faiss.read_index(str(folder / "index.faiss")))
