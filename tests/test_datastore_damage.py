"""Damage is told, not answered from, and a store that is replaced meanwhile is opened anew."""

import dataclasses
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from compactds.configs.recipe import recipe_for
from compactds.datastore import Datastore
from compactds.datastore.errors import (
    DamagedStoreError,
    PassageNotFoundError,
    SearchError,
    StoreError,
    StoreFormatError,
    StoreNotFoundError,
)
from compactds.datastore.files import CHECKED_AT_OPEN_BYTES, FileRecord, record_file
from compactds.datastore.manifest import read_manifest, write_manifest
from compactds.datastore.publishing import publish
from compactds.datastore.segment import checked_whole, open_index
from compactds.datastore.verify import VERIFY_ATTEMPTS, verify
from compactds.filters.errors import CompactdsError
from compactds.indexer.build import build

ROWS = 4_096
DIMENSION = 96


def make(folder, rows, *, seed=0, dimension=DIMENSION, **changes):
    """Build a store of random vectors and texts that compress badly."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz0123456789"))
    texts = ["".join(row) for row in letters[draw.integers(0, len(letters), (rows, 500))]]
    lines = (
        json.dumps({"id": f"d{row}", "text": text, "note": text[:450]}) for row, text in enumerate(texts)
    )
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    vectors = draw.standard_normal((rows, dimension)).astype(np.float32)
    np.save(folder / "vectors.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    settings = {"vectors": str(folder / "vectors.npy"), "exact.dtype": "float32", **changes}
    build(recipe_for([str(folder / "corpus.jsonl")], settings), folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A store whose files are too large to be read whole when it is opened, with a graph as its index."""
    store = make(tmp_path_factory.mktemp("large"), ROWS, **{"index.kind": "hnsw"})
    sizes = {path.name: path.stat().st_size for path in store.glob("segments/*/*")}
    for name in LARGE_FILES:
        assert sizes[name] > CHECKED_AT_OPEN_BYTES
    return store


LARGE_FILES = ("ann.hnsw", "exact.f32", "passages.arrow", "attributes.parquet")


@pytest.fixture(scope="module")
def two_stores(tmp_path_factory):
    """Two small stores with other content."""
    folder = tmp_path_factory.mktemp("two")
    return make(folder / "one", 40, dimension=8), make(folder / "two", 50, seed=1, dimension=8)


@pytest.fixture
def store(two_stores, tmp_path):
    """A copy of the first small store."""
    return shutil.copytree(two_stores[0], tmp_path / "store")


@contextmanager
def damaged(path, draw):
    """Change up to 4,096 bytes somewhere in a file while the block runs."""
    content = path.read_bytes()
    length = int(draw.integers(1, 4_097))
    start = int(draw.integers(0, len(content) - length))
    noise = bytes(
        byte ^ mask for byte, mask in zip(content[start : start + length], draw.bytes(length), strict=True)
    )
    if noise == content[start : start + length]:
        noise = bytes([noise[0] ^ 1]) + noise[1:]
    path.write_bytes(content[:start] + noise + content[start + length :])
    try:
        yield
    finally:
        path.write_bytes(content)


