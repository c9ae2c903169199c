"""Columns in memory: the smallest form that answers every condition, whatever the cardinality."""

from collections import Counter
from datetime import UTC, date, datetime
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compactds.datastore.attributes import AttributeColumns, arrow_schema
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.columns import build_column
from compactds.datastore.columns_values import Numbers, Strings
from compactds.datastore.facets import count_values
from compactds.filters import Expression, FieldType, Schema, WhereError, field
from compactds.filters.where import Contains, In, Prefix

f = field("f")


def column(kind, values, arrow=None, chunk=7):
    arrow = (
        arrow
        or {
            FieldType.STRING: pa.string(),
            FieldType.INT64: pa.int64(),
            FieldType.FLOAT64: pa.float64(),
            FieldType.BOOL: pa.bool_(),
            FieldType.DATE: pa.date32(),
            FieldType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
            FieldType.STRING_LIST: pa.list_(pa.string()),
            FieldType.INT64_LIST: pa.list_(pa.int64()),
        }[kind]
    )
    chunks = [pa.array(values[start : start + chunk], arrow) for start in range(0, len(values), chunk)]
    return build_column(kind, pa.chunked_array(chunks, arrow))


def allowed(held, condition):
    return held.allowed(condition).rows().tolist()


@pytest.mark.parametrize(("distinct", "code_bytes"), [(1, 1), (255, 1), (256, 2), (65_535, 2), (65_536, 4)])
def test_codes_take_as_few_bytes_as_the_distinct_values_allow(distinct, code_bytes):
    values = [*range(distinct), None, 0]
    held = column(FieldType.INT64, values, chunk=30_000)
    assert held.codes.itemsize == code_bytes
    assert held.form == f"codes of {code_bytes} byte{'s' if code_bytes > 1 else ''}"
    assert held.nbytes == code_bytes * len(values) + 8 * distinct + held.totals.nbytes
    assert held.totals.itemsize == 1
    last = distinct - 1
    assert allowed(held, f == last) == ([last] if last else [0, 2])
    assert allowed(held, f > last) == []
    assert allowed(held, f >= last) == ([last] if last else [0, 2])
    assert allowed(held, f < 1) == [0, distinct + 1]
    assert allowed(held, f.exists()) == [*range(distinct), distinct + 1]
    assert allowed(held, In("f", (0, last, -1))) == sorted({0, last, distinct + 1})
    assert held.allowed(f != last).count == len(values) - len(allowed(held, f == last))


def test_sets_of_values_apart_are_looked_up_together():
    held = column(FieldType.STRING, [*"abcdefgh", None] * 3)
    wanted = ("h", "a", "c", "x")
    rows = [row for row in range(27) if row % 9 in (0, 2, 7)]
    assert allowed(held, In("f", wanted)) == rows
    assert allowed(held, f.not_in(wanted)) == [row for row in range(27) if row not in rows]
    assert allowed(held, In("f", ("c", "b", "d"))) == [row for row in range(27) if row % 9 in (1, 2, 3)]
    assert allowed(held, In("f", ("", "z"))) == []


def test_strings_are_in_the_order_of_code_points():
    texts = ["", "\0", "A", "a", "a\0b", "ab", "é", "日本", "\U0001f600"]
    held = column(FieldType.STRING, [None, *reversed(texts)])
    assert [held.values.value(code) for code in range(len(held.values))] == sorted(texts)
    for place, text in enumerate(sorted(texts)):
        assert (held.values.left(text), held.values.right(text)) == (place, place + 1)
    assert allowed(held, Prefix("f", "a")) == [4, 5, 6]
    assert allowed(held, Prefix("f", "")) == list(range(1, 10))
    assert allowed(held, Prefix("f", "\U0001f600x")) == []
    assert allowed(held, f >= "é") == [1, 2, 3]


@pytest.mark.parametrize("count", [3, 2_000])
def test_few_strings_are_searched_and_many_passed_with_the_same_answer(count):
    stored = Strings(pa.array([f"name {number:05}" for number in range(5_000)]))
    wanted = [f"name {number * 7:05}" for number in range(count)]
    assert stored.find(wanted).tolist() == [number * 7 for number in range(count) if number * 7 < 5_000]


