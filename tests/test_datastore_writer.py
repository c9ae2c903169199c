"""A segment holds what was appended to it, or says why it cannot."""

import numpy as np
import pyarrow as pa
import pytest

from compactds.datastore.attributes import arrow_schema, full_schema
from compactds.datastore.errors import StoreError
from compactds.datastore.lookup import DocumentLookup
from compactds.datastore.passages import PASSAGE_SCHEMA, PassageReader
from compactds.datastore.writer import SegmentWriter

SCHEMA = full_schema({})


def passages(count, start=0):
    numbers = range(start, start + count)
    row = {
        "position": 0,
        "title": "",
        "text": "words",
        "source": "here",
        "start": 0,
        "end": 5,
        "attributes": "{}",
    }
    return pa.Table.from_pylist([{"document_id": f"d{number}", **row} for number in numbers], PASSAGE_SCHEMA)


def attributes(count, start=0):
    numbers = range(start, start + count)
    rows = [{"document_id": f"d{number}", "title": "", "source": "here"} for number in numbers]
    return pa.Table.from_pylist(rows, arrow_schema(SCHEMA))


def writer(folder, dtype="float16"):
    return SegmentWriter(folder, SCHEMA, dimension=4, dtype=dtype)


def test_rows_come_back_as_they_were_appended(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    with writer(tmp_path, "float32") as written:
        for start in (0, 20, 40):
            part = vectors[start : start + 20]
            written.append(passages(len(part), start), attributes(len(part), start), part)
    assert (written.rows, written.documents) == (50, 50)
    assert np.array_equal(written.open_vectors().gather(np.arange(50)), vectors)
    (row,) = DocumentLookup(tmp_path / "documents.lookup").first_rows("d33")
    assert PassageReader(tmp_path / "passages.arrow").fetch([row])[0].id == "d33#0"


def test_a_document_begins_with_the_first_of_its_passages_that_is_there(tmp_path):
    """Whatever its position, and however the rows are parted."""
    rows = [("a", 0), ("a", 2), ("b", 1), ("b", 2), ("b", 5), ("c", 3), ("d", 0)]
    table = passages(len(rows))
    for column, values in enumerate(zip(*rows, strict=True)):
        table = table.set_column(
            column, PASSAGE_SCHEMA.field(column), pa.array(values, table.schema.types[column])
        )
    with writer(tmp_path) as written:
        for start, count in ((0, 1), (1, 3), (4, 0), (4, 3)):
            part = table.slice(start, count)
            written.append(part, attributes(count), np.ones((count, 4), np.float32))
    assert written.documents == 4
    lookup = DocumentLookup(tmp_path / "documents.lookup")
    assert [lookup.first_rows(name) for name in "abcd"] == [[0], [2], [5], [6]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 70_000.0])
def test_vectors_that_cannot_be_stored_are_counted_and_refused(tmp_path, bad):
    vectors = np.ones((5, 4), np.float32)
    vectors[[2, 4], 1] = bad
    with writer(tmp_path) as written:
        written.append(passages(3), attributes(3), vectors[[0, 1, 3]])
        with pytest.raises(StoreError, match=r"2 of 5 vectors .* finite in float16, .* row 5") as caught:
            written.append(passages(5, 3), attributes(5, 3), vectors)
    assert caught.value.value == 2
    assert "float32" in caught.value.remedy


def test_large_numbers_are_stored_as_float32(tmp_path):
    with writer(tmp_path, "float32") as written:
        written.append(passages(1), attributes(1), np.full((1, 4), 70_000, np.float32))
    assert written.open_vectors().gather(np.arange(1))[0, 0] == 70_000


@pytest.mark.parametrize("shape", [(3, 5), (3,), (3, 4, 1)])
def test_vectors_of_another_shape_are_refused(tmp_path, shape):
    with pytest.raises(ValueError, match="expected \\(n, 4\\)"), writer(tmp_path) as written:
        written.append(passages(3), attributes(3), np.ones(shape, np.float32))


@pytest.mark.parametrize(
    ("lost", "name"),
    [("compactds.datastore.writer.write_array", "exact.f16"), ("sorted", "documents.lookup")],
)
def test_a_file_that_came_out_short_is_told(tmp_path, monkeypatch, lost, name):
    if lost == "sorted":
        monkeypatch.setattr("compactds.datastore.lookup.write_array", lambda file, array: None)
    else:
        monkeypatch.setattr(
            lost, lambda file, array: file.write(bytes(16 * len(array))[: 16 * (len(array) - 1)])
        )
    with (
        pytest.raises(StoreError, match=rf"{name} has .* bytes, .* were written"),
        writer(tmp_path) as written,
    ):
        written.append(passages(3), attributes(3), np.ones((3, 4), np.float32))
