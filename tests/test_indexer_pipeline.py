"""Filters, duplicates and questions in a build: the same by any number of workers, and all accounted for."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from compactds.configs.recipe import Recipe, load_recipe, recipe_for
from compactds.datastore import Datastore
from compactds.datastore.encoders import EncoderOptions, load_encoder
from compactds.datastore.verify import verify
from compactds.filters.errors import CompactdsError
from compactds.indexer.build import build
from compactds.indexer.documents import spaced_words
from compactds.indexer.errors import BuildError, EmptyCorpusError, RecordError, SourceError
from compactds.indexer.execution import LocalExecutor, default_workers
from compactds.indexer.progress import LoggedProgress
from compactds.indexer.survey import survey
from compactds.indexer.workspace import ShardSizes

QUESTION = "why does the light of the star bend near the heavy sun when planet gravity pulls at energy"


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return load_encoder(EncoderOptions(model=str(tiny_model), dtype="float32"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    sizes = ShardSizes(documents=7, passages=40, task_characters=3_000)
    monkeypatch.setattr("compactds.indexer.pipeline.SHARDS", sizes)


@pytest.fixture
def folder(tmp_path, records, write_jsonl) -> Path:
    """A folder of two files of records and one of questions, with copies, junk and a leaked question."""
    data = tmp_path / "data"
    data.mkdir()
    long = [{**record, "text": f"{record['text']} {record['title']}"} for record in records]
    write_jsonl(data / "a.jsonl", long[:40])
    copies = [
        {"id": "copy", "text": long[8]["text"].upper()},
        {"id": "near", "text": f"{long[17]['text']} Indeed."},
        {"id": "tiny", "text": "No."},
        {"id": "leak", "text": f"{long[26]['text']}\n\nQ: {QUESTION}?\n\n{long[35]['text']}"},
    ]
    write_jsonl(data / "b.jsonl", [*long[40:], *copies])
    (tmp_path / "questions.txt").write_text(QUESTION + "\n")
    return data


def recipe(folder: Path, tiny_model: Path, text: str = "") -> Recipe:
    path = folder.parent / "recipe.toml"
    path.write_text(
        f"""
        [[sources]]
        path = "data"
        name = "books"
        [encoder]
        model = "{tiny_model}"
        dtype = "float32"
        {text}
        """
    )
    return load_recipe(path)


ALL_STAGES = """
    [[filters]]
    filter = "length"
    min_words = 3
    [duplicates]
    [decontamination]
    questions = ["questions.txt"]
"""


def content(store: Path) -> dict:
    """Return what a store's manifest says of its content, digests of all files included, but no times."""
    manifest = json.loads((store / "manifest.json").read_text())
    for segment in manifest["segments"]:
        del segment["files"]["ledger.json"], segment["calibration"], segment["costs"]
    for name in ("created", "checksum", "recipe", "measured"):
        del manifest[name]
    return manifest


def ledger_of(store: Path) -> dict:
    (path,) = store.glob("segments/*/ledger.json")
    return json.loads(path.read_text())


def removed_of(store: Path) -> list[dict]:
    (path,) = store.glob("segments/*/removed.parquet")
    return pq.read_table(path).to_pylist()


