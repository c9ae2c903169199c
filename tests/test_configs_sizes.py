"""Sizes: what people write for memory and disk, and how sizes are shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactds.configs.errors import InvalidValueError
from compactds.configs.sizes import counted, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("4096", 4096),
        ("1B", 1),
        ("512MB", 512_000_000),
        ("512mb", 512_000_000),
        (" 2 GiB ", 2 * 2**30),
        ("1.5kb", 1500),
        ("0.5KiB", 512),
        ("3TB", 3 * 10**12),
    ],
)
def test_a_size_is_a_number_and_a_unit(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "MB", "12XB", "-1MB", "0", "0GB", "1e9", "nan", "1,5GB", "٣MB", "1 2MB", "9" * 99]
)
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(InvalidValueError, match="is not a size") as caught:
        parse_bytes(text)
    assert caught.value.value == text
    assert "512MB" in caught.value.remedy


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (1_500_000_000, "1.5 GB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_sizes_are_shown_in_thousands(size, text):
    assert format_bytes(size) == text


@given(st.integers(1, 10**14))
def test_what_is_shown_parses_to_nearly_the_same(size):
    assert abs(parse_bytes(format_bytes(size)) - size) <= 0.06 * size


def test_one_thing_is_not_called_many():
    shown = [counted(count, "document") for count in (0, 1, 2, 1000)]
    assert shown == ["0 documents", "1 document", "2 documents", "1,000 documents"]
    assert [counted(count, "query is", "queries are") for count in (1, 2)] == ["1 query is", "2 queries are"]
