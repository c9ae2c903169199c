"""What an ANN index is: an immutable in-memory structure that proposes candidate rows."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import Vectors

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]

NO_ROW = -1
"""Fills the places of a result for which the index found no row."""


class AnnIndex(Protocol):
    """Propose candidates by inner product; higher scores are better.

    Searching changes nothing in the index, so that any number of threads may search at once, each
    with its own effort.
    """

    @property
    def exact(self) -> bool:
        """Tell whether every search is exhaustive over the vectors the index was given."""
        ...

    @property
    def filters(self) -> bool:
        """Tell whether `search` accepts a set of allowed rows."""
        ...

    @property
    def ram_bytes(self) -> int:
        """Return how much memory the index holds."""
        ...

    @property
    def efforts(self) -> tuple[int, ...]:
        """Return the ladder of efforts worth calibrating, cheapest first; empty if it has none."""
        ...

    def worth(self, effort: int) -> float:
        """Return about how many rows a search of this effort meets."""
        ...

    def cost_us(self, effort: int) -> float:
        """Return about how many microseconds a search of this effort takes: a model, not a measurement."""
        ...

    def search(
        self,
        queries: Vectors,
        count: int,
        *,
        effort: int,
        allowed: Bitmap | None = None,
    ) -> tuple[Scores, Rows]:
        """Return up to `count` rows a query, best first: scores and row numbers, shape (n, count).

        `effort` is the index's own measure of work (lists probed, or beam width). Rows outside
        `allowed` are never returned; missing places hold NO_ROW.
        """
        ...
