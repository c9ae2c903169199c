"""Passages come back by row as they were written, and by id through the lookup."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import orjson
import pyarrow as pa
import pytest

from compactds.datastore.errors import DamagedStoreError
from compactds.datastore.lookup import DocumentLookup, lookup_entries, sort_lookup
from compactds.datastore.passages import PASSAGE_SCHEMA, ROWS_PER_BATCH, PassageReader, PassageWriter


@contextmanager
def written(path):
    writer = PassageWriter(path)
    yield writer
    writer.finish()
    writer.close()


TEXTS = ["", "plain", "žluťoučký 🐎 \u200b", "line\nline", "x" * 100_000]


def rows(count: int) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "document_id": f"d{number // 3}",
                "position": number % 3,
                "title": f"title {number}",
                "text": TEXTS[number % len(TEXTS)] + str(number),
                "source": "here",
                "start": number,
                "end": number + 1,
                "attributes": orjson.dumps({"number": number, "tags": ["ä", "b"]}).decode(),
            }
            for number in range(count)
        ],
        PASSAGE_SCHEMA,
    )


@pytest.mark.parametrize("pieces", [[100], [1] * 100, [7, 50, 43], [16, 16, 68]])
def test_every_row_comes_back_whatever_the_pieces_it_came_in(tmp_path, pieces):
    table = rows(100)
    start = 0
    with written(tmp_path / "p.arrow") as writer:
        for piece in pieces:
            writer.append(table.slice(start, piece))
            start += piece
    reader = PassageReader(tmp_path / "p.arrow")
    assert reader.batches == -(-100 // ROWS_PER_BATCH)
    order = np.random.default_rng(0).permutation(100).tolist()
    for number, passage in zip(order, reader.fetch(order), strict=True):
        assert passage.id == f"d{number // 3}#{number % 3}"
        assert passage.text == TEXTS[number % len(TEXTS)] + str(number)
        assert passage.attributes == {"number": number, "tags": ["ä", "b"]}
        assert (passage.start, passage.end, passage.title) == (number, number + 1, f"title {number}")
    reader.close()


def test_the_pieces_leave_no_trace_in_the_file(tmp_path):
    table = rows(100)
    with written(tmp_path / "a") as one:
        one.append(table)
    with written(tmp_path / "b") as many:
        for start in range(0, 100, 9):
            many.append(table.slice(start, 9))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_threads_read_at_once(tmp_path):
    with written(tmp_path / "p.arrow") as writer:
        writer.append(rows(400))
    reader = PassageReader(tmp_path / "p.arrow")
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: reader.fetch([number])[0].start, range(400)))
    assert found == list(range(400))
    reader.close()


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "p.arrow"
    with written(path) as writer:
        writer.append(rows(100))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedStoreError, match=r"p\.arrow cannot be read"):
        PassageReader(path)


def test_a_damaged_batch_is_an_error_and_not_a_wrong_passage(tmp_path):
    path = tmp_path / "p.arrow"
    with written(path) as writer:
        writer.append(rows(16))
    content = bytearray(path.read_bytes())
    middle = content.index(b"\x28\xb5\x2f\xfd")  # the first zstd frame
    content[middle : middle + 4] = b"\x00\x00\x00\x00"
    path.write_bytes(content)
    reader = PassageReader(path)
    with pytest.raises(DamagedStoreError, match="compactds verify"):
        reader.fetch([0])


def test_the_lookup_finds_first_rows(tmp_path):
    path = tmp_path / "lookup"
    names = [(f"doc {number} ü", 3 * number) for number in range(1_000)]
    with path.open("wb") as file:
        for start in range(0, 1_000, 300):
            lookup_entries(names[start : start + 300]).tofile(file)
    assert sort_lookup(path) == 1_000
    lookup = DocumentLookup(path)
    assert [lookup.first_rows(name) for name, _ in names] == [[row] for _, row in names]
    assert lookup.first_rows("absent") == []
    assert lookup.first_rows("\ud800") == []


def test_an_empty_lookup_finds_nothing(tmp_path):
    (tmp_path / "lookup").write_bytes(b"")
    assert DocumentLookup(tmp_path / "lookup").first_rows("a") == []
