"""Where expressions as SQL conditions, in DuckDB's dialect."""

import logging
from datetime import UTC, date, datetime, timedelta, timezone

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactds.filters import (
    Expression,
    FieldType,
    Schema,
    WhereError,
    evaluate,
    field,
    from_sql,
    parse_where,
    to_sql,
)
from compactds.filters.limits import MAX_DEPTH, MAX_NODES, MAX_TEXT_BYTES
from compactds.filters.where import And, Not, Or

year, title, authors, ok = field("year"), field("title"), field("authors"), field("ok")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("year = 2015", year == 2015),
        ("year == 2015", year == 2015),
        ("year != 2015", year != 2015),
        ("year <> 2015", year != 2015),
        ("year < 2015", year < 2015),
        ("year <= 2015", year <= 2015),
        ("year > 2015", year > 2015),
        ("year >= 2015", year >= 2015),
        ("2015 <= year", year >= 2015),
        ("2015 > year", year < 2015),
        ("year = -9223372036854775808", year == -(2**63)),
        ("score > 1.5e-3", field("score") > 0.0015),
        ("score > -.5", field("score") > -0.5),
        ("year IN (1, -2, 3)", year.isin([1, -2, 3])),
        ("year NOT IN (1)", year.not_in([1])),
        ("NOT year IN (1)", year.not_in([1])),
        ("year BETWEEN 1 AND 3", And((year >= 1, year <= 3))),
        ("year NOT BETWEEN 1 AND 3", Not(And((year >= 1, year <= 3)))),
        ("year IS NULL", Not(year.exists())),
        ("year IS NOT NULL", year.exists()),
        ("title LIKE 'On %'", title.startswith("On ")),
        ("title NOT LIKE 'On%'", Not(title.startswith("On"))),
        ("title LIKE '%'", title.startswith("")),
        ("starts_with(title, '100%_')", title.startswith("100%_")),
        ("list_contains(authors, 'Ada')", authors.contains("Ada")),
        ("list_has_any(authors, ['Ada', 'Bob'])", authors.contains_any(["Ada", "Bob"])),
        ("List_Has_All(authors, ['Ada'])", authors.contains_all(["Ada"])),
        ("NOT list_contains(authors, 'Ada')", Not(authors.contains("Ada"))),
        ("ok", ok == True),  # noqa: E712
        ("NOT ok", ok != True),  # noqa: E712
        ("ok = TRUE", ok == True),  # noqa: E712
        ("ok IS TRUE", ok == True),  # noqa: E712
        ("ok IS NOT FALSE", ok != False),  # noqa: E712
        ("title = 'it''s \\n -- no comment; /* none */'", title == "it's \\n -- no comment; /* none */"),
        ("title = 'é\n日本'", title == "é\n日本"),
        ("metadata.year = 1", field("metadata.year") == 1),
        ('"metadata.year" = 1', field("metadata.year") == 1),
        ("a.b.c.d.e.f = 1", field("a.b.c.d.e.f") == 1),
        ('"if" = 1 AND "select" = 2', And((field("if") == 1, field("select") == 2))),
        ('"odd ""name""" = 1', field('odd "name"') == 1),
        ("Über = 1 AND date = 2", And((field("Über") == 1, field("date") == 2))),
        ("d = DATE '2024-02-29'", field("d") == date(2024, 2, 29)),
        ("t = TIMESTAMP '2024-01-02 03:04:05.5'", field("t") == datetime(2024, 1, 2, 3, 4, 5, 500000, UTC)),
        (
            "t = TIMESTAMPTZ '2024-01-02T03:04:05+02:00'",
            field("t") == datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
        ),
        ("year = 1 AND year = 2 AND ok", And((year == 1, year == 2, ok == True))),  # noqa: E712
        ("year = 1 OR year = 2 AND year = 3", Or((year == 1, And((year == 2, year == 3))))),
        ("(year = 1 OR year = 2) AND year = 3", And((Or((year == 1, year == 2)), year == 3))),
        ("NOT (year > 1 AND (year < 3 OR ok))", Not(And((year > 1, Or((year < 3, ok == True)))))),  # noqa: E712
        ("((year)) = (2015)", year == 2015),
        ("year IN ((1), (-2))", year.isin([1, -2])),
        ("year\n=\t2015", year == 2015),
    ],
)
def test_each_form_means_its_expression(written, meant):
    assert from_sql(written) == meant
    assert from_sql(to_sql(meant)) == meant


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("", "empty text"),
        (" \n", "empty text"),
        ("SELECT 1", "not a condition"),
        ("DROP TABLE x", "not a condition"),
        ("COPY x TO 'y'", "not a condition"),
        ("year = 1; DROP TABLE x", "several statements"),
        ("year = 1;", "several statements"),
        ("year = 1 -- and more", "a comment"),
        ("year = 1 /* more */", "a comment"),
        ("/*+ hint */ year = 1", "a comment"),
        ("--", "empty text"),
        ("year IN (SELECT 1)", "sub-query"),
        ("year = (SELECT 1)", "not a condition"),
        ("EXISTS (SELECT 1)", "'EXISTS' before a parenthesis"),
        ("read_text('/etc/passwd') = 'x'", "'read_text' before a parenthesis"),
        ("abs(year) = 1", "'abs' before a parenthesis.*The functions are list_contains"),
        ("CAST(year AS INT) = 1", "'CAST' before a parenthesis"),
        ("array_contains(authors, 'x')", "'array_contains' before a parenthesis"),
        ("where_starts_with(title, 'x')", "before a parenthesis"),
        ("list_contains(authors, 'x') FILTER (WHERE ok)", "'FILTER' before"),
        ("list_contains(authors, 'x') OVER w", "'window' is not supported"),
        ("list_contains(DISTINCT authors, 'x')", "arguments"),
        ("list_contains(authors)", "of 1 arguments"),
        ("list_contains(authors, 'x', 'y')", "of 3 arguments"),
        ("list_contains('x', authors)", "a value where a field belongs"),
        ("list_contains(authors, title)", "field 'title' in place of a value"),
        ("list_has_any(authors, 'x')", "without a list"),
        ("list_has_any(authors, ('x', 'y'))", "not a condition"),
        ("'x' IN authors", r"IN with a field on its right.*list_contains\(f, 'x'\)"),
        ("year = metadata.year", "field 'metadata.year' in place of a value. Write strings in single"),
        ('title = "abc"', "field 'abc' in place of a value. Write strings in single quotes"),
        ("year + 1 = 2", r"'\+' at line 1"),
        ("year - 1 = 2", "'sub' is not supported"),
        ("year::int = 1", "'::' at line 1"),
        ("year = ?", "'?'"),
        ("year = $1", r"'\$'"),
        ("year = :x", "':'"),
        ("year = NULL", "comparison with NULL. Write IS NULL"),
        ("year IN (1, NULL)", "comparison with NULL"),
        ("year IS 3", "a value where a field belongs"),
        ("year IS DISTINCT FROM 3", "not supported"),
        ("year BETWEEN SYMMETRIC 3 AND 1", "'between' is not supported"),
        ("year BETWEEN 0 2", "BETWEEN without AND at line 1, column 12"),
        ("year BETWEEN 0 2 AND 3", "BETWEEN without AND"),
        ("year BETWEEN 1", "BETWEEN without AND"),
        ("year BETWEEN AND 2", "BETWEEN without AND"),
        ("year NOT IS NOT NULL", "'IS' after 'NOT'"),
        ("year IN (1,)", r"'\)' after ','"),
        ("year IN (,1)", r"',' after '\('"),
        ("list_has_any(authors, ['x',])", r"'\]' after ','"),
        ("starts_with(title, 'a',)", r"'\)' after ','"),
        ("title LIKE '%x'", r"LIKE '%x'.*starts_with"),
        ("title LIKE 'a_c%'", "LIKE"),
        ("title LIKE 'abc'", "LIKE"),
        ("title LIKE 3", "LIKE 3"),
        ("title LIKE 'a%' ESCAPE '!'", "'escape' is not supported"),
        ("title ILIKE 'a%'", "'ilike' is not supported"),
        ("title GLOB 'a*'", "'glob' is not supported"),
        ("title = E'a'", "not supported"),
        ("title = $$a$$", "not supported"),
        ("title = 'a' 'b'", "not supported"),
        ("title = 'a' || 'b'", r"'\|\|'"),
        ("title = 'open", "unfinished quote"),
        ('"open = 1', "unfinished quote"),
        ("title COLLATE nocase = 'a'", "not supported"),
        ("authors = ['x']", "'array' is not supported"),
        ("authors[1] = 'x'", "'bracket' is not supported"),
        ("t = INTERVAL '1' DAY", "not supported"),
        ("t = INT '1'", "'cast' is not supported"),
        ("d = DATE '2024-02-03 04:05'", "Write TIMESTAMP"),
        ("CASE WHEN ok THEN 1 END", "'case' is not supported"),
        ("IF ok THEN 1", "'IF'"),
        ("TRUE", "a value where a field belongs"),
        ("1 = 1", "a value where a field belongs"),
        ("(year = 1) = 2", "a condition where a field or a value belongs"),
        ("year = (ok AND ok)", "a condition where a field or a value belongs"),
        ("a.* = 1", r"'\*'"),
        ("ok XOR ok", "not a condition"),
        ("year = 1 2", "not a condition at line 1, column 10"),
        ("year =", "not a condition"),
        ("ELSE 3 END", "not a condition"),
        ("(year = 1", "an unclosed parenthesis at line 1, column 1"),
        ("year = 1)", "an unopened parenthesis"),
        ("()", "nothing in parentheses"),
        ("(1, 2) = (1, 2)", "not a condition"),
        ('"a\0b" = 1', "'a.x00b' at line 1"),
        ("a\0b = 1", "at line 1"),
        ("title = '\ud800'", "lone surrogate"),
        ("year = 12e", "Write 2015, -1, 0.5 or 1e-3"),
        ("year = 0x1F", "not a condition"),
    ],
)
def test_everything_else_is_refused(condition, message):
    with pytest.raises(WhereError, match=message) as caught:
        from_sql(condition)
    assert caught.value.code == "invalid_where"
    assert caught.value.remedy


