import gzip
import json

import numpy as np
import pytest
import zstandard

from compactds.indexer.documents import content_id
from compactds.indexer.errors import RecordError, SourceError
from compactds.indexer.sources import Rejection, SourceOptions, lines, read_documents


def write(path, *records):
    data = b"".join(
        (record if isinstance(record, bytes) else json.dumps(record).encode()) + b"\n" for record in records
    )
    path.write_bytes(data)
    return path


def read(path, **options):
    return list(read_documents(SourceOptions(str(path), **options)))


def read_one(tmp_path, record, **options):
    (document,) = read(write(tmp_path / "notes.jsonl", record), **options)
    return document


def refused(tmp_path, record, **options):
    with pytest.raises(RecordError) as caught:
        read(write(tmp_path / "notes.jsonl", record), **options)
    assert caught.value.origin == f"{tmp_path / 'notes.jsonl'}:1"
    assert str(caught.value).startswith(caught.value.origin + ": ")
    assert caught.value.remedy
    return caught.value.reason


class TestFields:
    def test_of_a_full_record(self, tmp_path):
        document = read_one(
            tmp_path, {"id": "a1", "text": "Hi.", "title": "T", "source": "web", "year": 2015, "ok": None}
        )
        assert (document.id, document.text, document.title, document.source) == ("a1", "Hi.", "T", "web")
        assert document.attributes == {"year": 2015, "ok": None}
        assert document.origin == f"{tmp_path / 'notes.jsonl'}:1"
        assert not document.id_from_content
        assert not document.attributes_are_text

    @pytest.mark.parametrize("key", ["id", "_id", "doc_id", "document_id"])
    def test_the_id_has_several_names(self, tmp_path, key):
        document = read_one(tmp_path, {key: 7, "text": "x"})
        assert document.id == "7"
        assert document.attributes == {}

    @pytest.mark.parametrize("key", ["text", "contents", "content", "body"])
    def test_the_text_has_several_names(self, tmp_path, key):
        assert read_one(tmp_path, {key: "x"}).text == "x"

    def test_another_name_of_the_text_is_told_once_unless_it_was_asked_for(self, tmp_path, caplog):
        path = tmp_path / "r.jsonl"
        path.write_text('{"id": 1, "text": "x"}\n{"id": 2, "body": "y"}\n{"id": 3, "body": "z"}\n')
        assert len(list(read_documents(SourceOptions(str(path))))) == 3
        (told,) = caplog.messages
        assert told == (
            f"Text is taken from 'body' where a record has no 'text' (first: {path}:2); "
            "to take another key, name it in a recipe's `fields`."
        )
        caplog.clear()
        path.write_text('{"id": 2, "body": "y"}\n')
        assert list(read_documents(SourceOptions(str(path), fields={"text": "body"})))
        assert caplog.messages == []

    def test_the_first_name_with_a_value_counts_and_the_others_stay_attributes(self, tmp_path):
        document = read_one(tmp_path, {"id": None, "_id": "b", "text": "x", "content": "y"})
        assert document.id == "b"
        assert document.attributes == {"content": "y"}

    def test_can_be_named(self, tmp_path):
        record = {
            "pmid": 5,
            "abstract": {"en": "Hi."},
            "heading": "T",
            "journal": "J",
            "id": "x",
            "text": "y",
        }
        fields = {"id": "pmid", "text": "abstract.en", "title": "heading", "source": "journal"}
        document = read_one(tmp_path, record, fields=fields)
        assert (document.id, document.text, document.title, document.source) == ("5", "Hi.", "T", "J")
        assert document.attributes == {"id": "x", "text": "y"}

    def test_a_document_without_id_gets_one_from_its_content(self, tmp_path):
        document = read_one(tmp_path, {"text": "x", "title": "T"})
        assert document.id == content_id("T", "x")
        assert document.id_from_content

    def test_source_defaults_to_the_name_given_or_the_files(self, tmp_path):
        assert read_one(tmp_path, {"text": "x"}).source == "notes"
        assert read_one(tmp_path, {"text": "x"}, name="web").source == "web"

    def test_titles_are_one_line_and_may_be_numbers(self, tmp_path):
        assert read_one(tmp_path, {"text": "x", "title": " a\n b "}).title == "a b"
        assert read_one(tmp_path, {"text": "x", "title": 1984}).title == "1984"

    def test_text_loses_nul_and_lone_surrogates(self, tmp_path):
        record = b'{"text": "a\\u0000b\\ud800c\\ud83d\\ude00", "note": "\\udfff", "l": ["\\ud800"]}'
        document = read_one(tmp_path, record)
        assert document.text == "ab\ufffdc😀"
        assert document.attributes == {"note": "\ufffd", "l": ["\ufffd"]}

    @pytest.mark.parametrize(
        ("record", "reason"),
        [
            ({"id": "a"}, "no text: 'text' or 'contents' or 'content' or 'body' is missing"),
            ({"text": None}, "the text in 'text' is empty"),
            ({"text": ""}, "the text in 'text' is empty"),
            ({"text": " \n\u00a0"}, "the text in 'text' is empty"),
            ({"text": "\x00"}, "the text in 'text' is empty"),
            ({"text": 5}, "the text in 'text' must be a string, not int 5"),
            ({"text": ["x" * 200]}, "must be a string, not list"),
            ({"text": "x", "id": ""}, "the id in 'id' is empty"),
            ({"text": "x", "id": "  "}, "the id in 'id' is empty"),
            ({"text": "x", "id": "i" * 513}, "has 513 characters; at most 512"),
            ({"text": "x", "id": "a\nb"}, "control characters"),
            ({"text": "x", "id": True}, "the id in 'id' must be a string or an integer, not bool True"),
            ({"text": "x", "id": 1.5}, "must be a string or an integer, not float"),
            ({"text": "x", "title": ["t"]}, "the title in 'title' must be a string"),
            ({"text": "x", "source": True}, "the source in 'source' must be a string"),
            ({"text": "x", "a": {"b": 1}, "a.b": 2}, "two values for 'a.b'"),
            ([1], "a record must be a JSON object, not list"),
            (b"nonsense", "invalid JSON: "),
            (b'{"text": "x"', "invalid JSON: "),
            (b"[" * 100_000, "invalid JSON: "),
            (b'{"text": "\xff"}', "invalid UTF-8 at byte 11"),
        ],
    )
    def test_broken_records_are_refused(self, tmp_path, record, reason):
        assert reason in refused(tmp_path, record)

    def test_what_a_record_has_instead_of_text_is_listed(self, tmp_path):
        (tmp_path / "a.jsonl").write_text('{"id": 1, "txet": "x", "year": 2001}')
        with pytest.raises(RecordError) as caught:
            list(read_documents(SourceOptions(str(tmp_path / "a.jsonl"))))
        assert caught.value.remedy == (
            "Correct it, or pass --skip-invalid to leave such records out. The record has id, txet, year. "
            "If another key holds the text, name it in a recipe, under [[sources]]: "
            'fields = { text = "txet" }.'
        )

    @pytest.mark.parametrize(
        ("record", "remedy"),
        [
            ({}, "The record has no keys."),
            ({f"k{n:02}": 1 for n in range(30)}, "k18, k19 and 10 more."),
            ({"k\ud800" * 99: 1}, "…. If"),
        ],
    )
    def test_odd_records_are_listed_too(self, tmp_path, record, remedy):
        (tmp_path / "a.jsonl").write_text(json.dumps(record))
        with pytest.raises(RecordError) as caught:
            list(read_documents(SourceOptions(str(tmp_path / "a.jsonl"))))
        assert remedy in caught.value.remedy
        caught.value.remedy.encode()

    def test_a_vector_that_is_missing_is_named_by_its_flag(self, tmp_path):
        (tmp_path / "a.jsonl").write_text('{"text": "x", "vectr": [1.0]}')
        with pytest.raises(
            RecordError, match=r"'vector' is missing.*Name the key with --vector-field vectr\."
        ):
            list(read_documents(SourceOptions(str(tmp_path / "a.jsonl"), fields={"vector": "vector"})))

    def test_an_id_of_512_characters_fits(self, tmp_path):
        assert read_one(tmp_path, {"id": "i" * 512, "text": "x"}).id == "i" * 512

    def test_a_named_id_must_be_there(self, tmp_path):
        assert (
            refused(tmp_path, {"id": "a", "text": "x"}, fields={"id": "pmid"}) == "no id: 'pmid' is missing"
        )

    @pytest.mark.parametrize("fields", [{"txt": "a"}, {"text": ""}])
    def test_only_our_names_can_be_mapped(self, tmp_path, fields):
        with pytest.raises(SourceError, match="is not a field of a document"):
            read_one(tmp_path, {"text": "x"}, fields=fields)

    def test_text_may_be_empty_where_vectors_come_separately(self, tmp_path):
        assert read_one(tmp_path, {"text": ""}, allow_empty_text=True).text == ""
        assert read_one(tmp_path, {"text": None}, allow_empty_text=True).text == ""
        assert "no text" in refused(tmp_path, {"id": "a"}, allow_empty_text=True)


