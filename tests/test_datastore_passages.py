"""Passages come back by row as they were written, and by id through the lookup."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import orjson
import pyarrow as pa
import pytest

from compactds.datastore.errors import DamagedStoreError, StoreError
from compactds.datastore.files import write_array
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


def test_damage_anywhere_is_told_and_never_returned(tmp_path):
    """Whatever byte of the file changes, a read gives the passages that were written, or an error."""
    path = tmp_path / "p.arrow"
    with written(path) as writer:
        writer.append(rows(3 * ROWS_PER_BATCH).slice(0, 3 * ROWS_PER_BATCH))
    content = path.read_bytes()
    expected = PassageReader(path).fetch(range(3 * ROWS_PER_BATCH))
    told = 0
    for offset in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[offset] ^= 0xFF
        path.with_name("damaged").write_bytes(damaged)
        try:
            assert PassageReader(path.with_name("damaged")).fetch(range(3 * ROWS_PER_BATCH)) == expected
        except DamagedStoreError:
            told += 1
    assert told > len(range(0, len(content), 37)) / 2


def test_batches_that_changed_places_are_told(tmp_path, monkeypatch):
    with written(tmp_path / "p.arrow") as writer:
        writer.append(rows(40))
    reader = PassageReader(tmp_path / "p.arrow")
    first = reader.fetch([0])
    file = reader._reader()

    class Swapped:
        def get_batch_with_custom_metadata(self, number):
            return file.get_batch_with_custom_metadata(1 - number)

    monkeypatch.setattr(reader, "_reader", Swapped)
    with pytest.raises(DamagedStoreError, match="batch 0 fails its checksum"):
        reader.fetch([0])
    monkeypatch.undo()
    assert reader.fetch([0]) == first


def test_rows_beyond_the_file_are_damage(tmp_path):
    with written(tmp_path / "p.arrow") as writer:
        writer.append(rows(20))
    reader = PassageReader(tmp_path / "p.arrow")
    for row in (20, 31, 32, 10**12, -1):
        with pytest.raises(DamagedStoreError, match=r"p\.arrow cannot be read"):
            reader.fetch([row])


def test_a_file_written_before_there_were_checksums_is_read(tmp_path):
    table = rows(20)
    with pa.ipc.new_file(str(tmp_path / "p.arrow"), PASSAGE_SCHEMA) as file:
        file.write_table(table, max_chunksize=ROWS_PER_BATCH)
    assert [passage.title for passage in PassageReader(tmp_path / "p.arrow").fetch([17, 3])] == [
        "title 17",
        "title 3",
    ]


def test_a_file_of_other_columns_is_damage(tmp_path):
    with pa.ipc.new_file(str(tmp_path / "p.arrow"), pa.schema([("a", pa.int64())])) as file:
        file.write_table(pa.table({"a": [1]}))
    with pytest.raises(DamagedStoreError, match="columns"):
        PassageReader(tmp_path / "p.arrow")


def test_a_closed_reader_says_so(tmp_path):
    with written(tmp_path / "p.arrow") as writer:
        writer.append(rows(20))
    reader = PassageReader(tmp_path / "p.arrow")
    reader.close()
    reader.close()
    with pytest.raises(StoreError, match="is closed"):
        reader.fetch([1])


def test_a_full_disk_leaves_the_entries_of_a_lookup_as_they_were(tmp_path, monkeypatch):
    path = tmp_path / "documents.lookup"
    with path.open("wb") as file:
        write_array(file, lookup_entries([("a", 0), ("b", 3)]))
    content = path.read_bytes()

    def full(file, array):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("compactds.datastore.lookup.write_array", full)
    with pytest.raises(OSError, match="No space"):
        sort_lookup(path)
    assert path.read_bytes() == content
    monkeypatch.undo()
    assert sort_lookup(path) == len(DocumentLookup(path)) == 2


def test_a_passage_is_found_though_others_of_its_document_were_left_out(tmp_path):
    kept = {"a": [0, 1, 2], "b": [3, 4, 9, 40, 41], "c": [7], "d": list(range(0, 100, 3)), "e": [0]}
    rows = [
        {"document_id": name, "position": position, "title": "", "text": f"{name}{position}"}
        | {"source": "", "start": 0, "end": 1, "attributes": "{}"}
        for name, positions in kept.items()
        for position in positions
    ]
    with written(tmp_path / "passages.arrow") as writer:
        writer.append(pa.Table.from_pylist(rows, PASSAGE_SCHEMA))
    reader = PassageReader(tmp_path / "passages.arrow")
    first = 0
    for name, positions in kept.items():
        for position in range(110):
            last = min(first + position, len(rows) - 1)
            row, passage = reader.find(name, position, first, last)
            there = passage.id == f"{name}#{position}"
            assert there == (position in positions)
            assert not there or (
                row == first + positions.index(position) and passage.text == rows[row]["text"]
            )
        first += len(positions)
