"""A bitmap is a set of rows, in the layout that faiss reads, whatever it was made from."""

import faiss
import numpy as np
import pytest

from compactds.datastore.bitmaps import Bitmap

LENGTHS = [0, 1, 7, 8, 9, 63, 64, 65, 1_000]


def random_mask(length, share, seed=0):
    return np.random.default_rng(seed).random(length) < share


@pytest.mark.parametrize("share", [0, 0.005, 0.3, 1])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_same_set_comes_from_a_mask_and_from_rows(length, share):
    mask = random_mask(length, share)
    bitmap = Bitmap.from_mask(mask)
    assert (bitmap.count, len(bitmap), bitmap.length) == (mask.sum(), mask.sum(), length)
    assert bitmap.mask().tolist() == mask.tolist()
    assert bitmap.rows().tolist() == np.flatnonzero(mask).tolist()
    assert bitmap.rows().dtype == np.int64
    shuffled = np.random.default_rng(1).permutation(np.repeat(np.flatnonzero(mask), 2))
    assert Bitmap.from_rows(shuffled.astype(np.uint32), length) == bitmap
    assert hash(Bitmap.from_rows(shuffled, length)) == hash(bitmap)


@pytest.mark.parametrize("length", LENGTHS)
def test_set_operations_are_those_of_masks(length):
    one, other = random_mask(length, 0.5), random_mask(length, 0.2, 1)
    first, second = Bitmap.from_mask(one), Bitmap.from_mask(other)
    for found, expected in [
        (first & second, one & other),
        (first | second, one | other),
        (~first, ~one),
        (~~first, one),
        (Bitmap.all(length), np.ones(length, bool)),
        (Bitmap.none(length), np.zeros(length, bool)),
        (~Bitmap.all(length), np.zeros(length, bool)),
    ]:
        assert found == Bitmap.from_mask(expected)
        assert found.count == expected.sum()
        assert found.nbytes % 8 == 0


def test_sets_of_other_rows_or_lengths_differ():
    assert Bitmap.from_rows(np.array([1]), 9) != Bitmap.from_rows(np.array([2]), 9)
    assert Bitmap.none(9) != Bitmap.none(10)
    assert Bitmap.none(9) != "rows"
    assert repr(Bitmap.all(1_000)) == "Bitmap(1,000 of 1,000 rows)"


def test_nothing_can_be_written_into_a_bitmap():
    bitmap = Bitmap.from_mask(random_mask(100, 0.5))
    for array in (bitmap.bits, bitmap.mask(), bitmap.rows(), Bitmap.none(9).rows()):
        with pytest.raises(ValueError, match="read-only"):
            array[:1] = 1
    assert bitmap.mask() is bitmap.mask()
    assert bitmap.rows() is bitmap.rows()


def test_faiss_reads_the_bits_as_they_are():
    length = 70
    bitmap = Bitmap.from_mask(random_mask(length, 0.4))
    selector = faiss.IDSelectorBitmap(bitmap.bits)
    assert [selector.is_member(row) for row in range(length + 200)] == [
        *bitmap.mask().tolist(),
        *[False] * 200,
    ]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.4, 1.0])
def test_row_numbers_come_in_blocks(share, monkeypatch):
    monkeypatch.setattr("compactds.datastore.bitmaps.BLOCK_ROWS", 10)
    monkeypatch.setattr("compactds.datastore.bitmaps.BLOCK_BYTES", 64)
    mask = np.random.default_rng(0).random(5_003) < share
    blocks = list(Bitmap.from_mask(mask).row_blocks())
    np.testing.assert_array_equal(np.concatenate(blocks), np.flatnonzero(mask))
    assert all(len(block) <= 8 * 64 for block in blocks)