class TestWhatIsRemoved:
    @pytest.fixture
    def store(self, tmp_path, folder, tiny_model, encoder) -> Path:
        build(recipe(folder, tiny_model, ALL_STAGES), tmp_path / "store", encoder=encoder)
        return tmp_path / "store"

    def test_is_listed_with_its_reason(self, store):
        rows = {row["document_id"]: row for row in removed_of(store)}
        assert rows.keys() == {"copy", "near", "tiny"}
        assert (rows["tiny"]["filter"], rows["tiny"]["reason"]) == ("length", "too_few_words")
        assert (rows["tiny"]["value"], rows["tiny"]["limit"], rows["tiny"]["words"]) == ("1", "3", 1)
        assert (rows["copy"]["reason"], rows["copy"]["value"]) == ("same_words", "doc/8")
        assert (rows["near"]["reason"], rows["near"]["value"]) == ("near_duplicate", "doc/17")
        assert rows["tiny"]["origin"] == "data/b.jsonl:23"
        assert rows["tiny"]["excerpt"] == "No."

    def test_is_counted_for_its_source(self, store):
        ledger = ledger_of(store)
        (line,) = ledger["sources"]
        counts = ("documents", "removed", "duplicates", "contaminated", "documents_out", "rejected")
        assert [line[name] for name in counts] == [64, 3, 2, 1, 61, 0]
        assert line["passages"] == ledger["passages"]
        kinds = {(row["filter"], row["reason"]): row["documents"] for row in ledger["removed"]}
        assert kinds == {
            ("length", "too_few_words"): 1,
            ("duplicates", "same_words"): 1,
            ("duplicates", "near_duplicate"): 1,
        }
        assert ledger["edited"] == [
            {
                "source": "books",
                "filter": "decontamination",
                "kind": "paragraphs_ngram",
                "documents": 1,
                "places": 1,
            }
        ]
        stages = ["read", "filter", "deduplicate", "load encoders", "split", "encode", "write", "index"]
        assert list(ledger["seconds"]) == [*stages, "calibrate"]

    def test_words_add_up(self, store):
        (line,) = ledger_of(store)["sources"]
        taken_out = len(f"Q: {QUESTION}?".split())
        assert line["words"] == line["words_out"] + line["removed_words"] + taken_out

    def test_a_paragraph_that_held_a_question_is_listed_with_it(self, store, encoder):
        (path,) = store.glob("segments/*/contaminated.jsonl")
        (record,) = [json.loads(line) for line in path.read_text().splitlines()]
        assert (record["document_id"], record["question"]) == ("leak", QUESTION)
        with Datastore.open(store, encoder=encoder) as opened:
            texts = [opened.get(f"leak#{number}").text for number in range(3)]
        assert not any("heavy sun" in text for text in texts)

    def test_the_store_is_whole(self, store):
        assert verify(store) == []


def test_the_store_is_the_same_whatever_the_number_of_workers(tmp_path, folder, tiny_model, encoder):
    wanted = recipe(folder, tiny_model, ALL_STAGES)
    build(wanted, tmp_path / "one", encoder=encoder)
    with LocalExecutor(3) as executor:
        build(wanted, tmp_path / "three", encoder=encoder, executor=executor)
        build(wanted, tmp_path / "again", encoder=encoder, executor=executor)
    assert content(tmp_path / "one") == content(tmp_path / "three") == content(tmp_path / "again")
    assert removed_of(tmp_path / "one") == removed_of(tmp_path / "three")


def test_whole_documents_that_hold_questions_can_be_removed(tmp_path, folder, tiny_model, encoder):
    wanted = recipe(
        folder, tiny_model, '[decontamination]\nquestions = ["questions.txt"]\nremove = "documents"'
    )
    result = build(wanted, tmp_path / "store", encoder=encoder)
    assert (result.removed, result.contaminated) == (1, 1)
    (row,) = removed_of(tmp_path / "store")
    assert (row["document_id"], row["filter"], row["value"]) == ("leak", "decontamination", "questions.txt:1")


def test_a_filter_can_be_for_some_sources_only(tmp_path, folder, tiny_model, encoder):
    path = folder.parent / "recipe.toml"
    path.write_text(
        f"""
        [[sources]]
        path = "data/a.jsonl"
        name = "a"
        [[sources]]
        path = "data/b.jsonl"
        name = "b"
        [[filters]]
        filter = "length"
        min_words = 100000
        sources = ["b"]
        [encoder]
        model = "{tiny_model}"
        dtype = "float32"
        """
    )
    build(load_recipe(path), tmp_path / "store", encoder=encoder)
    lines = ledger_of(tmp_path / "store")["sources"]
    assert [(line["name"], line["documents"], line["removed"]) for line in lines] == [
        ("a", 40, 0),
        ("b", 24, 24),
    ]


def test_filters_that_remove_everything_are_named(tmp_path, folder, tiny_model, encoder):
    wanted = recipe(folder, tiny_model, '[[filters]]\nfilter = "length"\nmin_words = 100000')
    with pytest.raises(EmptyCorpusError, match=r"none of 64 documents: length \(too_few_words\) removed 64"):
        build(wanted, tmp_path / "store", encoder=encoder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[filters]]\nfilter = "lenght"', "Did you mean 'length'"),
        ('[[filters]]\nfilter = "length"\nmin_wrods = 3', "Did you mean 'min_words'"),
        ('[[filters]]\nfilter = "length"\nmin_words = "many"', "expected an integer"),
        ('[decontamination]\nquestions = ["absent.txt"]', "no questions at .*absent.txt"),
    ],
)
def test_a_mistake_in_a_filter_is_told_before_anything_is_read(tmp_path, folder, tiny_model, text, message):
    with pytest.raises(CompactdsError, match=message):
        build(recipe(folder, tiny_model, text), tmp_path / "store")
    assert not (tmp_path / "store" / ".build").exists()


