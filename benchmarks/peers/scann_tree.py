"""ScaNN as its documentation advises: a tree, anisotropic hashing of two dimensions a code, reordering."""

from pathlib import Path
from typing import Any

import numpy as np
import scann
from benchmarks.peers.blocks import list_count
from benchmarks.peers.worker import K

PACKAGES = ("scann", "numpy")
LEAVES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
CANDIDATES = (50, 100, 200)


def build(vectors: Any, folder: Path, threads: int, _options: dict[str, Any]) -> None:
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    leaves = list_count(len(rows))
    searcher = (
        scann.scann_ops_pybind.builder(rows, K, "dot_product")
        .set_n_training_threads(threads)
        .tree(num_leaves=leaves, num_leaves_to_search=min(50, leaves), training_sample_size=len(rows))
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(100)
        .build()
    )
    searcher.serialize(str(folder))
    np.save(folder / "shape.npy", [*rows.shape, leaves])


class Tree:
    def __init__(self, searcher: Any, shape: Any) -> None:
        rows, dimension, leaves = (int(count) for count in shape)
        self.searcher = searcher
        probes = [count for count in LEAVES if count <= leaves] or [leaves]
        self.settings = [{"leaves": n, "candidates": count} for count in CANDIDATES for n in probes]
        code_bytes = -(-dimension // 4)  # 4 bits for each two dimensions
        self.ram_bytes = rows * (4 * dimension + code_bytes + 4) + 4 * leaves * dimension

    def prepare(self, setting: dict[str, Any]) -> Any:
        search, in_parallel = self.searcher.search, self.searcher.search_batched_parallel
        options = {
            "final_num_neighbors": K,
            "pre_reorder_num_neighbors": setting["candidates"],
            "leaves_to_search": setting["leaves"],
        }

        def one(vector: Any) -> Any:
            return search(vector, **options)[0]

        def many(batch: Any) -> Any:
            return in_parallel(batch, batch_size=32, **options)[0]

        return one, many

    def close(self) -> None:
        del self.searcher


def open_index(folder: Path, threads: int, _options: dict[str, Any]) -> Tree:
    searcher = scann.scann_ops_pybind.load_searcher(str(folder))
    searcher.set_num_threads(threads)
    return Tree(searcher, np.load(folder / "shape.npy"))
