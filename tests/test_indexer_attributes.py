import json
import math
from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from compactds.filters.schema import FieldType, Schema
from compactds.indexer.attribute_types import convert, kind_of
from compactds.indexer.attributes import AttributeInference, plain_attributes, to_arrow, to_jsonable
from compactds.indexer.documents import Document
from compactds.indexer.errors import AttributeTypeError


def document(number=1, *, is_text=False, **attributes):
    return Document(
        id=str(number),
        text="t",
        origin=f"notes.jsonl:{number}",
        attributes=attributes,
        attributes_are_text=is_text,
    )


def inferred(*values, is_text=False):
    inference = AttributeInference()
    for number, value in enumerate(values, 1):
        inference.observe(document(number, is_text=is_text, field=value))
    return inference.schema()["field"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, False], FieldType.BOOL),
        ([1, -5, None], FieldType.INT64),
        ([1, 2.5], FieldType.FLOAT64),
        ([2.5, 1], FieldType.FLOAT64),
        (["a", "2015-01-01"], FieldType.STRING),
        (["2015-01-01", "a"], FieldType.STRING),
        (["2015-01-01", "2016-12-31"], FieldType.DATE),
        (["2015-01-01", "2015-01-01T10:00:00Z"], FieldType.TIMESTAMP),
        (["2015-01-01 10:00", "2015-01-01T10:00:00.123456789+02:00"], FieldType.TIMESTAMP),
        ([date(2015, 1, 1), "2015-02-01"], FieldType.DATE),
        ([datetime(2015, 1, 1, tzinfo=UTC), date(2015, 1, 1)], FieldType.TIMESTAMP),
        (["2015", "2016"], FieldType.STRING),
        (["2015-13-01"], FieldType.STRING),
        (["2015-01-01T25:00:00Z"], FieldType.STRING),
        (["true"], FieldType.STRING),
        (["7"], FieldType.STRING),
        ([["a"], ["b", "c"]], FieldType.STRING_LIST),
        ([[1], [], [2, 3]], FieldType.INT64_LIST),
        ([[], ["a"]], FieldType.STRING_LIST),
        ([[]], FieldType.STRING_LIST),
        ([[], "[1.5]"], FieldType.STRING),
        ([None, None], FieldType.STRING),
    ],
)
def test_the_type_is_the_narrowest_that_holds_all_values(values, kind):
    assert inferred(*values) is kind


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-20"], FieldType.INT64),
        (["1", "2.5", "1e5"], FieldType.FLOAT64),
        (["1.5", "nan"], FieldType.FLOAT64),
        (["true", "FALSE"], FieldType.BOOL),
        (["2015-01-01"], FieldType.DATE),
        (["1", "n/a"], FieldType.STRING),
        (["true", "1"], FieldType.STRING),
        (["01234", "99999"], FieldType.STRING),
        (["12345678901234567890"], FieldType.STRING),
        (["9223372036854775808"], FieldType.STRING),
        (["1_000"], FieldType.STRING),
        (["1", "2015-01-01"], FieldType.STRING),
        ([None, "3"], FieldType.INT64),
    ],
)
def test_csv_text_gets_the_narrowest_type_that_fits_the_whole_column(values, kind):
    assert inferred(*values, is_text=True) is kind


