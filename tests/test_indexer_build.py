"""A build turns records into a store, goes on after an interruption, and never leaves half of one."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compactds.configs.recipe import Recipe, recipe_for
from compactds.datastore import Datastore
from compactds.datastore.ann.choose import BudgetError
from compactds.datastore.encoders import EncoderOptions, load_encoder
from compactds.datastore.errors import (
    DamagedStoreError,
    EncoderNotFoundError,
    PassageNotFoundError,
    StoreBusyError,
    StoreNotFoundError,
)
from compactds.datastore.verify import verify
from compactds.filters import FieldType
from compactds.indexer.build import build
from compactds.indexer.embedding_cache import CacheOptions
from compactds.indexer.errors import (
    AttributeTypeError,
    BuildError,
    DuplicateIdError,
    EmptyCorpusError,
    RecordError,
    SourceError,
)
from compactds.indexer.planning import plan_build
from compactds.indexer.progress import LoggedProgress
from compactds.indexer.recipe_files import file_names, named_files, portable
from compactds.indexer.workspace import ShardSizes, locked
from stopped_builds import StopAfter, content


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return load_encoder(EncoderOptions(model=str(tiny_model), dtype="float32"))


@pytest.fixture
def corpus(tmp_path, records, write_jsonl) -> Path:
    return write_jsonl(tmp_path / "corpus.jsonl", records)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    sizes = ShardSizes(documents=10, passages=40, task_characters=4_000)
    monkeypatch.setattr("compactds.indexer.pipeline.SHARDS", sizes)


def recipe(path: Path, tiny_model: Path, **changes) -> Recipe:
    return recipe_for([str(path)], {"encoder.model": str(tiny_model), "encoder.dtype": "float32", **changes})


def passages_of(store: Datastore, document_id: str):
    """Yield a document's passages, in order."""
    for position in itertools.count():
        try:
            yield store.get(f"{document_id}#{position}")
        except PassageNotFoundError:
            return


def test_every_document_is_in_the_store_with_its_text_and_attributes(
    tmp_path, corpus, records, tiny_model, encoder
):
    result = build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)
    assert (result.documents, result.rejected, result.duplicates, result.truncated) == (60, 0, 0, 0)
    assert result.passages > 60
    with Datastore.open(tmp_path / "store", encoder=encoder) as store:
        assert store.manifest.passages == result.passages
        for record in records:
            passages = list(passages_of(store, str(record["id"])))
            for passage in passages:
                assert record["text"][passage.start : passage.end] == passage.text
                assert passage.attributes["tags"] == record["tags"]
                assert passage.attributes.get("year") == record.get("year")
                assert passage.attributes["date"] == record["date"]
                assert passage.source == record["source"]
            assert " ".join(passage.text for passage in passages).split() == record["text"].split()
    assert verify(tmp_path / "store") == []
    assert not (tmp_path / "store" / ".build").exists()


def test_attributes_get_the_types_of_their_values(tmp_path, corpus, tiny_model, encoder):
    build(recipe(corpus, tiny_model, attributes={"year": "string"}), tmp_path / "store", encoder=encoder)
    with Datastore.open(tmp_path / "store", encoder=encoder) as store:
        assert store.schema.fields["year"] is FieldType.STRING
        assert store.schema.fields["date"] is FieldType.DATE
        assert store.schema.fields["seen"] is FieldType.TIMESTAMP
        assert store.schema.fields["weight"] is FieldType.FLOAT64
        assert store.schema.fields["open"] is FieldType.BOOL
        assert store.schema.fields["tags"] is FieldType.STRING_LIST
        assert store.schema.fields["pages"] is FieldType.INT64_LIST
        assert store.count("year = '1995'") > 0


def test_an_interrupted_build_goes_on_and_ends_in_the_same_store(tmp_path, corpus, tiny_model, encoder):
    wanted = recipe(corpus, tiny_model)
    build(wanted, tmp_path / "straight", encoder=encoder)
    expected = content(tmp_path / "straight")
    steps = 1
    finished = False
    while not finished:
        out = tmp_path / f"out-{steps}"
        progress = StopAfter(steps)
        try:
            build(wanted, out, progress=progress, encoder=encoder)
            finished = True
        except KeyboardInterrupt:
            assert not (out / "manifest.json").exists()
            with pytest.raises(StoreNotFoundError, match="was interrupted"):
                Datastore.open(out)
            progress = StopAfter(-1)
            result = build(wanted, out, progress=progress, encoder=encoder)
            assert result.resumed
            assert progress.notes[0].startswith("Going on")
        assert content(out) == expected, steps
        steps += 13
    assert steps > 200