class TestLargeFiles:
    @pytest.mark.parametrize("name", ["ann.hnsw", "exact.f32"])
    def test_an_index_and_vectors_that_changed_anywhere_are_not_opened(self, large, name):
        (path,) = large.glob(f"segments/*/{name}")
        draw = np.random.default_rng(0)
        for _ in range(25):
            with damaged(path, draw), pytest.raises(DamagedStoreError, match=f"{name} fails its XXH3"):
                Datastore.open(large)

    def test_vectors_that_are_larger_than_the_index_are_sampled(self, large):
        (record,) = read_manifest(large).segments
        assert checked_whole(record) == ["ann.hnsw", "exact.f32"]
        files = {**record.files, "exact.f32": FileRecord(record.files["ann.hnsw"].bytes + 1, "")}
        assert checked_whole(dataclasses.replace(record, files=files)) == ["ann.hnsw"]

    @pytest.mark.parametrize("name", LARGE_FILES)
    def test_a_store_opened_with_verify_shows_all_damage(self, large, name):
        (path,) = large.glob(f"segments/*/{name}")
        draw = np.random.default_rng(1)
        for _ in range(5):
            with damaged(path, draw), pytest.raises(DamagedStoreError, match=name):
                Datastore.open(large, verify=True)
        Datastore.open(large, verify=True).close()

    @pytest.mark.parametrize("name", LARGE_FILES)
    def test_both_ends_of_every_file_are_checked_whenever_it_is_opened(self, large, name):
        (path,) = large.glob(f"segments/*/{name}")
        content = path.read_bytes()
        try:
            for offset in (0, 46, -1):
                changed = bytearray(content)
                changed[offset] ^= 1
                path.write_bytes(changed)
                with pytest.raises(DamagedStoreError, match=name):
                    Datastore.open(large)
        finally:
            path.write_bytes(content)

    def test_passages_and_attributes_that_changed_are_told_and_never_returned(self, large):
        vectors = np.load(large.parent / "vectors.npy")
        where = {"note": {"$gte": "m"}}
        with Datastore.open(large) as whole:
            found, count = whole.search(vectors=vectors[:200], k=5, where=where), whole.count(where)
        draw = np.random.default_rng(2)
        told = 0
        for name in ("passages.arrow", "attributes.parquet") * 8:
            (path,) = large.glob(f"segments/*/{name}")
            with damaged(path, draw):
                try:
                    with Datastore.open(large) as store:
                        assert store.count(where) == count
                        assert store.search(vectors=vectors[:200], k=5, where=where) == found
                except DamagedStoreError:
                    told += 1
        assert told >= 8

    def test_sampled_vectors_that_changed_raise_nothing_but_errors_of_ours(self, large, monkeypatch):
        vectors = np.load(large.parent / "vectors.npy")
        (path,) = large.glob("segments/*/exact.f32")
        monkeypatch.setattr("compactds.datastore.segment.checked_whole", lambda record: [record.index.file])
        draw = np.random.default_rng(3)
        for _ in range(10):
            with damaged(path, draw):
                try:
                    with Datastore.open(large) as store:
                        store.search(vectors=vectors[0], recall=1.0)
                except CompactdsError as error:
                    told = error
                    assert told.remedy


class TestFilesThatDoNotFitTheManifest:
    """With checksums as they should be: a store that was put together wrongly."""

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("exact.f32", lambda content: content[:-4], "cannot be read"),
            ("exact.f32", lambda content: b"", "cannot be read"),
            ("documents.lookup", lambda content: content[:-16], "39 entries, expected 40"),
            ("documents.lookup", lambda content: content[:-1], "cannot be read"),
            ("passages.arrow", lambda content: b"ARROW1" + content[6:-9], r"passages\.arrow cannot be read"),
            ("attributes.parquet", lambda content: content[:-4], "cannot be read"),
            ("ann.faiss", lambda content: b"", r"ann\.faiss cannot be read"),
            ("ann.faiss", lambda content: content[:-4], r"ann\.faiss cannot be read"),
            ("ann.faiss", lambda content: b"IxHi" + content[4:], r"ann\.faiss cannot be read"),
        ],
    )
    def test_they_are_named(self, store, monkeypatch, name, change, message):
        (path,) = store.glob(f"segments/*/{name}")
        path.write_bytes(change(path.read_bytes()))
        monkeypatch.setattr("compactds.datastore.segment.find_damage", lambda *_, **__: [])
        monkeypatch.setattr("compactds.datastore.verify.find_damage", lambda *_, **__: [])
        with pytest.raises(DamagedStoreError, match=message):
            Datastore.open(store)
        assert len(verify(store)) == 1

    def test_an_index_that_memory_does_not_hold_is_no_damage(self, store, monkeypatch):
        def full(path):
            raise MemoryError

        monkeypatch.setattr("compactds.datastore.segment.open_flat", full)
        with pytest.raises(StoreError, match="does not fit in memory") as caught:
            Datastore.open(store)
        assert not isinstance(caught.value, DamagedStoreError)
        assert len(verify(store)) == 1

    def test_an_encoder_the_store_carries_is_checked_with_verify(self, store):
        (store / "encoders").mkdir()
        (store / "encoders" / "model").write_bytes(b"weights")
        record = dataclasses.asdict(record_file(store / "encoders" / "model"))
        edit(store, lambda data: data["encoder_files"].update({"encoders/model": record}))
        Datastore.open(store, verify=True).close()
        (store / "encoders" / "model").write_bytes(b"Weights")
        with pytest.raises(DamagedStoreError, match="encoders/model"):
            Datastore.open(store, verify=True)
        assert len(verify(store)) == 1

    def test_an_index_of_an_unknown_kind(self, store):
        edit(store, lambda data: data["segments"][0]["index"].update(kind="tree"))
        with pytest.raises(StoreFormatError, match="kind 'tree'"):
            Datastore.open(store)

    def test_vectors_of_an_unknown_dtype(self, store):
        edit(store, lambda data: data["segments"][0].update(exact_dtype="int4"))
        with pytest.raises(StoreFormatError, match="dtype 'int4'"):
            Datastore.open(store)

    def test_a_file_the_manifest_does_not_list(self, store):
        edit(store, lambda data: data["segments"][0]["files"].pop("documents.lookup"))
        with pytest.raises(DamagedStoreError, match=r"does not list documents\.lookup"):
            Datastore.open(store)