def test_every_string_is_found_at_its_place():
    texts = sorted({f"{number * 7919 % 1_009:x}" for number in range(500)})
    stored = Strings(pa.array(texts))
    for place, text in enumerate(texts):
        assert (stored.left(text), stored.right(text)) == (place, place + 1)
        assert (stored.left(text + "\0"), stored.right(text + "\0")) == (place + 1, place + 1)
        start, stop = stored.starting_with(text)
        assert texts[start:stop] == [other for other in texts if other.startswith(text)]


def test_strings_of_a_slice_are_its_own():
    stored = Strings(pa.array(["x", "a", "b", "c"]).slice(1))
    assert (len(stored), stored.value(0), stored.left("b"), stored.find(["c"]).tolist()) == (3, "a", 1, [2])
    assert stored.nbytes > 0


def test_values_are_told_as_json():
    day, time = date(1, 1, 1), datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC)
    told = [
        (FieldType.BOOL, True, True),
        (FieldType.INT64, -(2**63), -(2**63)),
        (FieldType.FLOAT64, 0.5, 0.5),
        (FieldType.STRING, "é", "é"),
        (FieldType.DATE, day, "0001-01-01"),
        (FieldType.TIMESTAMP, time, "2024-02-29T23:59:59.999999+00:00"),
    ]
    for kind, value, shown in told:
        held = column(kind, [None, value])
        found = held.values.value(0)
        assert (found, type(found)) == (shown, type(shown))
        assert allowed(held, f == value) == [1]


def test_nan_is_missing_and_zero_has_one_sign():
    held = column(FieldType.FLOAT64, [0.0, -0.0, float("nan"), None, 1.0])
    assert len(held.values) == 2
    assert held.missing == 2
    assert allowed(held, f == -0.0) == [0, 1]
    assert allowed(held, f.exists()) == [0, 1, 4]
    assert allowed(held, f != 1.0) == [0, 1, 2, 3]


def test_columns_of_nothing_and_of_missing_values_only():
    for kind in FieldType:
        for values in ([], [None] * 9):
            held = column(kind, values)
            assert held.allowed(f.exists()) == Bitmap.none(len(values))
            assert held.counts(None).tolist() == held.counts(Bitmap.all(len(values))).tolist() == []
            assert held.nbytes >= 0
    assert Numbers(FieldType.INT64, np.empty(0, np.int64)).find((1, 2)).tolist() == []


LISTS = (["a", "b", "a"], [], None, ["b", None], ["c"], *[["a"]] * 2, *[[]] * 100)


class TestLists:
    @pytest.fixture
    def held(self):
        return column(FieldType.STRING_LIST, LISTS)

    def test_frequent_elements_are_bits_and_the_others_row_numbers(self, held):
        assert held.form == "rows of each element, 0 as bits"
        assert len(held.rows) == 6
        often = column(FieldType.STRING_LIST, [["a"], ["a", "b"], *[["a"]] * 100])
        assert {often.values.value(code) for code in often.dense} == {"a"}
        assert len(often.rows) == 1
        assert allowed(often, f.contains_all(["a", "b"])) == [1]
        assert allowed(often, f.contains_any(["b", "nowhere"])) == [1]
        assert often.allowed(f.contains_any(["b", "a"])).count == 102
        assert allowed(often, f.contains("nowhere")) == []

    @pytest.mark.parametrize("rows", [1, 2, 3, 63, 64, 65, 128, 129, 1_000])
    def test_bits_take_no_more_than_row_numbers_would(self, rows):
        for often in range(1, min(rows, 40) + 1):
            held = column(FieldType.INT64_LIST, [[7] if row < often else [] for row in range(rows)])
            assert held.allowed(f.contains(7)).rows().tolist() == list(range(often))
            taken = held.rows.nbytes + sum(bitmap.nbytes for bitmap in held.dense.values())
            assert taken == min(4 * often, held.present.nbytes)

    def test_elements_count_once_a_row_and_missing_ones_not(self, held):
        assert held.counts(None).tolist() == [3, 2, 1]
        assert held.counts(Bitmap.from_rows(np.array([0, 3]), 107)).tolist() == [1, 2, 0]
        assert held.longest == 2

    @pytest.mark.parametrize("share", [0, 0.001, 0.2, 0.7, 1])
    def test_counts_of_elements_are_those_of_the_allowed_rows(self, share):
        draw = np.random.default_rng(0)
        lists = [draw.zipf(1.3, 4).clip(max=3_000).tolist() for _ in range(1_000)]
        held = column(FieldType.INT64_LIST, lists)
        assert 0 < len(held.dense) < len(held.values)
        mask = draw.random(1_000) < share
        counted = dict.fromkeys(range(len(held.values)), 0)
        for row in np.flatnonzero(mask):
            for code in held.values.find(lists[row]).tolist():
                counted[code] += 1
        assert held.counts(Bitmap.from_mask(mask)).tolist() == list(counted.values())

    def test_an_empty_list_is_a_value(self, held):
        assert held.allowed(f.exists()).count == 106

    def test_rows_are_those_with_any_or_all_elements(self, held):
        assert allowed(held, Contains("f", "b")) == [0, 3]
        assert allowed(held, f.contains_any(["c", "b"])) == [0, 3, 4]
        assert allowed(held, f.contains_all(["b", "a"])) == [0]
        assert allowed(held, f.contains_all(["c", "a"])) == []
        assert allowed(held, f.contains_all(["a", "nowhere"])) == []
        assert allowed(held, f.contains_all(["a", "b", "c"])) == []

    def test_many_elements_of_whole_numbers(self):
        held = column(FieldType.INT64_LIST, [list(range(1_000)), list(range(999))] + [None] * 98)
        assert allowed(held, f.contains_all(range(1_000))) == [0]
        assert allowed(held, f.contains_all(range(999))) == [0, 1]
        assert allowed(held, f.contains_any(range(999, 100_000))) == [0]
        assert len(held.starts) == 1_001