def test_an_error_tells_where_work_is_kept_to_go_on_with_and_only_then(tmp_path, corpus, tiny_model, encoder):
    wanted, out = recipe(corpus, tiny_model), tmp_path / "store"

    def notes(recipe, steps):
        with pytest.raises(KeyboardInterrupt) as stop:
            build(recipe, out, progress=StopAfter(steps), encoder=encoder)
        return getattr(stop.value, "__notes__", [])

    assert notes(wanted, 1) == []  # nothing is read yet
    kept = f"What is done is kept in {out}/.build; the same command goes on from there."
    assert [note.startswith(kept) for note in notes(wanted, 180)] == [True]
    other = load_encoder(EncoderOptions(model=str(tiny_model), dimension=8))
    with pytest.raises(BuildError, match=r"the encoder has changed .* Remove .* to start over") as changed:
        build(wanted, out, encoder=other)
    assert not hasattr(changed.value, "__notes__")  # the same command does not go on
    with pytest.raises(BudgetError) as refused:
        build(recipe(corpus, tiny_model, **{"index.memory": "1kB"}), out, encoder=encoder)
    assert [note.startswith(kept) for note in refused.value.__notes__] == [True]
    with pytest.raises(SourceError) as missing:
        build(recipe(tmp_path / "none.jsonl", tiny_model), out, encoder=encoder)
    assert not hasattr(missing.value, "__notes__")  # what is there is of another build


def test_a_store_that_is_published_is_no_work_to_go_on_with(
    tmp_path, corpus, tiny_model, encoder, monkeypatch
):
    def refuse(*_):
        raise PermissionError("no")

    monkeypatch.setattr("compactds.indexer.build_run.remove_old_bundles", refuse)
    with pytest.raises(PermissionError) as stopped:
        build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)
    assert (tmp_path / "store" / "manifest.json").exists()
    assert not hasattr(stopped.value, "__notes__")


def test_it_can_be_interrupted_again_and_again(tmp_path, corpus, tiny_model, encoder):
    wanted = recipe(corpus, tiny_model)
    build(wanted, tmp_path / "straight", encoder=encoder)
    for steps in (50, 100, 150, 180, 190, 200):
        try:
            build(wanted, tmp_path / "store", progress=StopAfter(steps), encoder=encoder)
        except KeyboardInterrupt:
            continue
    build(wanted, tmp_path / "store", encoder=encoder)
    assert content(tmp_path / "store") == content(tmp_path / "straight")


@pytest.mark.parametrize("step", ["write_manifest", "clear"])
def test_stopped_while_publishing_it_ends_in_the_same_store(
    tmp_path, corpus, tiny_model, encoder, monkeypatch, step
):
    wanted = recipe(corpus, tiny_model)
    build(wanted, tmp_path / "straight", encoder=encoder)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "clear":
            patch.setattr("compactds.indexer.workspace.Workspace.clear", stop)
        else:
            patch.setattr("compactds.datastore.publishing.write_manifest", stop)
        with pytest.raises(KeyboardInterrupt):
            build(wanted, tmp_path / "store", encoder=encoder)
    build(wanted, tmp_path / "store", encoder=encoder)
    assert content(tmp_path / "store") == content(tmp_path / "straight")
    assert not (tmp_path / "store" / ".build").exists()


def test_the_manifest_names_files_and_not_where_they_were(tmp_path, corpus, tiny_model, encoder):
    build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)
    resolved = json.loads((tmp_path / "store" / "manifest.json").read_text())["recipe"]["resolved"]
    assert resolved["sources"] == [{"path": "corpus.jsonl"}]


