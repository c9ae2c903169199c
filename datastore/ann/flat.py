"""The flat index: every vector in memory as it is, every search exhaustive. Right for small stores."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss

from compactds.datastore.ann.base import Rows, Scores
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import Vectors

MICROSECONDS_PER_NUMBER = 5e-5


@dataclass(frozen=True, slots=True)
class FlatIndex:
    """Search all vectors by inner product, with faiss."""

    index: Any
    exact: bool = True
    filters: bool = True
    efforts: tuple[int, ...] = ()

    @property
    def ram_bytes(self) -> int:
        """Return the size of the float32 vectors."""
        return int(self.index.ntotal) * int(self.index.d) * 4

    def worth(self, effort: int) -> float:
        """Return all rows, whatever the effort."""
        del effort
        return float(self.index.ntotal)

    def cost_us(self, effort: int) -> float:
        """Return about how many microseconds a search takes, whatever the effort."""
        del effort
        return int(self.index.ntotal) * int(self.index.d) * MICROSECONDS_PER_NUMBER

    def search(
        self,
        queries: Vectors,
        count: int,
        *,
        effort: int,
        allowed: Bitmap | None = None,
    ) -> tuple[Scores, Rows]:
        """Return the `count` best allowed rows of every query; `effort` makes no difference."""
        del effort
        parameters = (
            None if allowed is None else faiss.SearchParameters(sel=faiss.IDSelectorBitmap(allowed.bits))
        )
        scores, rows = self.index.search(queries, count, params=parameters)
        return scores, rows


def build_flat(path: Path, blocks: Iterator[Vectors], *, dimension: int) -> None:
    """Write a flat index of all vectors in `blocks`, in order."""
    index = faiss.IndexFlatIP(dimension)
    for block in blocks:
        index.add(block)
    faiss.write_index(index, str(path))


def open_flat(path: Path) -> FlatIndex:
    """Read a flat index into memory; raise RuntimeError for a file that is not one."""
    return FlatIndex(faiss.read_index(str(path)))