class TestAttributes:
    def test_of_json_types_are_kept(self, tmp_path):
        values = {"b": True, "i": 1, "f": 1.5, "s": "x", "sl": ["a", "b"], "il": [1, 2], "e": [], "n": None}
        assert read_one(tmp_path, {"text": "x", **values}).attributes == values

    def test_nested_objects_get_dotted_names(self, tmp_path):
        document = read_one(
            tmp_path, {"text": "x", "metadata": {"year": 2015, "deep": {"er": 1}}, "none": {}}
        )
        assert document.attributes == {"metadata.year": 2015, "metadata.deep.er": 1}

    def test_lists_of_other_things_become_json_text(self, tmp_path):
        document = read_one(
            tmp_path,
            {
                "text": "x",
                "mixed": [1, "a"],
                "floats": [1.5],
                "bools": [True],
                "objects": [{"a": "ü"}],
                "nulls": ["a", None],
                "huge": [2**70, "a"],
            },
        )
        assert document.attributes == {
            "mixed": '[1,"a"]',
            "floats": "[1.5]",
            "bools": "[true]",
            "objects": '[{"a":"ü"}]',
            "nulls": ["a"],
            "huge": f'[{2**70},"a"]',
        }

    def test_objects_nested_beyond_reason_become_json_text(self, tmp_path):
        deep = {"leaf": 1}
        for _ in range(40):
            deep = {"a": deep}
        ((name, value),) = read_one(tmp_path, {"text": "x", **deep}).attributes.items()
        assert name == ".".join(["a"] * 33)
        assert json.loads(value)

    def test_json_text_takes_any_integer_and_surrogate(self, tmp_path):
        record = b'{"text": "x", "l": [{"a": 99999999999999999999, "b": "\\ud800", "c": NaN}]}'
        (value,) = read_one(tmp_path, record).attributes.values()
        assert value.startswith('[{"a":99999999999999999999,"b":"\ufffd"')

    def test_nan_and_infinity_are_missing(self, tmp_path):
        document = read_one(tmp_path, b'{"text": "x", "a": NaN, "b": -Infinity, "c": 1e999}')
        assert document.attributes == {"a": None, "b": None, "c": None}

    def test_integers_beyond_64_bits_keep_every_digit_as_text(self, tmp_path):
        record = {"text": "x", "top": 2**63 - 1, "over": 2**63, "far": 10**29, "low": -(2**63) - 1}
        assert read_one(tmp_path, record).attributes == {
            "top": 2**63 - 1,
            "over": str(2**63),
            "far": str(10**29),
            "low": str(-(2**63) - 1),
        }

    def test_can_be_chosen_by_name_or_by_the_name_they_are_nested_under(self, tmp_path):
        record = {"text": "x", "year": 1, "meta": {"a": 2, "b": {"c": 3}}, "metal": 4}
        assert read_one(tmp_path, record, attributes=("year",)).attributes == {"year": 1}
        assert read_one(tmp_path, record, attributes=("meta",)).attributes == {"meta.a": 2, "meta.b.c": 3}
        assert read_one(tmp_path, record, attributes=("meta.a",)).attributes == {"meta.a": 2}
        assert read_one(tmp_path, record, attributes=()).attributes == {}

    def test_without_a_name_are_left_out(self, tmp_path):
        assert read_one(tmp_path, {"text": "x", "": 1}).attributes == {}


