"""docs/filters.md says what the code does: every operator, every limit, every code."""

import json
import re
from pathlib import Path

import pytest

from compactds.filters import FieldType, FieldTypeError, Schema, UnknownFieldError, WhereError, field, limits
from compactds.filters import parse_where as read

PAGE = Path(__file__).parent.parent.joinpath("docs", "filters.md").read_text(encoding="utf-8")
ROWS = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("| ")]
OPERATORS = [row for row in ROWS if len(row) == 4 and "`" in row[1]]
LISTS = ("list has", "list has any of", "list has all of")


def kind_of(what):
    if what in LISTS:
        return FieldType.STRING_LIST
    return {"string starts with": FieldType.STRING, "is true": FieldType.BOOL}.get(what, FieldType.INT64)


def spelled(cell):
    return [code.replace("\\|", "|") for code in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("row", OPERATORS, ids=lambda row: row[0])
def test_the_three_spellings_of_an_operator_mean_the_same(row):
    what, as_json, as_sql, as_python = row
    schema = Schema({"f": kind_of(what), "g": FieldType.INT64})
    names = {"f": field("f"), "g": field("g")}
    meant = read(eval(spelled(as_python)[0], names), schema)
    assert read(spelled(as_sql)[0], schema) == meant
    first = spelled(as_json)[0]
    if "…" not in first:
        assert read(json.loads(first), schema) == meant
    for other in spelled(as_sql)[1:]:
        read(other, schema)


def test_the_page_has_every_operator():
    operators = "$eq $ne $gt $gte $lt $lte $in $nin $contains $contains_any $contains_all $prefix $exists"
    for name in (*operators.split(), "$and", "$or", "$not"):
        assert f'"{name}"' in PAGE or f"`{name}`" in PAGE
    assert len(OPERATORS) == 17


def test_the_page_has_every_type_limit_and_code():
    for kind in FieldType:
        assert f"`{kind}`" in PAGE
    for name in ("MAX_DEPTH", "MAX_NODES", "MAX_IN_VALUES", "MAX_STRING_BYTES", "MAX_TEXT_BYTES"):
        assert f"| {getattr(limits, name):,} |" in PAGE
    for error in (UnknownFieldError, FieldTypeError, WhereError):
        assert f"| `{error.code}` | `{error.__name__}`" in PAGE


def test_the_errors_shown_are_those_raised():
    schema = Schema({"year": FieldType.INT64, "authors": FieldType.STRING_LIST})
    for where in ({"year": "2015"}, {"author": "Ada"}):
        with pytest.raises(WhereError) as caught:
            read(where, schema)
        assert str(caught.value) in PAGE
