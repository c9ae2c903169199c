"""faiss: the graph with a bitmap selector."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from benchmarks.peers import faiss_graph
from benchmarks.peers.filtered_bitmaps import Bitmaps
from benchmarks.peers.filtered_where import Where
from benchmarks.peers.worker import K

PACKAGES = faiss_graph.PACKAGES
BEAMS = (16, 32, 64, 128, 512, 2048)

build = faiss_graph.build


class Graph(faiss_graph.Graph):
    def __init__(self, index: Any, bitmaps: Bitmaps) -> None:
        super().__init__(index)
        self.bitmaps = bitmaps
        self.settings = [{"efSearch": beam} for beam in BEAMS]

    def prepare_filtered(self, setting: dict[str, Any], where: Where | None) -> Any:
        if where is None:
            return self.prepare(setting)[0]
        selector = faiss.IDSelectorBitmap(np.packbits(self.bitmaps.mask(where), bitorder="little"))
        parameters = faiss.SearchParametersHNSW(efSearch=setting["efSearch"], sel=selector)

        def one(vector: Any) -> Any:
            return self.index.search(vector[None], K, params=parameters)[1][0]

        return one


def open_index(folder: Path, threads: int, options: dict[str, Any]) -> Graph:
    faiss.omp_set_num_threads(threads)
    index = faiss.read_index(str(folder / "index.faiss"))
    return Graph(index, Bitmaps(options["attributes"], index.ntotal))
