"""With skip_invalid, a build leaves out documents whose attributes or ready-made vectors cannot be used."""

import json
from pathlib import Path

import numpy as np
import pytest

from compactds.configs.recipe import Recipe, recipe_for
from compactds.datastore import Datastore
from compactds.datastore.encoders import EncoderOptions, load_encoder
from compactds.filters import FieldType
from compactds.indexer.build import build
from compactds.indexer.errors import (
    AttributeNameError,
    AttributeTypeError,
    EmptyCorpusError,
    RecordError,
)
from compactds.indexer.workspace import ShardSizes
from stopped_builds import StopAfter, content


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return load_encoder(EncoderOptions(model=str(tiny_model), dtype="float32"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    sizes = ShardSizes(documents=10, passages=40, task_characters=4_000)
    monkeypatch.setattr("compactds.indexer.pipeline.SHARDS", sizes)


def recipe(path: Path, tiny_model: Path, **changes) -> Recipe:
    return recipe_for([str(path)], {"encoder.model": str(tiny_model), "encoder.dtype": "float32", **changes})


def stop(*_, **__):
    raise KeyboardInterrupt


def told(store):
    """Return the list of the records that a store left out."""
    (rejects,) = store.glob("segments/*/rejects.jsonl")
    return [json.loads(line) for line in rejects.read_text().splitlines()]


def accounted(store):
    """Return the documents read, the records rejected, and the documents in a store by its account."""
    (ledger,) = store.ledgers()
    (line,) = ledger["sources"]
    assert line["documents"] == line["removed"] + line["documents_out"]
    return line["documents"], line["rejected"], line["documents_out"]


class TestWrongTypes:
    """With skip_invalid, records are left out whose attributes do not have the type of those before."""

    @pytest.fixture
    def mixed(self, tmp_path, records, write_jsonl):
        rows = [dict(record) for record in records]
        rows[7]["year"], rows[30]["year"], rows[55]["year"] = "long ago", True, ["x"]
        rows[30]["new"], rows[40]["new"] = 1, "text"  # the record that has an integer here is left out
        rows[31]["year"] = 2001.5  # which goes with integers
        return write_jsonl(tmp_path / "mixed.jsonl", rows)

    def test_are_left_out_and_listed(self, tmp_path, mixed, tiny_model, encoder):
        with pytest.raises(
            AttributeTypeError, match=r"mixed\.jsonl:8: attribute 'year' is a string"
        ) as refused:
            build(recipe(mixed, tiny_model), tmp_path / "store", encoder=encoder)
        assert "--skip-invalid leaves out what does not fit" in refused.value.remedy
        result = build(recipe(mixed, tiny_model, skip_invalid=True), tmp_path / "store", encoder=encoder)
        assert (result.documents, result.rejected) == (57, 3)
        rejected = told(tmp_path / "store")
        assert [line["origin"].rpartition(":")[2] for line in rejected] == ["8", "31", "56"]
        assert rejected[0]["reason"].startswith("attribute 'year' is a string, 'long ago', but an integer, ")
        assert json.loads(rejected[0]["raw"])["year"] == "long ago"
        with Datastore.open(tmp_path / "store", encoder=encoder) as store:
            assert accounted(store) == (57, 3, 57)
            assert store.schema["year"] is FieldType.FLOAT64
            assert store.schema["new"] is FieldType.STRING
            assert store.get("doc/31#0").attributes["year"] == 2001.5

    def test_are_left_out_of_later_shards(self, tmp_path, mixed, tiny_model, encoder, monkeypatch):
        wanted = recipe(mixed, tiny_model, skip_invalid=True)
        build(wanted, tmp_path / "one", encoder=encoder)
        sizes = ShardSizes(documents=1, passages=40, task_characters=4_000)
        monkeypatch.setattr("compactds.indexer.pipeline.SHARDS", sizes)
        build(wanted, tmp_path / "many", encoder=encoder)
        assert told(tmp_path / "many") == told(tmp_path / "one")
        assert content(tmp_path / "many") == content(tmp_path / "one")

    @pytest.mark.parametrize("step", ["DocumentRows.write", "settled", "Path.replace"])
    def test_are_left_out_once_if_the_build_was_stopped(
        self, tmp_path, mixed, tiny_model, encoder, monkeypatch, step
    ):
        wanted = recipe(mixed, tiny_model, skip_invalid=True)
        build(wanted, tmp_path / "straight", encoder=encoder)
        with monkeypatch.context() as patch:
            patch.setattr(f"compactds.indexer.sifting.{step}", stop)
            with pytest.raises(KeyboardInterrupt):
                build(wanted, tmp_path / "store", encoder=encoder)
        assert build(wanted, tmp_path / "store", encoder=encoder).rejected == 3
        assert content(tmp_path / "store") == content(tmp_path / "straight")

    def test_documents_are_not_read_again_for_other_passages(
        self, tmp_path, mixed, tiny_model, encoder, monkeypatch
    ):
        first = recipe(mixed, tiny_model, skip_invalid=True)
        with pytest.raises(KeyboardInterrupt):
            build(first, tmp_path / "store", progress=StopAfter(180), encoder=encoder)
        changed = recipe(
            mixed, tiny_model, skip_invalid=True, **{"passages.words": 6, "passages.min_words": 1}
        )
        monkeypatch.setattr("compactds.indexer.sifting.DocumentRows", None)  # what was sifted stays so
        result = build(changed, tmp_path / "store", encoder=encoder)
        assert (result.documents, result.rejected) == (57, 3)
        assert len(told(tmp_path / "store")) == 3

    def test_a_type_that_is_given_decides(self, tmp_path, mixed, tiny_model, encoder):
        wanted = recipe(mixed, tiny_model, skip_invalid=True, attributes={"year": "int64"})
        result = build(wanted, tmp_path / "store", encoder=encoder)
        assert (result.documents, result.rejected) == (56, 4)
        assert told(tmp_path / "store")[0]["reason"] == (
            "attribute 'year' is to be int64, but 'long ago' cannot be read as int64"
        )

    def test_a_name_that_no_store_can_have_is_an_error_all_the_same(
        self, tmp_path, records, write_jsonl, tiny_model, encoder
    ):
        path = write_jsonl(tmp_path / "c.jsonl", [*records, {"text": "Another.", "x" * 200: 1}])
        with pytest.raises(AttributeNameError, match="has 200 characters"):
            build(recipe(path, tiny_model, skip_invalid=True), tmp_path / "store", encoder=encoder)


class TestVectors:
    """With skip_invalid, records are left out whose ready-made vectors are zero or not finite."""

    @pytest.fixture
    def corpus(self, tmp_path, records, write_jsonl) -> Path:
        return write_jsonl(tmp_path / "corpus.jsonl", records)

    @pytest.fixture
    def vectors(self, tmp_path) -> np.ndarray:
        made = np.random.default_rng(2).standard_normal((60, 8)).astype(np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        np.save(tmp_path / "vectors.npy", made)
        return made

    def test_unusable_ones_are_left_out_with_their_records(self, tmp_path, records, write_jsonl, vectors):
        vectors[3], vectors[20], vectors[59] = np.nan, 0, np.inf
        np.save(tmp_path / "vectors.npy", vectors)
        bare = [{key: value for key, value in record.items() if key != "id"} for record in records]
        bare[20]["year"] = "long ago"  # what is left out has no say in the types
        bare[30] = bare[3]  # the first copy is left out, so that this one stays
        path = write_jsonl(tmp_path / "bare.jsonl", bare)
        changes = {"vectors": str(tmp_path / "vectors.npy"), "skip_invalid": True}
        result = build(recipe_for([str(path)], changes), tmp_path / "store")
        assert (result.documents, result.rejected, result.duplicates) == (57, 3, 0)
        rejected = told(tmp_path / "store")
        assert [line["origin"].rpartition(":")[2] for line in rejected] == ["4", "21", "60"]
        assert rejected[1]["reason"] == "the vector of record 21, counted from 1, is zero or not finite"
        assert json.loads(rejected[1]["raw"])["text"] == bare[20]["text"]
        with Datastore.open(tmp_path / "store") as store:
            assert accounted(store) == (57, 3, 57)
            for row in (0, 4, 30, 58):
                hit = store.search(vectors=vectors[row], k=1)[0]
                assert hit.passage.text == bare[row]["text"]
                assert hit.passage.attributes["weight"] == bare[row]["weight"]
                assert hit.score == pytest.approx(1, abs=2e-3)

    def test_what_float32_cannot_hold_is_not_called_zero_or_not_finite(self, tmp_path, corpus, vectors):
        large = vectors.astype(np.float64)
        large[3], large[20] = 1e300, 1e-300
        np.save(tmp_path / "vectors.npy", large)
        changes = {"vectors": str(tmp_path / "vectors.npy"), "skip_invalid": True}
        assert build(recipe_for([str(corpus)], changes), tmp_path / "store").rejected == 2
        assert [line["reason"] for line in told(tmp_path / "store")] == [
            f"the vector of record {number}, counted from 1, holds numbers beyond float32"
            for number in (4, 21)
        ]

    def test_fields_of_records_that_are_left_out_do_not_count(self, tmp_path, write_jsonl):
        fields = [{f"a{n}": 1 for n in range(200)}, {f"b{n}": 1 for n in range(100)}, {}]
        path = write_jsonl(
            tmp_path / "c.jsonl", [{"text": f"Text {n}.", **more} for n, more in enumerate(fields)]
        )
        given = np.eye(3, 8, dtype=np.float32)
        given[1] = 0
        np.save(tmp_path / "v.npy", given)
        wanted = recipe_for([str(path)], {"vectors": str(tmp_path / "v.npy"), "skip_invalid": True})
        result = build(wanted, tmp_path / "store")
        assert (result.documents, result.rejected) == (2, 1)
        given[1] = 1
        np.save(tmp_path / "v.npy", given)
        with pytest.raises(AttributeNameError, match="one more than the 256"):
            build(wanted, tmp_path / "other")

    def test_nothing_is_left_of_vectors_that_all_are_zero(self, tmp_path, corpus, vectors):
        np.save(tmp_path / "vectors.npy", 0 * vectors)
        changes = {"vectors": str(tmp_path / "vectors.npy"), "skip_invalid": True}
        with pytest.raises(EmptyCorpusError, match="all 60 records were rejected"):
            build(recipe_for([str(corpus)], changes), tmp_path / "store")

    def test_corrected_ones_are_looked_at_anew(self, tmp_path, corpus, vectors):
        changes = {"vectors": str(tmp_path / "vectors.npy"), "skip_invalid": True}
        broken = vectors.copy()
        broken[3] = np.nan
        np.save(tmp_path / "vectors.npy", broken)
        with pytest.raises(KeyboardInterrupt):
            build(recipe_for([str(corpus)], changes), tmp_path / "store", progress=StopAfter(180))
        np.save(tmp_path / "vectors.npy", vectors)
        assert build(recipe_for([str(corpus)], changes), tmp_path / "store").documents == 60

    def test_a_zero_vector_in_a_record_is_told_with_its_place(self, tmp_path, records, write_jsonl, vectors):
        vectors[5] = 0
        rows = [
            {**record, "embedding": vector.tolist()} for record, vector in zip(records, vectors, strict=True)
        ]
        path = write_jsonl(tmp_path / "with.jsonl", rows)
        with pytest.raises(RecordError, match=r"with\.jsonl:6: the vector in 'embedding' is zero"):
            build(recipe_for([str(path)], {"sources.vector": "embedding"}), tmp_path / "store")
        lenient = {"sources.vector": "embedding", "skip_invalid": True}
        result = build(recipe_for([str(path)], lenient), tmp_path / "store")
        assert (result.documents, result.rejected) == (59, 1)