def test_numbers_too_long_to_be_meant_become_infinite_and_never_hang():
    with pytest.raises(WhereError, match=r"outside the range|finite"):
        parse_where("year = " + "9" * 60_000, Schema({"year": FieldType.INT64}))


def test_refusals_carry_no_long_text():
    with pytest.raises(WhereError) as caught:
        from_sql("year = " + "x" * 60_000)
    assert len(str(caught.value)) < 500
    assert len(caught.value.value) < 100


@pytest.mark.parametrize("text", ["s = '" + "x" * 1_000_000 + "'", "ok AND " * 200_000 + "ok"])
def test_text_has_a_size_limit(text):
    with pytest.raises(WhereError, match=f"the limit is {MAX_TEXT_BYTES:,}"):
        from_sql(text)


def test_conditions_have_a_number_limit():
    with pytest.raises(WhereError, match=f"more than {MAX_NODES:,} conditions"):
        parse_where(" OR ".join(["ok"] * (MAX_NODES + 1)), Schema({"ok": FieldType.BOOL}))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 1_000 + "ok" + ")" * 1_000,
        "ok AND (" * 1_000 + "ok" + ")" * 1_000,
        "year IN (" * 1_000 + "1" + ")" * 1_000,
        "NOT " * 10_000 + "ok",
        "year = " + "- " * 10_000 + "1",
        "[" * 10_000,
        "CASE WHEN " * 5_000,
    ],
)
def test_nesting_has_a_limit(text):
    with pytest.raises(WhereError, match=f"deeper than {MAX_DEPTH} levels|nested too deep"):
        from_sql(text)


