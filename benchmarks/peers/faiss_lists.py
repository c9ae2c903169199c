"""faiss: lists of 4-bit codes behind a learned rotation, the best scored again at 16 bits in memory."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from benchmarks.peers.blocks import blocks, list_count
from benchmarks.peers.worker import TINY_ROWS, K

PACKAGES = ("faiss-cpu", "numpy")
PROBES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
CANDIDATES = (100, 200)


def build(vectors: Any, folder: Path, threads: int, _options: dict[str, Any]) -> None:
    faiss.omp_set_num_threads(threads)
    rows, dimension = vectors.shape
    quantisers = max(2, 2 * round(dimension / 12))
    rotated = quantisers * (dimension // quantisers)
    lists = list_count(rows)
    name = f"OPQ{quantisers}_{rotated},IVF{lists},PQ{quantisers}x4fs,Refine(SQfp16)"
    index = faiss.index_factory(dimension, name, faiss.METRIC_INNER_PRODUCT)
    # By default the rotation is fitted to 8-bit codes, which this index does not use.
    rotation = faiss.downcast_VectorTransform(faiss.downcast_index(index.base_index).chain.at(0))
    codes = faiss.ProductQuantizer(rotated, quantisers, 4)
    rotation.pq = codes
    if rows <= TINY_ROWS:
        rotation.niter = 1
    sample = np.random.default_rng(1).permutation(rows)[: 64 * lists]
    index.train(vectors[np.sort(sample)].astype("float32"))
    for block in blocks(vectors):
        index.add(block)
    faiss.write_index(index, str(folder / "index.faiss"))


class Lists:
    def __init__(self, index: Any) -> None:
        self.index = index
        self.refine = faiss.downcast_index(index)
        self.ivf = faiss.extract_index_ivf(faiss.downcast_index(self.refine.base_index))
        probes = [probe for probe in PROBES if probe <= self.ivf.nlist] or [self.ivf.nlist]
        self.settings = [{"nprobe": n, "candidates": count} for count in CANDIDATES for n in probes]
        a_row = self.ivf.code_size + 8 + 2 * index.d
        tables = 4 * index.d * (self.ivf.nlist + index.d)
        self.ram_bytes = index.ntotal * a_row + tables

    def prepare(self, setting: dict[str, Any]) -> Any:
        self.ivf.nprobe = setting["nprobe"]
        self.refine.k_factor = setting["candidates"] / K
        search = self.index.search

        def one(vector: Any) -> Any:
            return search(vector[None], K)[1][0]

        def many(batch: Any) -> Any:
            return search(batch, K)[1]

        return one, many

    def close(self) -> None:
        del self.ivf, self.refine, self.index


def open_index(folder: Path, threads: int, _options: dict[str, Any]) -> Lists:
    faiss.omp_set_num_threads(threads)
    return Lists(faiss.read_index(str(folder / "index.faiss")))
