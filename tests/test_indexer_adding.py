"""Documents added to a store are in it as if it had been built with them, in one step."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from compactds.configs.recipe import recipe_for
from compactds.datastore import Datastore
from compactds.datastore.ann.choose import BudgetError
from compactds.datastore.encoders import EncoderOptions, load_encoder
from compactds.datastore.errors import (
    EncoderMismatchError,
    PassageNotFoundError,
    StoreBusyError,
    StoreNotFoundError,
)
from compactds.datastore.manifest import read_manifest
from compactds.datastore.verify import verify
from compactds.indexer.adding import add
from compactds.indexer.build import build
from compactds.indexer.deleting import delete
from compactds.indexer.embedding_cache import CacheOptions
from compactds.indexer.errors import AttributeTypeError, BuildError, DuplicateIdError, HeldIdError
from compactds.indexer.workspace import Workspace, locked
from stopped_builds import StopAt


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return load_encoder(EncoderOptions(model=str(tiny_model), dtype="float32"))


@pytest.fixture(scope="module")
def built(tmp_path_factory, records, write_jsonl, tiny_model, encoder) -> Path:
    """A store of the first forty documents."""
    root = tmp_path_factory.mktemp("built")
    path = write_jsonl(root / "first.jsonl", records[:40])
    changes = {"encoder.model": str(tiny_model), "encoder.dtype": "float32", "passages.words": 12}
    build(recipe_for([str(path)], changes), root / "store", encoder=encoder)
    return root / "store"


@pytest.fixture
def store(built, tmp_path) -> Path:
    shutil.copytree(built, tmp_path / "store", copy_function=os.link)
    (tmp_path / "store" / ".build.lock").unlink()
    return tmp_path / "store"


@pytest.fixture
def rest(tmp_path, records, write_jsonl) -> str:
    return str(write_jsonl(tmp_path / "rest.jsonl", records[40:]))


@pytest.fixture
def jsonl(tmp_path, write_jsonl):
    """Write a few records to a file of their own."""

    def write(*rows, name="more.jsonl"):
        return str(write_jsonl(tmp_path / name, list(rows)))

    return write


def state(store: Path):
    """What readers depend on: the manifest, and the names of all segments and lists of deleted rows."""
    return (store / "manifest.json").read_bytes(), sorted(
        path.name for folder in ("segments", "deletions") for path in (store / folder).glob("*")
    )


def test_a_store_that_grew_answers_like_one_built_at_once(
    tmp_path, store, rest, records, write_jsonl, tiny_model, encoder
):
    result = add(store, [rest], encoder=encoder)
    assert (result.documents, result.total_documents, result.segments) == (20, 60, 2)
    path = write_jsonl(tmp_path / "all.jsonl", records)
    changes = {"encoder.model": str(tiny_model), "encoder.dtype": "float32", "passages.words": 12}
    build(recipe_for([str(path)], changes), tmp_path / "whole", encoder=encoder)
    with Datastore.open(store, encoder=encoder) as grown, Datastore.open(tmp_path / "whole") as whole:
        assert grown.count() == whole.count() == result.total_passages
        assert grown.schema == whole.schema
        for where in (None, "subject = 'law'", "year >= 2010 AND list_contains(tags, 't1')"):
            found = [store.search("light of the star", k=25, where=where) for store in (grown, whole)]
            scores = [[hit.score for hit in hits] for hits in found]
            assert scores[0] == pytest.approx(scores[1], abs=1e-3)
            assert len({frozenset(hit.passage.id for hit in hits[:10]) for hits in found}) == 1
        assert grown.facets(["tags", "year"]) == whole.facets(["tags", "year"])
        assert grown.get("doc/50#0") == whole.get("doc/50#0")
        assert len(grown.ledgers()) == 2
    assert verify(store) == []
    assert not (store / ".build").exists()


class TestIds:
    def test_held_ones_are_refused_and_nothing_changes(self, store, jsonl, records, encoder):
        before = state(store)
        path = jsonl({"id": "new", "text": "A star."}, *records[3:9])
        with pytest.raises(HeldIdError, match=r"'doc/3', 'doc/4', 'doc/5' and 3 more"):
            add(store, [path], encoder=encoder)
        assert state(store) == before

    def test_or_replaced_in_the_same_step(self, store, jsonl, encoder):
        path = jsonl({"id": "new", "text": "A star."}, {"id": "doc/9", "text": "The moon.", "year": 1066})
        result = add(store, [path], replace=True, encoder=encoder)
        assert (result.documents, result.replaced, result.total_documents) == (2, 1, 41)
        with Datastore.open(store, encoder=encoder) as opened:
            assert opened.get("doc/9#0").text == "The moon."
            with pytest.raises(PassageNotFoundError):
                opened.get("doc/9#1")
            assert opened.count("document_id = 'doc/9'") == opened.count("year = 1066") == 1
            found = [hit.passage.document_id for hit in opened.search("the moon", k=1_000)]
            assert found.count("doc/9") == 1
            assert len(found) == result.total_passages
        assert verify(store) == []

    def test_a_document_can_be_replaced_again_and_again(self, store, jsonl, encoder):
        for number in range(3):
            add(store, [jsonl({"id": "doc/9", "text": f"Word {number}."})], replace=True, encoder=encoder)
        with Datastore.open(store, encoder=encoder) as opened:
            assert opened.get("doc/9#0").text == "Word 2."
            assert opened.count("document_id = 'doc/9'") == 1
        assert read_manifest(store).documents == 40

    def test_one_that_was_deleted_can_be_added(self, store, jsonl, records, encoder):
        delete(store, ids=["doc/3"])
        assert add(store, [jsonl(records[3])], encoder=encoder).total_documents == 40

    def test_the_same_text_without_an_id_is_a_duplicate(self, store, jsonl, encoder):
        first = jsonl({"text": "A star of iron."}, {"text": "A sea of salt."}, name="one.jsonl")
        assert add(store, [first], encoder=encoder).documents == 2
        second = jsonl({"text": "A sea of salt."}, {"text": "A wire."}, name="two.jsonl")
        result = add(store, [second], encoder=encoder)
        assert (result.documents, result.duplicates, result.total_documents) == (1, 1, 43)

    def test_two_of_one_id_among_the_new_ones_are_refused(self, store, jsonl, encoder):
        with pytest.raises(DuplicateIdError):
            add(store, [jsonl({"id": "x", "text": "A"}, {"id": "x", "text": "B"})], encoder=encoder)


class TestAttributes:
    def test_new_ones_are_missing_in_older_segments(self, store, jsonl, encoder):
        new = {"color": "red", "level": 0.5, "sizes": [1, 2], "when": "2024-01-02"}
        add(store, [jsonl({"id": "n", "text": "A star.", **new})], encoder=encoder)
        with Datastore.open(store, encoder=encoder) as opened:
            assert list(opened.schema)[3:] == sorted(list(opened.schema)[3:])
            passages = opened.count()
            assert opened.count("color = 'red'") == opened.count("list_contains(sizes, 2)") == 1
            assert opened.count("color IS NULL") == opened.count("level IS NULL") == passages - 1
            assert opened.count({"color": {"$ne": "red"}}) == passages - 1
            assert opened.count("subject IS NULL") == 1
            assert opened.facets(["color", "sizes"]) == {"color": [("red", 1)], "sizes": [(1, 1), (2, 1)]}
            (hit,) = opened.search("star", k=5, where="\"when\" = '2024-01-02'")
            assert hit.passage.attributes == new
        assert verify(store) == []

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            (
                "year",
                "long ago",
                r"'year' is int64 in the store, but a string, 'long ago', at .*l:1",
            ),
            ("year", 1.5, r"'year' is int64 in the store, but a number, 1.5"),
            ("subject", 5, r"'subject' is string in the store, but an integer, 5"),
            ("open", "yes", r"'open' is bool in the store"),
            ("date", "soon", r"'date' is date in the store, but a string"),
            ("tags", [1, 2], r"'tags' is list<string> in the store"),
            ("weight", [1], r"'weight' is float64 in the store"),
        ],
    )
    def test_another_type_is_refused(self, store, jsonl, encoder, field, value, message):
        before = state(store)
        with pytest.raises(AttributeTypeError, match=message):
            add(store, [jsonl({"id": "n", "text": "A star.", field: value})], encoder=encoder)
        assert state(store) == before

    @pytest.mark.parametrize(
        ("field", "value", "stored"),
        [
            ("weight", 3, 3.0),
            ("seen", "2024-05-06", "2024-05-06T00:00:00+00:00"),
            ("subject", "2024-05-06", "2024-05-06"),
            ("tags", [], []),
            ("year", None, None),
        ],
    )
    def test_a_narrower_one_becomes_the_stores(self, store, jsonl, encoder, field, value, stored):
        add(store, [jsonl({"id": "n", "text": "A star.", field: value})], encoder=encoder)
        with Datastore.open(store, encoder=encoder) as opened:
            assert opened.get("n#0").attributes.get(field) == stored
            assert opened.count() == read_manifest(store).passages

    def test_types_can_be_said(self, store, jsonl, encoder):
        path = jsonl({"id": "n", "text": "A star.", "subject": 5})
        with pytest.raises(AttributeTypeError, match="'subject' is string in the store, but to be int64"):
            add(store, [path], overrides={"attributes": {"subject": "int64"}}, encoder=encoder)
        add(store, [path], overrides={"attributes": {"subject": "string"}}, encoder=encoder)
        with Datastore.open(store, encoder=encoder) as opened:
            assert opened.get("n#0").attributes == {"subject": "5"}

    def test_there_can_be_too_many(self, store, jsonl, encoder):
        row = {"id": "n", "text": "A star.", **{f"a{number}": number for number in range(255)}}
        with pytest.raises(AttributeTypeError, match="it can have 256"):
            add(store, [jsonl(row)], encoder=encoder)


class TestStopped:
    @pytest.mark.parametrize("stage", ["filtering", "splitting", "encoding", "writing", "indexing"])
    def test_it_goes_on_where_it_was(self, store, rest, encoder, stage):
        before = state(store)
        with pytest.raises(KeyboardInterrupt):
            add(store, [rest], progress=StopAt(stage), encoder=encoder)
        assert state(store) == before
        result = add(store, [rest], encoder=encoder)
        assert result.resumed
        assert read_manifest(store).documents == 60
        assert verify(store) == []

    @pytest.mark.parametrize("point", ["publishing.write_manifest", "indexer.workspace.Workspace.clear"])
    def test_while_publishing_there_is_one_store_or_the_other(self, store, rest, encoder, monkeypatch, point):
        before = state(store)[0]
        name = point if point.startswith("indexer") else f"datastore.{point}"

        clear = Workspace.clear

        def stop(*arguments):
            if name.endswith("clear") and state(store)[0] == before:
                return clear(*arguments)  # of what an earlier build left
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(f"compactds.{name}", stop)
            with pytest.raises(KeyboardInterrupt):
                add(store, [rest], encoder=encoder)
        published = name.endswith("clear")
        assert (state(store)[0] != before) == published
        assert read_manifest(store).documents == (60 if published else 40)
        result = add(store, [rest], encoder=encoder)
        assert (result.unchanged, result.documents) == (published, 20)
        assert read_manifest(store).documents == 60
        assert len(read_manifest(store).segments) == 2
        assert verify(store) == []
        assert not (store / ".build").exists()

    def test_something_else_can_be_added_afterwards(self, store, rest, jsonl, encoder):
        with pytest.raises(KeyboardInterrupt):
            add(store, [rest], progress=StopAt("writing"), encoder=encoder)
        assert add(store, [jsonl({"id": "n", "text": "A."})], encoder=encoder).total_documents == 41
        assert add(store, [rest], encoder=encoder).total_documents == 61

    def test_a_store_that_changed_meanwhile_is_looked_at_anew(self, store, rest, jsonl, records, encoder):
        path = jsonl(records[3], {"id": "n", "text": "A star."})
        with pytest.raises(HeldIdError):
            add(store, [path], encoder=encoder)
        delete(store, ids=["doc/3"])
        assert add(store, [path], encoder=encoder).total_documents == 41


class TestTheStoresRecipe:
    def test_passages_are_as_long_as_the_stores(self, store, jsonl, encoder):
        add(store, [jsonl({"id": "n", "text": " ".join(["star"] * 60)})], encoder=encoder)
        with Datastore.open(store, encoder=encoder) as opened:
            assert len(opened.get("n#1").text.split()) <= 12

    @pytest.mark.parametrize("table", ["[passages]\nwords = 7", '[exact]\ndtype = "float32"'])
    def test_a_recipe_that_says_otherwise_is_refused(self, tmp_path, store, rest, encoder, table):
        (tmp_path / "more.toml").write_text(f'[[sources]]\npath = "rest.jsonl"\n{table}\n')
        with pytest.raises(BuildError, match="is another than the store's"):
            add(store, [str(tmp_path / "more.toml")], encoder=encoder)

    def test_a_recipe_may_bring_filters_of_its_own(self, tmp_path, store, rest, encoder):
        (tmp_path / "more.toml").write_text(
            '[[sources]]\npath = "rest.jsonl"\n[[filters]]\nfilter = "length"\nmin_words = 40\n'
        )
        result = add(store, [str(tmp_path / "more.toml")], encoder=encoder)
        assert 0 < result.removed < 20
        assert result.documents + result.removed == 20

    def test_a_budget_is_not_spent_on_what_the_store_holds(self, tmp_path, store, jsonl, encoder):
        texts = [{"text": f"A story of {number} apples."} for number in range(8)]
        add(store, [jsonl(*texts[:4], name="held.jsonl")], encoder=encoder)
        jsonl(*texts)
        (tmp_path / "more.toml").write_text(
            '[[sources]]\npath = "more.jsonl"\n[[filters]]\nfilter = "budget"\ndocuments = 3\n'
        )
        result = add(store, [str(tmp_path / "more.toml")], encoder=encoder)
        assert (result.documents, result.duplicates, result.removed) == (3, 4, 4 + 1)

    def test_the_stores_filters_hold_for_what_is_added(
        self, tmp_path, jsonl, rest, records, write_jsonl, tiny_model, encoder
    ):
        write_jsonl(tmp_path / "first.jsonl", records[:40])
        (tmp_path / "short.toml").write_text(
            '[[sources]]\npath = "first.jsonl"\nname = "first"\n'
            '[[filters]]\nfilter = "length"\nmin_words = 10\n'
            '[[filters]]\nfilter = "length"\nmin_words = 60\nsources = ["first"]\n'
            f'[encoder]\nmodel = "{tiny_model}"\ndtype = "float32"\n'
        )
        build(recipe_for([str(tmp_path / "short.toml")]), tmp_path / "out", encoder=encoder)
        result = add(tmp_path / "out", [rest], encoder=encoder)
        assert 0 < result.removed < 10

    def test_files_that_it_reads_have_to_be_named_again(
        self, tmp_path, jsonl, rest, records, write_jsonl, tiny_model, encoder
    ):
        write_jsonl(tmp_path / "first.jsonl", records[:40])
        questions = jsonl({"question": " ".join(f"w{number}" for number in range(20))}, name="q.jsonl")
        text = (
            f'[[sources]]\npath = "{{}}"\n[decontamination]\nquestions = ["{questions}"]\n'
            f'[encoder]\nmodel = "{tiny_model}"\ndtype = "float32"\n'
        )
        (tmp_path / "first.toml").write_text(text.format("first.jsonl"))
        build(recipe_for([str(tmp_path / "first.toml")]), tmp_path / "out", encoder=encoder)
        with pytest.raises(BuildError, match=r"\[decontamination\] reads 'q.jsonl'"):
            add(tmp_path / "out", [rest], encoder=encoder)
        (tmp_path / "rest.toml").write_text(text.format("rest.jsonl"))
        assert add(tmp_path / "out", [str(tmp_path / "rest.toml")], encoder=encoder).documents == 20

    def test_another_encoder_is_refused(self, store, rest, tiny_model):
        other = load_encoder(EncoderOptions(model=str(tiny_model), dtype="float32", max_tokens=9))
        with pytest.raises(EncoderMismatchError):
            add(store, [rest], encoder=other)

    def test_its_encoder_is_loaded_and_vectors_are_kept_for_the_next_time(self, tmp_path, store, rest):
        cache = CacheOptions(tmp_path / "cache")
        add(store, [rest], cache=cache)
        assert list((tmp_path / "cache").glob("vectors/*/*"))
        delete(store, ids=["doc/45"])
        assert verify(store) == []

    def test_memory_is_the_whole_stores(self, store, rest, encoder):
        with pytest.raises(BudgetError, match="The store's other segments take"):
            add(store, [rest], overrides={"index.memory": "1KB"}, encoder=encoder)
        add(store, [rest], overrides={"index.memory": "100MB"}, encoder=encoder)
        assert read_manifest(store).recipe["resolved"]["index"] == {"memory": "100MB"}


class TestReadyMadeVectors:
    @pytest.fixture
    def numbers(self, tmp_path, jsonl):
        made = np.random.default_rng(5).standard_normal((30, 8)).astype(np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        np.save(tmp_path / "first.npy", made[:20])
        path = jsonl(*({"id": f"d{number}", "text": "word"} for number in range(20)), name="numbers.jsonl")
        build(recipe_for([path], {"vectors": str(tmp_path / "first.npy")}), tmp_path / "numbers")
        return made

    def more(self, tmp_path, jsonl, vectors, **rows):
        np.save(tmp_path / "more.npy", vectors)
        path = jsonl(*({"id": f"d{number}", "text": "word"} for number in range(20, 30)))
        return add(tmp_path / "numbers", [path], overrides={"vectors": str(tmp_path / "more.npy")})

    def test_they_join_those_of_the_store(self, tmp_path, jsonl, numbers):
        self.more(tmp_path, jsonl, numbers[20:])
        with Datastore.open(tmp_path / "numbers") as opened:
            for number in (3, 25):
                hit = opened.search(vectors=numbers[number], k=1)[0]
                assert hit.passage.document_id == f"d{number}"

    @pytest.mark.parametrize(
        ("change", "message"), [(lambda v: v[:, :5], "5 dimensions"), (lambda v: 3 * v, "not of length one")]
    )
    def test_others_are_refused(self, tmp_path, jsonl, numbers, change, message):
        with pytest.raises(BuildError, match=message):
            self.more(tmp_path, jsonl, change(numbers[20:]))

    def test_of_another_dimension_they_are_refused_before_anything_is_read(self, tmp_path, numbers):
        np.save(tmp_path / "more.npy", numbers[:, :5])
        (tmp_path / "broken.jsonl").write_text("{broken")
        with pytest.raises(BuildError, match="the vectors have 5 dimensions, the store's have 8"):
            add(
                tmp_path / "numbers",
                [str(tmp_path / "broken.jsonl")],
                overrides={"vectors": str(tmp_path / "more.npy")},
            )
        assert not (tmp_path / "numbers" / ".build").exists()

    def test_they_have_to_be_given(self, tmp_path, jsonl, numbers):
        with pytest.raises(BuildError, match="none are given"):
            add(tmp_path / "numbers", [jsonl({"id": "x", "text": "word"})])


def test_there_has_to_be_a_store(tmp_path, rest):
    with pytest.raises(StoreNotFoundError):
        add(tmp_path / "none", [rest])
    assert not (tmp_path / "none").exists()


def test_two_writers_do_not_meet(store, rest, encoder):
    with locked(store), pytest.raises(StoreBusyError):
        add(store, [rest], encoder=encoder)


def test_documents_can_be_added_to_a_store_that_is_empty_again(store, rest, encoder):
    delete(store, where="document_id IS NOT NULL")
    assert add(store, [rest], encoder=encoder).total_documents == 20
    with Datastore.open(store, encoder=encoder) as opened:
        assert len(opened.search("star", k=3)) == 3


def test_the_account_of_it_is_in_the_manifest_and_survives_json(store, rest, encoder):
    add(store, [rest], encoder=encoder)
    (addition,) = json.loads((store / "manifest.json").read_text())["recipe"]["additions"]
    assert addition["sources"] == [{"path": "rest.jsonl"}]
    assert (addition["documents"], addition["replaced"]) == (20, 0)
