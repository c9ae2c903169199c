"""Deleted documents are gone from everything a store answers, in one step, and nothing else is."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from compactds.configs.recipe import recipe_for
from compactds.datastore import Datastore
from compactds.datastore.errors import (
    DamagedStoreError,
    PassageNotFoundError,
    StoreBusyError,
    StoreNotFoundError,
)
from compactds.datastore.manifest import read_manifest, write_manifest
from compactds.datastore.verify import verify
from compactds.filters import UnknownFieldError
from compactds.indexer.build import build
from compactds.indexer.deleting import delete
from compactds.indexer.errors import BuildError, UnknownDocumentError
from compactds.indexer.workspace import locked

DOCUMENTS, DIMENSION = 5_000, 16


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    made = np.random.default_rng(3).standard_normal((DOCUMENTS, DIMENSION)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture(scope="module", params=["flat", "hnsw", "ivf"])
def built(request, tmp_path_factory, vectors):
    root = tmp_path_factory.mktemp(request.param)
    rows = [
        {"id": f"d{number}", "text": f"words {number}", "group": number % 10, "tags": [f"t{number % 3}"]}
        for number in range(DOCUMENTS)
    ]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.save(root / "vectors.npy", vectors)
    changes = {"vectors": str(root / "vectors.npy"), "index.kind": request.param, "name": "numbers"}
    build(recipe_for([str(root / "rows.jsonl")], changes), root / "store")
    return root / "store"


@pytest.fixture
def store(built, tmp_path):
    """A store of its own: the files of a segment are linked, since nothing changes them."""
    shutil.copytree(built, tmp_path / "store", copy_function=os.link)
    (tmp_path / "store" / ".build.lock").unlink()
    return tmp_path / "store"


def best(vectors, query, allowed, k):
    """The right answer: the k nearest documents of those allowed, as the stored half floats tell."""
    scores = vectors.astype(np.float16).astype(np.float32) @ query
    scores[~allowed] = -np.inf
    return [f"d{number}" for number in np.argsort(-scores, kind="stable")[:k]]


def test_what_is_deleted_is_never_found_and_all_else_is(store, vectors):
    allowed = np.arange(DOCUMENTS) % 10 != 3
    before = read_manifest(store).segments[0].files
    result = delete(store, where="group = 3")
    assert (result.documents, result.passages, result.left) == (500, 500, 4_500)
    assert result.deleted_share == pytest.approx(0.1)
    assert read_manifest(store).segments[0].files == before
    with Datastore.open(store) as opened:
        queries = vectors[3:63:10]
        assert (opened.count(), opened.count("group = 3"), opened.count("group >= 3")) == (4_500, 0, 3_000)
        for asked in ({"recall": 1.0}, {}):
            for query, hits in zip(queries, opened.search(vectors=queries, k=20, **asked), strict=True):
                found = [hit.passage.document_id for hit in hits]
                expected = best(vectors, query, allowed, 20)
                assert len(found) == 20
                assert not any(int(name[1:]) % 10 == 3 for name in found)
                if asked:
                    assert found == expected
                assert len(set(found) & set(expected)) >= 18
        rows = opened.nearest(queries, k=5, recall=1.0).rows
        assert not (rows % 10 == 3).any()


def test_filters_and_deletions_hold_together_down_to_the_last_row(store, vectors):
    delete(store, ids=[f"d{number}" for number in range(0, 60, 2)])
    with Datastore.open(store) as opened:
        where = {"document_id": {"$in": [f"d{number}" for number in range(60)]}}
        hits = opened.search(vectors=vectors[0], k=100, where=where)
        assert {hit.passage.document_id for hit in hits} == {f"d{number}" for number in range(1, 60, 2)}
        assert hits.report.matching == 30


def test_passages_counts_facets_and_descriptions_know_nothing_of_them(store):
    delete(store, where={"tags": {"$contains": "t1"}})
    with Datastore.open(store) as opened:
        with pytest.raises(PassageNotFoundError):
            opened.get("d4#0")
        assert opened.get("d3#0").text == "words 3"
        assert opened.facets(["tags"]) == {"tags": [("t0", 1_667), ("t2", 1_666)]}
        assert sum(count for _, count in opened.facets(["group"])["group"]) == 3_333
        described = opened.describe()
    assert (described["documents"], described["passages"]) == (3_333, 3_333)
    assert [(part["passages"], part["deleted"]) for part in described["segments"]] == [(3_333, 1_667)]
    assert json.loads((store / "manifest.json").read_text())["counts"] == {
        "documents": 3_333,
        "passages": 3_333,
    }
    assert verify(store) == []


def test_deletions_add_up_and_only_the_latest_list_stays(store):
    for number in (5, 6, 7):
        assert delete(store, ids=[f"d{number}"]).documents == 1
    assert delete(store, where="group = 5").documents == 499
    assert read_manifest(store).passages == DOCUMENTS - 502
    assert len(list((store / "deletions").iterdir())) == 1


def test_an_open_store_keeps_what_it_sees(store, vectors):
    with Datastore.open(store) as old:
        delete(store, where="group = 1")
        delete(store, where="group = 2")
        assert old.count() == DOCUMENTS
        assert old.search(vectors=vectors[1], k=1)[0].passage.document_id == "d1"
        with Datastore.open(store) as new:
            assert new.search(vectors=vectors[1], k=1)[0].passage.document_id != "d1"


def test_all_of_a_store_can_be_deleted(store, vectors):
    assert delete(store, where="document_id IS NOT NULL").left == 0
    with Datastore.open(store) as opened:
        assert opened.count() == 0
        assert opened.search(vectors=vectors[:2], k=3) == [[], []]
        assert opened.facets(["group"]) == {"group": []}
    assert verify(store) == []


def test_nothing_changes_where_nothing_matches(store):
    before = (store / "manifest.json").read_bytes()
    assert delete(store, where="group = 99").documents == 0
    assert delete(store, ids=[]).documents == 0
    assert (store / "manifest.json").read_bytes() == before


def test_a_dry_run_says_the_same_and_changes_nothing(store):
    before = (store / "manifest.json").read_bytes()
    tried = delete(store, where="group = 4", dry_run=True)
    assert (store / "manifest.json").read_bytes() == before
    assert tried == delete(store, where="group = 4")


class TestWrongUse:
    @pytest.fixture
    def unchanged(self, store):
        before = (store / "manifest.json").read_bytes()
        yield
        assert (store / "manifest.json").read_bytes() == before
        assert sorted(path.name for path in store.iterdir()) == [".build.lock", "manifest.json", "segments"]

    @pytest.mark.usefixtures("unchanged")
    def test_ids_that_no_document_has_are_told_and_nothing_is_deleted(self, store):
        with pytest.raises(UnknownDocumentError, match=r"'x1', 'd7#0', 'x2' and 1 more"):
            delete(store, ids=["d5", "x1", "d7#0", "d6", "x2", "x1", "x3"])

    def test_or_they_are_ignored(self, store):
        result = delete(store, ids=["d5", "x1", "d5"], ignore_missing=True)
        assert (result.documents, result.missing) == (1, ("x1",))
        with pytest.raises(UnknownDocumentError, match="'d5'"):
            delete(store, ids="d5")

    @pytest.mark.usefixtures("unchanged")
    @pytest.mark.parametrize(
        ("asked", "error"),
        [
            ({}, BuildError),
            ({"ids": ["d1"], "where": "group = 1"}, BuildError),
            ({"where": {}}, BuildError),
            ({"where": "grup = 1"}, UnknownFieldError),
            ({"ids": [5]}, BuildError),
            ({"ids": ["\ud800"]}, BuildError),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, store, asked, error):
        (store / ".build.lock").touch()
        with pytest.raises(error):
            delete(store, **asked)

    def test_there_has_to_be_a_store(self, tmp_path):
        with pytest.raises(StoreNotFoundError):
            delete(tmp_path / "none", ids=["d1"])
        assert not (tmp_path / "none").exists()

    def test_two_writers_do_not_meet(self, store):
        with locked(store), pytest.raises(StoreBusyError):
            delete(store, ids=["d1"])


class TestDamage:
    @pytest.fixture
    def listed(self, store):
        delete(store, where="group = 3")
        (path,) = (store / "deletions").iterdir()
        return path

    @pytest.mark.parametrize("content", [None, b"", b"\xff" * 632, b"\0" * 8])
    def test_a_damaged_list_is_told(self, store, listed, content):
        listed.unlink()
        if content is not None:
            listed.write_bytes(content)
        with pytest.raises(DamagedStoreError, match="deletions"):
            Datastore.open(store)
        assert len(verify(store)) == 1

    @pytest.mark.parametrize(
        "change",
        [{"file": "../manifest.json"}, {"passages": 0}, {"documents": 5_001}, {"passages": 499}, {"file": 5}],
    )
    def test_a_manifest_that_does_not_fit_it_is_damage(self, store, listed, change):
        manifest = read_manifest(store)
        (segment,) = manifest.segments
        changed = replace(segment, deletions=replace(segment.deletions, **change))
        write_manifest(store, replace(manifest, segments=(changed,)))
        with pytest.raises(DamagedStoreError):
            Datastore.open(store)

    def test_what_a_stopped_deletion_left_is_removed_by_the_next(self, store, listed, monkeypatch):
        def stop(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("compactds.datastore.publishing.write_manifest", stop)
            with pytest.raises(KeyboardInterrupt):
                delete(store, where="group = 4")
        assert len(list((store / "deletions").iterdir())) == 2
        assert read_manifest(store).passages == 4_500
        delete(store, where="group = 5")
        assert len(list((store / "deletions").iterdir())) == 1
        assert read_manifest(store).passages == 4_000
        assert verify(store) == []
