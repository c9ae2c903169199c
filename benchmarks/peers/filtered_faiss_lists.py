"""faiss: lists of 4-bit codes with a bitmap selector, the best scored again at 16 bits."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from benchmarks.peers import faiss_lists
from benchmarks.peers.filtered_bitmaps import Bitmaps
from benchmarks.peers.filtered_where import Where
from benchmarks.peers.worker import K

PACKAGES = faiss_lists.PACKAGES
PROBES = (16, 32, 64, 128, 512)
CANDIDATES = 100

build = faiss_lists.build


class Lists(faiss_lists.Lists):
    def __init__(self, index: Any, bitmaps: Bitmaps) -> None:
        super().__init__(index)
        self.bitmaps = bitmaps
        every = self.ivf.nlist
        probes = sorted({*(probe for probe in PROBES if probe < every), every})
        self.settings = [{"nprobe": probe, "candidates": CANDIDATES} for probe in probes]

    def prepare_filtered(self, setting: dict[str, Any], where: Where | None) -> Any:
        if where is None:
            return self.prepare(setting)[0]
        # A selector is heeded by the lists only, not by what scores their best again.
        selector = faiss.IDSelectorBitmap(np.packbits(self.bitmaps.mask(where), bitorder="little"))
        lists = faiss.SearchParametersIVF(nprobe=setting["nprobe"], sel=selector)
        rotated = faiss.SearchParametersPreTransform(index_params=lists)
        parameters = faiss.IndexRefineSearchParameters(
            k_factor=setting["candidates"] / K, base_index_params=rotated
        )

        def one(vector: Any) -> Any:
            return self.index.search(vector[None], K, params=parameters)[1][0]

        return one


def open_index(folder: Path, threads: int, options: dict[str, Any]) -> Lists:
    faiss.omp_set_num_threads(threads)
    index = faiss.read_index(str(folder / "index.faiss"))
    return Lists(index, Bitmaps(options["attributes"], index.ntotal))