def edit(store, change):
    """Change the manifest of a store as somebody would who knows how its checksum is made."""
    from compactds.datastore import manifest

    path = store / "manifest.json"
    data = json.loads(path.read_text())
    del data["checksum"]
    change(data)
    path.write_text(json.dumps(data | {"checksum": manifest._checksum(data)}))


class TestManifests:
    @pytest.mark.parametrize(
        "name", ["../../secret", "/etc/passwd", "..", "", "a//b", "a\\b", "a\0b", "./x", "x/../../y"]
    )
    @pytest.mark.parametrize(
        "place",
        [
            lambda data, name: data["segments"][0].update(name=name),
            lambda data, name: data["segments"][0]["index"].update(file=name),
            lambda data, name: data["segments"][0]["files"].update({str(name): {"bytes": 1, "sha256": ""}}),
            lambda data, name: data["encoder_files"].update({str(name): {"bytes": 1, "sha256": ""}}),
        ],
    )
    def test_names_that_lead_out_of_the_store_are_refused(self, store, name, place):
        edit(store, lambda data: place(data, name))
        with pytest.raises(DamagedStoreError, match=r"manifest\.json"):
            Datastore.open(store)
        assert len(verify(store)) == 1

    @pytest.mark.parametrize("name", [5, None, [], "segment", "1-0123456789abcdeg", "a/1-0123456789abcdef"])
    def test_a_segment_has_a_name_that_a_build_gives(self, store, name):
        edit(store, lambda data: data["segments"][0].update(name=name))
        with pytest.raises(DamagedStoreError, match=r"manifest\.json"):
            Datastore.open(store)

    @pytest.mark.parametrize("count", [0, -1, "40", 40.0, True, None])
    def test_counts_that_are_none_are_refused(self, store, count):
        edit(store, lambda data: data["segments"][0].update(passages=count))
        with pytest.raises(DamagedStoreError, match="passages is"):
            Datastore.open(store)

    @pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"format": 1, "name": "\\ud800"}'])
    def test_hostile_text_is_damage(self, store, text):
        (store / "manifest.json").write_text(text)
        with pytest.raises(DamagedStoreError):
            Datastore.open(store)

    def test_half_a_surrogate_pair_survives(self, store):
        edit(store, lambda data: data.update(name="a\ud800"))
        manifest = read_manifest(store)
        write_manifest(store, manifest)
        assert read_manifest(store).name == "a\ud800"

    def test_a_folder_in_its_place_cannot_be_read(self, store):
        (store / "manifest.json").unlink()
        (store / "manifest.json").mkdir()
        with pytest.raises(StoreError, match=r"manifest\.json cannot be read"):
            Datastore.open(store)

    @pytest.mark.parametrize("use", [Datastore.open, verify])
    def test_a_path_that_no_file_has_holds_no_store(self, use):
        with pytest.raises(StoreNotFoundError):
            use("a\0b")


