"""Compare the signatures of a corpus: which documents repeat an earlier one, and how closely.

Memory does not grow with the corpus, but for one bit a document: DuckDB groups signatures within a limit
and spills to disk, and similarities are computed pair by pair from sets that lie in files.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from compactds.filters.corpus.duplicates import (
    DuplicatesError,
    DuplicateSettings,
    fingerprint,
    is_signed,
    jaccard,
    shingles,
)
from compactds.filters.corpus.overlap_words import Hashes

SORT_MEMORY = "256MB"
MOST_IN_BUCKET = 64
"""In a bucket of more documents, each is compared with only this many of the first of them."""

DUPLICATES_SCHEMA = pa.schema(
    [("ordinal", pa.int64()), ("kept", pa.int64()), ("similarity", pa.float64()), ("kind", pa.string())]
)

_ROWS_AT_ONCE = 4096

_EXACT = """
    SELECT ordinal, kept FROM (
        SELECT ordinal, min(ordinal) OVER (PARTITION BY words_high, words_low) AS kept
        FROM read_parquet($signatures)
    ) WHERE ordinal <> kept
"""
_PAIRS = """
    WITH firsts AS (
        SELECT {band} AS bucket, ordinal FROM read_parquet($signatures) AS signed
        ANTI JOIN read_parquet($exact) AS exact USING (ordinal)
    ), ranked AS (
        SELECT bucket, ordinal, row_number() OVER (PARTITION BY bucket ORDER BY ordinal) AS place
        FROM firsts AS members
        SEMI JOIN (SELECT bucket FROM firsts GROUP BY bucket HAVING count(*) > 1) AS shared USING (bucket)
    )
    SELECT earlier.ordinal AS earlier, later.ordinal AS later
    FROM ranked AS earlier JOIN ranked AS later USING (bucket)
    WHERE earlier.place < later.place AND earlier.place <= $most
"""
_CANDIDATES = """
    SELECT ordinal FROM read_parquet($signatures) AS signed SEMI JOIN (
        SELECT earlier AS ordinal FROM read_parquet($pairs) UNION SELECT later FROM read_parquet($pairs)
    ) AS paired USING (ordinal)
"""
_PLACED_PAIRS = """
    SELECT earlier, later, one.shard, one.start, one.size, two.shard, two.start, two.size
    FROM (SELECT DISTINCT earlier, later FROM read_parquet($pairs))
    JOIN read_parquet($places) AS one ON one.ordinal = earlier
    JOIN read_parquet($places) AS two ON two.ordinal = later
    ORDER BY later, earlier
"""
_ALL = """
    SELECT ordinal, kept, similarity, 'near' AS kind FROM read_parquet($near)
    UNION ALL
    SELECT exact.ordinal, coalesce(near.kept, exact.kept), coalesce(near.similarity, 1.0),
        CASE WHEN near.kept IS NULL THEN 'exact' ELSE 'near' END
    FROM read_parquet($exact) AS exact LEFT JOIN read_parquet($near) AS near ON near.ordinal = exact.kept
    ORDER BY ordinal
"""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Say that a document repeats one that is kept; both are named by their ordinals.

    `similarity` is the exact Jaccard similarity with the kept one, 1 if all words are the same.
    """

    ordinal: int
    kept: int
    similarity: float
    kind: Literal["exact", "near"]


@dataclass(frozen=True, slots=True)
class SignedShard:
    """Name a file of signatures, and how to read the (ordinal, text) pairs that were signed once more.

    Texts are read only of shards with candidates, to compute their exact similarity.
    """

    path: Path
    read: Callable[[], Iterable[tuple[int, str]]]


