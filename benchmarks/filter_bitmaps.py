"""Measure how quickly where expressions become bitmaps of rows, beside DuckDB and Arrow, on one thread.

    python -m benchmarks filter-bitmaps --corpus acl_anthology.jsonl.gz [--rows 1000000] [--json out.json]

Attributes are grown from those of the corpus (venue, year, month, lang, has_software, authors): whole rows
are drawn from it again and again, so that shares and correlations stay; in every further copy of the corpus
half of the authors get names of their own, so that distinct authors grow with the rows. Added are a date
within the year, and a timestamp that differs in every row. Without --corpus, a small one is made up.

Each figure is a median. "parsed" is from JSON to a bound expression; "first" evaluates that with nothing
cached (columns are in memory); "repeated" with its bitmap in the cache, parsing included; "file" reads the
column from disk, as is done with columns too large for memory. DuckDB gives row numbers, from a table of its
own and from the Parquet file; Arrow's compute functions give a mask, from columns in memory with strings
dictionary-encoded.
"""

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from compactds.datastore.attributes import ROWS_PER_GROUP, AttributeColumns, arrow_schema
from compactds.datastore.facets import count_values
from compactds.datastore.segment_filter import SegmentFilter
from compactds.filters import Expression, FieldType, Schema, evaluate, parse_where, to_sql

SCHEMA = Schema(
    {
        "venue": FieldType.STRING,
        "year": FieldType.INT64,
        "month": FieldType.STRING,
        "lang": FieldType.STRING,
        "has_software": FieldType.BOOL,
        "published": FieldType.DATE,
        "indexed": FieldType.TIMESTAMP,
        "authors": FieldType.STRING_LIST,
    }
)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
Row = dict[str, Any]


