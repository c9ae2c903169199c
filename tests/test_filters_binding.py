"""What a where expression may compare with what, and what a wrong name or type gets."""

import enum
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest

from compactds.filters import (
    Expression,
    FieldType,
    FieldTypeError,
    Schema,
    UnknownFieldError,
    WhereError,
    bind,
    field,
    parse_where,
)
from compactds.filters.errors import reported, shown
from compactds.filters.limits import MAX_DEPTH, MAX_IN_VALUES, MAX_NODES, MAX_STRING_BYTES
from compactds.filters.where import And, In, Not, Or

SCHEMA = Schema(
    {
        "ok": FieldType.BOOL,
        "year": FieldType.INT64,
        "score": FieldType.FLOAT64,
        "title": FieldType.STRING,
        "day": FieldType.DATE,
        "at": FieldType.TIMESTAMP,
        "authors": FieldType.STRING_LIST,
        "numbers": FieldType.INT64_LIST,
    }
)
ok, year, score, title = field("ok"), field("year"), field("score"), field("title")
day, at, authors, numbers = field("day"), field("at"), field("authors"), field("numbers")


class Colour(enum.StrEnum):
    RED = "red"


NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (ok == np.True_, True),
        (year == 2015.0, 2015),
        (year == np.int32(2015), 2015),
        (year == np.float32(2015), 2015),
        (year == 2**63 - 1, 2**63 - 1),
        (year == -(2**63), -(2**63)),
        (score == 3, 3.0),
        (score == 2**53 + 1, float(2**53)),
        (score == np.float64(0.5), 0.5),
        (title == Colour.RED, "red"),
        (title == np.str_("x"), "x"),
        (title == "", ""),
        (title == "\0\n日本", "\0\n日本"),
        (day == "2024-01-01", date(2024, 1, 1)),
        (day == date(2024, 1, 1), date(2024, 1, 1)),
        (day == NEW_YEAR, date(2024, 1, 1)),
        (day == datetime(2024, 1, 1), date(2024, 1, 1)),
        (day == 1_704_067_200, date(2024, 1, 1)),
        (day == -86_400.0, date(1969, 12, 31)),
        (day == "2024-01-01T02:00:00+02:00", date(2024, 1, 1)),
        (at == "2024-01-01", NEW_YEAR),
        (at == "2024-01-01T00:00", NEW_YEAR),
        (at == "2024-01-01 00:00:00", NEW_YEAR),
        (at == "2024-01-01T00:00:00Z", NEW_YEAR),
        (at == "2024-01-01T02:00:00+02:00", NEW_YEAR),
        (at == "2023-12-31T14:30:00.000000-0930", NEW_YEAR),
        (at == date(2024, 1, 1), NEW_YEAR),
        (at == datetime(2024, 1, 1), NEW_YEAR),
        (at == datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), NEW_YEAR),
        (at == 1_704_067_200, NEW_YEAR),
        (at == 1_704_067_200.25, NEW_YEAR + timedelta(milliseconds=250)),
        (at == 0.000001, datetime(1970, 1, 1, 0, 0, 0, 1, UTC)),
        (at == "9999-12-31T23:59:59.999999", datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
        (at == "0001-01-01", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_values_take_the_type_of_their_field(written, kept):
    bound = bind(written, SCHEMA)
    assert bound.value == kept
    assert type(bound.value) is type(kept)
    assert bind(bound, SCHEMA) == bound


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        (ok == 1, "true or false"),
        (ok == "true", "true or false"),
        (ok > False, "Use \\$eq"),
        (year == True, "Write a number"),  # noqa: E712
        (year == np.True_, "Write a number"),
        (year == "2015", "without quotes"),
        (year == 2015.5, "nearest below is 2015"),
        (year != 2015.5, "nearest below is 2015"),
        (year.isin([2015, 2015.5]), "nearest below is 2015"),
        (year == float("nan"), "finite"),
        (year > float("inf"), "finite"),
        (year == 2**63, "64-bit integers"),
        (year > 1e19, "64-bit integers"),
        (year == 10**5_000, "64-bit integers"),
        (year == date(2024, 1, 1), "Write a number"),
        (year == None, "Use \\$exists"),  # noqa: E711
        (year == [2015], "Use \\$in"),
        (year == object(), "Write a number"),
        (year == 1j, "Write a number"),
        (score == False, "Write a number"),  # noqa: E712
        (score == np.float64("nan"), "finite"),
        (score < -np.inf, "finite"),
        (score == 10**400, "64-bit floats"),
        (title == 3, "in quotes"),
        (title == b"x", "in quotes"),
        (title == "\ud800", "lone surrogate"),
        (title == date(2024, 1, 1), "in quotes"),
        (title == "x" * (MAX_STRING_BYTES + 1), f"limit is {MAX_STRING_BYTES:,}"),
        (title == "é" * (MAX_STRING_BYTES // 2 + 1), f"limit is {MAX_STRING_BYTES:,}"),
        (title.startswith(3), "in quotes"),
        (year.startswith("2"), "Only string fields"),
        (authors.startswith("A"), "Only string fields"),
        (day == "2024-02-30", "no such date"),
        (day == "2023-02-29", "no such date"),
        (day == "2024-1-1", 'Write "2024-01-31"'),
        (day == "20240101", 'Write "2024-01-31"'),
        (day == "٢٠٢٤-01-01", 'Write "2024-01-31"'),
        (day == "", 'Write "2024-01-31"'),
        (day == True, 'Write "2024-01-31"'),  # noqa: E712
        (day == "2024-01-01T10:00", "nearest below is 2024-01-01"),
        (day == float("nan"), 'Write "2024-01-31"'),
        (day == 1e300, "year from 1 to 9999"),
        (day == 10**30, "year from 1 to 9999"),
        (day == timedelta(days=1), 'Write "2024-01-31"'),
        (at == "2024-01-01T25:00", "no such date"),
        (at == "2024-01-01T10:00:60", "no such date"),
        (at == "0001-01-01T00:00:00+01:00", "year from 1 to 9999"),
        (at == 253_402_300_800, "year from 1 to 9999"),
        (at == 1_704_067_200_000, "not milliseconds"),
        (day == 2021, 'Write "2021-01-01"'),
        (day >= 2021.0, 'Write "2021-01-01"'),
        (at < 1999, 'Write "1999-01-01"'),
        (day == "2021", 'Write "2024-01-31"'),
        (authors == "Ada", "Use \\$contains"),
        (authors == ["Ada"], "Use \\$contains"),
        (authors > "Ada", "Use \\$contains"),
        (authors.isin(["Ada"]), "Use \\$contains_any"),
        (authors.not_in(["Ada"]), "Use \\$contains_any"),
        (authors.contains(3), "in quotes"),
        (numbers.contains("3"), "without quotes"),
        (numbers.contains(1.5), "nearest below is 1"),
        (numbers.contains_all([2**63]), "64-bit integers"),
        (title.contains("x"), "Use \\$eq \\(or \\$prefix\\)"),
        (year.contains(3), "Use \\$eq for"),
        (year.contains_any([3]), "Use \\$in for"),
        (year.isin([1, "a"]), "values of one kind"),
        (year.isin([1, True]), "values of one kind"),
        (year.isin([1, None]), "values of one kind"),
        (day.isin(["2024-01-01", 0]), "values of one kind"),
        (year.isin([[1]]), "Write a number"),
    ],
)
def test_a_value_of_another_type_is_an_error_and_not_an_empty_answer(written, remedy):
    with pytest.raises(FieldTypeError, match=remedy) as caught:
        bind(written, SCHEMA)
    error = caught.value
    assert error.code == "wrong_type"
    assert f"{written.field!r} has type {SCHEMA[written.field]}" in error.message
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (year > 2015.5, year > 2015),
        (year >= 2015.5, year > 2015),
        (year < 2015.5, year <= 2015),
        (year <= 2015.5, year <= 2015),
        (year > -0.5, year > -1),
        (day >= "2024-01-01T10:00", day > date(2024, 1, 1)),
        (day < 1_704_067_201, day <= date(2024, 1, 1)),
    ],
)
def test_order_with_a_value_between_two_of_the_type_is_exact(written, meant):
    assert bind(written, SCHEMA) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (Not(Not(year > 1)), year > 1),
        (~(year == 1), year != 1),
        (~(year != 1), year == 1),
        (~year.isin([1]), year.not_in([1])),
        (~year.not_in([1]), year.isin([1])),
        (And((And((year == 1, year == 2)), year == 3)), And((year == 1, year == 2, year == 3))),
        (And((year == 1,)), year == 1),
        (Or((Not(Not(Or((year == 1, year == 2)))), ok == True)), Or((year == 1, year == 2, ok == True))),  # noqa: E712
        (year.isin([2, 1.0, 1, 2]), In("year", (2, 1))),
    ],
)
def test_expressions_that_say_the_same_are_bound_to_the_same(written, meant):
    assert bind(written, SCHEMA) == meant


