"""Which folders a build may write to, and how its files get there."""

import fcntl

import numpy as np
import pytest

from compactds.datastore.errors import StoreBusyError
from compactds.indexer.errors import BuildError
from compactds.indexer.workspace import Workspace, locked, noting_work, write_npy


def refused(out, name):
    with pytest.raises(BuildError, match=f"holds other files .*{name}.* and no datastore"), locked(out):
        pass
    assert not (out / ".build.lock").exists()


@pytest.mark.parametrize("folder", ["segments", "encoders"])
def test_a_folder_somebody_else_calls_as_a_store_calls_its_own_is_not_written_to(tmp_path, folder):
    (tmp_path / folder / "holiday").mkdir(parents=True)
    (tmp_path / folder / "holiday" / "film.mp4").write_text("precious")
    refused(tmp_path, folder)
    assert (tmp_path / folder / "holiday" / "film.mp4").read_text() == "precious"


def test_the_file_named_is_one_that_is_in_the_way(tmp_path):
    with locked(tmp_path):
        (tmp_path / "segments").mkdir()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(BuildError, match=r"\('notes\.txt'\)"), locked(tmp_path):
        pass


def test_what_a_build_leaves_that_is_stopped_while_it_publishes_is_no_obstacle(tmp_path):
    with locked(tmp_path):
        for folder in (".build", "segments", "encoders"):
            (tmp_path / folder).mkdir()
        (tmp_path / ".manifest.json.tmp").write_text("{")
    with locked(tmp_path):
        pass


def test_a_half_written_manifest_alone_is_no_obstacle(tmp_path):
    (tmp_path / ".manifest.json.tmp").write_text("")
    with locked(tmp_path):
        pass


def test_other_files_beside_a_store_are_left_alone(tmp_path):
    for name in ("manifest.json", "README.md"):
        (tmp_path / name).write_text("")
    with locked(tmp_path):
        pass
    assert (tmp_path / "README.md").exists()


def fail(out):
    with pytest.raises(BuildError), locked(out):
        raise BuildError("no such vectors.")


def test_a_name_that_no_folder_can_have_is_told(tmp_path):
    with pytest.raises(BuildError, match="File name too long"), locked(tmp_path / ("x" * 999)):
        pass


class TestFoldersMadeForNothing:
    def test_are_removed_with_those_above_that_were_made_for_them(self, tmp_path):
        fail(tmp_path / "new" / "store")
        assert list(tmp_path.iterdir()) == []

    def test_others_stay(self, tmp_path):
        (tmp_path / "new" / "store").mkdir(parents=True)
        fail(tmp_path / "new" / "store")
        assert [path.name for path in (tmp_path / "new" / "store").iterdir()] == [".build.lock"]
        fail(tmp_path / "new" / "other")
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["store"]

    def test_work_to_go_on_with_stays(self, tmp_path):
        with locked(tmp_path / "store"):
            (tmp_path / "store" / ".build").mkdir()
        fail(tmp_path / "store")
        assert (tmp_path / "store" / ".build").exists()

    def test_are_not_built_in_by_who_waited_for_the_lock(self, tmp_path, monkeypatch):
        """A lock that was removed between opening and locking keeps nobody out."""
        out = tmp_path / "store"
        flock = fcntl.flock

        def removed_meanwhile(lock, operation):
            (out / ".build.lock").unlink()
            flock(lock, operation)

        monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
        with pytest.raises(StoreBusyError, match="another build or change"), locked(out):
            pass


class TestNotes:
    def test_an_error_about_a_file_of_the_work_says_where_that_is_kept(self, tmp_path):
        with pytest.raises(OSError, match="No space") as error, noting_work(tmp_path, lambda: True):
            raise OSError(28, "No space left on device", str(tmp_path / "file"))
        (note,) = error.value.__notes__
        assert note.startswith(f"What is done is kept in {tmp_path};")

    def test_where_nobody_can_look_the_error_itself_is_told(self, tmp_path):
        def refuse():
            raise PermissionError("no")

        with pytest.raises(BuildError, match=r"^no such vectors") as error, noting_work(tmp_path, refuse):
            raise BuildError("no such vectors.")
        assert not hasattr(error.value, "__notes__")

    def test_work_is_what_was_read(self, tmp_path):
        workspace, _ = Workspace.open(tmp_path, "key", "documents")
        workspace.write_state("encoders", {})
        (workspace.root / "reading").mkdir()
        (workspace.root / "reading" / ".000000.json.tmp").write_text("")
        assert not workspace.holds_work("documents")
        workspace.write_state("reading/000000.part", {})
        assert workspace.holds_work("documents")
        assert not workspace.holds_work("others")


def test_an_array_is_saved_in_one_step(tmp_path):
    array = np.arange(6, dtype="<f2").reshape(2, 3)
    write_npy(tmp_path / "a.npy", array)
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_an_array_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_npy(tmp_path / "a.npy", np.zeros(3))
    assert list(tmp_path.iterdir()) == []