def cases(table: pa.Table) -> dict[str, tuple[str, Row]]:
    """Return expressions by name, each with its group; values are common and rare ones of the table."""
    venues = by_count(table["venue"])
    authors = by_count(table["authors"].combine_chunks().flatten())
    middle = EPOCH + timedelta(seconds=table.num_rows // 2)
    software, recent = {"has_software": True}, {"year": {"$gte": 2015}}
    common = {"authors": {"$contains": authors[0]}}
    return {
        "string =, common": ("one", {"venue": venues[0]}),
        "string =, rare": ("one", {"venue": venues[-1]}),
        "string ≠": ("one", {"venue": {"$ne": venues[0]}}),
        "string in 8": ("one", {"venue": {"$in": venues[:16:2]}}),
        "string in half of all": ("one", {"venue": {"$in": venues[::2]}}),
        "string prefix": ("one", {"venue": {"$prefix": "e"}}),
        "bool": ("one", software),
        "int =": ("one", {"year": 2015}),
        "int ≥": ("one", recent),
        "int range": ("one", {"year": {"$gte": 2010, "$lt": 2020}}),
        "date range": ("one", {"published": {"$gte": "2012-03-01", "$lte": "2012-03-31"}}),
        "timestamp ≥": ("one", {"indexed": {"$gte": middle.isoformat()}}),
        "timestamp =": ("one", {"indexed": middle.isoformat()}),
        "exists": ("one", {"month": {"$exists": True}}),
        "list contains, common": ("one", common),
        "list contains, rare": ("one", {"authors": {"$contains": authors[-1]}}),
        "list contains any of 100": ("one", {"authors": {"$contains_any": authors[:100]}}),
        "list contains both": ("one", {"authors": {"$contains_all": authors[:2]}}),
        "venue and year and author": ("three", {"venue": venues[0], **recent, **common}),
        "year and software and not author": ("three", {**recent, **software, "$not": common}),
        "software or venue or author": ("three", {"$or": [software, {"venue": venues[0]}, common]}),
        "any of 100 authors, not two venues, range": (
            "three",
            {
                "authors": {"$contains_any": authors[:100]},
                "venue": {"$nin": venues[:2]},
                "published": {"$lt": "2020-06-01"},
            },
        ),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, help="records of the ACL Anthology, .jsonl or .jsonl.gz")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=51, help="runs of which the median is taken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args(arguments)

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    records = read_records(options.corpus) if options.corpus else made_up(500, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "attributes.parquet"
        table = grown(records, options.rows, options.seed)
        pq.write_table(table, file, row_group_size=ROWS_PER_GROUP, compression="zstd")
        figures = {"rows": options.rows, "columns": measure_columns(file)}
        ways = Ways(file)
        figures["expressions"] = measure_expressions(ways, table, options.repeats)
        figures["facets"] = measure_facets(ways, table, options.repeats)
        ways.close()
    print_figures(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


def read_records(path: Path) -> list[Row]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [json.loads(line) for line in lines]


def made_up(count: int, seed: int) -> list[Row]:
    """Return records with attributes like those of the ACL Anthology, for a run without it."""
    draw = np.random.default_rng(seed)
    venues, people = draw.zipf(1.5, count) % 40, draw.zipf(1.4, (count, 4)) % 400
    return [
        {
            "venue": f"{'acl' if venue == 1 else 'event'}{venue}",
            "year": int(draw.integers(1980, 2026)),
            "month": None if draw.random() < 0.02 else str(draw.choice(["July", "June", "May"])),
            "lang": "eng" if draw.random() < 0.99 else "fra",
            "has_software": bool(draw.random() < 0.1),
            "authors": [f"Person {number}" for number in dict.fromkeys(authors.tolist())],
        }
        for venue, authors in zip(venues.tolist(), people, strict=True)
    ]


def grown(records: list[Row], rows: int, seed: int) -> pa.Table:
    """Return a table of so many rows, drawn from the records as the module says."""
    draw = np.random.default_rng(seed)
    drawn = np.concatenate([draw.permutation(len(records)) for _ in range(rows // len(records))])
    drawn = np.concatenate([drawn, draw.permutation(len(records))[: rows - len(drawn)]])
    copies = np.arange(rows) // len(records)
    own = {name: draw.random() < 0.5 for name in {name for row in records for name in row["authors"] or ()}}
    days = draw.integers(0, 365, rows).tolist()
    source = pa.table(
        {
            name: pa.array([record[name] for record in records], arrow_schema(SCHEMA).field(name).type)
            for name in ("venue", "year", "month", "lang", "has_software")
        }
    ).take(pa.array(drawn))
    authors = [
        [f"{name} ({copy})" if copy and own[name] else name for name in records[number]["authors"] or ()]
        for number, copy in zip(drawn.tolist(), copies.tolist(), strict=True)
    ]
    published = [
        date(year, 1, 1) + timedelta(days=day)
        for year, day in zip(source["year"].to_pylist(), days, strict=True)
    ]
    indexed = EPOCH.timestamp() * 1_000_000 + draw.permutation(rows) * 1_000_000
    return (
        source.append_column("published", pa.array(published, pa.date32()))
        .append_column("indexed", pa.array(indexed.astype(np.int64), pa.timestamp("us", tz="UTC")))
        .append_column("authors", pa.array(authors, pa.list_(pa.string())))
        .cast(arrow_schema(SCHEMA))
    )


def by_count(column: Any) -> list[Any]:
    """Return the distinct values of a column, most frequent first."""
    counted = sorted(column.value_counts().to_pylist(), key=lambda entry: -entry["counts"])
    return [entry["values"] for entry in counted]


def milliseconds(task: Callable[[], object], repeats: int) -> float:
    task()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        task()
        taken.append((time.perf_counter() - start) * 1_000)
    return statistics.median(taken)


def measure_columns(file: Path) -> list[Row]:
    """Return how long each column takes to come into memory, and how much of it."""
    source = AttributeColumns(file, SCHEMA)
    found = []
    for name in SCHEMA:
        start = time.perf_counter()
        source.filter.column(name)
        taken = (time.perf_counter() - start) * 1_000
        (memory,) = source.filter.measure([name])
        found.append(
            {
                "column": name,
                "type": str(memory.kind),
                "form": memory.form,
                "bytes": memory.ram_bytes,
                "bytes_per_row": memory.bytes_per_row,
                "load_ms": taken,
            }
        )
    source.close()
    return found


class Arrow:
    """Hold columns in memory as Arrow has them, strings dictionary-encoded."""

    def __init__(self, source: AttributeColumns) -> None:
        self.columns = {name: source.column(name) for name in SCHEMA}

    def column(self, name: str) -> pa.Array:
        return self.columns[name]


class Ways:
    """Evaluate expressions in every way that is compared."""

    def __init__(self, file: Path) -> None:
        self.source = AttributeColumns(file, SCHEMA)
        self.uncached = SegmentFilter(self.source, cache_bytes=0)
        self.unheld = SegmentFilter(self.source, cache_bytes=0, columns_bytes=0)
        self.arrow = Arrow(self.source)
        self.parquet = f"read_parquet('{file}', file_row_number = true)"
        self.database = duckdb.connect(config={"threads": 1})
        self.database.execute(f"CREATE TABLE held AS SELECT * FROM {self.parquet}")

    def measure(self, where: Row, repeats: int) -> Row:
        expression = parse_where(where, SCHEMA)
        assert expression is not None
        bitmap = self.source.filter.rows(expression)
        mask = evaluate(expression, self.arrow, bitmap.length)
        if not np.array_equal(bitmap.mask(), mask):
            raise AssertionError(f"{where}: the bitmap differs from Arrow's mask")
        few = max(1, repeats // 10)
        ways: dict[str, tuple[Callable[[], Any], int]] = {
            "parsed_ms": (lambda: parse_where(where, SCHEMA), repeats),
            "first_ms": (lambda: self.uncached.rows(expression), repeats),
            "repeated_ms": (lambda: self.repeated(where), repeats),
            "file_ms": (lambda: self.unheld.rows(expression), few),
            "arrow_ms": (lambda: evaluate(expression, self.arrow, bitmap.length), few),
            "duckdb_table_ms": (lambda: self.through_duckdb("rowid", "held", expression), few),
            "duckdb_parquet_ms": (
                lambda: self.through_duckdb("file_row_number", self.parquet, expression),
                few,
            ),
        }
        taken = {name: milliseconds(task, times) for name, (task, times) in ways.items()}
        return {"matching": bitmap.count, **taken}

    def repeated(self, where: Row) -> object:
        expression = parse_where(where, SCHEMA)
        return None if expression is None else self.source.filter.rows(expression)

    def through_duckdb(self, number: str, held: str, expression: Expression) -> object:
        return self.database.execute(f"SELECT {number} FROM {held} WHERE {to_sql(expression)}").fetchnumpy()

    def count(self, name: str, where: Row | None, repeats: int) -> Row:
        """Measure the ten most frequent values of a field; the filter itself is not in the time."""
        expression = parse_where(where, SCHEMA)
        allowed = None if expression is None else self.source.filter.rows(expression)
        condition = "" if expression is None else f"WHERE {to_sql(expression)}"
        value = f"unnest({name})" if SCHEMA[name].is_list else name
        statement = (
            f"SELECT value, count(*) FROM (SELECT {value} AS value FROM held {condition}) GROUP BY 1 "
            "ORDER BY 2 DESC LIMIT 10"
        )
        segment: Any = Part(self.source)
        return {
            "ms": milliseconds(lambda: count_values(name, [(segment, allowed)], 10), repeats),
            "duckdb_table_ms": milliseconds(lambda: self.database.execute(statement).fetchall(), repeats),
        }

    def close(self) -> None:
        self.database.close()
        self.source.close()


@dataclass(frozen=True, slots=True)
class Part:
    """Stand for a segment of which only the attributes are asked for."""

    attributes: AttributeColumns


def measure_expressions(ways: Ways, table: pa.Table, repeats: int) -> list[Row]:
    return [
        {"expression": name, "clauses": clauses, **ways.measure(where, repeats)}
        for name, (clauses, where) in cases(table).items()
    ]


def measure_facets(ways: Ways, table: pa.Table, repeats: int) -> list[Row]:
    wheres: dict[str, Row | None] = {
        "all": None,
        "year ≥ 2015": {"year": {"$gte": 2015}},
        "two venues": {"venue": {"$in": by_count(table["venue"])[10:12]}},
    }
    return [
        {"facet": name, "among": among, **ways.count(name, where, max(1, repeats // 5))}
        for among, where in wheres.items()
        for name in ("venue", "year", "has_software", "authors")
    ]


def print_figures(figures: Row) -> None:
    for title in ("columns", "expressions", "facets"):
        rows = figures[title]
        print(f"\n{title}, {figures['rows']:,} rows\n")
        print("| " + " | ".join(rows[0]) + " |")
        print("| --- " * len(rows[0]) + "|")
        for row in rows:
            print("| " + " | ".join(shown(value) for value in row.values()) + " |")
    for group, limit in (("one", 1.0), ("three", 5.0)):
        taken = [row["first_ms"] for row in figures["expressions"] if row["clauses"] == group]
        print(f"\n{group} clause(s): slowest {max(taken):.3f} ms, target {limit} ms")
    print(
        f"repeated: slowest {max(row['repeated_ms'] for row in figures['expressions']):.3f} ms, target 0.1 ms"
    )


def shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