class TestVectors:
    FIELDS = {"vector": "embedding"}  # noqa: RUF012

    def test_are_float32_and_no_attribute(self, tmp_path):
        document = read_one(tmp_path, {"text": "", "embedding": [1, 0.5]}, fields=self.FIELDS)
        assert document.vector.dtype == np.float32
        assert document.vector.tolist() == [1.0, 0.5]
        assert document.attributes == {}

    def test_are_read_only_when_named(self, tmp_path):
        document = read_one(tmp_path, {"text": "x", "embedding": [1.0]})
        assert document.vector is None

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (None, "no vector: 'embedding' is missing"),
            ([], "has shape (0,)"),
            ([[1.0]], "has shape (1, 1)"),
            ("abc", "must be a list of numbers"),
            (["a"], "must be a list of numbers"),
            ([1, None], "must be a list of numbers"),
            ([[1], [1, 2]], "must be a list of numbers"),
            ([1e300], "too large for float32"),
        ],
    )
    def test_broken_ones_are_refused(self, tmp_path, value, reason):
        assert reason in refused(tmp_path, {"text": "x", "embedding": value}, fields=self.FIELDS)

    def test_of_another_length_than_those_before_are_refused(self, tmp_path):
        path = write(
            tmp_path / "v.jsonl", {"text": "x", "embedding": [1, 2]}, {"text": "x", "embedding": [1]}
        )
        with pytest.raises(RecordError, match=r"v\.jsonl:2: the vector has 1 numbers, those before it 2"):
            read(path, fields=self.FIELDS)