def test_examples_are_few_though_all_that_was_removed_is_listed(tmp_path, write_jsonl, tiny_model, encoder):
    (tmp_path / "data").mkdir()
    short = [{"id": f"s{n}", "text": "Too short."} for n in range(50)]
    write_jsonl(tmp_path / "data" / "a.jsonl", [*short, {"id": "ok", "text": "light of the star " * 9}])
    wanted = recipe(tmp_path / "data", tiny_model, '[[filters]]\nfilter = "length"\nmin_words = 5')
    build(wanted, tmp_path / "store", encoder=encoder)
    rows = removed_of(tmp_path / "store")
    assert len(rows) == 50
    assert [row["document_id"] for row in rows if row["excerpt"]] == ["s0", "s1", "s2", "s3", "s4"]


class TestSurvey:
    def test_says_what_would_be_removed_and_keeps_nothing(self, folder, tiny_model):
        wanted = recipe(folder, tiny_model, ALL_STAGES)
        found = survey(wanted, sample=100)
        assert {row["reason"] for row in found["removed"]} == {
            "too_few_words",
            "same_words",
            "near_duplicate",
        }
        assert found["sources"][0]["documents_out"] == 61
        assert {example["document_id"] for example in found["examples"]} == {"copy", "near", "tiny"}
        assert list(folder.parent.glob("*/.build")) == []

    def test_takes_about_as_many_documents_as_asked_spread_over_files(self, folder, tiny_model):
        assert survey(recipe(folder, tiny_model), sample=10)["sources"][0]["documents"] == 10

    def test_takes_files_that_are_documents_from_all_over_a_folder(self, tmp_path, tiny_model):
        (tmp_path / "data").mkdir()
        for number in range(30):
            (tmp_path / "data" / f"{number:02}.txt").write_text(
                f"light {number} " * (3 if number < 15 else 9)
            )
        wanted = recipe(tmp_path / "data", tiny_model, '[[filters]]\nfilter = "length"\nmin_words = 10')
        found = survey(wanted, sample=10)
        assert (found["sources"][0]["documents"], found["sources"][0]["removed"]) == (10, 5)

    def test_tells_of_a_recipe_that_removes_everything(self, folder, tiny_model):
        wanted = recipe(folder, tiny_model, '[[filters]]\nfilter = "length"\nmin_words = 100000')
        assert survey(wanted)["sources"][0]["removed"] == 64

    def test_counts_broken_records_and_goes_on(self, folder, tiny_model):
        (folder / "b.jsonl").write_text("{broken\n" + (folder / "b.jsonl").read_text())
        assert survey(recipe(folder, tiny_model))["sources"][0]["rejected"] == 1

    def test_of_nothing_is_refused(self, folder, tiny_model):
        with pytest.raises(BuildError, match="sample of 0"):
            survey(recipe(folder, tiny_model), sample=0)


class TestIds:
    @pytest.fixture
    def clashing(self, tmp_path) -> Path:
        (tmp_path / "data").mkdir()
        for name in ("a", "b"):
            rows = "".join(f"{number},words of {name} {number}\n" for number in (1, 2))
            (tmp_path / "data" / f"{name}.csv").write_text("id,text\n" + rows)
        return tmp_path / "data"

    def test_that_clash_are_an_error_that_names_both_places(self, tmp_path, clashing, tiny_model, encoder):
        with pytest.raises(BuildError, match=r"id '1': .*a\.csv:2 and .*b\.csv:2.*--ids file"):
            build(recipe(clashing, tiny_model), tmp_path / "store", encoder=encoder)

    @pytest.mark.parametrize(("ids", "expected"), [("file", "a.csv:1"), ("content", None)])
    def test_can_be_told_apart(self, tmp_path, clashing, tiny_model, encoder, ids, expected):
        changes = {"sources.ids": ids, "encoder.model": str(tiny_model), "encoder.dtype": "float32"}
        build(recipe_for([str(clashing)], changes), tmp_path / "store", encoder=encoder)
        with Datastore.open(tmp_path / "store", encoder=encoder) as store:
            assert store.manifest.documents == 4
            if expected:
                assert store.get(f"{expected}#0").text == "words of a 1"