def test_nesting_within_the_limit_works_far_down_the_call_stack():
    alternating = ok == True  # noqa: E712
    for level in range(MAX_DEPTH - 2):
        alternating = (Or if level % 2 else And)((ok != True, alternating))  # noqa: E712

    def far_down(frames):
        return far_down(frames - 1) if frames else from_sql(to_sql(alternating))

    assert far_down(300) == alternating


def test_nothing_is_logged_about_refused_text(caplog):
    with caplog.at_level(logging.DEBUG):
        for text in ("IF x", "CALL x", "EXPLAIN x", "ok AND IF y"):
            with pytest.raises(WhereError):
                from_sql(text)
    assert not caplog.records


def test_what_sql_cannot_say_is_refused_when_written():
    with pytest.raises(WhereError, match="empty name or one with NUL"):
        to_sql(field("a\0b") == 1)
    with pytest.raises(WhereError, match="cannot be written in SQL"):
        to_sql(year == object())
    with pytest.raises(WhereError, match="not a part"):
        to_sql(Expression())


def test_dates_are_written_as_literals():
    assert to_sql(field("d") == date(2024, 1, 2)) == "\"d\" = DATE '2024-01-02'"
    assert to_sql(field("t") > datetime(2024, 1, 2, 3)) == "\"t\" > TIMESTAMP '2024-01-02 03:00:00'"
    aware = datetime(2024, 1, 2, 3, tzinfo=UTC)
    assert to_sql(field("t") > aware) == "\"t\" > TIMESTAMPTZ '2024-01-02 03:00:00+00:00'"


