"""A recipe's table becomes a filter, or an error that says what to write instead."""

import numpy as np
import pytest

from compactds.filters.corpus.budget import Budget
from compactds.filters.corpus.catalogue import CATALOGUE, make_filter
from compactds.filters.corpus.errors import FilterError
from compactds.filters.corpus.gopher import GopherQuality
from compactds.filters.corpus.gopher_repetition import GopherRepetition
from compactds.filters.corpus.language import Language
from compactds.filters.corpus.learned_quality import LearnedQuality
from compactds.filters.corpus.personal_data import PersonalData
from compactds.filters.corpus.quality_features import BUCKETS
from compactds.filters.corpus.quality_model import QualityModel

NEEDED = {"sample": {"share": 0.5}, "where": {"where": "year = 2015"}}
MADE = [name for name in CATALOGUE if name != "learned_quality"]


def refused(table):
    with pytest.raises(FilterError) as caught:
        make_filter(table)
    return str(caught.value)


@pytest.mark.parametrize("name", MADE)
def test_every_filter_is_made_by_its_name_and_knows_it(name):
    made = make_filter({"filter": name, **NEEDED.get(name, {})})
    assert made.name == name
    assert make_filter({"filter": name, "name": "mine", **NEEDED.get(name, {})}).name == "mine"
    kind = {"filter": "judge", "editor": "edit", "budget": "admit"}[CATALOGUE[name].kind]
    assert [method for method in ("judge", "edit", "admit") if hasattr(made, method)] == [kind]


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_filter_and_option_is_described_in_a_sentence(name):
    entry = CATALOGUE[name]
    assert entry.about.endswith(".")
    for known in entry.options:
        assert known.about.endswith(".")
        assert known.type


@pytest.mark.parametrize("name", MADE)
def test_defaults_written_out_make_the_same_filter(name):
    written = {
        known.name: False if known.default is None else plain(known.default)
        for known in CATALOGUE[name].options
        if not known.required
    }
    needed = NEEDED.get(name, {})
    assert make_filter({"filter": name, **written, **needed}) == make_filter({"filter": name, **needed})


def plain(value):
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def test_options_are_read_as_their_types():
    assert make_filter(
        {"filter": "gopher_quality", "min_words": 5, "max_mean_word_length": 12}
    ) == GopherQuality(min_words=5, max_mean_word_length=12.0)
    assert make_filter({"filter": "gopher_quality", "min_words": False}) == GopherQuality(min_words=None)
    assert make_filter({"filter": "gopher_repetition", "top_ngrams": [[2, 0.5]]}) == GopherRepetition(
        top_ngrams=((2, 0.5),)
    )
    assert make_filter({"filter": "language", "languages": "de"}) == Language(("de",))
    assert make_filter({"filter": "personal_data", "kinds": ["iban"]}) == PersonalData(("iban",))
    assert make_filter({"filter": "budget", "words": 10}) == Budget(10)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"filter": "gopher_qualty"}, "unknown filter 'gopher_qualty'. Did you mean 'gopher_quality'?"),
        ({"filter": "zzz"}, "unknown filter 'zzz'. Filters: length, garbled,"),
        ({"filter": "strength"}, "unknown filter 'strength'. Filters: length, garbled,"),
        ({"filter": "length", "keywords": 3}, "unknown option 'keywords'. Options: min_words, max_words,"),
        ({"filter": 3}, "unknown filter 3."),
        ({"filter": ["length"]}, "unknown filter ['length']."),
        ({}, "a filter is a table with the key 'filter', not {}."),
        ("length", "a filter is a table with the key 'filter', not 'length'."),
        (
            {"filter": "length", "min_word": 3},
            "filter 'length': unknown option 'min_word'. Did you mean 'min_words'?",
        ),
        ({"filter": "length", "zzz": 3}, "unknown option 'zzz'. Options: min_words, max_words,"),
        ({"filter": "length", "min_words": "3"}, "min_words is '3', expected an integer, or false for none."),
        ({"filter": "length", "min_words": 2.5}, "min_words is 2.5, expected an integer, or false for none."),
        (
            {"filter": "length", "min_words": True},
            "min_words is True, expected an integer, or false for none.",
        ),
        ({"filter": "length", "min_words": -1}, "min_words is -1, expected a number from 0."),
        ({"filter": "garbled", "max_share": 1.5}, "max_share is 1.5, expected a number from 0 to 1."),
        ({"filter": "garbled", "max_share": float("nan")}, "max_share is nan, expected a number."),
        ({"filter": "garbled", "max_share": False}, "max_share is False, expected a number."),
        ({"filter": "c4_quality", "javascript": 1}, "javascript is 1, expected true or false."),
        (
            {"filter": "personal_data", "kinds": ["emial"]},
            "kinds is ['emial'], expected a list, each 'email' or",
        ),
        ({"filter": "personal_data", "mask": 3}, "mask is 3, expected a string."),
        (
            {"filter": "gopher_repetition", "top_ngrams": [[2]]},
            "expected a list, each [an integer, a number].",
        ),
        ({"filter": "gopher_repetition", "top_ngrams": 2}, "expected a list, each [an integer, a number]."),
        ({"filter": "sample"}, "filter 'sample': option 'share' is missing. Give share: The share of"),
        ({"filter": "learned_quality", "model": "a\0b"}, "expected a path."),
        ({"filter": "learned_quality", "model": ""}, "expected a path."),
        ({"filter": "learned_quality", "encode": 1, "model": "m"}, "unknown option 'encode'."),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_to_write(table, message):
    assert message in refused(table)


def test_relative_paths_start_at_the_folder_given(tmp_path):
    QualityModel(np.zeros(BUCKETS, np.float32), 0.0, (0.0, 1.0), 0.5).save(tmp_path / "mine")
    made = make_filter({"filter": "learned_quality", "model": "mine"}, folder=tmp_path)
    assert made == LearnedQuality(tmp_path / "mine")
    with pytest.raises(FilterError, match="no quality model at"):
        make_filter({"filter": "learned_quality", "model": "mine"}, folder=tmp_path / "elsewhere")