class TestLines:
    def test_blank_ones_and_a_byte_order_mark_are_skipped_and_counted(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\n  \n{"text": "b"}')
        assert [(d.text, d.origin) for d in read(path)] == [("a", f"{path}:1"), ("b", f"{path}:4")]

    @pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstandard.compress)])
    def test_compressed_ones_are_read_also_from_several_members(self, tmp_path, suffix, pack):
        path = tmp_path / f"a.jsonl.{suffix}"
        path.write_bytes(pack(b'{"text": "a"}\n') + pack(b'{"text": "b"}\n'))
        assert [(d.text, d.source) for d in read(path)] == [("a", "a"), ("b", "a")]

    @pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstandard.compress)])
    def test_truncated_and_corrupt_files_are_refused_by_name(self, tmp_path, suffix, pack):
        whole = pack(b"".join(b'{"text": "%d"}\n' % n for n in range(1000)))
        for data in (whole[:-9], b"not compressed at all"):
            path = tmp_path / f"a.jsonl.{suffix}"
            path.write_bytes(data)
            with pytest.raises(RecordError, match=rf"a\.jsonl\.{suffix}: damaged or truncated file"):
                read(path)

    def test_skipping_goes_on_with_the_next_file_after_a_damaged_one(self, tmp_path):
        (tmp_path / "a.jsonl.gz").write_bytes(b"broken")
        write(tmp_path / "b.jsonl", {"text": "b"})
        rejected = []
        documents = read_documents(SourceOptions(str(tmp_path), skip_invalid=True), rejected.append)
        assert [d.text for d in documents] == ["b"]
        assert [r.origin for r in rejected] == [str(tmp_path / "a.jsonl.gz")]

    def test_overlong_ones_are_refused_without_being_held(self, tmp_path, monkeypatch):
        monkeypatch.setattr(lines, "MAX_LINE_BYTES", 50)
        path = write(tmp_path / "a.jsonl", {"text": "a"}, {"text": "b" * 5_000_000}, {"text": "c"})
        with pytest.raises(RecordError, match=r"a\.jsonl:2: line of more than 50 bytes"):
            read(path)
        rejected = []
        documents = read_documents(SourceOptions(str(path), skip_invalid=True), rejected.append)
        assert [d.text for d in documents] == ["a", "c"]
        assert len(rejected[0].raw) <= 52

    def test_one_exactly_as_long_as_the_limit_is_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr(lines, "MAX_LINE_BYTES", 13)
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'{"text": "a"}\r\n{"text": "b"}\n{"text": "c"}')
        assert [d.text for d in read(path)] == ["a", "b", "c"]


class TestSkipping:
    def test_broken_records_are_reported_with_place_reason_and_text(self, tmp_path):
        path = write(
            tmp_path / "a.jsonl",
            {"text": "a"},
            b"{broken",
            {"id": 1},
            b'{"x": "\xff"}',
            b"[1]",
            {"text": "b"},
        )
        rejected = []
        documents = list(read_documents(SourceOptions(str(path), skip_invalid=True), rejected.append))
        assert [d.text for d in documents] == ["a", "b"]
        assert [r.origin for r in rejected] == [f"{path}:{n}" for n in (2, 3, 4, 5)]
        assert [r.raw for r in rejected] == ["{broken", '{"id": 1}', '{"x": "\ufffd"}', "[1]"]
        assert rejected[1] == Rejection(
            f"{path}:3", "no text: 'text' or 'contents' or 'content' or 'body' is missing", '{"id": 1}'
        )

    def test_raw_text_is_cut(self, tmp_path):
        path = write(tmp_path / "a.jsonl", {"note": "x" * 50_000})
        rejected = []
        assert list(read_documents(SourceOptions(str(path), skip_invalid=True), rejected.append)) == []
        assert len(rejected[0].raw) == 10_000

    def test_works_without_anyone_listening(self, tmp_path):
        assert read(write(tmp_path / "a.jsonl", b"{", {"text": "b"}), skip_invalid=True)[0].text == "b"


