"""Which rows a where expression allows, column type by column type."""

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest

from compactds.filters import Expression, FieldType, Schema, WhereError, bind, evaluate, field, parse_where

NAMES = {
    "bool": FieldType.BOOL,
    "int": FieldType.INT64,
    "float": FieldType.FLOAT64,
    "string": FieldType.STRING,
    "date": FieldType.DATE,
    "time": FieldType.TIMESTAMP,
    "strings": FieldType.STRING_LIST,
    "ints": FieldType.INT64_LIST,
}
SCHEMA = Schema(NAMES)
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)
ARROW_TIME = pa.timestamp("us", tz="UTC")
ROWS = 4
DATA = {
    "bool": pa.array([True, False, None, True]),
    "int": pa.array([2**53, 2**53 + 1, None, -(2**63)]),
    "float": pa.array([-0.0, 1.5, None, float("nan")]),
    "string": pa.array(["", "Ärger", None, "a\0b"]),
    "date": pa.array([date(2024, 1, 1), date(1, 1, 1), None, date(9999, 12, 31)]),
    "time": pa.array(
        [NEW_YEAR, NEW_YEAR.replace(microsecond=1), None, NEW_YEAR], pa.timestamp("us", tz="UTC")
    ),
    "strings": pa.array([["x", "y", "x"], [], None, ["z", None]]),
    "ints": pa.array([[2**53 + 1], [], None, [2**53, 7]]),
}


class Table:
    def __init__(self, data):
        self.data = data

    def column(self, name):
        return self.data[name]


def rows(expression, data=DATA, count=ROWS):
    mask = evaluate(bind(expression, SCHEMA), Table(data), count)
    assert mask.dtype == np.bool_
    assert mask.shape == (count,)
    mask |= False  # the caller may write into it
    return np.flatnonzero(mask).tolist()


CASES = [
    (field("bool") == True, [0, 3]),  # noqa: E712
    (field("bool") != True, [1, 2]),  # noqa: E712
    (field("bool").isin([False, True]), [0, 1, 3]),
    (field("int") == 2**53 + 1, [1]),
    (field("int") > 2**53, [1]),
    (field("int") <= 2**53, [0, 3]),
    (field("int").isin([2**53, -(2**63)]), [0, 3]),
    (field("int").not_in([2**53]), [1, 2, 3]),
    (field("float") == 0, [0]),
    (field("float").isin([0.0, 3]), [0]),
    (field("float").isin([-0.0]), [0]),
    (field("float") >= -1, [0, 1]),
    (~(field("float") >= -1), [2, 3]),
    (field("float") != 1.5, [0, 2, 3]),
    (field("string") == "", [0]),
    (field("string") == "a\0b", [3]),
    (field("string") > "a", [1, 3]),
    (field("string").startswith("Ä"), [1]),
    (field("string").startswith("a\0"), [3]),
    (field("string").startswith(""), [0, 1, 3]),
    (~field("string").startswith(""), [2]),
    (field("string").isin(["Ärger", "nowhere"]), [1]),
    (field("string").not_in(["Ärger", "nowhere"]), [0, 2, 3]),
    (field("date") == "2024-01-01", [0]),
    (field("date") < "2024-01-01T00:00:01", [0, 1]),
    (field("date").isin([date(9999, 12, 31)]), [3]),
    (field("time") == "2024-01-01", [0, 3]),
    (field("time") > "2024-01-01", [1]),
    (field("time").isin([1_704_067_200.000001]), [1]),
    (field("strings").contains("x"), [0]),
    (field("strings").contains("z"), [3]),
    (~field("strings").contains("x"), [1, 2, 3]),
    (field("strings").contains_any(["y", "z", "q"]), [0, 3]),
    (field("strings").contains_all(["x", "y"]), [0]),
    (field("strings").contains_all(["x", "x"]), [0]),
    (field("strings").contains_all(["x", "z"]), []),
    (field("ints").contains(2**53), [3]),
    (field("ints").contains_any([2**53 + 1]), [0]),
    (field("ints").contains_all([7, 2**53]), [3]),
    (field("float").exists(), [0, 1]),
    (field("strings").exists(), [0, 1, 3]),
    (~field("ints").exists(), [2]),
    ((field("bool") == True) & (field("int") > 0), [0]),  # noqa: E712
    ((field("bool") == False) | (field("int") < 0), [1, 3]),  # noqa: E712
]