def test_only_paths_are_taken_for_files(tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("questions.jsonl", "model/weights", "mask"):
        (tmp_path / name).write_text("")
    mask = f"{tmp_path}/mask"  # there is such a file, but nobody reads it
    filters = [
        {"filter": "personal_data", "mask": mask},
        {"filter": "where", "where": "/a = 1", "sources": ["/a"]},
        {"filter": "learned_quality", "model": f"{tmp_path}/model"},
    ]
    given = {
        "filters": filters,
        "sources.attributes": ["/year"],
        "sources.name": "/a",
        "sources.fields": {"text": "/body"},
        "vectors": f"{tmp_path}/v.npy",
        "decontamination": {"questions": [f"{tmp_path}/questions.jsonl"]},
    }
    wanted = recipe_for([str(tmp_path / "a.jsonl")], given)
    assert named_files(wanted) == [tmp_path / "model" / "weights", tmp_path / "questions.jsonl"]
    assert file_names(wanted) == ["model", "questions.jsonl"]
    kept = portable(wanted)
    assert kept["filters"] == [*filters[:2], {"filter": "learned_quality", "model": "model"}]
    source = {"path": "a.jsonl", "name": "/a", "attributes": ["/year"], "fields": {"text": "/body"}}
    assert kept["sources"] == [source]
    assert (kept["vectors"], kept["decontamination"]) == ("v.npy", {"questions": ["questions.jsonl"]})


def test_other_passages_are_made_of_the_documents_read_before(
    tmp_path, corpus, tiny_model, encoder, monkeypatch
):
    with pytest.raises(KeyboardInterrupt):
        build(recipe(corpus, tiny_model), tmp_path / "store", progress=StopAfter(190), encoder=encoder)
    changed = recipe(corpus, tiny_model, **{"passages.words": 6, "passages.min_words": 1})
    with monkeypatch.context() as patch:
        patch.delattr("compactds.indexer.sources.reading._records")
        assert build(changed, tmp_path / "store", encoder=encoder).resumed
    build(changed, tmp_path / "straight", encoder=encoder)
    assert content(tmp_path / "store") == content(tmp_path / "straight")


def test_other_sources_start_over(tmp_path, corpus, records, write_jsonl, tiny_model, encoder):
    with pytest.raises(KeyboardInterrupt):
        build(recipe(corpus, tiny_model), tmp_path / "store", progress=StopAfter(190), encoder=encoder)
    write_jsonl(corpus, records[:30])
    result = build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)
    assert (result.resumed, result.documents) == (False, 30)


def test_a_type_for_an_attribute_that_no_document_has_is_noted(tmp_path, corpus, tiny_model, encoder):
    progress = StopAfter(-1)
    wanted = recipe(corpus, tiny_model, attributes={"yeer": "int64"})
    build(wanted, tmp_path / "store", progress=progress, encoder=encoder)
    (note,) = (note for note in progress.notes if "'yeer'" in note)
    assert note == "No document has the attribute 'yeer', which is given a type. Did you mean 'year'?"


@pytest.mark.parametrize("lenient", [False, True])
def test_integers_that_become_floats_are_noted(tmp_path, records, write_jsonl, tiny_model, encoder, lenient):
    rows = [dict(record) for record in records]
    for number, row in enumerate(rows):
        row |= {"count": number, "lang": {"x": number, "y": number}, "mean": number / 2, "given": number}
    rows[45]["count"], rows[50]["lang"], rows[55]["given"] = 2.0, {"x": 0.25, "y": 3}, 5.5
    rows[58]["mean"] = 7  # an integer among floats changes nothing
    path = write_jsonl(tmp_path / "c.jsonl", rows)
    told = StopAfter(-1)
    wanted = recipe(path, tiny_model, attributes={"given": "float64"}, skip_invalid=lenient)
    build(wanted, tmp_path / "store", progress=told, encoder=encoder)
    assert [note.replace(f"{tmp_path}/", "") for note in told.notes if "float64" in note] == [
        "Attribute 'count' is float64 and not int64: it is 0 at c.jsonl:1, and 2.0 at c.jsonl:46.",
        "Attribute 'lang.x' is float64 and not int64: it is 0 at c.jsonl:1, and 0.25 at c.jsonl:51.",
    ]


def test_an_unchanged_store_is_left_alone(tmp_path, corpus, tiny_model, encoder):
    wanted = recipe(corpus, tiny_model)
    build(wanted, tmp_path / "store", encoder=encoder)
    before = (tmp_path / "store" / "manifest.json").read_bytes()
    assert build(wanted, tmp_path / "store", encoder=encoder).unchanged
    assert (tmp_path / "store" / "manifest.json").read_bytes() == before


def test_a_damaged_store_is_built_again_though_its_inputs_are_unchanged(
    tmp_path, corpus, tiny_model, encoder
):
    wanted = recipe(corpus, tiny_model)
    build(wanted, tmp_path / "store", encoder=encoder)
    next((tmp_path / "store").glob("segments/*/exact.f16")).write_bytes(b"")
    assert not build(wanted, tmp_path / "store", encoder=encoder).unchanged
    assert verify(tmp_path / "store") == []