class TestJson:
    def texts(self, tmp_path, data, **options):
        path = tmp_path / "a.json"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return [(d.text, d.origin.removeprefix(str(path))) for d in read(path, **options)]

    def test_may_be_an_array(self, tmp_path):
        records = [{"text": "a"}, {"text": "b"}]
        expected = [("a", ": record 1"), ("b", ": record 2")]
        assert self.texts(tmp_path, json.dumps(records)) == expected
        assert self.texts(tmp_path, "\ufeff" + json.dumps(records, indent=2) + "\n") == expected
        assert self.texts(tmp_path, "[]") == []

    def test_may_be_lines(self, tmp_path):
        assert self.texts(tmp_path, '\n{"text": "a"}\n{"text": "b"}\n') == [("a", ":2"), ("b", ":3")]
        assert self.texts(tmp_path, "") == []

    def test_may_be_one_object_over_several_lines(self, tmp_path):
        data = json.dumps({"text": "a"}, indent=1) + "\n" + json.dumps({"text": "b"}, indent=1)
        assert self.texts(tmp_path, data) == [("a", ": record 1"), ("b", ": record 2")]

    def test_arrays_larger_than_the_buffer_are_streamed(self, tmp_path):
        records = [{"text": "é" * 1000, "n": n} for n in range(600)] + [{"text": "z" * 900_000}]
        assert len(self.texts(tmp_path, json.dumps(records, ensure_ascii=False))) == 601

    def test_compressed_arrays_are_read(self, tmp_path):
        path = tmp_path / "a.json.gz"
        path.write_bytes(gzip.compress(b'[{"text": "a"}]'))
        assert [d.text for d in read(path)] == ["a"]

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b'[{"text": "a"}, {"text": ', "record 2: invalid JSON"),
            (b'[{"text": "a"}', "record 2: invalid JSON"),
            (b'[{"text": "a"}, 5]', "record 2: a record must be a JSON object, not int"),
            (b"[" * 200_000, "record 1: invalid JSON"),
            (b'[{"text": "\xff"}]', "record 1: invalid UTF-8"),
            (b'{\n"text": ', "record 1: invalid JSON"),
        ],
    )
    def test_broken_ones_are_refused_by_record(self, tmp_path, data, reason):
        with pytest.raises(RecordError, match=reason):
            self.texts(tmp_path, data)

    def test_skipping_keeps_what_stands_before_the_damage(self, tmp_path):
        data = b'[{"text": "a"}, 5, {"text": "b"}, oops, {"text": "c"}]'
        assert self.texts(tmp_path, data, skip_invalid=True) == [("a", ": record 1"), ("b", ": record 3")]

    def test_truncated_compressed_arrays_are_refused(self, tmp_path):
        packed = gzip.compress(json.dumps([{"text": str(n)} for n in range(9999)]).encode())
        path = tmp_path / "a.json.gz"
        path.write_bytes(packed[:-20])
        with pytest.raises(RecordError, match="damaged or truncated"):
            read(path)
        path.write_bytes(b"nothing of the kind")
        with pytest.raises(RecordError, match="damaged or truncated"):
            read(path)

    def test_overlong_records_are_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("compactds.indexer.sources.jsonl.MAX_LINE_BYTES", 1000)
        with pytest.raises(RecordError, match="more than 1,000 characters in one record"):
            self.texts(tmp_path, json.dumps([{"text": "x" * 600_000}]))


def test_max_documents_stops_reading(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "a"}, {"text": "b"}, b"broken")
    assert [d.text for d in read(path, max_documents=2)] == ["a", "b"]
    with pytest.raises(SourceError, match="max_documents is 0"):
        read(path, max_documents=0)
