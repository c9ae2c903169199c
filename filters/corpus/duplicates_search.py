"""Compare the signatures of a corpus: which documents repeat an earlier one, and how closely.

Memory does not grow with the corpus, but for one bit a document: DuckDB groups signatures within a limit
and spills to disk, and similarities are computed pair by pair from sets that lie in files.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from compactds.filters.corpus.duplicates import (
    DuplicatesError,
    DuplicateSettings,
    fingerprint,
    is_signed,
    shingles,
)
from compactds.filters.corpus.duplicates_pairs import compared, write_duplicates

SORT_MEMORY = "256MB"
MOST_IN_BUCKET = 64
"""In a bucket of more documents, each is compared with only this many of the first of them."""

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
_PAIRED = """
    SELECT earlier AS ordinal FROM read_parquet($pairs) UNION SELECT later FROM read_parquet($pairs)
    ORDER BY ordinal
"""
_CANDIDATES = """
    WITH signed AS (SELECT ordinal FROM read_parquet($signatures))
    SELECT ordinal FROM signed AS members SEMI JOIN (
        SELECT ordinal FROM read_parquet($paired)
        WHERE ordinal BETWEEN (SELECT min(ordinal) FROM signed) AND (SELECT max(ordinal) FROM signed)
    ) AS paired USING (ordinal)
"""
_PLACED_PAIRS = """
    SELECT earlier, later, one.shard, one.start, one.size,
        two.shard AS later_shard, two.start AS later_start, two.size AS later_size
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
    with these settings, an ordinal occurs twice, a signed document is not read again, or the disk is full.
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
    try:
        if not shards:
            write_duplicates(done, [])
        elif not done.exists():
            _search(shards, folder, settings, done, memory, threads)
    except duckdb.Error as error:
        raise DuplicatesError(
            f"the signatures cannot be compared in {folder}: {error}",
            value=str(folder),
            remedy="See that the disk has room, allow more memory, or sign the shards again.",
        ) from error
    for path in folder.iterdir():
        if path not in (done, folder / "inputs.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return done


def _search(
    shards: Sequence[SignedShard],
    folder: Path,
    settings: DuplicateSettings,
    done: Path,
    memory: str,
    threads: int,
) -> None:
    config = {"memory_limit": memory, "threads": threads, "temp_directory": str(folder / "duckdb")}
    with duckdb.connect(config=config) as connection:
        search = _Search(connection, shards, folder, settings)
        search.check_ordinals()
        search.select(_EXACT, folder / "exact.parquet")
        search.find_pairs()
        search.gather_shingles()
        search.compare()
        search.select(_ALL, done)


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
        self._pair_files = [folder / f"pairs_{band}.parquet" for band in range(settings.bands[0])]
        self._place_files = [folder / f"places_{number}.parquet" for number in range(len(shards))]
        self._files = {
            "signatures": [str(shard.path) for shard in shards],
            "exact": str(folder / "exact.parquet"),
            "near": str(folder / "near.parquet"),
            "pairs": [str(path) for path in self._pair_files],
            "paired": str(folder / "paired.parquet"),
            "places": [str(path) for path in self._place_files],
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
        for band, path in enumerate(self._pair_files):
            self.select(_PAIRS.format(band=f"band_{band}"), path, most=MOST_IN_BUCKET)

    def gather_shingles(self) -> None:
        """Write the shingles of the documents in pairs, and where they lie, two files for each shard."""
        if not self._settings.near:
            return
        self.select(_PAIRED, self._folder / "paired.parquet")
        for number, (shard, places) in enumerate(zip(self._shards, self._place_files, strict=True)):
            if places.exists():
                continue
            query = self._run(_CANDIDATES, signatures=str(shard.path))
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
        near, pairs = self._folder / "near.parquet", self._folder / "placed.parquet"
        if near.exists():
            return
        if self._settings.near:
            self.select(_PLACED_PAIRS, pairs)
        found = compared(_rows(pairs), self._folder, self._settings.threshold) if self._settings.near else ()
        write_duplicates(near, found)

    def _run(self, query: str, **given: object) -> duckdb.DuckDBPyConnection:
        known = {**self._files, **given}
        return self._connection.execute(query, {name: known[name] for name in known if f"${name}" in query})


def _rows(path: Path) -> Iterator[tuple[int, ...]]:
    with pq.ParquetFile(path) as file:
        for rows in file.iter_batches(_ROWS_AT_ONCE):
            yield from zip(*(column.to_pylist() for column in rows.columns), strict=True)


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
