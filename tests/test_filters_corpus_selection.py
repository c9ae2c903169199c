"""Samples, where expressions and budgets choose the same documents in every run."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactds.filters.corpus.base import Drop
from compactds.filters.corpus.budget import Budget
from compactds.filters.corpus.conditions import Condition
from compactds.filters.corpus.errors import FilterError, UncomparableError
from compactds.filters.corpus.selection import Sample, Where, sample_place
from compactds.filters.errors import WhereError
from compactds.indexer import documents
from compactds.indexer.budgets import _refused


@dataclass
class Page:
    attributes: dict[str, Any] = field(default_factory=dict)
    id: str = "page"
    text: str = ""
    title: str = "A title"
    source: str = "books"


def allowed(where, **attributes):
    return Where(where).judge(Page(attributes)) is None


def test_a_sample_keeps_about_its_share():
    kept = [number for number in range(4000) if Sample(0.25).judge(Page(id=f"doc-{number}")) is None]
    assert 900 < len(kept) < 1100


def test_a_sample_is_part_of_a_larger_one_and_another_seed_is_another_sample():
    pages = [Page(id=f"doc-{number}") for number in range(1000)]

    def chosen(share, seed):
        return {page.id for page in pages if Sample(share, seed).judge(page) is None}

    assert chosen(0.1, 7) < chosen(0.3, 7)
    assert chosen(0.3, 7) != chosen(0.3, 8)
    assert chosen(0, 7) == set()
    assert chosen(1, 7) == {page.id for page in pages}


def test_a_place_depends_on_id_and_seed_alone():
    assert sample_place("doc-1", 0) == PLACE_OF_DOC_1
    assert Sample(0.0).judge(Page(id="doc-1")) == Drop("sample", "not_sampled", PLACE_OF_DOC_1, 0.0)
    assert 0 <= sample_place("\ud800", 2**64 - 1) < 1


PLACE_OF_DOC_1 = 0.7543582427159767


@pytest.mark.parametrize(
    ("where", "attributes", "expected"),
    [
        ("year >= 2015", {"year": 2015}, True),
        ("year >= 2015", {"year": 2014.5}, False),
        ("year >= 2015.5", {"year": 2015}, False),
        ("year >= 2015", {}, False),
        ("year <> 2015", {}, True),
        ("NOT year >= 2015", {"year": None}, True),
        ("year IS NULL", {"year": float("nan")}, True),
        ("year IS NOT NULL", {"year": "x"}, True),
        ("lang = 'en' OR lang = 'de'", {"lang": "de"}, True),
        ("lang IN ('en', 'fr')", {"lang": "de"}, False),
        ("lang NOT IN ('en', 'fr')", {"lang": "de"}, True),
        ("lang LIKE 'de%'", {"lang": "de-AT"}, True),
        ("open", {"open": True}, True),
        ("list_contains(tags, 'a')", {"tags": ["b", "a"]}, True),
        ("list_contains(tags, 'a')", {"tags": []}, False),
        ("list_contains(tags, 'a')", {"tags": None}, False),
        ("list_has_any(numbers, [1, 2])", {"numbers": [2]}, True),
        ("list_has_all(numbers, [1, 2])", {"numbers": (2,)}, False),
        ("day >= '2020-01-02'", {"day": date(2020, 1, 2)}, True),
        ("at < '2020-01-02'", {"at": datetime(2020, 1, 1, 23, tzinfo=UTC)}, True),
        ("source = 'books' AND title = 'A title' AND document_id = 'page'", {}, True),
        ("source = 'books'", {"source": "an attribute does not hide the source"}, True),
    ],
)
def test_a_condition_means_what_it_means_in_a_query(where, attributes, expected):
    assert allowed(where, **attributes) is expected


@pytest.mark.parametrize(
    ("where", "text", "expected"),
    [
        ("year >= 2015", "2016", True),
        ("year >= 2015", " -3 ", False),
        ("score > 0.5", "0.75", True),
        ("open", "TRUE", True),
        ("open", "false", False),
        ("code = '007'", "007", True),
        ("code = '7'", "007", False),
    ],
)
def test_text_is_read_as_what_it_is_compared_with(where, text, expected):
    name = where.split()[0]
    assert allowed(where, **{name: text}) is expected


@pytest.mark.parametrize("value", ["many", {"a": 1}, [1], True, date(2020, 1, 1), 10**30, "\ud800"], ids=str)
def test_a_value_of_another_type_is_an_error_that_names_the_document(value):
    with pytest.raises(FilterError, match=r"document 'page' cannot be compared with 'year >= 2015'"):
        allowed("year >= 2015", year=value)


def test_a_value_of_another_type_is_told_with_its_place_and_one_remedy():
    document = documents.Document("x", "t", attributes={"year": "many"}, origin="a.jsonl:3")
    with pytest.raises(UncomparableError, match=r"^a\.jsonl:3: document 'x' cannot be compared") as caught:
        Condition("year >= 2015").allows(document)
    assert "Write a string" not in str(caught.value)
    assert caught.value.remedy == "Correct the value, or leave it out, or change the condition."


def test_a_condition_that_cannot_be_read_is_refused_when_the_filter_is_made():
    with pytest.raises(WhereError):
        Where("year >=")


def test_the_reason_names_the_condition():
    assert Where("year = 1").judge(Page()) == Drop("where", "not_allowed", "year = 1")


def test_a_budget_admits_until_a_source_has_enough_words():
    budget = Budget(words=10)
    assert budget.admit("a", 6) is None
    assert budget.admit("a", 5) == Drop("budget", "enough_words", 11, 10)
    assert budget.admit("a", 4) is None
    assert budget.admit("b", 10) is None


def test_a_budget_admits_so_many_documents():
    budget = Budget(documents=1, per_source=False)
    assert budget.admit("a", 6) is None
    assert budget.admit("b", 6) == Drop("budget", "enough_documents", 2, 1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), max_size=30), st.integers(0, 30))
def test_a_budget_goes_on_where_it_was_stopped(documents, stop):
    whole, first, second = (Budget(words=20, documents=5) for _ in range(3))
    expected = [whole.admit(*document) for document in documents]
    outcome = [first.admit(*document) for document in documents[:stop]]
    second.restore(first.to_json())
    assert outcome + [second.admit(*document) for document in documents[stop:]] == expected
    assert second.to_json() == whole.to_json()


def test_a_budget_cannot_be_taken_for_a_filter_that_judges_in_any_order():
    assert not hasattr(Budget(), "judge")


def test_a_document_that_one_budget_refuses_takes_no_room_in_another():
    few, short = Budget(documents=2), Budget(words=10)
    budgets = [(frozenset({0}), few), (frozenset({0}), short)]
    refused = [_refused(budgets, 0, "a", words) for words in (50, 50, 4, 4, 1)]
    assert [drop and drop.reason for drop in refused] == [
        "enough_words",
        "enough_words",
        None,
        None,
        "enough_documents",
    ]
    assert few.to_json() == short.to_json() == {"a": [8, 2]}