SCHEMA = Schema(
    {
        "year": FieldType.INT64,
        "score": FieldType.FLOAT64,
        "title": FieldType.STRING,
        "ok": FieldType.BOOL,
        "d": FieldType.DATE,
        "t": FieldType.TIMESTAMP,
        "authors": FieldType.STRING_LIST,
        "numbers": FieldType.INT64_LIST,
    }
)
FULL = pa.table(
    {
        "year": pa.array([2014, 2015, -3]),
        "score": pa.array([0.5, -1.5, 1e300]),
        "title": pa.array(["On it", "100%_ sure", "it's \\"]),
        "ok": pa.array([True, False, True]),
        "d": pa.array([date(2024, 1, 1), date(1969, 12, 31), date(2024, 2, 29)]),
        "t": pa.array([0, 1_704_067_200_000_000, -1], pa.timestamp("us", tz="UTC")),
        "authors": pa.array([["Ada", "Bob"], [], ["Ada"]]),
        "numbers": pa.array([[1, -2], [3], []], pa.list_(pa.int64())),
    }
)


class Table:
    def __init__(self, table):
        self.table = table.combine_chunks()

    def column(self, name):
        return self.table.column(name).chunk(0)


@pytest.mark.parametrize(
    "condition",
    [
        "year > 2014 OR score <= -1.5 AND NOT ok",
        "NOT year > 2014 AND ok",
        "NOT (year > 2014 AND ok)",
        "year NOT BETWEEN 2014 AND 2020 OR year BETWEEN 2015 AND 2015",
        "year NOT IN (2014, -3) OR ok IS NOT TRUE",
        "title LIKE '100%' OR title LIKE 'it''s \\%'",
        "title NOT LIKE 'On%' AND NOT title LIKE 'on%'",
        "starts_with(title, '100%_')",
        "list_contains(authors, 'Ada') AND NOT list_has_all(authors, ['Ada', 'Bob'])",
        "list_has_any(numbers, [-2, 3, 3]) OR ok",
        "d >= DATE '2024-01-01' AND d < '2024-02-29'",
        "t = TIMESTAMPTZ '1970-01-01 02:00:00+02:00' OR t < TIMESTAMPTZ '1970-01-01 00:00:00+00:00'",
        "1e300 <= score OR -1.5 = score",
        "year IS NOT NULL AND ok OR year IS NULL",
    ],
)
def test_conditions_without_missing_values_mean_what_duckdb_says(condition):
    expected = duckdb.from_arrow(FULL).project(condition).fetchnumpy().popitem()[1]
    got = evaluate(parse_where(condition, SCHEMA), Table(FULL), FULL.num_rows)
    assert np.array_equal(got, expected)


_PIECES = """
year ok title authors = <> < >= ( ) , . 'x' 'a%' 1 -1 2.5 1e5 AND OR NOT IN BETWEEN LIKE IS NULL TRUE
FALSE [ ] DATE '2024-01-01' TIMESTAMP list_contains( starts_with( list_has_any( ' " ; -- /* */ - * + ::
? $1 \0 é IF CASE WHEN THEN END SELECT FROM DISTINCT ANY ALL EXISTS OVER ROW { } := -> @> || && ! ~
""".split()  # noqa: SIM905


@settings(deadline=None, derandomize=True, max_examples=250)
@given(st.lists(st.sampled_from(_PIECES), max_size=12).map(" ".join) | st.text(max_size=20))
def test_any_text_is_read_or_refused(text):
    try:
        expression = from_sql(text)
    except WhereError:
        return
    assert from_sql(to_sql(expression)) == expression
