"""A segment's filter: what it holds in memory, what it reads from disk, what it remembers."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compactds.datastore.attributes import AttributeColumns, arrow_schema
from compactds.datastore.bitmaps_cache import ByteLimitedCache
from compactds.datastore.errors import DamagedStoreError, StoreError
from compactds.datastore.segment_filter import SegmentFilter
from compactds.filters import Expression, FieldType, Schema, WhereError, field, parse_where
from compactds.filters.limits import MAX_IN_VALUES
from compactds.filters.where import Or

ROWS = 3_000
SCHEMA = Schema(
    {
        "year.month": FieldType.INT64,
        "year": FieldType.INT64,
        "venue": FieldType.STRING,
        "title": FieldType.STRING,
        "authors": FieldType.STRING_LIST,
    }
)
year, venue, authors = field("year"), field("venue"), field("authors")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("segment") / "attributes.parquet"
    table = pa.table(
        {
            "year.month": [row % 12 for row in range(ROWS)],
            "year": [1990 + row % 30 for row in range(ROWS)],
            "venue": [None if row % 10 == 9 else f"venue {row % 7}" for row in range(ROWS)],
            "title": [f"title {row}" for row in range(ROWS)],
            "authors": [[f"author {row % 5}", f"author {row % 11}"] for row in range(ROWS)],
        },
        arrow_schema(SCHEMA),
    )
    pq.write_table(table, path, row_group_size=1_000)
    return path


@pytest.fixture
def attributes(file):
    columns = AttributeColumns(file, SCHEMA)
    yield columns
    columns.close()


def expected(test):
    return [row for row in range(ROWS) if test(row)]


CONDITIONS = [
    (year >= 2010, lambda row: row % 30 >= 20),
    (field("year.month") == 3, lambda row: row % 12 == 3),
    (venue.not_in(["venue 1"]), lambda row: row % 7 != 1 or row % 10 == 9),
    (field("title").startswith("title 29"), lambda row: str(row).startswith("29")),
    (authors.contains_all(["author 2", "author 9"]), lambda row: row % 5 == 2 and row % 11 == 9),
    (
        (year == 1990) & ~authors.contains("author 0") & (venue.exists() | (field("year.month") < 2)),
        lambda row: row % 30 == 0 and row % 5 and row % 11 and (row % 10 != 9 or row % 12 < 2),
    ),
]


@pytest.mark.parametrize("limits", [{}, {"columns_bytes": 0}, {"columns_bytes": 8_000, "cache_bytes": 1_000}])
def test_any_budget_gives_the_same_rows(attributes, limits):
    source = SegmentFilter(attributes, **limits)
    for where, test in CONDITIONS * 2:
        assert source.rows(parse_where(where, SCHEMA)).rows().tolist() == expected(test)
    assert source.ram_bytes <= source.limit_bytes


def test_the_most_memory_a_filter_takes_is_known_before(file):
    columns = AttributeColumns(file, SCHEMA, columns_bytes=5_000, cache_bytes=2_000)
    assert columns.filter.limit_bytes == 7_000
    columns.close()
    columns = AttributeColumns(file, SCHEMA)
    assert columns.filter.limit_bytes == (64 + 32) * 1024 * 1024
    columns.close()


def test_columns_are_read_when_an_expression_names_them(attributes):
    assert attributes.ram_bytes == 0
    attributes.filter.rows(year == 1990)
    bitmap_bytes = attributes.filter.rows(year == 1990).nbytes
    (memory,) = attributes.filter.measure(["year"])
    assert attributes.ram_bytes >= memory.ram_bytes + bitmap_bytes
    assert attributes.filter.column("year") is attributes.filter.column("year")
    attributes.filter.clear()
    assert attributes.ram_bytes == 0


def test_memory_is_told_for_each_column_without_keeping_it(attributes):
    source = SegmentFilter(attributes, columns_bytes=20_000)
    told = {memory.name: memory for memory in source.measure(SCHEMA)}
    assert source.ram_bytes == 0
    assert told["year"].form == "codes of 1 byte"
    assert told["year"].bytes_per_row == told["year"].ram_bytes / ROWS
    assert 1 <= told["year"].bytes_per_row < 1.2
    assert told["authors"].form == "rows of each element, 11 as bits"
    assert (told["title"].form, told["title"].ram_bytes, told["title"].kind) == ("file", 0, FieldType.STRING)
    source.rows(year == 1990)
    assert source.measure(["year"]) == [told["year"]]


def test_memory_of_a_column_is_bounded_before_it_is_built(attributes):
    source = SegmentFilter(attributes, columns_bytes=20_000)
    measured = {memory.name: memory for memory in source.measure(SCHEMA)}
    for name in SCHEMA:
        bound = source.at_most(name)
        assert source.held(name) is None
        assert measured[name].ram_bytes <= bound.ram_bytes <= 20_000
        assert bound.bytes_per_row == bound.ram_bytes / ROWS
    source.rows(year == 1990)
    source.rows(field("title") == "title 1")
    assert source.held("year") == measured["year"]
    assert source.held("title") == measured["title"]
    assert SegmentFilter(attributes, columns_bytes=100).at_most("title").form == "file"


def test_the_column_used_least_recently_makes_room(attributes):
    sizes = {memory.name: memory.ram_bytes for memory in attributes.filter.measure(SCHEMA)}
    source = SegmentFilter(attributes, columns_bytes=sizes["year"] + sizes["authors"], cache_bytes=0)
    source.rows(year == 1990)
    source.rows(authors.contains("author 1"))
    assert source.ram_bytes == sizes["year"] + sizes["authors"]
    source.rows(field("year.month") == 1)
    assert source.ram_bytes == sizes["year.month"] + sizes["authors"]
    assert source.column("title") is None


def test_repeated_expressions_and_their_conjuncts_come_from_the_cache(attributes, monkeypatch):
    source = attributes.filter
    tested = []
    original = SegmentFilter._tested
    monkeypatch.setattr(
        SegmentFilter, "_tested", lambda self, node: tested.append(node) or original(self, node)
    )
    first = source.rows((year == 1990) & (venue == "venue 1"))
    again = source.rows((year == 1990) & (venue == "venue 1"))
    assert first == again
    assert first is not again
    assert len(tested) == 2
    source.rows((year == 1990) & (venue == "venue 2"))
    source.rows(venue == "venue 2")
    assert len(tested) == 3
    long = venue.isin([f"venue {number}" for number in range(30_000)])
    for _ in range(2):
        source.rows(long)
    assert len(tested) == 5


def test_nothing_is_computed_after_an_empty_intersection(attributes):
    never = (year == 1) & venue.startswith("venue")
    assert attributes.filter.rows(never).count == 0
    assert [name for name, _ in attributes.filter._columns.items()] == ["year"]


def test_the_longest_list_of_values_is_looked_up_in_one_pass(attributes):
    values = tuple(f"title {number * 2}" for number in range(MAX_IN_VALUES))
    found = attributes.filter.rows(parse_where({"title": {"$in": list(values)}}, SCHEMA))
    assert found.rows().tolist() == list(range(0, ROWS, 2))
    assert (
        attributes.filter.rows(parse_where({"authors": {"$contains_all": list(values)}}, SCHEMA)).count == 0
    )


def test_conditions_that_each_read_from_disk_are_limited(attributes):
    many = Or(tuple(field("title") == f"title {number}" for number in range(65)))
    assert attributes.filter.rows(many).count == 65
    source = SegmentFilter(attributes, columns_bytes=20_000)
    with pytest.raises(WhereError, match="65 conditions on title, of which no more than 64"):
        source.rows(many)
    assert source.rows(Or(many.parts[1:])).count == 64
    assert source.rows(Or((*many.parts[1:], year == 1990))).count > 64


def test_threads_share_columns_and_cache(file):
    columns = AttributeColumns(file, SCHEMA)
    columns.filter = SegmentFilter(columns, columns_bytes=12_000, cache_bytes=3_000)
    barrier = threading.Barrier(4)

    def ask(worker):
        barrier.wait(timeout=60)
        for turn in range(30):
            where, test = CONDITIONS[(turn * (worker + 1)) % len(CONDITIONS)]
            assert columns.filter.rows(where).rows().tolist() == expected(test)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    columns.close()


def test_a_column_is_found_by_its_whole_name(attributes):
    assert attributes.column("year").to_pylist()[:2] == [1990, 1991]
    assert attributes.column("year.month").to_pylist()[:2] == [0, 1]
    assert len(attributes.column("venue")) == ROWS
    assert attributes.rows == ROWS


def test_what_is_no_expression_is_refused(attributes):
    for node in (Expression(), Expression() & (year == 1)):
        with pytest.raises(WhereError, match="not a part of one"):
            attributes.filter.rows(node)


def test_a_segment_without_rows_allows_none(tmp_path):
    path = tmp_path / "attributes.parquet"
    pq.write_table(arrow_schema(SCHEMA).empty_table(), path)
    columns = AttributeColumns(path, SCHEMA)
    for source in (columns.filter, SegmentFilter(columns, columns_bytes=0)):
        for where, _ in CONDITIONS:
            assert source.rows(parse_where(where, SCHEMA)).rows().tolist() == []
    assert columns.filter.measure(["year"])[0].bytes_per_row == columns.filter.measure(["year"])[0].ram_bytes
    columns.close()


@pytest.mark.parametrize("kind", FieldType)
@pytest.mark.parametrize("columns_bytes", [None, 0])
def test_a_field_younger_than_the_segment_is_missing_in_all_rows(file, kind, columns_bytes):
    columns = AttributeColumns(file, Schema({"elsewhere": kind}), columns_bytes=columns_bytes)
    rows = columns.rows
    assert columns.filter.rows(field("elsewhere").exists()).count == 0
    assert columns.filter.rows(~field("elsewhere").exists()).count == rows
    assert columns.column("elsewhere").null_count == rows
    assert sum(table.column("elsewhere").null_count for table in columns.tables()) == rows


class TestDamage:
    def test_a_missing_file_is_told(self, tmp_path):
        with pytest.raises(DamagedStoreError, match="cannot be read"):
            AttributeColumns(tmp_path / "attributes.parquet", SCHEMA)

    def test_a_file_that_is_no_parquet_is_told(self, tmp_path):
        (tmp_path / "attributes.parquet").write_bytes(b"nothing of the kind" * 9)
        with pytest.raises(DamagedStoreError, match="cannot be read"):
            AttributeColumns(tmp_path / "attributes.parquet", SCHEMA)

    def test_damaged_pages_are_told(self, file, tmp_path):
        content = bytearray(file.read_bytes())
        content[4:400] = bytes(396)
        (tmp_path / "attributes.parquet").write_bytes(content)
        columns = AttributeColumns(tmp_path / "attributes.parquet", SCHEMA)
        for source in (columns.filter, SegmentFilter(columns, columns_bytes=0)):
            with pytest.raises(DamagedStoreError, match="compactds verify"):
                source.rows(field("year.month") == 1)

    def test_a_closed_store_is_told(self, file):
        columns = AttributeColumns(file, SCHEMA)
        columns.close()
        with pytest.raises(StoreError, match="is closed"):
            columns.filter.rows(year == 1)


class TestCache:
    def test_what_was_used_least_recently_goes_first(self):
        cache = ByteLimitedCache(10)
        for name in "abc":
            assert cache.put(name, name.upper(), 3)
        assert cache.get("a") == "A"
        assert cache.put("d", "D", 4)
        assert cache.items() == [("c", "C"), ("a", "A"), ("d", "D")]
        assert cache.nbytes == 10
        assert cache.get("b") is None

    def test_what_is_put_again_counts_once(self):
        cache = ByteLimitedCache(10)
        cache.put("a", 1, 6)
        cache.put("a", 2, 7)
        assert (cache.get("a"), cache.nbytes) == (2, 7)

    def test_what_is_too_large_is_not_held_and_displaces_nothing(self):
        cache = ByteLimitedCache(10)
        cache.put("a", 1, 6)
        assert not cache.put("b", 2, 11)
        assert cache.items() == [("a", 1)]
        cache.clear()
        assert (cache.items(), cache.nbytes) == ([], 0)
