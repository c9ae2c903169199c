"""Files are replaced whole, and damage is found."""

import numpy as np
import pytest

from compactds.datastore.files import (
    CHECKED_AT_OPEN_BYTES,
    SAMPLED_END_BYTES,
    SAMPLED_PIECE_BYTES,
    SAMPLED_PIECES,
    FileRecord,
    find_damage,
    record_file,
    write_array,
    write_atomic,
)


def test_replacing_a_file_leaves_nothing_beside_it(tmp_path):
    write_atomic(tmp_path / "a.json", b"old")
    write_atomic(tmp_path / "a.json", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"new"


def test_a_failed_replacement_leaves_the_old_content(tmp_path, monkeypatch):
    write_atomic(tmp_path / "a.json", b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "a.json", b"new")
    assert (tmp_path / "a.json").read_bytes() == b"old"


def test_a_whole_file_has_no_damage(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert find_damage(tmp_path, {"a": record_file(tmp_path / "a")}, deep=True) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"conten", "has 6 bytes, the manifest says 7"), (b"cOntent", "fails its SHA-256 checksum")],
)
def test_damage_is_named(tmp_path, content, problem):
    (tmp_path / "a").write_bytes(b"content")
    record = record_file(tmp_path / "a")
    (tmp_path / "a").write_bytes(content)
    (found,) = find_damage(tmp_path, {"a": record}, deep=False)
    assert problem in found
    assert str(tmp_path / "a") in found


def test_a_missing_file_and_a_folder_in_its_place_are_damage(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    record = record_file(tmp_path / "a")
    (tmp_path / "a").unlink()
    assert "is missing" in find_damage(tmp_path, {"a": record}, deep=True)[0]
    (tmp_path / "a").mkdir()
    assert len(find_damage(tmp_path, {"a": record}, deep=True)) == 1


@pytest.fixture
def large(tmp_path):
    """A file of random bytes above the size that is checked whole, and its record."""
    path = tmp_path / "large"
    path.write_bytes(np.random.default_rng(0).bytes(CHECKED_AT_OPEN_BYTES + 100_001))
    return path, {"large": record_file(path)}


def damage(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("offset", [0, 4_095, SAMPLED_END_BYTES - 1, -1, -SAMPLED_END_BYTES])
def test_a_sample_of_a_large_file_finds_damage_at_its_ends(large, offset):
    path, records = large
    assert find_damage(path.parent, records, deep=False) == []
    damage(path, offset)
    (found,) = find_damage(path.parent, records, deep=False)
    assert found == f"{path} fails the checksum of a sample of it."


def test_a_sample_of_a_large_file_finds_damage_that_is_wider_than_its_gaps(large):
    path, records = large
    content = path.read_bytes()
    gap = len(content) // SAMPLED_PIECES + SAMPLED_PIECE_BYTES
    for start in range(0, len(content), gap):
        path.write_bytes(content[:start] + bytes(len(content[start : start + gap])) + content[start + gap :])
        assert len(find_damage(path.parent, records, deep=False)) == 1


def test_a_file_read_whole_shows_any_damage_by_its_fast_checksum(large):
    path, records = large
    offset = len(path.read_bytes()) * 61 // (2 * (SAMPLED_PIECES + 1))  # between two pieces
    damage(path, offset)
    assert find_damage(path.parent, records, deep=False) == []
    assert "XXH3" in find_damage(path.parent, records, deep=False, whole={"large"})[0]
    assert "SHA-256" in find_damage(path.parent, records, deep=True)[0]


def test_a_record_without_a_fast_checksum_is_checked_by_its_slow_one(large):
    path, records = large
    old = {"large": FileRecord(records["large"].bytes, records["large"].sha256)}
    assert find_damage(path.parent, old, deep=False, whole={"large"}) == []
    damage(path, 0)
    assert find_damage(path.parent, old, deep=False) == []
    assert "SHA-256" in find_damage(path.parent, old, deep=False, whole={"large"})[0]


def test_a_file_that_just_fits_is_checked_whole(tmp_path):
    path = tmp_path / "small"
    path.write_bytes(bytes(CHECKED_AT_OPEN_BYTES))
    record = record_file(path)
    assert record.sample == ""
    damage(path, 100_000)
    assert "SHA-256" in find_damage(tmp_path, {"small": record}, deep=False)[0]


@pytest.mark.parametrize(
    "array",
    [
        np.empty((0, 4), np.float16),
        np.arange(12, dtype="<f4").reshape(3, 4).T,
        np.arange(1_000_000, dtype="<f2"),
        np.array([(1, 2), (3, 4)], dtype=[("key", "<u8"), ("row", "<u8")]),
    ],
)
def test_arrays_are_written_as_they_are(tmp_path, array):
    with (tmp_path / "a").open("wb") as file:
        write_array(file, array)
    assert (tmp_path / "a").read_bytes() == array.tobytes()


def test_a_full_disk_is_told_however_small_the_array():
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "wb") as file:  # noqa: PTH123
        write_array(file, np.zeros(10))


def test_a_failed_replacement_leaves_nothing_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "a.json", b"new")
    assert list(tmp_path.iterdir()) == []