def test_the_old_store_answers_until_the_new_one_is_published(
    tmp_path, corpus, records, write_jsonl, tiny_model, encoder
):
    build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)
    write_jsonl(corpus, records[:20])
    with Datastore.open(tmp_path / "store", encoder=encoder) as old:
        with pytest.raises(KeyboardInterrupt):
            build(recipe(corpus, tiny_model), tmp_path / "store", progress=StopAfter(23), encoder=encoder)
        with Datastore.open(tmp_path / "store", encoder=encoder) as still:
            assert still.manifest.documents == 60
        build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)
        assert len(old.search("light of the star", k=5, where="subject = 'law'")) == 5
    with Datastore.open(tmp_path / "store", encoder=encoder) as new:
        assert new.manifest.documents == 20
    assert len(list((tmp_path / "store" / "segments").iterdir())) == 1


def test_two_builds_of_one_store_do_not_meet(tmp_path, corpus, tiny_model, encoder):
    with locked(tmp_path / "store"), pytest.raises(StoreBusyError, match="another build"):
        build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)
    build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)


def test_a_folder_with_other_things_in_it_is_refused(tmp_path, corpus, tiny_model, encoder):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(BuildError, match=r"thesis\.tex"):
        build(recipe(corpus, tiny_model), tmp_path / "home", encoder=encoder)


@pytest.mark.parametrize("writes", [1, 3, 10, 22, 40, 55])
def test_a_full_disk_says_so_and_loses_nothing(tmp_path, corpus, tiny_model, encoder, monkeypatch, writes):
    calls = itertools.count(1)
    flush = os.fsync

    def full(descriptor):
        if next(calls) == writes:
            raise OSError(errno.ENOSPC, "No space left on device", f"{tmp_path}/store/.build/file")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BuildError, match="no space left on the disk") as full_disk:
        build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)
    notes = "".join(getattr(full_disk.value, "__notes__", []))
    assert (f"kept in {tmp_path}/store/.build" in notes) == (writes > 3)  # before, nothing is read
    assert "goes on" not in str(full_disk.value)
    assert not hasattr(full_disk.value.__cause__, "__notes__")  # a traceback shows both
    build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)
    build(recipe(corpus, tiny_model), tmp_path / "straight", encoder=encoder)
    assert content(tmp_path / "store") == content(tmp_path / "straight")