@pytest.mark.parametrize(("expression", "expected"), CASES, ids=lambda case: repr(case)[:70])
def test_allowed_rows(expression, expected):
    assert rows(expression) == expected


@pytest.mark.parametrize(("expression", "expected"), CASES, ids=lambda case: repr(case)[:70])
def test_a_negation_allows_exactly_the_other_rows(expression, expected):
    assert rows(~expression) == [row for row in range(ROWS) if row not in expected]


def encoded(array):
    if pa.types.is_string(array.type):
        return array.dictionary_encode()
    if pa.types.is_list(array.type):
        return pa.ListArray.from_arrays(array.offsets, array.values.dictionary_encode(), mask=array.is_null())
    return array


def inside(array):
    """Return the same values as a slice of a longer array."""
    return pa.concat_arrays([array, array, array]).slice(ROWS, ROWS)


def large(array):
    if pa.types.is_string(array.type):
        return array.cast(pa.large_string())
    return array.cast(pa.large_list(array.type.value_type)) if pa.types.is_list(array.type) else array


def hiding(array):
    """Return the same values with elements behind the missing list, which a mask alone hides."""
    if not pa.types.is_list(array.type):
        return array
    values = pa.concat_arrays([array.values.slice(0, array.offsets[1].as_py()), array.values])
    offset = array.offsets[1].as_py()
    offsets = pa.array([0, offset, offset, len(values) - 2, len(values)], pa.int32())
    return pa.ListArray.from_arrays(offsets, values, mask=array.is_null())


@pytest.mark.parametrize("layout", [encoded, inside, large, hiding, lambda array: inside(encoded(array))])
@pytest.mark.parametrize(("expression", "expected"), CASES, ids=lambda case: repr(case)[:70])
def test_layouts_of_the_same_values_allow_the_same_rows(layout, expression, expected):
    data = {name: layout(array) for name, array in DATA.items()}
    assert [data[name].to_pylist() for name in ("string", "strings")] == [
        DATA[name].to_pylist() for name in ("string", "strings")
    ]
    assert rows(expression, data) == expected


def test_a_dictionary_may_hold_a_missing_value():
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["a", None]))
    data = {"string": column}
    assert rows(field("string").exists(), data, 3) == [0]
    assert rows(field("string") != "a", data, 3) == [1, 2]


@pytest.mark.parametrize(("expression", "_expected"), CASES, ids=lambda case: repr(case)[:70])
def test_no_rows_and_no_values(expression, _expected):
    assert rows(expression, {name: array.slice(0, 0) for name, array in DATA.items()}, 0) == []
    missing = {name: pa.nulls(3, array.type) for name, array in DATA.items()}
    allowed = rows(expression, missing, 3)
    assert allowed in ([], [0, 1, 2])
    assert rows(~expression, missing, 3) == [row for row in range(3) if row not in allowed]


def test_a_long_list_of_values_is_one_pass():
    data = {"string": pa.array([f"paper {row}" for row in range(1_000)])}
    wanted = [f"paper {row}" for row in range(999, 100_999)]
    assert rows(field("string").isin(wanted), data, 1_000) == [999]
    lists = {"ints": pa.array([list(range(2_000)), list(range(1_999))])}
    assert rows(field("ints").contains_all(range(2_000)), lists, 2) == [0]


def test_few_hits_in_many_lists_are_found_where_they_are():
    lists = [[], None, [1, 2], [3], []] * 200
    lists[776] = [9, 1, 9]
    data = {"ints": pa.array(lists, pa.list_(pa.int64()))}
    assert rows(field("ints").contains(9), data, 1_000) == [776]
    assert rows(field("ints").contains_all([9, 1]), data, 1_000) == [776]
    assert rows(field("ints").contains(1), data, 1_000) == sorted([*range(2, 1_000, 5), 776])


def test_only_columns_of_the_expression_are_read():
    class Counting(Table):
        read = ()

        def column(self, name):
            self.read += (name,)
            return super().column(name)

    table = Counting(DATA)
    evaluate(parse_where({"int": {"$gt": 1}, "string": "x"}, SCHEMA), table, ROWS)
    assert table.read == ("int", "string")


def test_unknown_nodes_are_refused():
    with pytest.raises(WhereError, match="not a part"):
        evaluate(Expression(), Table(DATA), ROWS)
