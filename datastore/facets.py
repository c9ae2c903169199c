"""Count the values of a field among allowed passages."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.columns import Column, Counts, ListColumn, ScalarColumn
from compactds.datastore.columns_values import Codes
from compactds.datastore.segment import Segment
from compactds.datastore.segment_filter import SegmentFilter

Counted = dict[Any, int]

_LIKELY = 4
"""How many times as many elements as are wanted are counted to see what it takes to be among them."""
_FEW = 16
"""Of fewer allowed rows than one in so many, the elements are counted at once: totals say little of them."""
_SMALL = 255
_WORTH_CHOOSING = 3
"""Counting chosen elements takes so many times as long as counting all, by their rows."""


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
    if most is None:
        counts = column.counts(allowed)
        codes = np.flatnonzero(counts)
        counts = counts[codes]
    elif allowed is None or isinstance(column, ScalarColumn):
        codes, counts = _leading(column.counts(allowed), most)
    else:
        codes, counts = _leading_elements(column, allowed, most)
    return {
        column.values.value(code): count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)
    }


def _leading(counts: Counts, most: int) -> tuple[Codes, Counts]:
    """Return the codes of the `most` largest counts and these, largest first; zeros do not count."""
    least = max(1, _largest(counts, most))
    codes = np.flatnonzero(counts >= least)
    # Ascending codes are ascending values, so a stable sort breaks ties as the answer does.
    codes = codes[np.argsort(-counts[codes], kind="stable")[:most]]
    return codes, counts[codes]


def _leading_elements(column: ListColumn, allowed: Bitmap, most: int) -> tuple[Codes, Counts]:
    """Return what `_leading` does for the elements of lists, most of which need not be counted.

    No element is in more allowed rows than in rows. So once `most` elements are found to be in so many
    allowed rows, only those that are in as many rows altogether can be among the leading ones.
    """
    if allowed.count * _FEW < allowed.length:
        codes, counts = column.elements_in(allowed)
        places, counts = _leading(counts, most)
        return codes[places], counts
    totals = column.counts(None)
    likely = np.flatnonzero(totals >= max(1, _largest(totals, _LIKELY * most)))
    least = _largest(column.counts_of(likely, allowed), most)
    candidates = np.flatnonzero(totals >= least)
    if not least or totals[candidates].sum() * _WORTH_CHOOSING > totals.sum():
        return _leading(column.counts(allowed), most)
    places, counts = _leading(column.counts_of(candidates, allowed), most)
    return candidates[places], counts


def _largest(counts: Counts, place: int) -> int:
    """Return the largest count but `place` - 1, 0 if there are fewer.

    Most counts are small: those are counted by size, which takes less than to sort them in part.
    """
    if place > len(counts):
        return 0
    sizes = np.bincount(np.minimum(counts, _SMALL), minlength=_SMALL + 1)
    at_least = np.cumsum(sizes[::-1])[::-1]
    if at_least[_SMALL] < place:
        return int(np.flatnonzero(at_least >= place)[-1])
    large = counts[counts >= _SMALL]
    return int(np.partition(large, len(large) - place)[len(large) - place])


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