def test_ctrl_c_at_the_command_line_leaves_work_that_is_gone_on_with(tmp_path, corpus, tiny_model):
    code = (
        "import sys, os, signal\n"
        "from pathlib import Path\n"
        "from compactds.configs.recipe import recipe_for\n"
        "from compactds.indexer import pipeline\n"
        "from compactds.indexer.build import build\n"
        "from compactds.indexer.progress import LoggedProgress\n"
        "pipeline.SHARDS = pipeline.ShardSizes(documents=10, passages=40, task_characters=4000)\n"
        "class Kill(LoggedProgress):\n"
        "    def stage(self, name, total):\n"
        "        if name.startswith('encoding'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "build(recipe_for([sys.argv[1]], {'encoder.model': sys.argv[2], 'encoder.dtype': 'float32'}),"
        " Path(sys.argv[3]), progress=Kill())\n"
    )
    arguments = [sys.executable, "-c", code, str(corpus), str(tiny_model), str(tmp_path / "store")]
    done = subprocess.run(arguments, check=False, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL
    result = build(recipe(corpus, tiny_model), tmp_path / "store")
    assert result.resumed
    assert verify(tmp_path / "store") == []


class TestReplacing:
    def test_a_build_says_which_store_it_replaces(
        self, tmp_path, records, write_jsonl, tiny_model, encoder, caplog
    ):
        store = tmp_path / "store"
        first = build(
            recipe(write_jsonl(tmp_path / "old.jsonl", records), tiny_model), store, encoder=encoder
        )
        assert first.replaced is None
        other = write_jsonl(tmp_path / "new.jsonl", [{"text": "Light of the sun."}])
        caplog.clear()
        with caplog.at_level("INFO"):
            second = build(recipe(other, tiny_model), store, encoder=encoder)
        held = f"'old', {first.passages} passages of 60 documents"
        assert str(second.replaced) == held
        assert f"{store} holds {held}, built from other sources. This build replaces it" in caplog.text

    def test_the_same_sources_are_replaced_without_a_warning(
        self, tmp_path, corpus, tiny_model, encoder, caplog
    ):
        build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)
        with caplog.at_level("INFO"):
            again = build(
                recipe(corpus, tiny_model, **{"passages.words": 20}), tmp_path / "store", encoder=encoder
            )
        assert again.replaced.documents == 60
        assert "other sources" not in caplog.text


class TestUnknownEncoders:
    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    @pytest.mark.parametrize(
        ("name", "remedy"),
        [
            ("minlm", r"Did you mean 'minilm'\? The presets are .*, e5-base-v2, .*minilm"),
            ("static:minlm", "Did you mean 'minilm'"),
            ("bogus", "The presets are "),
            ("owner/bogus", "Give the path of a folder"),
            ("./bogus", "Give the path of a folder"),
        ],
    )
    def test_are_told_before_anything_is_read(self, tmp_path, tiny_model, name, remedy):
        broken = tmp_path / "a.jsonl"
        broken.write_text("{broken")
        wanted = recipe(broken, tiny_model, **{"encoder.model": name})
        with pytest.raises(EncoderNotFoundError, match=f"was not found.* {remedy}"):
            build(wanted, tmp_path / "store")
        assert not (tmp_path / "store").exists()

    def test_of_the_exact_stage_are_told_too(self, corpus, tmp_path, tiny_model):
        with pytest.raises(EncoderNotFoundError, match="'bogus' was not found"):
            build(recipe(corpus, tiny_model, exact_encoder={"model": "bogus"}), tmp_path / "store")

    def test_are_told_by_a_plan_too(self, corpus, tmp_path, tiny_model):
        with pytest.raises(EncoderNotFoundError, match="Did you mean 'minilm'"):
            plan_build(recipe(corpus, tiny_model, **{"encoder.model": "minlm"}), tmp_path)


class TestBadInput:
    def test_an_empty_corpus(self, tmp_path, tiny_model, encoder):
        (tmp_path / "empty.jsonl").write_text("")
        with pytest.raises(EmptyCorpusError, match="no documents"):
            build(recipe(tmp_path / "empty.jsonl", tiny_model), tmp_path / "store", encoder=encoder)
        assert not (tmp_path / "store" / "manifest.json").exists()

    def test_a_missing_file(self, tmp_path, tiny_model, encoder):
        with pytest.raises(SourceError, match=r"absent\.jsonl"):
            build(recipe(tmp_path / "absent.jsonl", tiny_model), tmp_path / "store", encoder=encoder)

    def test_invalid_json_names_the_line(self, tmp_path, corpus, tiny_model, encoder):
        corpus.write_text(corpus.read_text() + "{broken\n")
        with pytest.raises(RecordError, match=r"corpus\.jsonl:61"):
            build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)

    def test_invalid_records_can_be_skipped_and_are_listed(self, tmp_path, corpus, tiny_model, encoder):
        lines = corpus.read_text().splitlines()
        lines[10:10] = ["{broken", '{"id": "no text"}']
        corpus.write_text("\n".join(lines))
        wanted = recipe(corpus, tiny_model, skip_invalid=True)
        assert build(wanted, tmp_path / "store", encoder=encoder).rejected == 2
        (rejects,) = (tmp_path / "store").glob("segments/*/rejects.jsonl")
        origins = [json.loads(line)["origin"] for line in rejects.read_text().splitlines()]
        assert [origin.rpartition(":")[2] for origin in origins] == ["11", "12"]

    def test_skipped_records_are_counted_once_across_interruptions(
        self, tmp_path, corpus, tiny_model, encoder
    ):
        lines = corpus.read_text().splitlines()
        for place in (50, 30, 5):
            lines.insert(place, "{broken")
        corpus.write_text("\n".join(lines))
        wanted = recipe(corpus, tiny_model, skip_invalid=True)
        build(wanted, tmp_path / "straight", encoder=encoder)
        with pytest.raises(KeyboardInterrupt):
            build(wanted, tmp_path / "store", progress=StopAfter(45), encoder=encoder)
        assert build(wanted, tmp_path / "store", encoder=encoder).rejected == 3
        assert content(tmp_path / "store") == content(tmp_path / "straight")

    def test_two_documents_with_one_id(self, tmp_path, records, write_jsonl, tiny_model, encoder):
        path = write_jsonl(tmp_path / "twice.jsonl", [*records, {"id": "doc/3", "text": "Another."}])
        with pytest.raises(DuplicateIdError, match=r"doc/3.*twice\.jsonl:4 and .*twice\.jsonl:61") as e:
            build(recipe(path, tiny_model), tmp_path / "store", encoder=encoder)
        assert "--ids content" in e.value.remedy
        assert "--ids file" not in e.value.remedy  # both are of one file

    def test_an_attribute_that_changes_type(self, tmp_path, records, write_jsonl, tiny_model, encoder):
        path = write_jsonl(tmp_path / "c.jsonl", [*records, {"text": "Another.", "year": "long ago"}])
        with pytest.raises(AttributeTypeError, match=r"c\.jsonl:61.*year"):
            build(recipe(path, tiny_model), tmp_path / "store", encoder=encoder)

    def test_a_memory_budget_too_small_is_told_before_encoding(self, tmp_path, corpus, tiny_model, encoder):
        wanted = recipe(corpus, tiny_model, **{"index.memory": "1KB"})
        with pytest.raises(BudgetError, match="Give at least"):
            build(wanted, tmp_path / "store", encoder=encoder)
        assert not list(tmp_path.glob("store/.build/shards/*.npy"))

    def test_a_damaged_manifest_is_not_overwritten(self, tmp_path, corpus, tiny_model, encoder):
        build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)
        (tmp_path / "store" / "manifest.json").write_text("{")
        with pytest.raises(BuildError, match="cannot be read"):
            build(recipe(corpus, tiny_model), tmp_path / "store", encoder=encoder)
        with pytest.raises(DamagedStoreError):
            Datastore.open(tmp_path / "store")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_cannot_be_written(self, tmp_path, corpus, tiny_model, encoder):
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(BuildError, match="cannot write"):
            build(recipe(corpus, tiny_model), tmp_path / "locked" / "store", encoder=encoder)

    def test_a_file_where_the_store_should_go(self, tmp_path, corpus, tiny_model, encoder):
        (tmp_path / "file").write_text("")
        with pytest.raises(BuildError, match="cannot write"):
            build(recipe(corpus, tiny_model), tmp_path / "file", encoder=encoder)


