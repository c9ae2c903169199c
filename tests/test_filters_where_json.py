"""Where expressions as JSON, in MongoDB's manner."""

import json
from datetime import UTC, date, datetime

import pytest

from compactds.filters import Expression, WhereError, field, from_json, to_json
from compactds.filters.limits import MAX_DEPTH, MAX_NODES
from compactds.filters.where import And, Not, Or

year, authors = field("year"), field("authors")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"year": 2015}, year == 2015),
        ({"year": {"$eq": 2015}}, year == 2015),
        ({"year": {"$ne": 2015}}, year != 2015),
        ({"year": {"$gt": 2015}}, year > 2015),
        ({"year": {"$gte": 2015}}, year >= 2015),
        ({"year": {"$lt": 2015}}, year < 2015),
        ({"year": {"$lte": 2015}}, year <= 2015),
        ({"year": {"$in": [1, 2]}}, year.isin([1, 2])),
        ({"year": {"$nin": [1, 2]}}, year.not_in([1, 2])),
        ({"authors": {"$contains": "Ada"}}, authors.contains("Ada")),
        ({"authors": {"$contains_any": ["Ada"]}}, authors.contains_any(["Ada"])),
        ({"authors": {"$contains_all": ["Ada"]}}, authors.contains_all(["Ada"])),
        ({"title": {"$prefix": "On"}}, field("title").startswith("On")),
        ({"year": {"$exists": True}}, year.exists()),
        ({"year": {"$exists": False}}, ~year.exists()),
        ({"year": {"$gte": 1, "$lt": 3}}, And((year >= 1, year < 3))),
        ({"year": 1, "lang": "en"}, And((year == 1, field("lang") == "en"))),
        ({"$and": [{"year": 1}, {"year": 2}]}, And((year == 1, year == 2))),
        ({"$or": [{"year": 1}, {"year": 2}]}, Or((year == 1, year == 2))),
        ({"$not": {"year": 1}}, Not(year == 1)),
        ({"year": {"$not": {"$gt": 1, "$lt": 3}}}, Not(And((year > 1, year < 3)))),
        ({"$or": [{"year": 1}], "lang": "en"}, And((Or((year == 1,)), field("lang") == "en"))),
        ({"a.b": 1}, field("a.b") == 1),
        ({"": 1}, field("") == 1),
    ],
)
def test_each_form_means_its_expression(written, meant):
    assert from_json(written) == meant
    assert from_json(json.loads(json.dumps(to_json(meant)))) == meant


def test_dates_are_written_as_iso_strings():
    assert to_json(field("d") == date(2024, 1, 2)) == {"d": "2024-01-02"}
    instant = datetime(2024, 1, 2, 3, tzinfo=UTC)
    assert to_json(field("t") > instant) == {"t": {"$gt": "2024-01-02T03:00:00+00:00"}}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ([], "expected an object"),
        ({"$and": {}}, "needs a list"),
        ({"$and": []}, "at least one"),
        ({"$or": [1]}, "expected an object, not 1"),
        ({"$or": [{}]}, "an empty object"),
        ({"$not": []}, "expected an object"),
        ({"$nor": []}, r"unknown operator '\$nor'. Known here: \$and, \$or, \$not"),
        ({"$gt": 3}, r"unknown operator '\$gt'"),
        ({"year": {}}, "field 'year': an empty object"),
        (
            {"year": {"$get": 3}},
            r"field 'year': unknown operator '\$get'. Did you mean '\$gt'\? Known here: ",
        ),
        ({"year": {"$LTE": 3}}, r"field 'year': unknown operator '\$LTE'. Did you mean '\$lte'\?"),
        ({"tag": {"$contain": 3}}, r"field 'tag': unknown operator '\$contain'. Did you mean '\$contains'\?"),
        ({"year": {"$regex": 3}}, r"unknown operator '\$regex'. Known here: "),
        ({"year": {"gt": 3}}, r"field 'year': unknown operator 'gt'. Did you mean '\$gt'?"),
        ({"author": {"name": {}}}, "an empty object"),
        ({"year": {"$gt": 3, "$x": 1}}, r"unknown operator '\$x'"),
        ({"year": {3: 3}}, "unknown operator 3"),
        ({"year": {"$in": 3}}, "expected a list of values, not 3"),
        ({"year": {"$in": "abc"}}, "expected a list of values"),
        ({"year": {"$exists": 1}}, r"\$exists needs true or false"),
        ({"year": {"$not": 3}}, r"\$not needs an object"),
        ({3: 4}, r"3 is not a field name\. Name the field in a string\."),
        ({None: 4}, "None is not a field name"),
    ],
)
def test_everything_else_is_refused(where, message):
    with pytest.raises(WhereError, match=message) as caught:
        from_json(where)
    assert caught.value.code == "invalid_where"


@pytest.mark.parametrize(
    ("where", "meant"),
    [
        ({"author": {"name": "x"}}, {"author.name": "x"}),
        ({"a": {"b": {"c": {"$gte": 3}}}}, {"a.b.c": {"$gte": 3}}),
        ({"a": {"b": 1, "$exists": True}}, {"$and": [{"a.b": 1}, {"a": {"$exists": True}}]}),
        ({"a": {"$not": {"b": 1}}}, {"$not": {"a.b": 1}}),
        ({"a": {"": 1}}, {"a.": 1}),
    ],
)
def test_nested_objects_are_about_dotted_fields(where, meant):
    assert from_json(where) == from_json(meant)


def test_objects_nested_too_deep_are_refused():
    where = 1
    for _ in range(1_000):
        where = {"a": where}
    with pytest.raises(WhereError, match="deeper than"):
        from_json(where)


def nested(levels):
    where = {"year": 1}
    for _ in range(levels):
        where = {"$not": where}
    return where


def test_depth_has_a_limit():
    assert isinstance(from_json(nested(MAX_DEPTH - 1)), Not)
    for levels in (MAX_DEPTH, 1_000, 100_000):
        with pytest.raises(WhereError, match=f"deeper than {MAX_DEPTH} levels"):
            from_json(nested(levels))


def test_operator_objects_have_the_same_limit():
    operators = {"$gt": 1}
    for _ in range(1_000):
        operators = {"$not": operators}
    with pytest.raises(WhereError, match="deeper than"):
        from_json({"year": operators})


def test_objects_that_hold_themselves_are_refused():
    where = {}
    where["$and"] = [where, where]
    with pytest.raises(WhereError, match="deeper than"):
        from_json(where)


def test_the_number_of_conditions_has_a_limit():
    with pytest.raises(WhereError, match=f"more than {MAX_NODES:,} conditions"):
        from_json({"$or": [{"year": 1}] * 1_000_000})
    with pytest.raises(WhereError, match="more than"):
        from_json({f"f{i}": 1 for i in range(MAX_NODES + 1)})
    level = {"year": 1}
    for _ in range(40):
        level = {"$or": [level] * 40}
    with pytest.raises(WhereError, match="more than"):
        from_json(level)


def test_what_json_cannot_say_is_refused_when_written():
    with pytest.raises(WhereError, match="starts with"):
        to_json(field("$year") == 1)
    with pytest.raises(WhereError, match="not a part"):
        to_json(Expression())
    with pytest.raises(WhereError, match="cannot be written in JSON"):
        to_json(year == object())


def test_an_expression_gives_its_own_json():
    assert (field("year") >= 2015).to_json() == {"year": {"$gte": 2015}}
