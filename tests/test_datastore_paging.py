"""Pages of chosen rows: which they are, and that they come into memory, and no others."""

import itertools
import mmap

import numpy as np
import pytest
from benchmarks.disk.files import drop, resident_pages
from hypothesis import given, settings
from hypothesis import strategies as st

from compactds.datastore.paging import GROUP_RANGES, page_ranges, read_pages

PAGE = mmap.PAGESIZE


def pages_of(rows, row_bytes):
    return {
        page
        for row in rows
        for page in range(row * row_bytes // PAGE, ((row + 1) * row_bytes - 1) // PAGE + 1)
    }


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=40), st.sampled_from([1, 6, 768, PAGE, 8192, 10_000]))
def test_ranges_hold_the_pages_of_the_rows_and_no_others(rows, row_bytes):
    starts, ends = page_ranges(np.array(rows, np.int64), row_bytes)
    ranges = list(zip(starts.tolist(), ends.tolist(), strict=True))
    covered = [page for start, end in ranges for page in range(start // PAGE, end // PAGE)]
    assert covered == sorted(pages_of(rows, row_bytes))
    assert all(start % PAGE == end % PAGE == 0 for start, end in ranges)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(ranges))


@pytest.mark.parametrize("row_bytes", [768, 8192])
def test_pages_of_the_rows_are_read_and_no_others(tmp_path, row_bytes):
    path = tmp_path / "rows"
    count = 4 * GROUP_RANGES
    path.write_bytes(b"\1" * (count * 3 * PAGE // row_bytes * row_bytes))
    rows = np.random.default_rng(1).permutation(path.stat().st_size // row_bytes)[:count]
    if drop(path):
        pytest.skip("this file system keeps files in memory")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        mapped.madvise(mmap.MADV_RANDOM)
        read_pages(mapped, rows, row_bytes)
        pages = sorted(pages_of(rows.tolist(), row_bytes))
        assert len(pages) / 2 <= resident_pages(path) <= len(pages)
        np.frombuffer(mapped, np.uint8).take(np.array(pages) * PAGE)  # waits for the last, still under way
        assert resident_pages(path) == len(pages)


def test_the_last_page_of_a_file_may_be_part_of_one(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"\1" * 768 * 7)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        read_pages(mapped, np.array([6, 0, 6]), 768)
        read_pages(mapped, np.array([], np.int64), 768)
    assert resident_pages(path) == 2