class TestDuplicates:
    def test_documents_without_ids_that_are_the_same_are_kept_once(
        self, tmp_path, records, write_jsonl, tiny_model, encoder
    ):
        bare = [{key: value for key, value in record.items() if key != "id"} for record in records]
        path = write_jsonl(tmp_path / "bare.jsonl", [*bare, *bare[5:9], bare[5]])
        result = build(recipe(path, tiny_model), tmp_path / "store", encoder=encoder)
        assert (result.documents, result.duplicates) == (60, 5)
        write_jsonl(path, bare)
        build(recipe(path, tiny_model), tmp_path / "once", encoder=encoder)
        segments = [next((tmp_path / name / "segments").iterdir()) for name in ("store", "once")]
        passages = [(segment / "passages.arrow").read_bytes() for segment in segments]
        assert passages[0] == passages[1]


class TestReadyMadeVectors:
    @pytest.fixture
    def vectors(self, tmp_path) -> np.ndarray:
        made = np.random.default_rng(2).standard_normal((60, 8)).astype(np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        np.save(tmp_path / "vectors.npy", made)
        return made

    def test_row_i_belongs_to_record_i(self, tmp_path, corpus, records, vectors):
        wanted = recipe_for([str(corpus)], {"vectors": str(tmp_path / "vectors.npy")})
        result = build(wanted, tmp_path / "store")
        assert result.passages == 60
        with Datastore.open(tmp_path / "store") as store:
            for record, vector in zip(records, vectors, strict=True):
                hit = store.search(vectors=vector, k=1)[0]
                assert hit.passage.document_id == record["id"]
                assert hit.score == pytest.approx(1, abs=2e-3)

    def test_they_stay_with_their_records_when_one_is_skipped(self, tmp_path, corpus, vectors):
        lines = corpus.read_text().splitlines()
        lines[7] = "{broken"
        corpus.write_text("\n".join(lines))
        wanted = recipe_for([str(corpus)], {"vectors": str(tmp_path / "vectors.npy"), "skip_invalid": True})
        build(wanted, tmp_path / "store")
        with Datastore.open(tmp_path / "store") as store:
            assert store.search(vectors=vectors[50], k=1)[0].passage.document_id == "doc/50"
            assert store.search(vectors=vectors[7], k=1)[0].score < 0.99

    def test_they_can_come_in_the_records(self, tmp_path, records, write_jsonl, vectors):
        rows = [
            {**record, "embedding": vector.tolist()} for record, vector in zip(records, vectors, strict=True)
        ]
        path = write_jsonl(tmp_path / "with.jsonl", rows)
        build(recipe_for([str(path)], {"sources.vector": "embedding"}), tmp_path / "store")
        with Datastore.open(tmp_path / "store") as store:
            assert "embedding" not in store.schema
            assert store.search(vectors=vectors[33], k=1)[0].passage.document_id == "doc/33"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda v: v[:-1], "59 vectors, the sources 60 records"),
            (lambda v: v[0], "expected floats of shape"),
            (lambda v: v.astype(np.int64), "expected floats of shape"),
            (
                lambda v: np.where(np.arange(60)[:, None] == 3, np.nan, v),
                r"^1 vector is zero or not finite: of record 4, counted from 1\. Correct",
            ),
            (
                lambda v: np.where(np.arange(60)[:, None] < 5, 0, v),
                r"^5 vectors are .*: of records 1, 2, 3 and 2 more, counted from 1\. Correct",
            ),
            (
                lambda v: np.where(np.arange(60)[:, None] == 3, 1e300, v.astype(np.float64)),
                r"^1 vector holds numbers beyond float32, too large or too small: of record 4, .*Scale",
            ),
            (
                lambda v: np.where(np.arange(60)[:, None] == 3, 1e-300, v.astype(np.float64)),
                r"^1 vector holds numbers beyond float32, too large or too small: of record 4, .*Scale",
            ),
            (lambda v: v * np.float32(1e6), "60 vectors hold numbers beyond float16, .* 1, 2, 3 and 57 more"),
            (lambda v: v * np.float32(1e-9), "60 vectors hold numbers beyond float16"),
            (
                lambda v: np.where(np.arange(60)[:, None] == 3, 1e-6 * v, v),
                "1 vector holds .* float16, .* 4, counted",
            ),
        ],
    )
    def test_bad_vectors_are_refused(self, tmp_path, corpus, vectors, change, message):
        np.save(tmp_path / "vectors.npy", change(vectors))
        wanted = recipe_for([str(corpus)], {"vectors": str(tmp_path / "vectors.npy")})
        with pytest.raises(BuildError, match=message):
            build(wanted, tmp_path / "store")

    @pytest.mark.parametrize("scale", [1e-9, 1e6])
    def test_float32_holds_what_float16_does_not(self, tmp_path, corpus, vectors, scale):
        np.save(tmp_path / "vectors.npy", vectors * np.float32(scale))
        changes = {"vectors": str(tmp_path / "vectors.npy"), "exact.dtype": "float32"}
        build(recipe_for([str(corpus)], changes), tmp_path / "store")
        with Datastore.open(tmp_path / "store") as store:
            found = store.search(vectors=vectors[33], k=3)
            order = np.argsort(-vectors @ vectors[33])[:3]
            assert [hit.passage.document_id for hit in found] == [f"doc/{row}" for row in order]

    def test_a_few_small_numbers_among_large_ones_are_no_loss(self, tmp_path, corpus, vectors):
        vectors[:, 1] = 1e-12
        np.save(tmp_path / "vectors.npy", vectors)
        wanted = recipe_for([str(corpus)], {"vectors": str(tmp_path / "vectors.npy")})
        assert build(wanted, tmp_path / "store").passages == 60

    def test_a_file_that_is_no_array_is_refused(self, tmp_path, corpus):
        (tmp_path / "vectors.npy").write_bytes(b"PK nothing")
        wanted = recipe_for([str(corpus)], {"vectors": str(tmp_path / "vectors.npy")})
        with pytest.raises(BuildError, match=r"from .*/vectors\.npy: it is no \.npy file\."):
            build(wanted, tmp_path / "store")

    def test_objects_are_refused_without_a_word_of_pickles(self, tmp_path, corpus):
        np.save(tmp_path / "vectors.npy", np.array([[None]]), allow_pickle=True)
        wanted = recipe_for([str(corpus)], {"vectors": str(tmp_path / "vectors.npy")})
        with pytest.raises(BuildError, match="or holds objects in place of numbers") as refused:
            build(wanted, tmp_path / "store")
        assert "pickle" not in str(refused.value)

    @pytest.mark.parametrize(
        ("array", "message"),
        [(None, "No such file"), (np.ones((60, 8), int), "floats"), (np.ones(60), "floats"), ("", "no .npy")],
    )
    def test_what_the_file_says_by_itself_is_told_before_anything_is_read(self, tmp_path, array, message):
        (tmp_path / "a.jsonl").write_text("{broken")
        if isinstance(array, str):
            (tmp_path / "vectors.npy").write_text(array)
        elif array is not None:
            np.save(tmp_path / "vectors.npy", array)
        wanted = recipe_for([str(tmp_path / "a.jsonl")], {"vectors": str(tmp_path / "vectors.npy")})
        with pytest.raises(BuildError, match=message):
            build(wanted, tmp_path / "store")
        assert not (tmp_path / "store").exists()
        with pytest.raises(BuildError, match=message):
            plan_build(wanted, tmp_path)

    def test_a_named_encoder_must_have_their_dimension_before_anything_is_read(
        self, tmp_path, tiny_model, encoder, vectors
    ):
        (tmp_path / "a.jsonl").write_text("{broken")
        wanted = recipe(tmp_path / "a.jsonl", tiny_model, vectors=str(tmp_path / "vectors.npy"))
        with pytest.raises(BuildError, match=r"the vectors have 8 dimensions, those of .* have 16"):
            build(wanted, tmp_path / "store", encoder=encoder)
        assert not (tmp_path / "store").exists()
        with pytest.raises(BuildError, match=r"the vectors have 8 dimensions, those of .* have 16"):
            plan_build(wanted, tmp_path)

    def test_a_plan_compares_the_dimension_of_vectors_in_records_too(
        self, tmp_path, records, write_jsonl, tiny_model
    ):
        path = write_jsonl(tmp_path / "with.jsonl", [{**record, "v": [1.0, 2.0]} for record in records])
        with pytest.raises(BuildError, match=r"the vectors have 2 dimensions, those of .* have 16"):
            plan_build(recipe(path, tiny_model, **{"sources.vector": "v"}), tmp_path)

    def test_their_number_is_told_once_the_records_are_read(self, tmp_path, corpus, vectors):
        np.save(tmp_path / "vectors.npy", vectors[:-1])
        wanted = recipe_for([str(corpus)], {"vectors": str(tmp_path / "vectors.npy")})
        stages: list[str] = []

        class Stages(LoggedProgress):
            def stage(self, name, total):
                stages.append(name)

        with pytest.raises(BuildError, match="59 vectors, the sources 60 records"):
            build(wanted, tmp_path / "store", progress=Stages())
        assert stages == ["reading"]

    def test_they_go_with_the_encoder_that_made_them(self, tmp_path, corpus, tiny_model, encoder):
        made = np.random.default_rng(2).standard_normal((60, 16)).astype(np.float32)
        np.save(tmp_path / "vectors.npy", made)
        wanted = recipe(corpus, tiny_model, vectors=str(tmp_path / "vectors.npy"))
        assert build(wanted, tmp_path / "store", encoder=encoder).takes_text


