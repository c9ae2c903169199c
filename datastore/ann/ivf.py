"""The IVF index of faiss: a rotation, lists of neighbours, and a 4-bit product-quantised code a row.

A row costs half a byte a sub-quantiser and its eight-byte id. The codes only propose candidates; the
vectors on disk decide.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from compactds.datastore.ann.base import Mask, Rows, Scores
from compactds.datastore.ann.flat import row_selector
from compactds.datastore.encoders.base import Vectors

TRAINING_ROWS_PER_LIST = 64
LEAST_TRAINING_ROWS_PER_LIST = 39
DIMENSIONS_PER_CODE = 6
CODE_BITS = 4
ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class IvfIndex:
    """Search the lists nearest to a query; effort is how many lists."""

    transform: Any
    ivf: Any
    whole: Any
    exact: bool = False
    filters: bool = True

    @property
    def efforts(self) -> tuple[int, ...]:
        """Return powers of the square root of two, up to all lists."""
        lists = int(self.ivf.nlist)
        steps = {min(lists, round(math.sqrt(2) ** step)) for step in range(2, 2 * lists.bit_length() + 1)}
        return tuple(sorted(steps))

    @property
    def ram_bytes(self) -> int:
        """Return the size of codes, ids and centroids."""
        return ivf_ram_bytes(
            int(self.ivf.ntotal), int(self.transform.d_in), int(self.ivf.nlist), int(self.ivf.code_size)
        )

    def search(
        self, queries: Vectors, count: int, *, effort: int, allowed: Mask | None = None
    ) -> tuple[Scores, Rows]:
        """Return the `count` best allowed rows of the `effort` nearest lists, for every query.

        With a mask, more lists are probed: as many as hold the number of allowed rows that the same
        effort meets without one, were they spread evenly.
        """
        lists = int(self.ivf.nlist)
        probes = min(max(1, effort), lists)
        parameters = faiss.SearchParametersIVF(nprobe=probes)
        if allowed is not None:
            share = max(np.count_nonzero(allowed) / len(allowed), 1e-9)
            parameters = faiss.SearchParametersIVF(
                nprobe=min(lists, math.ceil(probes / share)), sel=row_selector(allowed)
            )
        scores, rows = self.ivf.search(self.transform.apply(queries), count, params=parameters)
        return scores, rows


def code_shape(dimension: int) -> tuple[int, int]:
    """Return (sub-quantisers, rotated dimension) for vectors of `dimension`.

    About six dimensions share four bits. The rotation may drop the few least dimensions that do not
    divide evenly.
    """
    quantisers = max(2, 2 * round(dimension / DIMENSIONS_PER_CODE / 2))
    return quantisers, quantisers * (dimension // quantisers)


def list_count(rows: int) -> int:
    """Return the number of lists for `rows` vectors: four times the square root, as faiss advises."""
    most = max(1, rows // LEAST_TRAINING_ROWS_PER_LIST)
    return min(most, max(1, round(4 * math.sqrt(rows))))


def ivf_ram_bytes(rows: int, dimension: int, lists: int, code_bytes: int) -> int:
    """Return what an IVF index holds: code and id a row, float32 centroids, the rotation."""
    return rows * (code_bytes + ID_BYTES) + lists * dimension * 4 + dimension * dimension * 4


def build_ivf(
    path: Path, blocks: Iterator[Vectors], *, dimension: int, sample: Vectors, lists: int
) -> dict[str, int]:
    """Train on `sample`, add all vectors in `blocks` in order, write the index; return its parameters."""
    quantisers, rotated = code_shape(dimension)
    factory = f"OPQ{quantisers}_{rotated},IVF{lists},PQ{quantisers}x4fs"
    index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    rotation = faiss.downcast_VectorTransform(index.chain.at(0))
    codes = faiss.ProductQuantizer(rotated, quantisers, CODE_BITS)
    codes.cp.min_points_per_centroid = 1
    rotation.pq = codes  # by default the rotation is fitted to 8-bit codes, which this index does not use
    ivf = faiss.extract_index_ivf(index)
    ivf.cp.min_points_per_centroid = 1  # `list_count` has seen to it; faiss would write to stderr
    index.train(sample)
    for block in blocks:
        index.add(block)
    faiss.write_index(index, str(path))
    return {"lists": lists, "code_bytes": quantisers // 2, "rotated_dimension": rotated}


def open_ivf(path: Path) -> IvfIndex:
    """Read an IVF index into memory; raise RuntimeError for a file that is not one."""
    whole = faiss.read_index(str(path))
    return IvfIndex(
        transform=faiss.downcast_VectorTransform(whole.chain.at(0)),
        ivf=faiss.extract_index_ivf(whole),
        whole=whole,
    )
