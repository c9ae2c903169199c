"""Count the values of a field among allowed passages."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from compactds.datastore.ann.base import Mask
from compactds.datastore.segment import Segment


def count_values(
    name: str, masks: Sequence[tuple[Segment, Mask | None]], limit: int
) -> list[tuple[Any, int]]:
    """Return the `limit` most frequent values of field `name`, with their counts, over all segments.

    A list field counts each of its elements; missing values are not counted. Values are JSON values,
    most frequent first, equal counts ordered by value.
    """
    counts: dict[Any, int] = {}
    for segment, mask in masks:
        column = segment.attributes.column(name)
        allowed = column if mask is None else column.filter(mask)
        if pa.types.is_list(allowed.type):
            allowed = allowed.flatten()
        for entry in pc.value_counts(allowed.drop_null()).to_pylist():
            value = entry["values"]
            value = value.isoformat() if hasattr(value, "isoformat") else value
            counts[value] = counts.get(value, 0) + entry["counts"]
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]
