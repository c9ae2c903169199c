"""The HNSW index of hnswlib: full vectors and a graph in memory. Fast where memory is plenty."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np

from compactds.datastore.ann.base import NO_ROW, Rows, Scores
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import Vectors

LINKS = 16
CONSTRUCTION_BEAM = 200
MICROSECONDS_PER_NUMBER = 4.5e-4


@dataclass(frozen=True, slots=True)
class HnswIndex:
    """Search a graph; effort is the beam width.

    hnswlib keeps its beam width on the index, where one search would change another's. It also never
    searches with a beam narrower than the number of neighbours asked for, so this index leaves the
    setting at its least and asks for as many neighbours as the beam is wide.

    It does not filter: hnswlib's filter is a Python callback for every row visited, and a graph loses
    recall when few rows are allowed.
    """

    index: Any
    dimension: int
    exact: bool = False
    filters: bool = False
    efforts: tuple[int, ...] = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)

    @property
    def ram_bytes(self) -> int:
        """Return the size of vectors and links."""
        return hnsw_ram_bytes(int(self.index.element_count), self.dimension)

    def worth(self, effort: int) -> float:
        """Return about how many vectors a beam of this width compares."""
        return min(float(effort * LINKS), float(self.index.element_count))

    def cost_us(self, effort: int) -> float:
        """Return about how many microseconds a beam of this width takes: a model, not a measurement."""
        return effort * LINKS * self.dimension * MICROSECONDS_PER_NUMBER

    def search(
        self,
        queries: Vectors,
        count: int,
        *,
        effort: int,
        allowed: Bitmap | None = None,
    ) -> tuple[Scores, Rows]:
        """Return the `count` best rows the beam met, for every query."""
        if allowed is not None:
            raise ValueError("an HNSW index does not filter")
        beam = min(max(effort, count), int(self.index.element_count))
        rows = np.full((len(queries), count), NO_ROW, dtype=np.int64)
        scores = np.full((len(queries), count), -np.inf, dtype=np.float32)
        try:
            self._fill(rows, scores, queries, beam)
        except RuntimeError:  # some query reaches fewer nodes than the beam is wide
            for place in range(len(queries)):
                part = slice(place, place + 1)
                self._fill_within_reach(rows[part], scores[part], queries[part], beam)
        return scores, rows

    def _fill(self, rows: Rows, scores: Scores, queries: Vectors, beam: int) -> None:
        labels, distances = self.index.knn_query(queries, k=beam, num_threads=1)
        found = min(rows.shape[1], beam)
        rows[:, :found] = labels[:, :found].astype(np.int64)
        scores[:, :found] = 1.0 - distances[:, :found]

    def _fill_within_reach(self, rows: Rows, scores: Scores, query: Vectors, beam: int) -> None:
        """Narrow the beam until the part of the graph that the query reaches fills it."""
        while beam:
            try:
                return self._fill(rows, scores, query, beam)
            except RuntimeError:
                beam //= 2
        return None


def hnsw_ram_bytes(rows: int, dimension: int) -> int:
    """Return what hnswlib holds for `rows` vectors: float32 values, links of level 0, label, level."""
    return rows * (4 * dimension + 8 * LINKS + 4 + 8 + 12)


def build_hnsw(path: Path, blocks: Iterator[Vectors], *, dimension: int, rows: int) -> None:
    """Write an HNSW index of all vectors in `blocks`, in order.

    Vectors are added by one thread: with more, the graph depends on timing, and two builds of one
    corpus would differ.
    """
    index = hnswlib.Index(space="ip", dim=dimension)
    index.init_index(max_elements=rows, M=LINKS, ef_construction=CONSTRUCTION_BEAM, random_seed=100)
    for block in blocks:
        index.add_items(block, num_threads=1)
    index.save_index(str(path))


def open_hnsw(path: Path, *, dimension: int) -> HnswIndex:
    """Read an HNSW index into memory; raise RuntimeError for a file that is not one."""
    index = hnswlib.Index(space="ip", dim=dimension)
    index.load_index(str(path))
    index.set_ef(1)
    return HnswIndex(index, dimension)