class TestWorkers:
    def test_are_as_many_as_the_cores_if_nobody_says(self):
        assert 1 <= default_workers() <= 8

    def test_cannot_be_none(self):
        with pytest.raises(BuildError, match="0 workers"):
            LocalExecutor(0)

    def test_tell_of_the_first_mistake_in_the_order_of_files(self, tmp_path, folder, tiny_model, encoder):
        for name in ("c", "d", "e"):
            (folder / f"{name}.jsonl").write_text("{broken\n")
        with LocalExecutor(2) as executor, pytest.raises(RecordError, match=r"c\.jsonl:1") as caught:
            build(recipe(folder, tiny_model), tmp_path / "store", encoder=encoder, executor=executor)
        assert caught.value.reason.startswith("invalid JSON")

    def test_that_are_killed_lose_nothing(self, tmp_path, folder, tiny_model, encoder):
        wanted = recipe(folder, tiny_model, ALL_STAGES)
        build(wanted, tmp_path / "straight", encoder=encoder)

        class KillAWorker(LoggedProgress):
            def __init__(self, executor):
                self.executor = executor

            def stage(self, name, total):
                if name == "splitting":
                    processes = self.executor._pool.processes._processes
                    os.kill(next(iter(processes)), signal.SIGKILL)

        executor = LocalExecutor(2)
        progress = KillAWorker(executor)
        with executor, pytest.raises(BuildError, match="worker process was ended from outside"):
            build(wanted, tmp_path / "store", encoder=encoder, executor=executor, progress=progress)
        assert build(wanted, tmp_path / "store", encoder=encoder).resumed
        assert content(tmp_path / "store") == content(tmp_path / "straight")

    def test_stop_when_the_build_is_stopped(self, tmp_path, folder, tiny_model, encoder):
        class Stop(LoggedProgress):
            def advance(self, amount):
                raise KeyboardInterrupt

        with LocalExecutor(2) as executor, pytest.raises(KeyboardInterrupt):
            build(
                recipe(folder, tiny_model),
                tmp_path / "store",
                encoder=encoder,
                executor=executor,
                progress=Stop(),
            )
        assert executor._pool is None

    def test_end_with_a_build_that_is_killed(self, tmp_path, folder, tiny_model):
        code = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from compactds.configs.recipe import load_recipe\n"
            "from compactds.indexer import pipeline\n"
            "from compactds.indexer.build import build\n"
            "from compactds.indexer.execution import LocalExecutor\n"
            "from compactds.indexer.progress import LoggedProgress\n"
            "pipeline.SHARDS = pipeline.ShardSizes(documents=7)\n"
            "executor = LocalExecutor(2)\n"
            "class Kill(LoggedProgress):\n"
            "    def stage(self, name, total):\n"
            "        if name == 'splitting':\n"
            "            print(*executor._pool.processes._processes, flush=True)\n"
            "            os.kill(os.getpid(), signal.SIGKILL)\n"
            "build(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]), executor=executor, progress=Kill())\n"
        )
        recipe(folder, tiny_model)
        arguments = [sys.executable, "-c", code, str(folder.parent / "recipe.toml"), str(tmp_path / "store")]
        # The pipe ends when the last process that inherited it has ended.
        done = subprocess.run(arguments, check=False, capture_output=True, timeout=120)
        assert done.returncode == -signal.SIGKILL
        assert len(done.stdout.split()) == 2


@pytest.mark.parametrize("text", ["", " ", "one", "a b " * 700_000, "x" * 3_000_000, "é\u2003ü\n" * 900_000])
def test_words_of_long_texts_are_counted_as_those_of_short_ones(text):
    assert spaced_words(text) == len(text.split())


