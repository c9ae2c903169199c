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


@pytest.mark.parametrize("name", [None, 3, [], {}, "\ud800", "x" * 1_000_000])
def test_what_cannot_be_a_name_is_unknown(name):
    with pytest.raises(UnknownFieldError, match="unknown field") as caught:
        SCHEMA[name]
    json.dumps(caught.value.value).encode()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200
