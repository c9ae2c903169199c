"""Bitmaps for systems that have no attributes of their own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.peers.filtered_where import Columns, Mask, Where, read_attributes

KEPT = 2_000


class Bitmaps:
    """Answer where expressions; keep the attributes, and some of the last masks."""

    def __init__(self, attributes: str | Path, rows: int) -> None:
        self.columns = Columns(read_attributes(attributes, rows))
        self._kept: dict[str, Any] = {}

    def mask(self, where: Where) -> Mask:
        """Return which rows are allowed."""
        key = json.dumps(where)
        if key not in self._kept:
            if len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = np.packbits(self.columns.mask(where), bitorder="little")
        bits: Any = np.unpackbits(self._kept[key], count=self.columns.rows, bitorder="little")
        return bits.astype(np.bool_)