class TestBadInput:
    def test_an_empty_file_among_others_is_passed_over_and_counted(self, tmp_path, tiny_model, encoder):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.txt").write_text("light of the star")
        (tmp_path / "data" / "b.txt").write_text(" \n")
        notes = []

        class Notes(LoggedProgress):
            def note(self, message):
                notes.append(message)

        wanted = recipe(tmp_path / "data", tiny_model)
        result = build(wanted, tmp_path / "store", encoder=encoder, progress=Notes())
        assert (result.documents, result.rejected) == (1, 1)
        assert any("1 file without text" in note and "b.txt" in note for note in notes)
        (rejects,) = (tmp_path / "store").glob("segments/*/rejects.jsonl")
        assert json.loads(rejects.read_text())["reason"] == "no text in the file"

    def test_a_very_long_document_fills_several_shards(self, tmp_path, tiny_model, encoder):
        (tmp_path / "data").mkdir()
        draw = np.random.default_rng(0)
        words = ["light", "of", "the", "star", "sun", "moon"]
        text = " ".join(f"{' '.join(draw.choice(words, 8))}." for _ in range(400))
        (tmp_path / "data" / "a.txt").write_text(text)
        result = build(recipe(tmp_path / "data", tiny_model), tmp_path / "store", encoder=encoder)
        assert result.passages > 100
        with Datastore.open(tmp_path / "store", encoder=encoder) as store:
            joined = " ".join(store.get(f"data/a.txt#{n}").text for n in range(result.passages))
        assert joined == text

    def test_a_file_that_changes_while_it_is_read(self, tmp_path, folder, tiny_model, encoder):
        class Write(LoggedProgress):
            def stage(self, name, total):
                if name == "reading":
                    with (folder / "b.jsonl").open("a") as file:
                        file.write('{"text": "More."}\n')

        with pytest.raises(SourceError, match=r"b\.jsonl changed while it was read"):
            build(recipe(folder, tiny_model), tmp_path / "store", encoder=encoder, progress=Write())

    def test_a_file_that_vanishes_before_it_is_read(self, tmp_path, folder, tiny_model, encoder):
        class Remove(LoggedProgress):
            def stage(self, name, total):
                if name == "reading":
                    (folder / "b.jsonl").unlink(missing_ok=True)

        wanted = recipe(folder, tiny_model)
        with pytest.raises(SourceError, match=r"b\.jsonl cannot be read"):
            build(wanted, tmp_path / "store", encoder=encoder, progress=Remove())
        (folder / "b.jsonl").write_text('{"text": "light of the star"}\n')
        lenient = wanted.model_copy(update={"skip_invalid": True})
        result = build(lenient, tmp_path / "store", encoder=encoder, progress=Remove())
        assert (result.documents, result.rejected) == (40, 1)

    def test_names_and_records_that_are_not_utf8(self, tmp_path, tiny_model, encoder):
        data = tmp_path / "data"
        data.mkdir()
        (Path(os.fsdecode(os.fsencode(data) + b"/\xff.txt"))).write_text("light of the star")
        (Path(os.fsdecode(os.fsencode(data) + b"/\xfe.txt"))).write_bytes(b"\x00binary")
        (data / "b.csv").write_bytes(b'id,text\n1,sun and moon\n2,"b\xffad"x\n')
        wanted = recipe(data, tiny_model).model_copy(update={"skip_invalid": True})
        result = build(wanted, tmp_path / "store", encoder=encoder)
        assert (result.documents, result.rejected) == (2, 2)

    def test_an_input_replaced_by_one_of_the_same_size_and_time(self, tmp_path, folder, tiny_model, encoder):
        wanted = recipe(folder, tiny_model)
        build(wanted, tmp_path / "store", encoder=encoder)
        path = folder / "a.jsonl"
        status = path.stat()
        path.write_bytes(path.read_bytes().replace(b"doc/0", b"doc/X"))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_size == status.st_size
        assert not build(wanted, tmp_path / "store", encoder=encoder).unchanged


class TestBudgets:
    def test_are_spent_in_order_and_not_on_what_is_left_out_anyway(
        self, tmp_path, folder, tiny_model, encoder
    ):
        text = '[[filters]]\nfilter = "budget"\ndocuments = 62\n[duplicates]\n'
        result = build(recipe(folder, tiny_model, text), tmp_path / "store", encoder=encoder)
        assert (result.documents, result.duplicates) == (62, 2)
        text = text.replace("62", "20")
        build(recipe(folder, tiny_model, text), tmp_path / "less", encoder=encoder)
        rows = {row["document_id"]: row["reason"] for row in removed_of(tmp_path / "less")}
        assert set(rows.values()) == {"enough_documents", "same_words", "near_duplicate"}
        assert "doc/19" not in rows
        assert rows["doc/20"] == "enough_documents"

    def test_of_words_are_kept(self, tmp_path, folder, tiny_model, encoder):
        text = '[[filters]]\nfilter = "budget"\nwords = 300\n'
        build(recipe(folder, tiny_model, text), tmp_path / "store", encoder=encoder)
        (line,) = ledger_of(tmp_path / "store")["sources"]
        assert 280 < line["words_out"] <= 300

    def test_that_leave_nothing_are_named(self, tmp_path, folder, tiny_model, encoder):
        text = '[[filters]]\nfilter = "budget"\nwords = 0\n'
        with pytest.raises(EmptyCorpusError, match=r"budget \(enough_words\) removed 64"):
            build(recipe(folder, tiny_model, text), tmp_path / "store", encoder=encoder)
