"""Where expressions in Python: `field("year") >= 2015`, combined with & | ~."""

from itertools import count

import numpy as np
import pytest

import compactds.filters
from compactds.filters import Expression, WhereError, field
from compactds.filters.limits import MAX_IN_VALUES, walk
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
    negation,
)

year, authors = field("year"), field("authors")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (year == 2015, Compare("year", Operator.EQ, 2015)),
        (year != 2015, Compare("year", Operator.NE, 2015)),
        (year > 2015, Compare("year", Operator.GT, 2015)),
        (year >= 2015, Compare("year", Operator.GTE, 2015)),
        (year < 2015, Compare("year", Operator.LT, 2015)),
        (year <= 2015, Compare("year", Operator.LTE, 2015)),
        (2015 <= year, Compare("year", Operator.GTE, 2015)),  # noqa: SIM300
        (2015 == year, Compare("year", Operator.EQ, 2015)),  # noqa: SIM300
        (year.isin([2015, 2016]), In("year", (2015, 2016))),
        (year.isin(range(2)), In("year", (0, 1))),
        (year.not_in({2015}), NotIn("year", (2015,))),
        (authors.contains("Ada"), Contains("authors", "Ada")),
        (authors.contains_any(["Ada"]), ContainsAny("authors", ("Ada",))),
        (authors.contains_all(np.array([1, 2])), ContainsAll("authors", (1, 2))),
        (field("title").startswith("On"), Prefix("title", "On")),
        (year.exists(), Exists("year")),
        (~year.exists(), Not(Exists("year"))),
    ],
)
def test_each_operator_makes_its_node(written, meant):
    assert written == meant
    assert hash(written) == hash(meant)


def test_chains_of_the_same_operator_stay_flat():
    a, b, c = year == 1, year == 2, year == 3
    assert a & b & c == And((a, b, c))
    assert a | (b | c) == Or((a, b, c))
    assert a & b | c == Or((And((a, b)), c))
    assert ~(a & b) == Not(And((a, b)))


def test_an_expression_has_no_truth_value_and_says_what_to_write():
    with pytest.raises(WhereError, match=r"Combine expressions with & \| ~"):
        bool(year == 2015)
    with pytest.raises(WhereError, match="Combine expressions"):
        (year > 1) and (year < 3)  # noqa: B018
    with pytest.raises(WhereError, match=r"\(low <= f\) & \(f <= high\)"):
        1 <= year <= 3  # noqa: B015


@pytest.mark.parametrize(
    "combine",
    [lambda: year & (year > 1), lambda: 2015 | year, lambda: ~year, lambda: bool(year), lambda: year or 3],
)
def test_a_field_alone_is_no_condition(combine):
    with pytest.raises(WhereError, match="in parentheses"):
        combine()


def test_an_expression_combines_with_expressions_only():
    with pytest.raises(TypeError):
        (year > 1) & True
    with pytest.raises(TypeError):
        (year > 1) | "year"


@pytest.mark.parametrize("values", ["abc", b"abc", 3, None, {"a": 1}])
def test_lists_of_values_are_lists(values):
    with pytest.raises(WhereError, match="expected a list of values"):
        year.isin(values)


def test_an_endless_iterable_of_values_ends():
    assert len(year.isin(count()).values) > MAX_IN_VALUES


def test_negation_is_written_in_its_shortest_form():
    assert negation(year == 1) == (year != 1)
    assert negation(year != 1) == (year == 1)
    assert negation(year.isin([1])) == year.not_in([1])
    assert negation(year.not_in([1])) == year.isin([1])
    assert negation(Not(year > 1)) == (year > 1)
    assert negation(year > 1) == Not(year > 1)


def test_walk_visits_every_node_with_its_depth():
    tree = ~((year == 1) | year.exists() & (year == 2))
    assert sorted(depth for _, depth in walk(tree)) == [1, 2, 3, 3, 4, 4]


def test_fields_and_expressions_show_themselves():
    assert repr(year) == "field('year')"
    assert "'year'" in repr(year == 1)
    assert isinstance(year == 1, Expression)


def test_everything_public_is_exported():
    assert compactds.filters.__all__ == sorted(compactds.filters.__all__)
    for name in compactds.filters.__all__:
        assert hasattr(compactds.filters, name)
