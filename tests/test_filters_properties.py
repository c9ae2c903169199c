"""Generated schemas, rows and expressions: the answer is DuckDB's, and three front ends agree.

The usual run is short; `COMPACTDS_CASES=5000 pytest tests/test_filters_properties.py` is thorough.
"""

import json
import math
import os
from datetime import UTC, date, datetime, timedelta
from functools import cache

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compactds.configs.recipe import recipe_for
from compactds.datastore import Datastore
from compactds.datastore.ann import narrowed
from compactds.datastore.attributes import AttributeColumns
from compactds.datastore.facets import count_values
from compactds.datastore.segment_filter import SegmentFilter
from compactds.filters import (
    FieldType,
    Schema,
    WhereError,
    bind,
    evaluate,
    from_json,
    from_sql,
    parse_where,
    to_json,
    to_sql,
)
from compactds.filters.where import (
    And,
    Compare,
    Contains,
    ContainsAll,
    ContainsAny,
    Exists,
    In,
    Not,
    NotIn,
    Operator,
    Or,
    Prefix,
)
from compactds.indexer.adding import add
from compactds.indexer.build import build
from compactds.indexer.deleting import delete

ARROW = {
    FieldType.BOOL: pa.bool_(),
    FieldType.INT64: pa.int64(),
    FieldType.FLOAT64: pa.float64(),
    FieldType.STRING: pa.string(),
    FieldType.DATE: pa.date32(),
    FieldType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    FieldType.STRING_LIST: pa.list_(pa.string()),
    FieldType.INT64_LIST: pa.list_(pa.int64()),
}
EXTREMES = (-(2**63), -(2**53) - 1, -1, 0, 1, 2**53, 2**53 + 1, 2**63 - 1)
NAN = float("nan")
FLOATS = (0.0, -0.0, 1.5, -1e308, 5e-324, float(2**53))
TEXTS = ("", "a", "ab", "A", "a%", "a_b", "it's", '"', "\\", "é", "e\u0301", "日本", "\U0001f600", "\n", "--")
DATES = (date(1, 1, 1), date(1969, 12, 31), date(1970, 1, 1), date(2024, 2, 29), date(9999, 12, 31))


def midnight(day):
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


TIMES = (
    *map(midnight, DATES),
    datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
)
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
SCALARS = {
    FieldType.BOOL: st.booleans(),
    FieldType.INT64: st.sampled_from(EXTREMES) | st.integers(-5, 5),
    FieldType.FLOAT64: st.sampled_from(FLOATS) | st.integers(-3, 3).map(float),
    FieldType.STRING: st.sampled_from(TEXTS) | st.text(characters, max_size=3),
    FieldType.DATE: st.sampled_from(DATES) | st.dates(),
    FieldType.TIMESTAMP: st.sampled_from(TIMES) | st.datetimes(timezones=st.just(UTC)),
}
NAMES = ("year", "metadata.year", "select", 'odd "name"', "Über", "a b", "it's", "if", "date", "x;--")


def values_of(kind):
    """Values as a file may hold them: with NaN, and with lists that miss elements."""
    if kind.is_list:
        return st.lists(st.none() | SCALARS[kind.element], max_size=4)
    return SCALARS[kind] | st.just(NAN) if kind is FieldType.FLOAT64 else SCALARS[kind]