@pytest.mark.parametrize("distinct", [3, 40])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.95])
def test_counts_are_those_of_the_allowed_rows(distinct, share):
    draw = np.random.default_rng(0)
    values = [None if value == distinct else int(value) for value in draw.integers(0, distinct + 1, 500)]
    held = column(FieldType.INT64, values)
    mask = draw.random(500) < share
    expected = [sum(mask[row] for row in range(500) if values[row] == value) for value in range(distinct)]
    assert held.counts(Bitmap.from_mask(mask)).tolist() == expected


@pytest.mark.parametrize("condition", [Expression(), f.contains("a")])
def test_a_scalar_column_refuses_conditions_of_others(condition):
    with pytest.raises(WhereError, match="not a condition of its field"):
        column(FieldType.INT64, [1]).allowed(condition)


def test_a_list_column_refuses_conditions_of_others():
    with pytest.raises(WhereError, match="not a condition of its field"):
        column(FieldType.INT64_LIST, [[1]]).allowed(f == 1)


ROWS = 4_000


@pytest.fixture(scope="module")
def lists():
    draw = np.random.default_rng(5)
    everywhere = [["all"] if row % 3 else [] for row in range(ROWS)]  # held as bits
    often = [[f"o{number}" for number in draw.zipf(1.3, 3) % 300] for _ in range(ROWS)]
    once = [[f"r{row}"] for row in range(ROWS)]
    return [sorted({*a, *b, *c}) for a, b, c in zip(everywhere, often, once, strict=True)]


@pytest.fixture(scope="module")
def segment(lists, tmp_path_factory):
    schema = Schema({"names": FieldType.STRING_LIST})
    path = tmp_path_factory.mktemp("lists") / "attributes.parquet"
    pq.write_table(pa.table({"names": pa.array(lists)}, schema=arrow_schema(schema)), path)
    columns = AttributeColumns(path, schema)
    yield SimpleNamespace(attributes=columns)
    columns.close()


class TestFacetsOfLists:
    """The leading elements are those of a count of every row, however many rows are allowed."""

    @pytest.mark.parametrize("most", [1, 3, 10, 300, 10_000])
    @pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.1, 0.5, 0.9, 1.0])
    def test_leading_elements_are_those_of_a_count_of_all(self, lists, segment, share, most):
        mask = np.random.default_rng(7).random(ROWS) < share
        counted = Counter(name for row in np.flatnonzero(mask) for name in lists[row])
        expected = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:most]
        assert count_values("names", [(segment, Bitmap.from_mask(mask))], most) == expected

    def test_every_way_of_counting_gives_the_same(self, segment):
        column = segment.attributes.filter.column("names")
        assert column.dense
        for share in (0.0, 0.01, 0.3, 0.8):
            allowed = Bitmap.from_mask(np.random.default_rng(8).random(ROWS) < share)
            counts = column.counts(allowed)
            codes, found = column.elements_in(allowed)
            assert (counts[codes] == found).all()
            assert counts.sum() == found.sum()
            some = np.arange(0, len(counts), 7)
            assert (column.counts_of(some, allowed) == counts[some]).all()
