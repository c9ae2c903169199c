"""Where expressions read once: the same expressions and errors as ever."""

from datetime import date

import numpy as np
import pytest

from compactds.filters import FieldType, ParsedWheres, Schema, WhereError, field, parse_where
from compactds.filters.parsed import LARGEST_BYTES, MOST_BYTES, MOST_REMEMBERED

SCHEMA = Schema(
    {"year": FieldType.INT64, "open": FieldType.BOOL, "day": FieldType.DATE, "title": FieldType.STRING}
)
WHERES = [
    None,
    {},
    {"year": 1},
    {"year": {"$in": [1, 2, 3]}, "open": True},
    {"$or": [{"year": {"$gte": 2}}, {"title": "ä\0b"}]},
    "year >= 2 AND open",
    {"day": {"$gt": date(2020, 1, 1)}},
    {"day": {"$gt": "2020-01-01"}},
    field("year") == 1,
]


@pytest.fixture
def wheres() -> ParsedWheres:
    return ParsedWheres(SCHEMA)


def test_expressions_are_the_same_the_first_time_and_again(wheres):
    for _ in range(3):
        for where in WHERES:
            assert wheres.parse(where) == parse_where(where, SCHEMA)


def test_an_expression_is_not_read_again(wheres, monkeypatch):
    first = [wheres.parse(where) for where in ({"year": 1}, "year = 1")]
    monkeypatch.setattr("compactds.filters.parsed.parse_where", None)
    assert wheres.parse({"year": 1}) is first[0]
    assert wheres.parse("year = 1") is first[1]


def test_equal_values_of_other_types_are_told_apart(wheres):
    assert wheres.parse({"year": 1}) is not None
    assert wheres.parse({"open": True}) is not None
    for wrong in ({"year": True}, {"open": 1}, {"year": "1"}):
        for _ in range(2):
            with pytest.raises(WhereError):
                wheres.parse(wrong)


@pytest.mark.parametrize("wrong", [{"yaer": 1}, "year >", 7, [{"year": 1}], {"year": float("nan")}, {1: 2}])
def test_errors_are_raised_however_often(wheres, wrong):
    for _ in range(3):
        with pytest.raises(WhereError) as ours:
            wheres.parse(wrong)
        with pytest.raises(WhereError) as theirs:
            parse_where(wrong, SCHEMA)
        assert str(ours.value) == str(theirs.value)
        assert type(ours.value.__context__) is type(theirs.value.__context__)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"year": {"$lt": np.uint8(255)}}, {"year": {"$lt": np.int8(-1)}}),
        ({"year": {"$lt": np.float64(2.0)}}, {"year": {"$lt": np.int64(2**62)}}),
        ({"year": {"$in": [np.float32(100)]}}, {"year": {"$in": [np.int32(1120403456)]}}),
        ({"title": np.str_("n3")}, {"title": "n3"}),
        ({"title": {"$in": ("a", "b")}}, {"title": {"$in": ["a", "b"]}}),
    ],
)
def test_values_with_the_same_bytes_are_told_apart(wheres, one, other):
    for where in (one, other, one):
        try:
            expected = parse_where(where, SCHEMA)
        except WhereError:
            with pytest.raises(WhereError):
                wheres.parse(where)
        else:
            assert wheres.parse(where) == expected


def test_the_bytes_of_what_is_remembered_are_few(wheres):
    for number in range(500):
        wheres.parse({"title": {"$in": [f"{number:{LARGEST_BYTES // 60}d}{place}" for place in range(10)]}})
        assert wheres._bytes <= MOST_BYTES
    assert 0 < len(wheres._known) < 500


def test_what_is_nested_far_too_deep_is_refused(wheres):
    deep = {"year": 1}
    for _ in range(5_000):
        deep = {"$not": deep}
    with pytest.raises(WhereError):
        wheres.parse(deep)


def test_only_so_many_are_remembered_and_none_that_are_long(wheres):
    for year in range(MOST_REMEMBERED + 5):
        wheres.parse({"year": year})
    assert len(wheres._known) == 5
    long = [f"{number:050d}" for number in range(LARGEST_BYTES // 50)]
    wheres.parse({"title": {"$in": long}})
    assert len(wheres._known) == 5
