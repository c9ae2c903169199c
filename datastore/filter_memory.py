"""Say what where expressions take in memory: columns, results, the map of an index's lists, copies of those.

None of it is taken before the first where expression. Columns are held as far as a limit goes, results in a
cache with a limit of its own; what a column takes is known once it was built, and bounded by its file before.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from compactds.datastore.ann.list_map import REMEMBERED_FILTERS, SAMPLED_ROWS
from compactds.datastore.ann.narrowed import limit_bytes
from compactds.datastore.attributes import AttributeColumns
from compactds.datastore.manifest import IndexRecord, SegmentRecord
from compactds.datastore.segment_filter import columns_limit_bytes, results_limit_bytes
from compactds.filters.schema import Schema

PARAMETERS_BYTES = 5_000
"""What is kept of a filter besides: its selector, and parameters of searches under it."""
HELD, MEASURED, AT_MOST = "held", "measured", "at most"
"""How the bytes of a field are known: it is in memory now, was built to see, or cannot take more."""


@dataclass(frozen=True, slots=True)
class FilterMemory:
    """Hold the most bytes that filters take.

    These are columns, results, the map of which list holds each row, and copies of lists for filters in
    steady use.
    """

    columns_bytes: int
    results_bytes: int
    list_map_bytes: int
    list_copies_bytes: int

    @property
    def total_bytes(self) -> int:
        """Return the most that all of it takes together."""
        return self.columns_bytes + self.results_bytes + self.list_map_bytes + self.list_copies_bytes


def filters_at_most(rows: int, index_bytes: int, lists: int) -> FilterMemory:
    """Return the most that filters on a segment of `rows` take; `lists` is 0 for an index without any."""
    map_bytes = list_map_bytes(rows, lists)
    copies_bytes = limit_bytes(index_bytes) if lists else 0
    return FilterMemory(columns_limit_bytes(rows), results_limit_bytes(rows), map_bytes, copies_bytes)


def list_map_bytes(rows: int, lists: int) -> int:
    """Return what it takes to know which list holds each row, once an IVF index is searched under a filter.

    Two bytes a row (four from 65,536 lists on), a sample of the rows, and for each of the last
    filters the rows it allows in each list.
    """
    if not lists:
        return 0
    number_bytes = 2 if lists <= 1 << 16 else 4
    sample = min(rows, SAMPLED_ROWS) * (8 + number_bytes)
    remembered = remembered_filters(rows) * (4 * lists + PARAMETERS_BYTES)
    return rows * number_bytes + 4 * lists + sample + remembered


def remembered_filters(rows: int) -> int:
    """Return of how many filters it is remembered what they leave of each list."""
    return min(REMEMBERED_FILTERS, results_limit_bytes(rows) // (rows // 8 + 1))


def lists_of(index: IndexRecord) -> int:
    """Return the number of lists of a segment's index, 0 for kinds without."""
    return int(index.parameters.get("lists", 0)) if index.kind == "ivf" else 0


def describe_filters(
    schema: Schema, segments: Iterable[tuple[SegmentRecord, AttributeColumns]], *, measure: bool
) -> dict[str, Any]:
    """Return what filters take in memory, as JSON data.

    `fields` holds the form, bytes and bytes a row of every field over all segments. With `measure`, columns
    that are not held are built one at a time and let go, which takes about a second for every million rows;
    without, `known` says "at most" for them. The other figures are limits.
    """
    opened = list(segments)
    limits = [
        filters_at_most(record.passages, record.index.ram_bytes, lists_of(record.index))
        for record, _ in opened
    ]
    rows = sum(record.passages for record, _ in opened)
    return {
        "fields": {
            name: _field(name, str(kind), [file for _, file in opened], rows, measure)
            for name, kind in schema.fields.items()
        },
        "columns_limit_bytes": sum(limit.columns_bytes for limit in limits),
        "results_limit_bytes": sum(limit.results_bytes for limit in limits),
        "list_map_bytes": sum(limit.list_map_bytes for limit in limits),
        "list_copies_limit_bytes": sum(limit.list_copies_bytes for limit in limits),
    }


def _field(
    name: str, kind: str, files: Sequence[AttributeColumns], rows: int, measure: bool
) -> dict[str, Any]:
    """Add up what a field takes in every segment."""
    found, known = [], HELD
    for file in files:
        memory, state = file.filter.held(name), HELD
        if memory is None and measure:
            (memory,), state = file.filter.measure([name]), MEASURED
        if memory is None:
            memory, state = file.filter.at_most(name), AT_MOST
        found.append(memory)
        known = max(known, state, key=(HELD, MEASURED, AT_MOST).index)
    total = sum(memory.ram_bytes for memory in found)
    return {
        "type": kind,
        "form": "; ".join(dict.fromkeys(memory.form for memory in found)),
        "ram_bytes": total,
        "bytes_per_row": round(total / max(rows, 1), 3),
        "known": known,
    }
