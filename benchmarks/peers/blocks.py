"""Read vectors piece by piece, so that a build holds what its library keeps and little else."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 8_192
MUTEX_BYTES, MAP_ENTRY_BYTES = 40, 40


def blocks(vectors: Any, rows: int = BLOCK_ROWS) -> Iterator[NDArray[np.float32]]:
    """Yield all vectors in order, as float32."""
    for start in range(0, len(vectors), rows):
        yield np.ascontiguousarray(vectors[start : start + rows], dtype=np.float32)


def list_count(rows: int) -> int:
    """Return the number of lists an inverted index gets: four times the square root of its rows."""
    return max(1, min(round(4 * rows**0.5), rows // 39))


def graph_bytes(rows: int, vector_bytes: int, links: int = 16) -> int:
    """Return what hnswlib holds: vector, links, label; pointer, level, mutex and label's place a row."""
    level_0 = vector_bytes + 4 * (2 * links + 1) + 8
    above = 4 * (links + 1) / (links - 1)
    return int(rows * (level_0 + above + 8 + 4 + MUTEX_BYTES + MAP_ENTRY_BYTES))