@st.composite
def stores(draw):
    """A schema, and up to some hundred rows of it: few drawn ones, repeated and thinned out."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    kinds = {name: draw(st.sampled_from(FieldType)) for name in names}
    count = draw(st.integers(0, 12))
    repeats, missing = draw(st.sampled_from(((1, 0), (1, 0), (9, 0), (1, 400), (3, 90))))
    columns = {}
    for name, kind in kinds.items():
        values = draw(st.lists(st.none() | values_of(kind), min_size=count, max_size=count))
        columns[name] = pa.array(values * repeats + [None] * missing, ARROW[kind])
    return Schema(kinds), columns, count * repeats + missing


@st.composite
def written(draw, kind):
    """A value of a type, in one of the ways a user may write it."""
    value = draw(SCALARS[kind])
    if kind in (FieldType.DATE, FieldType.TIMESTAMP):
        instant = (
            value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)
        )
        forms = [value, value.isoformat(), instant, instant.isoformat(), instant.replace(tzinfo=None)]
        if instant.microsecond == 0:
            forms.append((instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1))
        return draw(st.sampled_from(forms))
    if kind is FieldType.INT64 and abs(value) < 2**53:
        return draw(st.sampled_from([value, float(value)]))
    if kind is FieldType.FLOAT64 and value.is_integer() and abs(value) < 2**53:
        return draw(st.sampled_from([value, int(value)]))
    return value


@st.composite
def conditions(draw, schema):
    """One comparison of one field of the schema, values written in any way its type accepts."""
    name = draw(st.sampled_from(list(schema)))
    kind = schema[name]
    if draw(st.integers(0, 9)) == 0:
        return Exists(name)
    element = SCALARS[kind.element]
    if kind.is_list:
        several = st.lists(element, min_size=1, max_size=4).map(tuple)
        return draw(
            st.builds(Contains, st.just(name), element)
            | st.builds(ContainsAny, st.just(name), several)
            | st.builds(ContainsAll, st.just(name), several)
        )
    if kind is FieldType.STRING and draw(st.booleans()):
        return Prefix(name, draw(element))
    if draw(st.booleans()):
        values = tuple(draw(st.lists(element, min_size=1, max_size=5)))
        return draw(st.sampled_from([In, NotIn]))(name, values)
    operators = [Operator.EQ, Operator.NE] if kind is FieldType.BOOL else list(Operator)
    return Compare(name, draw(st.sampled_from(operators)), draw(written(kind)))


def expressions(schema):
    return st.recursive(
        conditions(schema),
        lambda parts: (
            st.builds(Not, parts)
            | st.builds(And, st.lists(parts, min_size=1, max_size=3).map(tuple))
            | st.builds(Or, st.lists(parts, min_size=1, max_size=3).map(tuple))
        ),
        max_leaves=8,
    )


@cache
def database():
    return duckdb.connect(config={"threads": 1})


SYMBOLS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class Oracle:
    """Say with DuckDB's SQL what a bound expression allows, values passed as parameters."""

    def __init__(self, schema):
        self.schema = schema
        self.parameters = []

    def sql(self, node):
        match node:
            case And(parts):
                return "(" + " AND ".join(self.sql(part) for part in parts) + ")"
            case Or(parts):
                return "(" + " OR ".join(self.sql(part) for part in parts) + ")"
            case Not(part):
                return f"(NOT {self.sql(part)})"
            case Compare(name, Operator.NE, value):
                return f"(NOT {self.sql(Compare(name, Operator.EQ, value))})"
            case NotIn(name, values):
                return f"(NOT {self.sql(In(name, values))})"
            case Exists(name):
                return f"({self.quoted(name)} IS NOT NULL)"
        return f"coalesce({self.comparison(node)}, false)"

    def comparison(self, node):
        match node:
            case Compare(name, operator, value):
                return f"{self.column(name)} {SYMBOLS[operator]} {self.value(value)}"
            case In(name, values):
                return f"{self.column(name)} IN ({', '.join(self.value(value) for value in values)})"
            case Contains(name, value):
                return f"list_contains({self.quoted(name)}, {self.value(value)})"
            case ContainsAny(name, values):
                return f"list_has_any({self.quoted(name)}, {self.value(list(values))})"
            case ContainsAll(name, values):
                return f"list_has_all({self.quoted(name)}, {self.value(list(values))})"
            case Prefix(name, prefix):
                return f"starts_with({self.quoted(name)}, {self.value(prefix)})"

    def quoted(self, name):
        quoted = '"' + name.replace('"', '""') + '"'
        if self.schema[name] is FieldType.FLOAT64:
            return f"(CASE WHEN isnan({quoted}) THEN NULL ELSE {quoted} END)"
        return quoted

    def column(self, name):
        quoted = self.quoted(name)
        return f"epoch_us({quoted})" if self.schema[name] is FieldType.TIMESTAMP else quoted

    def value(self, value):
        if isinstance(value, datetime):
            value = (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        self.parameters.append(value)
        return "?"

    def rows(self, expression, file):
        query = f"SELECT {self.sql(expression)} FROM read_parquet(?, file_row_number = true)"
        query += " ORDER BY file_row_number"
        return [row[0] for row in database().execute(query, [*self.parameters, str(file)]).fetchall()]


class Columns:
    def __init__(self, columns):
        self.columns = columns

    def column(self, name):
        return self.columns[name]


class Part:
    """Stand for a segment of which only the attributes are asked for."""

    def __init__(self, attributes):
        self.attributes = attributes


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("attributes") / "attributes.parquet"


CASES = os.environ.get("COMPACTDS_CASES")
thorough = settings(
    deadline=None,
    derandomize=True,
    max_examples=int(CASES or 200),
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)


@thorough
@given(st.data())
def test_allowed_rows_are_those_of_duckdb(file, data):
    schema, columns, count = data.draw(stores())
    wanted = [bind(part, schema) for part in data.draw(st.lists(expressions(schema), min_size=1, max_size=3))]
    # Without statistics, because DuckDB takes a column whose only numbers are 0.0 for free of NaN.
    size = data.draw(st.sampled_from((3, 50, 1_000)))
    pq.write_table(pa.table(columns), file, row_group_size=size, write_statistics=False)
    attributes = AttributeColumns(file, schema)
    limits = data.draw(st.sampled_from(({}, {"columns_bytes": 0}, {"columns_bytes": 600, "cache_bytes": 40})))
    source = SegmentFilter(attributes, **limits)
    for expression in wanted:
        expected = Oracle(schema).rows(expression, file)
        assert source.rows(expression).mask().tolist() == expected
        assert source.rows(expression).rows().tolist() == np.flatnonzero(expected).tolist()
        assert source.rows(expression).count == sum(expected)
        assert (~source.rows(bind(Not(expression), schema))).mask().tolist() == expected
        together = bind(And((expression, wanted[0])), schema)
        assert source.rows(together) == source.rows(expression) & source.rows(wanted[0])
        assert evaluate(expression, Columns(columns), count).tolist() == expected
    source = SegmentFilter(attributes)
    for memory in source.measure(schema):
        assert memory.ram_bytes <= source.at_most(memory.name).ram_bytes
    attributes.close()


@thorough
@given(st.data())
def test_facets_count_what_a_condition_on_each_value_allows(file, data):
    schema, columns, _ = data.draw(stores())
    pq.write_table(pa.table(columns), file)
    attributes = AttributeColumns(file, schema)
    if data.draw(st.booleans()):
        attributes.filter = SegmentFilter(attributes, columns_bytes=0)
    allowed = None
    if data.draw(st.booleans()):
        allowed = attributes.filter.rows(bind(data.draw(expressions(schema)), schema))
    for name, kind in schema.fields.items():
        counted = count_values(name, [(Part(attributes), allowed)], 1_000)
        assert counted == sorted(counted, key=lambda item: (-item[1], item[0]))
        assert count_values(name, [(Part(attributes), allowed)], 2) == counted[:2]
        twice = [(value, 2 * count) for value, count in counted]
        assert count_values(name, [(Part(attributes), allowed)] * 2, 1_000) == twice
        for value, count in counted:
            condition = Contains(name, value) if kind.is_list else Compare(name, Operator.EQ, value)
            rows = attributes.filter.rows(bind(condition, schema))
            assert (rows if allowed is None else rows & allowed).count == count
        if not kind.is_list:
            present = attributes.filter.rows(Exists(name))
            total = (present if allowed is None else present & allowed).count
            assert sum(count for _, count in counted) == total
    attributes.close()


@thorough
@given(st.data())
def test_three_front_ends_agree(data):
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    schema = Schema({name: data.draw(st.sampled_from(FieldType)) for name in names})
    expression = data.draw(expressions(schema))
    bound = bind(expression, schema)
    for source in (expression, bound):
        assert bind(from_json(json.loads(json.dumps(to_json(source)))), schema) == bound
        assert bind(from_sql(to_sql(source)), schema) == bound
    assert from_sql(to_sql(bound)) == bound
    assert bind(bound, schema) == bound
    assert hash(bound) == hash(bind(expression, schema))


@thorough
@given(
    st.lists(SCALARS[FieldType.INT64], max_size=8),
    st.floats(-1e18, 1e18) | st.floats(-6, 6) | st.sampled_from((-0.5, 0.5, 2.0**53)),
    st.sampled_from([operator for operator in Operator if operator.is_order]),
)
def test_whole_numbers_are_ordered_exactly_with_any_number(values, limit, operator):
    order = {
        Operator.GT: int.__gt__,
        Operator.GTE: int.__ge__,
        Operator.LT: int.__lt__,
        Operator.LTE: int.__le__,
    }[operator]
    exact = math.floor(limit) if limit == math.floor(limit) else None
    expected = [
        order(value, exact) if exact is not None else (value > limit) == (operator in ("gt", "gte"))
        for value in values
    ]
    schema = Schema({"year": FieldType.INT64})
    bound = bind(Compare("year", operator, limit), schema)
    assert evaluate(bound, Columns({"year": pa.array(values, pa.int64())}), len(values)).tolist() == expected


CODES = ("invalid_where", "unknown_field", "wrong_type")
KEYS = """
year title day authors $and $or $not $eq $gt $in $nin $contains $contains_all $prefix $exists
""".split()  # noqa: SIM905
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(TEXTS),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=3),
            parts,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@thorough