def test_unknown_fields_name_the_nearest_one():
    with pytest.raises(UnknownFieldError, match="Did you mean 'authors'") as caught:
        bind(field("author").exists() & (year == 1), SCHEMA)
    assert caught.value.code == "unknown_field"
    assert caught.value.value == "author"
    with pytest.raises(UnknownFieldError, match="Known fields: none"):
        bind(year == 1, Schema({}))


@pytest.mark.parametrize("name", ["x" * 1_000_000, 3, None])
def test_names_that_cannot_be_names_are_refused(name):
    with pytest.raises(WhereError, match="not a field name") as caught:
        bind(field(name) == 1, SCHEMA)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (["b", "a", "b"], ("b", "a")),
        (["", np.str_("x")], ("", "x")),
        (["é" * (MAX_STRING_BYTES // 2)], ("é" * (MAX_STRING_BYTES // 2),)),
    ],
)
def test_lists_keep_distinct_values_in_order(values, kept):
    bound = bind(title.isin(values), SCHEMA)
    assert bound.values == kept
    assert {type(value) for value in bound.values} == {str}


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        (title.isin(["x", "\ud83d", "\ude00"]), "lone surrogate"),
        (title.isin(["x", "é" * MAX_STRING_BYTES]), "limit is"),
        (year.isin([1, 2**63]), "64-bit"),
        (year.isin([1, -(2**63) - 1]), "64-bit"),
        (numbers.contains_any([1, 2**63]), "64-bit"),
        (year.isin([True, False]), "Write a number"),
    ],
)
def test_each_value_of_a_list_has_to_fit(written, remedy):
    with pytest.raises(FieldTypeError, match=remedy):
        bind(written, SCHEMA)