@pytest.mark.parametrize("is_text", [False, True])
def test_integers_followed_by_a_float_are_remarked_upon_unless_the_store_has_floats(is_text):
    inference = AttributeInference({"given": FieldType.FLOAT64})
    for number, value in enumerate((None, 3, 2.5, 4.5), 1):
        both = {"a.b": value, "given": value}
        values = {name: str(one) for name, one in both.items() if one is not None} if is_text else both
        inference.observe(document(number, is_text=is_text, **values))
    (remark,) = inference.remarks()
    shown = ("'3'", "'2.5'") if is_text else ("3", "2.5")
    assert remark == (
        f"Attribute 'a.b' is float64 and not int64: it is {shown[0]} at {document(2).origin}, "
        f"and {shown[1]} at {document(3).origin}."
    )
    assert list(inference.remarks({"a.b"})) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            ("2020-01-01", "2021-02-30"),
            "string and not date: it is '2020-01-01' at {1}, and '2021-02-30' at {2}.",
        ),
        (
            ("2020-01-01T10:00:00Z", "2020-01-01", "x"),
            "string and not timestamp: it is '2020-01-01T10:00:00Z'",
        ),
        (("x", "2020-01-01"), None),
        (("2020-01-01", "2020-01-01T10:00:00Z"), None),
        (("2020-01-01", None, "2021-01-01"), None),
    ],
)
def test_dates_followed_by_another_string_are_remarked_upon(values, said):
    inference = AttributeInference({"given": FieldType.STRING})
    for number, value in enumerate(values, 1):
        inference.observe(document(number, published=value, given=value))
    places = [document(number).origin for number in range(len(values) + 1)]
    remarks = list(inference.remarks())
    assert len(remarks) == (said is not None)
    assert all(remark.startswith(f"Attribute 'published' is {said.format(*places)}") for remark in remarks)


def test_integers_of_csv_followed_by_text_are_remarked_upon_with_the_text():
    inference = AttributeInference()
    for number, value in enumerate(("3", "2.5", "many"), 1):
        inference.observe(document(number, is_text=True, count=value))
    (remark,) = inference.remarks()
    assert remark == (
        f"Attribute 'count' is string and not int64: it is '3' at {document(1).origin}, "
        f"and 'many' at {document(3).origin}."
    )


def test_csv_text_joins_numbers_from_elsewhere():
    inference = AttributeInference()
    inference.observe(document(1, year=2015))
    inference.observe(document(2, is_text=True, year="2016"))
    assert inference.schema()["year"] is FieldType.INT64


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, "one"),
        ("one", 1),
        (True, 1),
        (1.5, [1]),
        (["a"], [1]),
        (["a"], "a"),
        ([], 1),
        ("2015-01-01", 2015),
    ],
)
def test_values_that_share_no_type_are_refused(first, second):
    with pytest.raises(AttributeTypeError):
        inferred(first, second)


def test_a_changed_type_is_told_with_places_values_and_remedy():
    inference = AttributeInference()
    inference.observe(document(1, year=2015))
    with pytest.raises(AttributeTypeError) as caught:
        inference.observe(document(7, year="MMXV"))
    assert str(caught.value) == (
        "notes.jsonl:7: attribute 'year' is a string, 'MMXV', but an integer, 2015, at notes.jsonl:1. Make "
        'the values alike, or give the field a type: `year = "string"` under [attributes] in the recipe, or '
        "--attribute year=string. --skip-invalid leaves out what does not fit."
    )
    assert caught.value.value == "MMXV"


def test_the_witness_named_is_the_one_in_conflict():
    inference = AttributeInference()
    inference.observe(document(1, is_text=True, year="2015"))
    inference.observe(document(2, year=2015))
    with pytest.raises(AttributeTypeError, match=r"an integer, 2015, at notes\.jsonl:2"):
        inference.observe(document(3, year="unknown"))


def test_a_conflict_of_three_kinds_names_one_of_them():
    inference = AttributeInference()
    inference.observe(document(1, is_text=True, year="2015"))
    inference.observe(document(2, is_text=True, year="x"))
    with pytest.raises(AttributeTypeError, match="a string, 'x', at"):
        inference.observe(document(3, year=2015))


def test_long_values_are_cut_in_messages():
    inference = AttributeInference()
    inference.observe(document(1, note="x" * 500))
    with pytest.raises(AttributeTypeError) as caught:
        inference.observe(document(2, note=1))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["document_id", "title", "source", "id", "text", "", " ", "a\nb", "x" * 129])
def test_names_that_cannot_be_fields_are_refused(name):
    with pytest.raises(AttributeTypeError, match=r"notes\.jsonl:1: attribute .*`attributes`"):
        AttributeInference().observe(document(1, **{name: 1}))


