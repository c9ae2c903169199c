"""Which documents repeat which: decided pair by pair in order, and kept in a Parquet file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from compactds.filters.corpus.duplicates import jaccard
from compactds.filters.corpus.overlap_words import Hashes

DUPLICATES_SCHEMA = pa.schema(
    [("ordinal", pa.int64()), ("kept", pa.int64()), ("similarity", pa.float64()), ("kind", pa.string())]
)

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Say that a document repeats one that is kept; both are named by their ordinals.

    `similarity` is the exact Jaccard similarity with the kept one, 1 if all words are the same.
    """

    ordinal: int
    kept: int
    similarity: float
    kind: Literal["exact", "near"]


def read_duplicates(path: Path) -> Iterator[Duplicate]:
    """Yield the rows of a file of duplicates in the order of their ordinals."""
    with pq.ParquetFile(path) as file:
        for rows in file.iter_batches(_ROWS_AT_ONCE):
            for row in rows.to_pylist():
                yield Duplicate(**row)


def compared(pairs: Iterable[tuple[int, ...]], folder: Path, threshold: float) -> Iterator[Duplicate]:
    """Yield the near-duplicates among pairs, which come in the order of their later, then earlier document.

    A pair has two ordinals, and for each document the shard of its shingles, their place and their number.
    """
    dropped = _Ordinals()
    known, own = -1, np.empty(0, np.uint64)
    for earlier, later, *places in pairs:
        if later in dropped or earlier in dropped:
            continue
        if later != known:
            known, own = later, _read_shingles(folder, *places[3:])
        size = places[2]
        if min(size, len(own)) < threshold * max(size, len(own)):
            continue
        similarity = jaccard(_read_shingles(folder, *places[:3]), own)
        if similarity >= threshold:
            dropped.add(later)
            yield Duplicate(later, earlier, similarity, "near")


class _Ordinals:
    """Hold a set of ordinals in a bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def __contains__(self, ordinal: int) -> bool:
        place = ordinal >> 3
        return place < len(self._bits) and bool(self._bits[place] >> (ordinal & 7) & 1)

    def add(self, ordinal: int) -> None:
        place = ordinal >> 3
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 - len(self._bits)))
        self._bits[place] |= 1 << (ordinal & 7)


def _read_shingles(folder: Path, shard: int, start: int, size: int) -> Hashes:
    return np.fromfile(folder / f"shingles_{shard}.u64", "<u8", size, offset=8 * start)


def write_duplicates(path: Path, duplicates: Iterable[Duplicate]) -> None:
    """Write duplicates to a Parquet file (DUPLICATES_SCHEMA) in the order given, in one step."""
    partial = path.with_name(path.name + ".partial")
    rows: list[tuple[object, ...]] = []
    with pq.ParquetWriter(partial, DUPLICATES_SCHEMA, compression="zstd") as writer:

        def flush() -> None:
            columns = list(zip(*rows, strict=True)) or [()] * 4
            writer.write_table(
                pa.table(
                    [pa.array(c, t) for c, t in zip(columns, DUPLICATES_SCHEMA.types, strict=True)],
                    schema=DUPLICATES_SCHEMA,
                )
            )
            rows.clear()

        for duplicate in duplicates:
            rows.append((duplicate.ordinal, duplicate.kept, duplicate.similarity, duplicate.kind))
            if len(rows) == _ROWS_AT_ONCE:
                flush()
        flush()
    partial.replace(path)