@given(anything)
def test_any_json_is_read_or_refused(where):
    schema = Schema(
        {
            "year": FieldType.INT64,
            "title": FieldType.STRING,
            "day": FieldType.DATE,
            "authors": FieldType.STRING_LIST,
        }
    )
    try:
        bound = parse_where(where, schema)
    except WhereError as error:
        refused = error.code in CODES and str(error).isprintable()
        json.dumps(error.value, allow_nan=False)
        assert refused
        return
    if bound is not None:
        columns = {name: pa.nulls(2, ARROW[kind]) for name, kind in schema.fields.items()}
        assert evaluate(bound, Columns(columns), 2).shape == (2,)


FIELDS = {
    "flag": FieldType.BOOL,
    "number": FieldType.INT64,
    "share": FieldType.FLOAT64,
    "word": FieldType.STRING,
    "day": FieldType.DATE,
    "moment": FieldType.TIMESTAMP,
    "words": FieldType.STRING_LIST,
    "numbers": FieldType.INT64_LIST,
}
ROWS, DIMENSION = 1_200, 8


def made_up_records(first, count):
    """Records with attributes of every type, most of them from the values that conditions are drawn from."""
    draw = np.random.default_rng(first)

    def pick(values):
        return values[draw.integers(len(values))]

    for number in range(first, first + count):
        record = {
            "id": f"d{number}",
            "text": f"passage {number}",
            "flag": bool(draw.random() < 0.1),
            "number": int(draw.integers(-5, 6)),
            "share": float(draw.integers(-3, 4)) / 2,
            "word": pick(TEXTS),
            "day": pick(DATES).isoformat(),
            "moment": pick(TIMES).isoformat(),
            "words": [pick(TEXTS) for _ in range(draw.integers(0, 4))],
            "numbers": draw.integers(-5, 6, draw.integers(0, 4)).tolist(),
        }
        for name in FIELDS:
            if draw.random() < 0.1:
                del record[name]
        yield record


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Open a store for each kind of index; one has a second segment, and some documents deleted.

    Filters get lists of their own at the second search.
    """
    opened = {}
    patch = pytest.MonkeyPatch()
    patch.setattr(narrowed, "STEADY_SEARCHES", 2)
    patch.setattr(narrowed, "COPYING_WORK", 1_000_000)
    for kind in ("flat", "hnsw", "ivf"):
        root = tmp_path_factory.mktemp(kind)
        changes = {"index.kind": kind, "attributes": {name: str(FIELDS[name]) for name in FIELDS}}
        for part, (first, count) in enumerate(((0, ROWS), (ROWS, 300))):
            lines = [json.dumps(record) for record in made_up_records(first, count)]
            (root / f"{part}.jsonl").write_text("\n".join(lines))
            vectors = np.random.default_rng(part).standard_normal((count, DIMENSION)).astype(np.float32)
            np.save(root / f"{part}.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        build(
            recipe_for([str(root / "0.jsonl")], {**changes, "vectors": str(root / "0.npy")}), root / "store"
        )
        if kind == "ivf":
            add(root / "store", [str(root / "1.jsonl")], overrides={"vectors": str(root / "1.npy")})
            delete(root / "store", ids=[f"d{number}" for number in range(0, ROWS, 7)])
        opened[kind] = Datastore.open(root / "store")
    yield opened
    patch.undo()
    for store in opened.values():
        store.close()


def rows_allowed(store, bound):
    """Say with DuckDB which rows of the store are allowed and not deleted, in the order of the store."""
    allowed = []
    for segment in store._segments:
        rows = Oracle(store.schema).rows(bound, segment.path / "attributes.parquet")
        live = [True] * len(rows) if segment.live is None else segment.live.mask().tolist()
        allowed += [one and other for one, other in zip(rows, live, strict=True)]
    return np.flatnonzero(allowed)


@settings(thorough, max_examples=int(CASES or 60))
@given(st.data())
def test_searches_return_as_many_allowed_rows_as_there_are_and_no_others(searched, data):
    store = searched[data.draw(st.sampled_from(sorted(searched)))]
    schema = Schema(FIELDS)
    wheres = data.draw(st.lists(expressions(schema), min_size=1, max_size=3))
    allowed = [rows_allowed(store, bind(where, store.schema)) for where in wheres]
    forms = [
        data.draw(st.sampled_from((where, bind(where, schema), to_json(where), to_sql(where))))
        for where in wheres
    ]
    k = data.draw(st.sampled_from((1, 3, 10, 100, 2_000)))
    effort = data.draw(
        st.sampled_from(({}, {"recall": 0.8}, {"recall": 1.0}, {"candidates": 2_000}))
        | st.builds(lambda plan: {"plan": plan}, st.sampled_from(("exact", "lists", "codes", "open")))
    )
    queries = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal((len(wheres), DIMENSION))
    for _ in range(data.draw(st.sampled_from((1, 4)))):
        found = store.nearest(queries.astype(np.float32), k=k, where=forms, **effort)
    every = store.nearest(queries.astype(np.float32), k=2_000, recall=1.0)
    for rows, scores, mine, ranked in zip(found.rows, found.scores, allowed, every.rows, strict=True):
        returned = rows[rows >= 0]
        assert len(returned) == len(set(returned.tolist())) == min(k, len(mine))
        assert np.isin(returned, mine).all()
        assert (np.diff(scores[: len(returned)]) <= 0).all()
        assert (scores[len(returned) :] == -np.inf).all()
        if effort in ({"recall": 1.0}, {"plan": "exact"}):
            assert returned.tolist() == ranked[np.isin(ranked, mine)][:k].tolist()
    for where, mine in zip(wheres, allowed, strict=True):
        assert [store.count(form) for form in (where, to_json(where), to_sql(where))] == [len(mine)] * 3
    if len(wheres) == 1:
        (hits,) = store.search(vectors=queries.astype(np.float32), k=min(k, 10), where=forms[0])
        assert len(hits) == min(k, 10, len(mine))
        assert hits.report.matching == len(mine)