@pytest.mark.parametrize("make", ["isin", "not_in"])
def test_empty_lists_are_refused(make):
    with pytest.raises(WhereError, match="an empty list") as caught:
        bind(getattr(year, make)([]), SCHEMA)
    assert caught.value.code == "invalid_where"
    with pytest.raises(WhereError, match="an empty list"):
        bind(authors.contains_all([]), SCHEMA)


def test_lists_have_a_length_limit():
    values = [f"paper {number}" for number in range(100_000)]
    assert bind(title.isin(values), SCHEMA).values == tuple(values)
    with pytest.raises(WhereError, match=f"more than {MAX_IN_VALUES:,}"):
        bind(year.isin(range(MAX_IN_VALUES + 1)), SCHEMA)


def test_depth_and_size_have_limits_in_python_too():
    deep = year > 1
    for _ in range(5_000):
        deep = ~deep
    with pytest.raises(WhereError, match=f"deeper than {MAX_DEPTH} levels"):
        bind(deep, SCHEMA)
    with pytest.raises(WhereError, match=f"more than {MAX_NODES:,} conditions"):
        bind(Or((year == 1,) * (MAX_NODES + 1)), SCHEMA)
    shared = year == 1
    for level in range(60):
        shared = (Or if level % 2 else And)((shared, shared))
    with pytest.raises(WhereError, match="more than"):
        bind(shared, SCHEMA)


@pytest.mark.parametrize("part", [True, None, "year = 1", Expression(), field("ok")])
def test_only_conditions_are_parts_of_expressions(part):
    with pytest.raises(WhereError, match="not a part"):
        bind(And((year == 1, part)), SCHEMA)


def test_groups_of_nothing_are_refused():
    with pytest.raises(WhereError, match="and of nothing"):
        bind(And(()), SCHEMA)


def test_any_form_is_read_by_one_function():
    meant = bind(year >= 2015, SCHEMA)
    assert parse_where({"year": {"$gte": 2015}}, SCHEMA) == meant
    assert parse_where("year >= 2015", SCHEMA) == meant
    assert parse_where(year >= 2015, SCHEMA) == meant
    assert parse_where(None, SCHEMA) is None
    assert parse_where({}, SCHEMA) is None


@pytest.mark.parametrize("where", [3, [], [{"year": 1}], True, b"year = 1", year])
def test_anything_else_is_refused(where):
    with pytest.raises(WhereError, match="expected an object, a string or an expression"):
        parse_where(where, SCHEMA)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 10_000, 80),
        ([10**5_000], 40),
        ("\ud800\x1b[31m", 20),
        (list(range(10**5)), 40),
        (float("nan"), 3),
        (2**70, 22),
    ],
)
def test_values_in_errors_are_short_and_printable(value, text):
    assert len(shown(value)) <= text
    assert shown(value).isprintable()
    assert reported(value) == shown(value)


@pytest.mark.parametrize("value", [None, True, 3, 0.5, "é"])
def test_small_values_in_errors_stay_as_they_are(value):
    assert reported(value) is value


@pytest.mark.parametrize("text", ["x" * (MAX_STRING_BYTES + 1), "é" * (MAX_STRING_BYTES // 2 + 1)])
def test_a_string_that_is_too_long_is_refused_alone_and_in_a_list(text):
    schema = Schema({"title": FieldType.STRING, "names": FieldType.STRING_LIST})
    for where in (
        field("title") == text,
        field("title").isin(["short", text]),
        field("names").contains(text),
        field("names").contains_all([text, "short"]),
        field("title").startswith(text),
    ):
        with pytest.raises(FieldTypeError, match="the limit is 65,536"):
            bind(where, schema)


def test_many_strings_may_be_longer_together_than_one():
    text = "x" * (MAX_STRING_BYTES - 1)
    schema = Schema({"title": FieldType.STRING})
    where = field("title").isin([text + "a", text + "b"])
    assert bind(where, schema) == where


def test_what_is_bound_already_is_not_made_anew():
    schema = Schema({"title": FieldType.STRING, "year": FieldType.INT64})
    for where in (field("year") >= 2015, field("title") == "x", field("title").isin(["a", "b"])):
        assert bind(where, schema) is where
    assert bind(field("year").isin([1, 2, 1]), schema) == field("year").isin([1, 2])


def test_true_is_no_number_however_it_is_compared():
    schema = Schema({"year": FieldType.INT64, "open": FieldType.BOOL})
    for where in (field("year") == True, field("year").isin([True]), field("open") == 1):  # noqa: E712
        with pytest.raises(FieldTypeError):
            bind(where, schema)
