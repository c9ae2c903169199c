"""usearch: a graph over vectors of 16 or 8 bits in memory, 16 links, construction beam of 200."""

from pathlib import Path
from typing import Any

from benchmarks.peers.blocks import blocks
from benchmarks.peers.worker import K
from usearch.index import Index as Native

PACKAGES = ("usearch", "numpy")
BEAMS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)


def build(vectors: Any, folder: Path, threads: int, options: dict[str, Any]) -> None:
    index = Native(
        ndim=vectors.shape[1], metric="cos", dtype=options["dtype"], connectivity=16, expansion_add=200
    )
    first = 0
    for block in blocks(vectors):
        index.add(range(first, first + len(block)), block, threads=threads)
        first += len(block)
    index.save(str(folder / "index.usearch"))


class Graph:
    def __init__(self, index: Any, threads: int) -> None:
        self.index = index
        self.threads = threads
        self.settings = [{"expansion": beam} for beam in BEAMS]
        # Keys' places and pointers besides; `memory_usage` counts room that is reserved, and never touched.
        self.ram_bytes = index.serialized_length + 32 * len(index)

    def prepare(self, setting: dict[str, Any]) -> Any:
        self.index.expansion_search = setting["expansion"]

        def one(vector: Any) -> Any:
            return self.index.search(vector, K, threads=1).keys

        def many(batch: Any) -> Any:
            return self.index.search(batch, K, threads=self.threads).keys

        return one, many

    def close(self) -> None:
        self.index.reset()


def open_index(folder: Path, threads: int, _options: dict[str, Any]) -> Graph:
    index = Native.restore(str(folder / "index.usearch"))
    return Graph(index, threads)