def test_long_passages_kept_whole_are_counted_as_truncated(tmp_path, corpus, tiny_model, encoder):
    wanted = recipe(corpus, tiny_model, **{"passages.split": False})
    result = build(wanted, tmp_path / "store", encoder=encoder)
    assert result.passages == 60
    assert result.truncated > 20


def test_what_is_truncated_and_cached_is_counted_for_each_source(
    tmp_path, records, write_jsonl, tiny_model, encoder
):
    long, short = "light and heat " * 20, "light and heat"
    paths = [
        write_jsonl(
            tmp_path / f"{name}.jsonl", [{"id": f"{name}{n}", "text": f"{text} {n}"} for n in range(5)]
        )
        for name, text in (("short", short), ("long", long))
    ]
    wanted = recipe_for([*map(str, paths)], {"encoder.model": str(tiny_model), "passages.split": False})
    cache, told = CacheOptions(tmp_path / "cache", limit_bytes=2 * 10**9), StopAfter(-1)
    for out, kept in (("first", 0), ("again", 5)):
        result = build(wanted, tmp_path / out, encoder=encoder, cache=cache, progress=told)
        assert (result.truncated, result.cached) == (5, 2 * kept)
        (path,) = (tmp_path / out).glob("segments/*/ledger.json")
        ledger = json.loads(path.read_text())
        assert [(line["name"], line["truncated"], line["cached"]) for line in ledger["sources"]] == [
            ("short", 0, kept),
            ("long", 5, kept),
        ]
    assert told.notes.count(f"Vectors are kept for other builds in {cache.folder}, at most 2.0 GB.") == 2


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_other_kinds_of_index_are_calibrated(tmp_path, corpus, tiny_model, encoder, kind):
    build(recipe(corpus, tiny_model, **{"index.kind": kind}), tmp_path / "store", encoder=encoder)
    with Datastore.open(tmp_path / "store", encoder=encoder) as store:
        (segment,) = store.describe()["segments"]
        assert segment["index"]["kind"] == kind
        assert segment["calibration"][-1]["recall"] > 0.9
        exact = store.search("light of the star", k=5, recall=1.0)
        assert store.search("light of the star", k=5)[0].passage.id == exact[0].passage.id