def test_at_most_256_fields():
    inference = AttributeInference()
    inference.observe(document(1, **{f"f{n}": n for n in range(256)}))
    inference.observe(document(2, f0=1))
    with pytest.raises(AttributeTypeError, match="'extra' is one more than the 256"):
        inference.observe(document(3, extra=1))


def test_the_schema_is_ordered_by_name():
    inference = AttributeInference()
    inference.observe(document(1, b=1, a=True))
    inference.observe(document(2, aa=1.5))
    assert list(inference.schema()) == ["a", "aa", "b"]


def test_an_override_sets_the_type_and_holds_all_values_to_it():
    inference = AttributeInference({"year": FieldType.STRING, "day": FieldType.DATE})
    inference.observe(document(1, year=2015, day="2015-01-01"))
    inference.observe(document(2, year="MMXV"))
    assert inference.schema().to_json() == {"day": "date", "year": "string"}
    with pytest.raises(
        AttributeTypeError, match=r"notes\.jsonl:3: attribute 'day' is to be date, but 'soon' cannot"
    ):
        inference.observe(document(3, day="soon"))


def test_an_override_for_a_field_no_document_has_makes_no_field():
    assert len(AttributeInference({"yaer": FieldType.INT64}).schema()) == 0


def test_inference_goes_on_from_its_saved_state():
    inference = AttributeInference({"o": FieldType.INT64})
    inference.observe(document(1, year=2015, o=1, none=None))
    resumed = AttributeInference.from_json(
        json.loads(json.dumps(inference.to_json())), {"o": FieldType.INT64}
    )
    resumed.observe(document(2, year=1.5))
    assert resumed.schema().to_json() == {"none": "string", "o": "int64", "year": "float64"}
    with pytest.raises(AttributeTypeError, match=r"an integer, 2015, at notes\.jsonl:1"):
        resumed.observe(document(3, year="x"))


def test_a_value_of_a_foreign_type_is_a_mistake_of_the_reader():
    with pytest.raises(TypeError, match="bytes"):
        kind_of(b"x")


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        ("TRUE", FieldType.BOOL, True),
        ("0", FieldType.BOOL, False),
        (1, FieldType.BOOL, True),
        (" 7"[1:], FieldType.INT64, 7),
        (7.0, FieldType.INT64, 7),
        ("007", FieldType.INT64, 7),
        (3, FieldType.FLOAT64, 3.0),
        ("2.5", FieldType.FLOAT64, 2.5),
        ("nan", FieldType.FLOAT64, None),
        (math.inf, FieldType.FLOAT64, None),
        (math.nan, FieldType.STRING, None),
        (None, FieldType.INT64, None),
        (2015, FieldType.STRING, "2015"),
        (True, FieldType.STRING, "true"),
        (date(2015, 1, 2), FieldType.STRING, "2015-01-02"),
        ([1, 2], FieldType.STRING, "[1,2]"),
        ("2015-01-02", FieldType.DATE, date(2015, 1, 2)),
        ("2015-01-02T23:00:00-05:00", FieldType.DATE, date(2015, 1, 3)),
        (datetime(2015, 1, 2, 23, tzinfo=timezone(timedelta(hours=-5))), FieldType.DATE, date(2015, 1, 3)),
        (date(2015, 1, 2), FieldType.DATE, date(2015, 1, 2)),
        ("2015-01-02", FieldType.TIMESTAMP, datetime(2015, 1, 2, tzinfo=UTC)),
        (
            "2015-01-02 10:00:00,5+0200",
            FieldType.TIMESTAMP,
            datetime(2015, 1, 2, 8, 0, 0, 500000, tzinfo=UTC),
        ),
        ("2015-01-02t10:00z", FieldType.TIMESTAMP, datetime(2015, 1, 2, 10, tzinfo=UTC)),
        (datetime(2015, 1, 2, 10), FieldType.TIMESTAMP, datetime(2015, 1, 2, 10, tzinfo=UTC)),
        (date(2015, 1, 2), FieldType.TIMESTAMP, datetime(2015, 1, 2, tzinfo=UTC)),
        ("a", FieldType.STRING_LIST, ["a"]),
        ([1, "b"], FieldType.STRING_LIST, ["1", "b"]),
        (5, FieldType.INT64_LIST, [5]),
        (["5"], FieldType.INT64_LIST, [5]),
    ],
)
def test_values_convert_to_a_type(value, kind, result):
    assert convert(value, kind) == result
    assert type(convert(value, kind)) is type(result)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("yes", FieldType.BOOL),
        (2, FieldType.BOOL),
        ("x", FieldType.INT64),
        (1.5, FieldType.INT64),
        (True, FieldType.INT64),
        (2**63, FieldType.INT64),
        ("1_0", FieldType.INT64),
        ([1], FieldType.INT64),
        ("1_0", FieldType.FLOAT64),
        (True, FieldType.FLOAT64),
        ([1.5], FieldType.FLOAT64),
        ("2015", FieldType.DATE),
        ("20150102", FieldType.DATE),
        ("2015-02-30", FieldType.DATE),
        (2015, FieldType.DATE),
        ("soon", FieldType.TIMESTAMP),
        (2015, FieldType.TIMESTAMP),
        ("0001-01-01T00:00+14:00", FieldType.TIMESTAMP),
        (["x"], FieldType.INT64_LIST),
    ],
)
def test_values_that_are_not_of_a_type_are_refused(value, kind):
    with pytest.raises(ValueError, match=f"cannot be read as {kind.value}"):
        convert(value, kind)


