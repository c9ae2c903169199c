"""The typed attributes of a store."""

import json

import pytest

from compactds.filters import FieldType, Schema, UnknownFieldError

SCHEMA = Schema({"year": FieldType.INT64, "authors": FieldType.STRING_LIST, "numbers": FieldType.INT64_LIST})


def test_a_schema_maps_names_to_types_in_order():
    assert list(SCHEMA) == ["year", "authors", "numbers"]
    assert len(SCHEMA) == 3
    assert "year" in SCHEMA
    assert "yaer" not in SCHEMA
    assert SCHEMA["year"] is FieldType.INT64


def test_a_schema_is_written_and_read_as_json():
    written = SCHEMA.to_json()
    assert written == {"year": "int64", "authors": "list<string>", "numbers": "list<int64>"}
    assert Schema.from_json(written) == SCHEMA
    with pytest.raises(ValueError, match="int32"):
        Schema.from_json({"year": "int32"})


def test_lists_have_an_element_type():
    assert [kind.element for kind in SCHEMA.fields.values()] == [
        FieldType.INT64,
        FieldType.STRING,
        FieldType.INT64,
    ]
    assert [kind for kind in FieldType if kind.is_list] == [FieldType.STRING_LIST, FieldType.INT64_LIST]


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(UnknownFieldError, match=r"unknown field 'yaer'. Did you mean 'year'"):
        SCHEMA["yaer"]
    with pytest.raises(UnknownFieldError, match="Known fields: year, authors, numbers"):
        SCHEMA["q"]
    with pytest.raises(UnknownFieldError, match="field18, field19 and 80 more"):
        Schema({f"field{number}": FieldType.INT64 for number in range(100)})["q"]


def test_a_documents_id_is_called_so_in_full():
    schema = Schema({"ids": FieldType.STRING, "document_id": FieldType.STRING})
    for name in ("id", "ID"):
        with pytest.raises(UnknownFieldError, match="Did you mean 'document_id'"):
            schema[name]


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("yaer", "year"),
        ("yeer", "year"),
        ("yea", "year"),
        ("YEARS", "year"),
        ("tga", None),
        ("tags", "tag"),
        ("id", "ids"),
        ("subjetc", "subject"),
        ("pulbished_at", "published_at"),
        ("q", None),
        ("when", None),
        ("tag", "tags"),
    ],
)
def test_near_spellings_are_suggested(written, known):
    schema = Schema(dict.fromkeys((known,) if known else ("tag", "year", "y", "whom"), FieldType.INT64))
    with pytest.raises(UnknownFieldError) as caught:
        schema[written]
    assert caught.value.remedy == (
        f"Did you mean {known!r}?" if known else "Known fields: tag, year, y, whom."
    )


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("text", "context"),
        ("tag", "stage"),
        ("date", "update"),
        ("port", "import"),
        ("ab", "a"),
        ("id", "ip"),
        ("lang", "language"),
        ("subject", "object"),
        ("max_words", "min_words"),
        ("author", "actor"),
        ("venue", "year"),
    ],
)
def test_names_that_are_further_off_are_not(written, known):
    with pytest.raises(UnknownFieldError) as caught:
        Schema({known: FieldType.INT64})[written]
    assert caught.value.remedy == f"Known fields: {known}."


@pytest.mark.parametrize("name", [None, 3, [], {}, "\ud800", "x" * 1_000_000])
def test_what_cannot_be_a_name_is_unknown(name):
    with pytest.raises(UnknownFieldError, match="unknown field") as caught:
        SCHEMA[name]
    json.dumps(caught.value.value).encode()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200
