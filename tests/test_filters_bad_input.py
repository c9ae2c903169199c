"""What cannot be used is refused by Python, the command line and HTTP alike, with a code and a way out."""

import json

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from compactds.cli.main import app
from compactds.configs.recipe import recipe_for
from compactds.datastore import Datastore
from compactds.filters import FieldType, WhereError, field
from compactds.filters.limits import MAX_DEPTH, MAX_IN_VALUES, MAX_NODES
from compactds.indexer.build import build
from compactds.server import ServerSettings, create_app

ROWS, MEGABYTE = 60, 1 << 20
TYPES = {"year": "int64", "venue": "string", "share": "float64", "day": "date", "open": "bool"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    lines = [
        {
            "id": f"d{row}",
            "text": f"passage {row}",
            "year": 1990 + row % 30,
            "venue": f"v{row % 7}",
            "share": row / 4,
            "day": f"2024-01-{row % 28 + 1:02d}",
            "open": row % 2 == 0,
            "tags": [f"t{row % 5}"],
        }
        for row in range(ROWS)
    ]
    (root / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    np.save(root / "vectors.npy", np.eye(ROWS, dtype=np.float32))
    changes = {"vectors": str(root / "vectors.npy"), "attributes": TYPES}
    build(recipe_for([str(root / "rows.jsonl")], changes), root / "store")
    with Datastore.open(root / "store") as opened:
        assert opened.schema["tags"] is FieldType.STRING_LIST
        yield opened


@pytest.fixture(scope="module")
def http(store):
    with TestClient(create_app(store, ServerSettings()), base_url="http://localhost") as client:
        client.headers["content-type"] = "application/json"
        yield client


def nested(wrap, levels):
    """Return the text of a condition inside so many others: Python's own writer of JSON would not do it."""
    before, after = wrap
    return before * levels + '{"year": 1990}' + after * levels


YEAR, DAY, VENUE, TAGS = (
    f"field '{name}' has type {kind}"
    for name, kind in (
        ("year", "int64"),
        ("day", "date"),
        ("venue", "string"),
        ("tags", "list<string>"),
    )
)
MISTAKES = [
    # (where, code, what the message says, what the remedy says)
    ({"yaer": 1990}, "unknown_field", "unknown field 'yaer'", "Did you mean 'year'?"),
    ("yaer = 1990", "unknown_field", "unknown field 'yaer'", "Did you mean 'year'?"),
    ({"YEAR": 1990}, "unknown_field", "unknown field 'YEAR'", "Did you mean 'year'?"),
    ({"zzz": 1}, "unknown_field", "unknown field 'zzz'", "Known fields: document_id, title, source"),
    ({"year": "2015"}, "wrong_type", f"{YEAR}, and '2015' (string)", "without quotes"),
    ("year = '2015'", "wrong_type", f"{YEAR}, and '2015' (string)", "without quotes"),
    ({"venue": 3}, "wrong_type", f"{VENUE}, and 3 (number)", "in quotes"),
    ("venue > 3", "wrong_type", f"{VENUE}, and 3 (number)", "--attribute venue=int64"),
    ({"tags": "t1"}, "wrong_type", f"{TAGS}, and 't1' (string)", "Use $contains"),
    ({"venue": {"$contains": "v"}}, "wrong_type", VENUE, "Use $eq"),
    ({"year": {"$prefix": "19"}}, "wrong_type", YEAR, "Only string fields"),
    ({"open": {"$gt": True}}, "wrong_type", "field 'open' has type bool", "Use $eq"),
    ({"year": None}, "wrong_type", f"{YEAR}, and None (null)", "Use $exists"),
    (
        {"year": {"$in": [1990, "x", True]}},
        "wrong_type",
        "mixes boolean True and number 1990 and string 'x'",
        "one kind",
    ),
    ("year IN (1990, 'x')", "wrong_type", "mixes number 1990 and string 'x'", "one kind"),
    ({"tags": {"$contains_any": ["a", 1]}}, "wrong_type", "mixes number 1 and string 'a'", "one kind"),
    (
        {"year": {"$in": [*range(99_999), "x"]}},
        "wrong_type",
        "mixes number 99998 and string 'x'",
        "one kind",
    ),
    ({"year": {"$in": []}}, "invalid_where", "field 'year': an empty list", "at least one value"),
    ("year IN ()", "invalid_where", "field 'year': an empty list", "at least one value"),
    (
        {"year": {"$in": list(range(MAX_IN_VALUES + 1))}},
        "invalid_where",
        "field 'year': 131,073 values are more than 131,072",
        "Split the list",
    ),
    (nested(('{"$not":', "}"), 1_000), "invalid_where", f"deeper than {MAX_DEPTH} levels", "one $and"),
    (nested(('{"a":', "}"), 1_000), "invalid_where", f"deeper than {MAX_DEPTH} levels", "one $and"),
    ("(" * 1_000 + "year = 1" + ")" * 1_000, "invalid_where", f"deeper than {MAX_DEPTH}", "one $and"),
    ("NOT " * 1_000 + "year = 1", "invalid_where", f"deeper than {MAX_DEPTH}", "one $and"),
    ("year = " + "- " * 1_000 + "1", "invalid_where", f"deeper than {MAX_DEPTH}", "one $and"),
    (f"venue = '{'x' * MEGABYTE}'", "invalid_where", "1,048,586 bytes, the limit is 65,536", "Use JSON"),
    ({"venue": "x" * MEGABYTE}, "wrong_type", "'xxx", "It has 1,048,576 bytes, the limit is 65,536"),
    ({"x" * MEGABYTE: 1}, "invalid_where", "is not a field name", "at most 1,000 characters"),
    ({"year": {"$get": 1}}, "invalid_where", "field 'year': unknown operator '$get'", "Did you mean '$gt'?"),
    ({"id": "d1"}, "unknown_field", "unknown field 'id'", "Did you mean 'document_id'?"),
    ("ID = 'd1'", "unknown_field", "unknown field 'ID'", "Did you mean 'document_id'?"),
    ({"year": {"$" + "x" * MEGABYTE: 1}}, "invalid_where", "unknown operator '$xxx", "Known here"),
    (
        {"$or": [{"year": year} for year in range(90_000)]},
        "invalid_where",
        f"more than {MAX_NODES:,} conditions",
        "Use $in",
    ),
    ("DROP TABLE passages", "invalid_where", "not a condition", "Compare fields with literals"),
    ("year = 1; DROP TABLE passages", "invalid_where", "several statements", "one condition"),
    ("year = 1 UNION SELECT 1", "invalid_where", "not a condition", "Compare fields"),
    ("COPY x TO 'file'", "invalid_where", "not a condition", "Compare fields"),
    ("ATTACH 'file'", "invalid_where", "not a condition", "Compare fields"),
    ("read_csv('secrets') = 1", "invalid_where", "'read_csv' before a parenthesis", "The functions are"),
    ("venue = getenv('HOME')", "invalid_where", "'getenv' before a parenthesis", "The functions are"),
    ("year IN (SELECT 1)", "invalid_where", "a sub-query", "Write the values"),
    ("EXISTS (SELECT 1)", "invalid_where", "'EXISTS' before a parenthesis", "The functions are"),
    ("year = 1 -- all", "invalid_where", "a comment", "Leave comments out"),
    ("year = 1 /* all */", "invalid_where", "a comment", "Leave comments out"),
    ("share = NaN", "invalid_where", "field 'NaN' in place of a value", ""),
    ({"day": "2023-02-30"}, "wrong_type", f"{DAY}, and '2023-02-30' (string)", "no such date"),
    ("day = '2023-02-30'", "wrong_type", f"{DAY}, and '2023-02-30' (string)", "no such date"),
    ("day = DATE '2023-02-30'", "wrong_type", f"{DAY}, and DATE '2023-02-30' (date)", "no such date"),
    ("day = DATE 'soon'", "wrong_type", f"{DAY}, and DATE 'soon' (date)", "Write '2024-01-31'"),
    ("venue = DATE 'soon'", "wrong_type", f"{VENUE}, and DATE 'soon' (date)", "in quotes"),
    ("year IN (1, DATE 'soon')", "wrong_type", "mixes date DATE 'soon' and number 1", "one kind"),
    ({"day": {"$in": ["2023-13-01", "2024-01-01"]}}, "wrong_type", DAY, "no such date: '2023-13-01'"),
    ({"day": 2021}, "wrong_type", f"{DAY}, and 2021 (number)", 'Write "2021-01-01"'),
    ("day > 2021", "wrong_type", f"{DAY}, and 2021 (number)", "Write '2021-01-01'"),
]
NAMES = [str(where)[:40] for where, *_ in MISTAKES]


def as_json(where):
    """Return the text that carries a condition over HTTP."""
    return where if isinstance(where, str) and where.startswith("{") else json.dumps(where)


def read(where):
    """Return the condition as a program holds it: deep ones are lists of text until now."""
    if not isinstance(where, str) or not where.startswith("{"):
        return where
    condition = {"year": 1990}
    for _ in range(where.count("{") - 1):
        condition = {where[2 : where.index('"', 2)]: condition}
    return condition


@pytest.mark.parametrize(("where", "code", "says", "remedy"), MISTAKES, ids=NAMES)
def test_python_refuses_it(store, where, code, says, remedy):
    with pytest.raises(WhereError) as caught:
        store.search(vectors=np.ones(ROWS, np.float32), where=read(where))
    assert caught.value.code == code
    assert says in caught.value.message
    assert remedy in caught.value.remedy
    assert len(str(caught.value)) < 500
    assert len(json.dumps(caught.value.value)) < 200
    with pytest.raises(WhereError):
        store.count(read(where))


@pytest.mark.parametrize(("where", "code", "says", "remedy"), MISTAKES, ids=NAMES)
def test_http_refuses_it(http, where, code, says, remedy):
    answer = http.post("/v1/count", content=f'{{"where": {as_json(where)}}}')
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, code)
    assert says in problem["detail"]
    assert remedy in problem["remedy"]
    assert len(answer.content) < 2_000


SHORT = [case for case in MISTAKES if len(as_json(case[0])) < 10_000]


@pytest.mark.parametrize(("where", "code", "says", "remedy"), SHORT, ids=[str(one)[:40] for one, *_ in SHORT])
def test_the_command_line_refuses_it(store, where, code, says, remedy):
    text = where if isinstance(where, str) else json.dumps(where)
    done = CliRunner().invoke(app, ["search", str(store.path), "any", "--where", text])
    assert done.exit_code == 2
    told = " ".join(done.stderr.split())
    assert says in told
    assert remedy in told


@pytest.mark.parametrize("where", ['{"year": 1990}', ' {"year": {"$gte": 1990}}', "{"])
def test_json_in_a_string_is_told_from_an_object(store, http, where):
    says = "Give an expression in JSON as an object (in Python, a dict), not as a string."
    with pytest.raises(WhereError) as caught:
        store.count(where)
    assert caught.value.code == "invalid_where"
    assert caught.value.remedy.startswith(says)
    assert http.post("/v1/count", json={"where": where}).json()["remedy"].startswith(says)
    with pytest.raises(WhereError) as caught:
        store.count("yaer = {")
    assert says not in caught.value.remedy


@pytest.mark.parametrize("number", [float("nan"), float("inf"), np.float64("nan"), -np.inf])
@pytest.mark.parametrize("name", ["share", "year", "day"])
def test_numbers_that_are_none_are_refused(store, http, name, number):
    for where in ({name: number}, {name: {"$in": [1.0, number]}}, field(name) > number):
        with pytest.raises(WhereError) as caught:
            store.count(where)
        assert caught.value.code == "wrong_type"
        assert f"field {name!r} has type {store.schema[name]}" in caught.value.message
    answer = http.post("/v1/count", content=json.dumps({"where": {name: float(number)}}))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")


def test_a_condition_inside_a_thousand_others_is_refused_before_it_is_read_whole(store, http):
    where = field("year") == 1990
    for _ in range(1_000):
        where = ~where
    with pytest.raises(WhereError, match=f"deeper than {MAX_DEPTH} levels"):
        store.count(where)
    answer = http.post("/v1/count", content=f'{{"where": {nested(("[", "]"), 100_000)}}}')
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")
    told = CliRunner().invoke(
        app, ["search", str(store.path), "any", "--where", nested(('{"$not":', "}"), 3_000)]
    )
    assert told.exit_code == 2
    assert f"nested deeper than {MAX_DEPTH} levels" in told.stderr


def test_as_many_nots_as_there_may_be_levels_are_read(store):
    assert store.count("NOT " * MAX_DEPTH + "year = 1990") == store.count({"year": 1990})


def test_a_hundred_thousand_values_are_answered(store, http):
    few, many = list(range(1990, 1995)), list(range(100_000))
    assert store.count({"year": {"$in": many}}) == ROWS
    assert store.count({"venue": {"$in": [f"v{number}" for number in many]}}) == ROWS
    answer = http.post("/v1/count", json={"where": {"year": {"$nin": many[2_020:] + few}}})
    assert answer.json() == {"count": ROWS - store.count({"year": {"$in": few}})}


def test_what_looks_like_code_is_a_value(store):
    for text in ("'; DROP TABLE x; --", "$(rm x)", "{{7*7}}", "../../x", "\0", "%s%n"):
        assert store.count({"venue": text}) == 0
        assert store.count({"venue": {"$ne": text}}) == ROWS
        assert store.count("venue = '" + text.replace("'", "''") + "'") == 0