EVERY = Schema(
    {
        "b": FieldType.BOOL,
        "d": FieldType.DATE,
        "f": FieldType.FLOAT64,
        "i": FieldType.INT64,
        "il": FieldType.INT64_LIST,
        "s": FieldType.STRING,
        "sl": FieldType.STRING_LIST,
        "t": FieldType.TIMESTAMP,
    }
)
ATTRIBUTES = {
    "t": datetime(2015, 1, 2, 10, tzinfo=UTC),
    "d": date(2015, 1, 2),
    "b": True,
    "f": 1,
    "i": 2015,
    "il": [1, 2],
    "s": "ünï",
    "sl": ["x", "y"],
    "outside": "the schema",
}


def test_arrow_columns_have_the_types_of_the_schema():
    table = to_arrow([ATTRIBUTES, {}], EVERY)
    assert table.schema.field("t").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("d").type == pa.date32()
    assert table.column_names == list(EVERY)
    first, second = table.to_pylist()
    assert first == {**{name: ATTRIBUTES[name] for name in EVERY}, "f": 1.0}
    assert set(second.values()) == {None}


def test_attributes_kept_as_json_in_between_give_the_same_table_and_values():
    plain = json.loads(json.dumps(plain_attributes(ATTRIBUTES)))
    assert to_arrow([plain], EVERY).equals(to_arrow([ATTRIBUTES], EVERY))
    assert to_jsonable(plain, EVERY) == to_jsonable(ATTRIBUTES, EVERY)


def test_a_table_without_records_or_fields_is_still_a_table():
    assert to_arrow([], EVERY).num_rows == 0
    assert to_arrow([], Schema({})).num_columns == 0


def test_json_values_are_typed_and_missing_ones_absent():
    assert to_jsonable({**ATTRIBUTES, "b": None, "f": math.nan}, EVERY) == {
        "d": "2015-01-02",
        "i": 2015,
        "il": [1, 2],
        "s": "ünï",
        "sl": ["x", "y"],
        "t": "2015-01-02T10:00:00+00:00",
    }
    assert to_jsonable({"i": "7"}, EVERY) == {"i": 7}


def test_plain_attributes_are_json_values():
    assert plain_attributes({"a": None, "b": False, "c": [], "d": date(2015, 1, 2)}) == {
        "a": None,
        "b": False,
        "c": [],
        "d": "2015-01-02",
    }


def test_a_value_not_of_its_type_is_refused_by_name():
    with pytest.raises(AttributeTypeError, match="attribute 'i' is int64, but 'x' cannot be read as int64"):
        to_arrow([{"i": "x"}], EVERY)
    with pytest.raises(AttributeTypeError, match="attribute 'd' is date"):
        to_jsonable({"d": "x"}, EVERY)