class TestAStoreReplacedMeanwhile:
    @pytest.fixture
    def replacing(self, store, two_stores, monkeypatch):
        """Make the other store take this one's place when a part of it is opened next."""

        def arrange(part, *, times=1):
            module = "compactds.datastore.segment"
            original = getattr(__import__(module, fromlist=[part]), part)
            left = [times]

            def opened(*arguments, **options):
                if left[0]:
                    left[0] -= 1
                    replace(store, two_stores[left[0] % 2 if times > 1 else 1])
                return original(*arguments, **options)

            monkeypatch.setattr(f"{module}.{part}", opened)

        return arrange

    @pytest.mark.parametrize(
        "part",
        ["find_damage", "PassageReader", "AttributeColumns", "ExactVectors", "open_index", "DocumentLookup"],
    )
    def test_the_new_one_is_opened(self, store, replacing, part):
        replacing(part)
        with Datastore.open(store) as opened:
            assert opened.count() == 50

    def test_it_is_tried_a_few_times(self, store, replacing):
        replacing("ExactVectors", times=10)
        with pytest.raises(DamagedStoreError):
            Datastore.open(store)

    @pytest.mark.parametrize("part", ["find_damage", "open_index"])
    def test_verify_checks_the_new_one(self, store, replacing, part):
        replacing(part)
        assert verify(store) == []
        (vectors,) = store.glob("segments/*/exact.f32")
        vectors.unlink()
        assert len(verify(store)) == 1

    def test_verify_says_when_it_cannot_keep_up(self, store, replacing):
        replacing("open_index", times=10)
        (problem,) = verify(store)
        assert f"replaced {VERIFY_ATTEMPTS} times" in problem

    def test_an_open_store_goes_on_as_it_was(self, store, two_stores, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with Datastore.open("store") as opened:
            before = opened.search(vectors=np.ones(8), where={"note": {"$gte": "m"}})
            monkeypatch.chdir("/")
            replace(store, two_stores[1])
            assert opened.search(vectors=np.ones(8), where={"note": {"$gte": "m"}}) == before
            assert opened.get("d39#0").document_id == "d39"
            assert opened.ledgers()[0]["sources"][0]["documents"] == 40
            assert opened.path == store


def replace(store, other):
    """Put another store's segments and manifest into the place of a store's, as a build does."""
    shutil.rmtree(store / "segments")
    shutil.copytree(other / "segments", store / "segments")
    shutil.copy(other / "manifest.json", store / "manifest.json")


class TestPublishing:
    def test_only_segments_that_a_build_wrote_are_removed(self, store, two_stores):
        segments = store / "segments"
        for name in ("holiday", "2-0123456789abcdef"):
            (segments / name).mkdir()
            (segments / name / "film.mp4").write_text("precious")
        (segments / ".DS_Store").write_text("")
        (segments / "3-0123456789abcdef").symlink_to(two_stores[1])
        old = read_manifest(store)
        new = read_manifest(two_stores[1])
        (made,) = shutil.copytree(two_stores[1], store.parent / "work").glob("segments/*")
        published = publish(store, made, with_digest(new), replaces=old)
        assert verify(store) == []
        assert {path.name for path in segments.iterdir()} == {
            "holiday",
            ".DS_Store",
            "3-0123456789abcdef",
            published.segments[0].name,
        }
        assert (segments / "holiday" / "film.mp4").read_text() == "precious"
        assert (two_stores[1] / "manifest.json").exists()


def with_digest(manifest):
    """Return a manifest as it is before publishing: the segment's name is its digest alone."""
    (segment,) = manifest.segments
    return dataclasses.replace(
        manifest, segments=(dataclasses.replace(segment, name=segment.name.split("-")[1]),)
    )


class TestArguments:
    @pytest.mark.parametrize("value", [None, 5, b"d1#0", ["d1#0"]])
    def test_an_id_that_is_no_text_is_not_found(self, store, value):
        with Datastore.open(store) as opened, pytest.raises(PassageNotFoundError):
            opened.get(value)

    @pytest.mark.parametrize("value", [None, 5, "note", {"note": 1}])
    def test_fields_that_are_no_list(self, store, value):
        with Datastore.open(store) as opened, pytest.raises(SearchError, match="fields is of type"):
            opened.facets(value)


def test_an_index_is_opened_again_after_it_was_written(store):
    manifest = read_manifest(store)
    (folder,) = (store / "segments").iterdir()
    index = open_index(folder, manifest.segments[0].index, dimension=8)
    assert index.ram_bytes > 0


def test_searches_that_run_while_a_store_is_closed_are_answered_or_told_so(store):
    vectors = np.random.default_rng(0).standard_normal((3, 8))
    for _ in range(20):
        opened = Datastore.open(store)
        expected = opened.search(vectors=vectors, k=40)
        started = threading.Barrier(5)

        def search(opened=opened, expected=expected, started=started):
            started.wait()
            told = None
            for _ in range(5):
                try:
                    assert opened.search(vectors=vectors, k=40) == expected
                except StoreError as error:
                    told = error
            return told

        with ThreadPoolExecutor(4) as pool:
            searches = [pool.submit(search) for _ in range(4)]
            started.wait()
            opened.close()
        for told in (running.result() for running in searches):
            assert told is None or "is closed" in str(told)
