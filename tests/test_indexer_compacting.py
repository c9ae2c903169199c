"""A compacted store is, to the byte, the one that would have been built of what is left in it."""

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compactds.configs.recipe import recipe_for
from compactds.datastore import Datastore
from compactds.datastore.ann.choose import BudgetError
from compactds.datastore.budget import predict_store_memory
from compactds.datastore.errors import DamagedStoreError, StoreBusyError, StoreNotFoundError
from compactds.datastore.manifest import read_manifest, write_manifest
from compactds.datastore.verify import verify
from compactds.indexer import compacting
from compactds.indexer.adding import add
from compactds.indexer.build import build
from compactds.indexer.compacting import compact
from compactds.indexer.deleting import delete
from compactds.indexer.errors import BuildError
from compactds.indexer.workspace import locked
from stopped_builds import StopAt

COUNT = 600


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Records with vectors of their own, and a way to write some of them to a file."""
    root = tmp_path_factory.mktemp("corpus")
    vectors = np.random.default_rng(4).standard_normal((COUNT, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [
        {
            "id": f"d{number}",
            "text": f"the words of {number}",
            "group": number % 7,
            "source": "numbers",
            "vector": vectors[number].tolist(),
            **({"color": ["red", "blue"][number % 2]} if number >= 400 else {}),
        }
        for number in range(COUNT)
    ]

    def write(name, numbers):
        path = root / f"{name}.jsonl"
        path.write_text("".join(json.dumps(rows[number]) + "\n" for number in numbers))
        return str(path)

    return write, vectors


@pytest.fixture(scope="module", params=["flat", "hnsw", "ivf"])
def pristine(request, tmp_path_factory, corpus):
    """A store that was built, added to twice, and deleted from."""
    write, _ = corpus
    root = tmp_path_factory.mktemp(request.param)
    changes = {"sources.vector": "vector", "index.kind": request.param, "name": "numbers"}
    build(recipe_for([write("a", range(300))], changes), root / "store")
    add(root / "store", [write("b", range(300, 400))])
    add(root / "store", [write("c", range(400, COUNT))])
    delete(root / "store", where="group = 3")
    return root / "store", changes


@pytest.fixture
def store(pristine, tmp_path) -> Path:
    shutil.copytree(pristine[0], tmp_path / "store", copy_function=os.link)
    (tmp_path / "store" / ".build.lock").unlink()
    return tmp_path / "store"


def content(store: Path) -> dict[str, bytes]:
    """Return the files of the only segment, without what tells the time."""
    (segment,) = (store / "segments").iterdir()
    return {path.name: path.read_bytes() for path in segment.iterdir() if path.name != "ledger.json"}


def test_it_equals_a_build_of_what_is_left(tmp_path, store, pristine, corpus):
    write, _ = corpus
    left = [number for number in range(COUNT) if number % 7 != 3]
    result = compact(store)
    assert (result.segments, result.dropped, result.passages) == (3, COUNT - len(left), len(left))
    assert result.bytes_after < result.bytes_before
    build(recipe_for([write("left", left)], pristine[1]), tmp_path / "built")
    assert content(store) == content(tmp_path / "built")
    (one,), (other,) = (read_manifest(path).segments for path in (store, tmp_path / "built"))
    assert one.name.split("-")[1] == other.name.split("-")[1]
    assert [point.recall for point in one.calibration] == [point.recall for point in other.calibration]
    assert read_manifest(store).schema == read_manifest(tmp_path / "built").schema
    assert verify(store) == []
    assert list((store / "deletions").iterdir()) == []


def test_answers_are_the_same_before_and_after(store, corpus):
    _, vectors = corpus

    def answers():
        with Datastore.open(store) as opened:
            hits = opened.search(vectors=vectors[:20], k=15, recall=1.0, where="group < 5")
            found = [[(hit.passage, round(hit.score, 5)) for hit in one] for one in hits]
            return found, opened.facets(["color", "group"]), opened.count("color = 'red'"), opened.count()

    before = answers()
    compact(store)
    assert answers() == before


def test_it_ends_the_same_however_the_segments_came_about(tmp_path, store, corpus):
    write, _ = corpus
    delete(store, where="group = 4")
    compact(store)
    first = content(store)
    delete(store, ids=["d0"])
    add(store, [write("again", [0])])
    delete(store, ids=["d0"])
    compact(store)
    delete_first = content(store)
    assert first != delete_first
    assert compact(store).unchanged
    assert content(store) == delete_first


def test_the_account_of_all_segments_is_kept(store):
    with Datastore.open(store) as opened:
        before = [line["name"] for ledger in opened.ledgers() for line in ledger["sources"]]
    compact(store)
    with Datastore.open(store) as opened:
        (ledger,) = opened.ledgers()
    assert [line["name"] for line in ledger["sources"]] == before
    assert ledger["passages"] == read_manifest(store).passages
    assert ledger["dropped"] > 0


def test_an_open_store_is_searched_on_while_it_is_compacted(store, corpus):
    _, vectors = corpus
    failures, done = [], threading.Event()
    with Datastore.open(store) as old:
        expected = [hit.passage.id for hit in old.search(vectors=vectors[5], k=9, recall=1.0)]

        def search():
            while not done.is_set():
                found = [hit.passage.id for hit in old.search(vectors=vectors[5], k=9, recall=1.0)]
                if found != expected or old.get("d5#0").id != "d5#0":
                    failures.append(found)

        thread = threading.Thread(target=search)
        thread.start()
        compact(store)
        done.set()
        thread.join()
        search()
    assert failures == []


def test_a_store_of_which_nothing_is_left_is_empty(store, corpus):
    write, vectors = corpus
    delete(store, where="document_id IS NOT NULL")
    assert compact(store).passages == 0
    assert list((store / "segments").iterdir()) == []
    with Datastore.open(store) as opened:
        assert (opened.count(), opened.search(vectors=vectors[0], k=3)) == (0, [])
        assert opened.describe()["segments"] == []
    assert verify(store) == []
    assert compact(store).unchanged
    assert add(store, [write("first", range(10))]).total_documents == 10


def stop(*_, **__):
    raise KeyboardInterrupt


def never(*_, **__):
    pytest.fail("this was done already")


class TestGoingOn:
    """A compaction that was stopped goes on where it was, and ends as if it had not been stopped."""

    @pytest.fixture
    def expected(self, store, tmp_path):
        shutil.copytree(store, tmp_path / "whole", copy_function=os.link)
        compact(tmp_path / "whole")
        return content(tmp_path / "whole")

    def test_rows_are_copied_once(self, store, expected, monkeypatch):
        with pytest.raises(KeyboardInterrupt) as stopped:
            compact(store, progress=StopAt("indexing"))
        assert [f"kept in {store}/.compact;" in note for note in stopped.value.__notes__] == [True]
        assert len(read_manifest(store).segments) == 3
        monkeypatch.setattr("compactds.indexer.compacting.SegmentWriter", never)
        assert compact(store).resumed
        assert content(store) == expected
        assert verify(store) == []
        assert not (store / ".compact").exists()

    def test_an_index_is_filled_once(self, store, expected, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr("compactds.indexer.compacting.finish_segment", stop)
            with pytest.raises(KeyboardInterrupt):
                compact(store)
        with monkeypatch.context() as patch:
            patch.setattr("compactds.indexer.compacting.write_index", never)
            assert compact(store).resumed
        assert content(store) == expected

    def test_where_another_index_is_wanted_it_alone_is_made_anew(self, store, expected, monkeypatch):
        choose = compacting.choose_index

        def choose_another(*rows, kind, **given):
            return choose(*rows, kind="flat" if kind == "hnsw" else "hnsw", **given)

        with monkeypatch.context() as patch:
            patch.setattr("compactds.indexer.compacting.choose_index", choose_another)
            patch.setattr("compactds.indexer.compacting.finish_segment", stop)
            with pytest.raises(KeyboardInterrupt):
                compact(store)
        monkeypatch.setattr("compactds.indexer.compacting.SegmentWriter", never)
        assert compact(store).resumed
        assert content(store) == expected
        assert verify(store) == []

    @pytest.mark.parametrize("stage", ["checking", "copying"])
    def test_what_was_half_copied_is_copied_anew(self, store, expected, stage):
        with pytest.raises(KeyboardInterrupt):
            compact(store, progress=StopAt(stage))
        assert not (store / ".compact").exists()
        assert not compact(store).resumed
        assert content(store) == expected

    def test_a_store_that_changed_meanwhile_is_compacted_anew(self, store, corpus):
        with pytest.raises(KeyboardInterrupt):
            compact(store, progress=StopAt("indexing"))
        delete(store, ids=["d0"])
        assert not (store / ".compact").exists()
        with pytest.raises(KeyboardInterrupt):
            compact(store, progress=StopAt("indexing"))
        add(store, [corpus[0]("again", [0])])
        assert not (store / ".compact").exists()
        result = compact(store)
        assert (result.resumed, result.documents) == (False, read_manifest(store).documents)


class TestStopped:
    @pytest.fixture(autouse=True)
    def only_one_kind(self, pristine):
        if pristine[1]["index.kind"] != "flat":
            pytest.skip("the index makes no difference")

    @pytest.fixture
    def answers(self, store):
        def ask():
            with Datastore.open(store, verify=True) as opened:
                return opened.count(), opened.facets(["group"]), opened.get("d8#0")

        return ask

    @pytest.mark.parametrize("change", ["compact", "delete", "add"])
    def test_a_full_disk_says_so_and_the_old_store_stays(self, store, corpus, answers, monkeypatch, change):
        write, _ = corpus
        path = write("more", range(3, 4))
        changes = {
            "compact": lambda: compact(store),
            "delete": lambda: delete(store, ids=["d9"]),
            "add": lambda: add(store, [path]),
        }
        before, manifest = answers(), (store / "manifest.json").read_bytes()
        flush, failed = os.fsync, 0
        for number in itertools.count(1):
            calls = itertools.count(1)

            def full(descriptor, calls=calls, number=number):
                if next(calls) == number:
                    raise OSError(errno.ENOSPC, "No space left on device")
                flush(descriptor)

            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", full)
                try:
                    changes[change]()
                    break
                except BuildError as error:
                    failed += "no space left on the disk" in str(error)
            if (store / "manifest.json").read_bytes() != manifest:
                break  # the flush after the manifest took its place
            assert answers() == before
        assert failed > 1
        assert verify(store) == []

    @pytest.mark.parametrize(
        ("change", "points"),
        [("compact", (4, 10, 11, 20)), ("delete", (8, 10, 11)), ("replace", (30, 45, 56, 64))],
        ids=["compact", "delete", "replace"],
    )
    def test_killed_while_it_writes_there_is_one_store_or_the_other(
        self, tmp_path, store, corpus, answers, change, points
    ):
        write, _ = corpus
        path = write("replaced", [8, 9, 10])
        before, manifest = answers(), (store / "manifest.json").read_bytes()
        code = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from compactds.indexer.adding import add\n"
            "from compactds.indexer.compacting import compact\n"
            "from compactds.indexer.deleting import delete\n"
            "left, store = int(sys.argv[1]), Path(sys.argv[2])\n"
            "def watch(event, arguments):\n"
            "    global left\n"
            "    if event in ('os.rename', 'os.mkdir', 'os.remove', 'os.rmdir', 'shutil.rmtree'):\n"
            "        left -= 1\n"
            "        if left == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
            "sys.addaudithook(watch)\n"
            "{'compact': lambda: compact(store), 'delete': lambda: delete(store, ids=['d9']),\n"
            " 'replace': lambda: add(store, [sys.argv[4]], replace=True)}[sys.argv[3]]()\n"
        )
        killed, seen = 0, set()
        for point in points:
            shutil.rmtree(tmp_path / "copy", ignore_errors=True)
            shutil.copytree(store, tmp_path / "copy", copy_function=os.link)
            (tmp_path / "copy" / ".build.lock").unlink(missing_ok=True)
            arguments = [sys.executable, "-c", code, str(point), str(tmp_path / "copy"), change, path]
            done = subprocess.run(arguments, check=False, capture_output=True, timeout=120)
            killed += done.returncode == -signal.SIGKILL
            assert done.returncode in (0, -signal.SIGKILL), done.stderr
            assert verify(tmp_path / "copy") == []
            seen.add((tmp_path / "copy" / "manifest.json").read_bytes() == manifest)
            compact(tmp_path / "copy")
            assert verify(tmp_path / "copy") == []
            names = {found.name for found in (tmp_path / "copy").iterdir()}
            assert names <= {"manifest.json", "segments", "deletions", ".build.lock", ".build"}
        assert killed >= 2
        assert seen == {True, False}
        assert answers() == before


class TestWrongUse:
    def test_there_has_to_be_a_store(self, tmp_path):
        with pytest.raises(StoreNotFoundError):
            compact(tmp_path / "none")
        assert not (tmp_path / "none").exists()

    def test_two_writers_do_not_meet(self, store):
        with locked(store), pytest.raises(StoreBusyError):
            compact(store)

    def test_a_budget_too_small_is_told_first(self, store):
        with pytest.raises(BudgetError):
            compact(store, memory_bytes=10)
        assert len(read_manifest(store).segments) == 3

    @pytest.mark.parametrize("name", ["exact.f16", "passages.arrow", "attributes.parquet"])
    def test_damage_is_told_and_not_copied(self, store, name):
        path = store / "segments" / read_manifest(store).segments[1].name / name
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.unlink()
        path.write_bytes(damaged)
        with pytest.raises(DamagedStoreError, match=name):
            compact(store)
        assert len(read_manifest(store).segments) == 3


def test_the_memory_predicted_is_that_of_the_segments_there_are(store, corpus):
    manifest = read_manifest(store)
    known = predict_store_memory(manifest, building_base_bytes=70, serving_base_bytes=100, workers=3)
    write_manifest(store, replace(manifest, predicted=known, measured=known))
    add(store, [corpus[0]("more", [3])], replace=True)
    grown = read_manifest(store)
    assert grown.measured is None
    assert len(grown.segments) == 4
    assert grown.predicted == predict_store_memory(
        grown, building_base_bytes=70, serving_base_bytes=100, workers=3
    )
    assert grown.predicted.serving_bytes > known.serving_bytes
    compact(store)
    one = read_manifest(store)
    assert one.measured is None
    assert one.predicted == predict_store_memory(
        one, building_base_bytes=70, serving_base_bytes=100, workers=3
    )
    assert one.predicted.serving_bytes < known.serving_bytes
    delete(store, where="document_id IS NOT NULL")
    compact(store)
    assert read_manifest(store).predicted is None


def test_memory_that_was_not_predicted_is_not_made_up(store, corpus):
    assert read_manifest(store).predicted is None
    add(store, [corpus[0]("more", [3])])
    compact(store)
    assert (read_manifest(store).predicted, read_manifest(store).measured) == (None, None)


def stopped_while_encoding(store, monkeypatch):
    """Stop a compaction after two pieces of ten texts; return what is encoded, from now on, too."""
    encoded = []
    encode = compacting.encode_texts

    def stop_after_two(encoder, texts, progress):
        if len(encoded) == 20:
            raise KeyboardInterrupt
        encoded.extend(texts)
        return encode(encoder, texts, progress)

    def go_on(encoder, texts, progress):
        encoded.extend(texts)
        return encode(encoder, texts, progress)

    monkeypatch.setattr(compacting, "ROWS_AT_ONCE", 10)
    monkeypatch.setattr(compacting, "encode_texts", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        compact(store)
    monkeypatch.setattr(compacting, "encode_texts", go_on)
    return encoded


def test_an_index_with_an_encoder_of_its_own_is_filled_from_the_texts(
    tmp_path, records, write_jsonl, tiny_model, monkeypatch
):
    first = write_jsonl(tmp_path / "first.jsonl", records[:30])
    rest = write_jsonl(tmp_path / "rest.jsonl", records[30:])
    changes = {
        "encoder": {"model": f"static:{tiny_model}", "dimension": 12},
        "exact_encoder": {"model": str(tiny_model), "dtype": "float32"},
    }
    build(recipe_for([str(first)], changes), tmp_path / "store")
    assert add(tmp_path / "store", [str(rest)]).total_documents == 60
    delete(tmp_path / "store", where="subject = 'law'")
    answers = []
    for _ in range(2):
        with Datastore.open(tmp_path / "store") as opened:
            hits = opened.search("light of the star", k=8, recall=1.0)
            answers.append([(hit.passage.id, round(hit.score, 4)) for hit in hits])
            assert len(opened.search("light of the star", k=8, candidates=20)) == 8
        if not answers[1:]:  # stopped after two pieces of ten rows: the others are encoded later
            encoded = stopped_while_encoding(tmp_path / "store", monkeypatch)
        result = compact(tmp_path / "store")
    assert answers[0] == answers[1]
    assert sorted(encoded) == sorted(set(encoded))
    assert (result.documents, result.unchanged) == (40, True)
    assert len(read_manifest(tmp_path / "store").encoder_files) > 0
    assert verify(tmp_path / "store") == []