def find_duplicates(
    shards: Sequence[SignedShard],
    folder: Path,
    settings: DuplicateSettings,
    *,
    memory: str = SORT_MEMORY,
    threads: int = 1,
) -> Path:
    """Return a Parquet file in `folder` of the documents to drop, sorted by ordinal (DUPLICATES_SCHEMA).

    In the order of ordinals a document is dropped if it has the same words as an earlier one, or is at
    least as similar as the threshold to an earlier one that is kept; the first of these is named. So
    every dropped document has a kept one that it was compared with, and the first of all copies stays,
    whatever the shards, the workers and their order. `folder` is for this alone: finished steps in it are
    used again, unless signatures or settings are others. Raises DuplicatesError if a shard is not signed
    with these settings, an ordinal occurs twice, or a text is no longer what was signed.
    """
    for shard in shards:
        if not is_signed(shard.path, settings):
            raise DuplicatesError(
                f"{shard.path} does not hold signatures made with these settings.",
                value=str(shard.path),
                remedy="Sign the shard again.",
            )
    _open_folder(folder, shards, settings)
    done = folder / "duplicates.parquet"
    if done.exists() or not shards:
        return done if shards else _write(done, [])
    config = {"memory_limit": memory, "threads": threads, "temp_directory": str(folder / "duckdb")}
    with duckdb.connect(config=config) as connection:
        search = _Search(connection, shards, folder, settings)
        search.check_ordinals()
        search.select(_EXACT, folder / "exact.parquet")
        search.find_pairs()
        search.gather_shingles()
        search.compare()
        search.select(_ALL, done)
    for path in folder.iterdir():
        if path not in (done, folder / "inputs.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return done


def read_duplicates(path: Path) -> Iterator[Duplicate]:
    """Yield the rows of a file of duplicates in the order of their ordinals."""
    with pq.ParquetFile(path) as file:
        for rows in file.iter_batches(_ROWS_AT_ONCE):
            for row in rows.to_pylist():
                yield Duplicate(**row)


class _Search:
    """Run the steps of a search in its folder; each leaves a file and is not done again."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        shards: Sequence[SignedShard],
        folder: Path,
        settings: DuplicateSettings,
    ) -> None:
        self._connection = connection
        self._shards = shards
        self._folder = folder
        self._settings = settings
        self._files = {
            "signatures": [str(shard.path) for shard in shards],
            "exact": str(folder / "exact.parquet"),
            "near": str(folder / "near.parquet"),
            "pairs": str(folder / "pairs_*.parquet"),
            "places": str(folder / "places_*.parquet"),
        }

    def check_ordinals(self) -> None:
        """Refuse ordinals given twice."""
        query = "SELECT ordinal FROM read_parquet($signatures) GROUP BY ordinal HAVING count(*) > 1 LIMIT 1"
        twice = self._run(query).fetchone()
        if twice:
            raise DuplicatesError(
                f"two documents have the ordinal {twice[0]}.",
                value=twice[0],
                remedy="Number the documents of all shards in one sequence.",
            )

    def select(self, query: str, path: Path, **given: object) -> None:
        """Write what a query yields to a file, in one step."""
        if path.exists():
            return
        partial = path.with_name(path.name + ".partial")
        self._run(f"COPY ({query}) TO '{_quoted(partial)}' (FORMAT parquet, COMPRESSION zstd)", **given)
        partial.replace(path)

    def find_pairs(self) -> None:
        """Write the pairs of documents that share a bucket, a file for each band."""
        for band in range(self._settings.bands[0]):
            path = self._folder / f"pairs_{band}.parquet"
            self.select(_PAIRS.format(band=f"band_{band}"), path, most=MOST_IN_BUCKET)

    def gather_shingles(self) -> None:
        """Write the shingles of the documents in pairs, and where they lie, two files for each shard."""
        for number, shard in enumerate(self._shards if self._settings.near else ()):
            places = self._folder / f"places_{number}.parquet"
            if places.exists():
                continue
            query = self._run(_CANDIDATES, signatures=[str(shard.path)])
            wanted = {ordinal for (ordinal,) in query.fetchall()}
            rows = self._write_shingles(number, shard, wanted) if wanted else []
            schema = pa.schema([(name, pa.int64()) for name in ("ordinal", "shard", "start", "size")])
            partial = places.with_name(places.name + ".partial")
            columns = list(zip(*rows, strict=True)) or [()] * 4
            pq.write_table(pa.table([pa.array(c, pa.int64()) for c in columns], schema=schema), partial)
            partial.replace(places)

    def _write_shingles(self, number: int, shard: SignedShard, wanted: set[int]) -> list[tuple[int, ...]]:
        rows: list[tuple[int, ...]] = []
        start = 0
        with (self._folder / f"shingles_{number}.u64").open("wb") as file:
            for ordinal, text in shard.read():
                if ordinal in wanted:
                    found = shingles(text, self._settings.words)
                    file.write(found.astype("<u8").tobytes())
                    rows.append((ordinal, number, start, len(found)))
                    start += len(found)
        missing = wanted - {row[0] for row in rows}
        if missing:
            raise DuplicatesError(
                f"{len(missing)} signed documents are not read again, such as number {min(missing)}.",
                value=min(missing),
                remedy=f"Read the shard as it was signed in {shard.path}.",
            )
        return rows

    def compare(self) -> None:
        """Write the documents that are similar to an earlier one that is kept."""
        near = self._folder / "near.parquet"
        if near.exists():
            return
        _write(near, _compared(self._placed_pairs(), self._folder, self._settings.threshold))

    def _placed_pairs(self) -> Iterator[tuple[int, ...]]:
        if not self._settings.near:
            return
        query = self._run(_PLACED_PAIRS)
        while rows := query.fetchmany(_ROWS_AT_ONCE):
            yield from rows

    def _run(self, query: str, **given: object) -> duckdb.DuckDBPyConnection:
        known = {**self._files, **given}
        return self._connection.execute(query, {name: known[name] for name in known if f"${name}" in query})


def _compared(pairs: Iterable[tuple[int, ...]], folder: Path, threshold: float) -> Iterator[Duplicate]:
    """Yield the near-duplicates among pairs in the order of their later, then of their earlier document."""
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


def _write(path: Path, duplicates: Iterable[Duplicate]) -> Path:
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
    return path


def _open_folder(folder: Path, shards: Sequence[SignedShard], settings: DuplicateSettings) -> None:
    """Make the folder, emptied of what was found for other signatures or settings."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [[str(shard.path), shard.path.stat().st_size, shard.path.stat().st_mtime_ns] for shard in shards]
    inputs = json.dumps({"settings": fingerprint(settings), "most": MOST_IN_BUCKET, "files": files})
    listing = folder / "inputs.json"
    if listing.exists() and listing.read_text() == inputs:
        return
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    partial = folder / "inputs.partial"
    partial.write_text(inputs)
    partial.replace(listing)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
