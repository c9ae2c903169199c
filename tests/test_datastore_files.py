"""Files are replaced whole, and damage is found."""

import pytest

from compactds.datastore.files import CHECKED_AT_OPEN_BYTES, find_damage, record_file, write_atomic


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


def test_checksums_of_large_files_wait_for_a_deep_check(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(b"a" * (CHECKED_AT_OPEN_BYTES + 1))
    record = record_file(path)
    path.write_bytes(b"b" * (CHECKED_AT_OPEN_BYTES + 1))
    assert find_damage(tmp_path, {"large": record}, deep=False) == []
    assert "SHA-256" in find_damage(tmp_path, {"large": record}, deep=True)[0]
