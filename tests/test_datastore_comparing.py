"""Comparing two stores finds exactly what was changed between them."""

import json
import shutil

import numpy as np
import pytest

from compactds.configs.recipe import recipe_for
from compactds.datastore.comparing import diff
from compactds.datastore.encoders import EncoderOptions, load_encoder
from compactds.datastore.errors import DamagedStoreError, StoreNotFoundError
from compactds.indexer.adding import add
from compactds.indexer.build import build
from compactds.indexer.compacting import compact
from compactds.indexer.deleting import delete

COUNT = 50


@pytest.fixture
def make(tmp_path):
    """Build a store of documents, each with a vector of its own; `changes` alter some of them."""
    vectors = np.random.default_rng(0).standard_normal((COUNT, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def write(name, numbers, changes=None):
        rows = [
            {
                "id": f"d{number}",
                "text": f"the words of {number}",
                "title": "T",
                "source": "here",
                "year": 2000 + number,
                "vector": vectors[number].tolist(),
                **(changes or {}).get(number, {}),
            }
            for number in numbers
        ]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def build_store(name, numbers, changes=None, **settings):
        recipe = recipe_for([write(name, numbers, changes)], {"sources.vector": "vector", **settings})
        build(recipe, tmp_path / name)
        return tmp_path / name

    build_store.write = write
    return build_store


def test_a_store_is_equal_to_itself_and_to_one_built_the_same_way(make):
    one, other = make("one", range(COUNT)), make("other", range(COUNT))
    for pair in ((one, one), (one, other)):
        found = diff(*pair)
        assert found.equal
        assert (found.same, found.documents) == (COUNT, (COUNT, COUNT))


def test_each_kind_of_change_is_counted_with_examples(make):
    one = make("one", range(40))
    changes = {
        12: {"text": "other words"},
        13: {"text": "the  words\n of 13"},
        14: {"year": 1},
        15: {"title": "U", "year": None},
        16: {"text": "new words", "source": "there"},
    }
    found = diff(one, make("other", range(10, COUNT), changes), examples=3)
    assert (found.documents, found.equal) == ((40, 40), False)
    assert (found.only_in_first.count, found.only_in_first.examples) == (10, ("d0", "d1", "d2"))
    assert (found.only_in_second.count, found.only_in_second.examples) == (10, ("d40", "d41", "d42"))
    assert found.changed_text.examples == ("d12", "d16")
    assert found.changed_passages.examples == ("d13",)
    assert (found.changed_attributes.count, found.changed_attributes.examples) == (3, ("d14", "d15", "d16"))
    assert found.fields == {"source": 1, "title": 1, "year": 2}
    assert found.same == 25
    assert json.loads(json.dumps(found.to_json()))["changed_text"] == {"count": 2, "examples": ["d12", "d16"]}


def test_what_was_added_and_deleted_is_told_and_shared_segments_are_not_read(make, tmp_path, monkeypatch):
    one = make("one", range(30))
    shutil.copytree(one, tmp_path / "grown")
    add(tmp_path / "grown", [make.write("more", range(30, 36))])
    with monkeypatch.context() as patch:
        read = []
        original = diff.__globals__["_listed"]
        patch.setitem(
            diff.__globals__, "_listed", lambda root, r: read.append(r.passages) or original(root, r)
        )
        found = diff(one, tmp_path / "grown")
    assert read == [6]
    assert (found.same, found.only_in_second.count) == (30, 6)
    assert set(found.settings) == {"indexes"}
    delete(tmp_path / "grown", ids=["d3", "d33"])
    found = diff(one, tmp_path / "grown")
    assert (found.same, found.only_in_first.examples, found.only_in_second.count) == (29, ("d3",), 5)
    shutil.copytree(tmp_path / "grown", tmp_path / "compacted")
    compact(tmp_path / "compacted")
    found = diff(tmp_path / "grown", tmp_path / "compacted")
    assert (found.same, found.documents) == (34, (34, 34))


def test_settings_that_differ_are_named(make):
    changes = {number: {"color": "red", "year": f"y{number}"} for number in range(20)}
    found = diff(
        make("one", range(20)),
        make("other", range(20), changes, **{"index.kind": "hnsw", "exact.dtype": "float32"}),
    )
    assert found.settings["schema.color"] == (None, "string")
    assert found.settings["schema.year"] == ("int64", "string")
    assert found.settings["vectors"] == (["float16"], ["float32"])
    assert found.settings["recipe.index"] == (None, {"kind": "hnsw"})
    assert [part[0]["kind"] for part in found.settings["indexes"]] == ["flat", "hnsw"]
    assert found.fields == {"color": 20, "year": 20}


def test_the_same_text_in_other_passages_is_no_other_text(tmp_path, records, write_jsonl, tiny_model):
    encoder = load_encoder(EncoderOptions(model=str(tiny_model), dtype="float32"))
    path = write_jsonl(tmp_path / "corpus.jsonl", records)
    for words in (7, 12):
        changes = {"encoder.model": str(tiny_model), "encoder.dtype": "float32", "passages.words": words}
        build(recipe_for([str(path)], changes), tmp_path / str(words), encoder=encoder)
    found = diff(tmp_path / "7", tmp_path / "12")
    assert (found.changed_text.count, found.changed_attributes.count) == (0, 0)
    assert found.changed_passages.count + found.same == 60
    assert found.changed_passages.count > 30
    assert "recipe.passages" in found.settings


def test_all_of_a_store_may_be_deleted(make, tmp_path):
    one, other = make("one", range(10)), make("other", range(10))
    delete(other, where="document_id IS NOT NULL")
    assert diff(one, other).only_in_first.count == 10
    compact(other)
    assert diff(other, one).only_in_second.count == 10


def test_there_have_to_be_two_stores(make, tmp_path):
    one = make("one", range(5))
    with pytest.raises(StoreNotFoundError):
        diff(one, tmp_path / "none")
    other = make("other", range(6))
    next(other.glob("segments/*/passages.arrow")).write_bytes(b"no passages")
    with pytest.raises(DamagedStoreError):
        diff(one, other)
