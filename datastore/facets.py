"""Count the values of a field among allowed passages."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compactds.datastore.attributes import SegmentFilter
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.columns import Column
from compactds.datastore.segment import Segment

Counted = dict[Any, int]


def count_values(
    name: str, allowed: Sequence[tuple[Segment, Bitmap | None]], limit: int
) -> list[tuple[Any, int]]:
    """Return the `limit` most frequent values of field `name`, with their counts, over all segments.

    `allowed` are the rows that count of each segment, None for all. A list field counts each element
    once a passage; missing values are not counted. Values are JSON values, most frequent first, equal
    counts ordered by value.
    """
    most = limit if len(allowed) == 1 else None
    counts: Counted = {}
    for segment, rows in allowed:
        for value, count in _in_segment(segment.attributes.filter, name, rows, most).items():
            counts[value] = counts.get(value, 0) + count
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]


def _in_segment(source: SegmentFilter, name: str, allowed: Bitmap | None, most: int | None) -> Counted:
    """Count the values in one segment: all, or at least the `most` frequent ones."""
    column = source.column(name)
    if column is None:
        return _from_file(source, name, allowed)
    return _from_column(column, allowed, most)


def _from_column(column: Column, allowed: Bitmap | None, most: int | None) -> Counted:
    counts = column.counts(allowed)
    codes = np.flatnonzero(counts)
    if most is not None and len(codes) > most:
        # Ascending codes are ascending values, so a stable sort breaks ties as the answer does.
        least = np.partition(counts[codes], len(codes) - most)[len(codes) - most]
        codes = codes[counts[codes] >= least]
        codes = codes[np.argsort(-counts[codes], kind="stable")[:most]]
    return {column.values.value(code): int(counts[code]) for code in codes.tolist()}


def _from_file(source: SegmentFilter, name: str, allowed: Bitmap | None) -> Counted:
    counts: Counted = {}
    start = 0
    for part in source.parts(name):
        stop = start + len(part)
        if allowed is not None:
            part = part.filter(pa.array(allowed.mask()[start:stop]))
        if pa.types.is_list(part.type):
            part = _distinct_elements(part)
        elif pa.types.is_floating(part.type):
            part = part.filter(pc.invert(pc.is_nan(part)))
        for entry in pc.value_counts(part.drop_null()).to_pylist():
            value = entry["values"]
            value = value.isoformat() if hasattr(value, "isoformat") else value
            counts[value] = counts.get(value, 0) + entry["counts"]
        start = stop
    return counts


def _distinct_elements(lists: pa.ListArray) -> pa.ChunkedArray:
    """Return the elements of all lists, each once a list."""
    pairs = pa.table({"list": pc.list_parent_indices(lists), "element": pc.list_flatten(lists)})
    return pairs.group_by(["list", "element"]).aggregate([]).column("element")
