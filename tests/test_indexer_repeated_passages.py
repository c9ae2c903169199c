"""Passages that repeat an earlier one are left out of a build: the same ones whoever does it, all told of."""

import json
import os
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from compactds.cli.ledger import ledger_page, ledger_tables
from compactds.configs.errors import ConfigError
from compactds.configs.recipe import recipe_for
from compactds.datastore import Datastore
from compactds.datastore.comparing import diff
from compactds.datastore.encoders import EncoderOptions, load_encoder
from compactds.datastore.errors import PassageNotFoundError
from compactds.datastore.verify import verify
from compactds.indexer.adding import add
from compactds.indexer.build import build
from compactds.indexer.compacting import compact
from compactds.indexer.deleting import delete
from compactds.indexer.execution import LocalExecutor
from compactds.indexer.removals import read_examples
from compactds.indexer.survey import survey
from compactds.indexer.workspace import ShardSizes

SETTINGS = {"passages.words": 12, "encoder.dtype": "float32"}
DUPLICATES = {"level": "passage", "words": 2, "threshold": 0.6}


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return load_encoder(EncoderOptions(model=str(tiny_model), dtype="float32"))


@pytest.fixture(autouse=True, scope="module")
def small_shards():
    sizes = ShardSizes(documents=7, passages=5, task_characters=900)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compactds.indexer.pipeline.SHARDS", sizes)
        yield


@pytest.fixture(scope="module")
def sentences(records) -> list[str]:
    """Sentences of eight words, each a passage of its own here, no two alike."""
    found = [part.strip() + "." for record in records for part in record["text"].split(".") if part.strip()]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def corpus(sentences, write_jsonl, tmp_path_factory) -> Path:
    """Documents of a few passages, some of which stand in others, too: as they are, or one word off."""
    draw = np.random.default_rng(3)
    footer, near = sentences[0], sentences[1].split()
    texts = []
    for number in range(30):
        parts = sentences[5 + 4 * number : 8 + 4 * number]
        if number % 3 == 0:
            parts.insert(int(draw.integers(4)), footer)
        if number % 7 == 1:
            changed = [*near]
            changed[-1] = f"{number}."
            parts.insert(0, " ".join(changed))
        texts.append(parts)
    texts.insert(20, [footer.upper(), *texts[4]])  # nothing of it is new
    texts.insert(11, [texts[2][1], texts[2][1]])
    texts.append([*texts[9][1:], sentences[4]])
    rows = [{"id": f"d{number}", "title": "", "text": " ".join(parts)} for number, parts in enumerate(texts)]
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "texts.jsonl", rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, corpus, tiny_model, encoder) -> Path:
    """A store of all passages."""
    out = tmp_path_factory.mktemp("whole") / "store"
    build(recipe(corpus, tiny_model, None), out, encoder=encoder)
    return out


@pytest.fixture(scope="module")
def built(tmp_path_factory, corpus, tiny_model, encoder) -> Path:
    """A store without passages that repeat others."""
    out = tmp_path_factory.mktemp("built") / "store"
    build(recipe(corpus, tiny_model), out, encoder=encoder)
    return out


@pytest.fixture
def store(built, tmp_path) -> Path:
    shutil.copytree(built, tmp_path / "store", copy_function=os.link)
    (tmp_path / "store" / ".build.lock").unlink()
    return tmp_path / "store"


def recipe(corpus: Path, model: Path, duplicates: dict | None = DUPLICATES):
    changes = {**SETTINGS, "encoder.model": str(model)}
    return recipe_for([str(corpus)], changes | ({"duplicates": duplicates} if duplicates else {}))


def passages(path: Path, encoder) -> dict[str, str]:
    """Return the ids and texts of a store's passages in the order of its rows."""
    with Datastore.open(path, encoder=encoder) as store:
        return {
            passage.id: passage.text
            for segment in store._open_segments
            for passage in segment.passages.fetch(range(segment.rows))
        }


def repeated(texts: dict[str, str], runs_of: int, threshold: float) -> dict[str, str]:
    """Return which passages repeat an earlier one that is kept, and the first such, by a plain reading."""
    kept: dict[str, set[tuple[str, ...]]] = {}
    found = {}
    for name, text in texts.items():
        words = "".join(c if c.isalnum() else " " for c in text.casefold()).split()
        runs = {tuple(words[start : start + runs_of]) for start in range(max(1, len(words) - runs_of + 1))}
        alike = (other for other, known in kept.items() if len(runs & known) >= threshold * len(runs | known))
        copy = next(alike, None) if words else None
        if copy is None:
            kept[name] = runs
        else:
            found[name] = copy
    return found


def content(store: Path) -> list:
    segments = json.loads((store / "manifest.json").read_text())["segments"]
    for segment in segments:
        del segment["files"]["ledger.json"], segment["calibration"], segment["costs"]
    return segments


def ledger_of(store: Path) -> dict:
    (path,) = store.glob("segments/*/ledger.json")
    return json.loads(path.read_text())


def removed_of(store: Path) -> list[dict]:
    (path,) = store.glob("segments/*/removed.parquet")
    return pq.read_table(path).to_pylist()


class TestWhatIsLeftOut:
    def test_are_the_passages_that_repeat_an_earlier_one(self, whole, store, encoder):
        everything = passages(whole, encoder)
        expected = repeated(everything, 2, 0.6)
        assert passages(store, encoder) == {
            name: text for name, text in everything.items() if name not in expected
        }
        rows = [row for row in removed_of(store) if row["position"] is not None]
        told = {f"{row['document_id']}#{row['position']}": row["value"] for row in rows}
        assert told == expected
        assert Counter(row["reason"] for row in rows).keys() == {"same_words", "near_duplicate"}
        assert verify(store) == []

    def test_numbers_of_passages_stay_and_are_found(self, whole, store, encoder):
        left = passages(store, encoder)
        with Datastore.open(store, encoder=encoder) as opened:
            for name, text in passages(whole, encoder).items():
                if name in left:
                    assert opened.get(name).text == text
                else:
                    with pytest.raises(PassageNotFoundError):
                        opened.get(name)
        firsts = {name.partition("#")[0] for name in left} - {
            name.partition("#")[0] for name in left if name.endswith("#0")
        }
        assert firsts, "documents whose first passage is left out"

    def test_a_document_with_nothing_left_is_told_of(self, store, encoder):
        rows = {row["document_id"]: row for row in removed_of(store) if row["position"] is None}
        assert rows.keys() == {"d11", "d21"}
        row = rows["d21"]
        assert (row["filter"], row["reason"]) == ("duplicate_passages", "no_passage_left")
        assert (row["value"], row["words"]) == ("d0#" + row["value"][-1], 32)
        assert row["origin"] == "texts.jsonl:22"
        assert row["excerpt"]
        with Datastore.open(store, encoder=encoder) as opened:
            assert opened.manifest.documents == 31
            assert opened.count("document_id = 'd21'") == 0

    def test_is_counted(self, store, whole, encoder):
        ledger = ledger_of(store)
        (line,) = ledger["sources"]
        rows = removed_of(store)
        dropped = [row for row in rows if row["position"] is not None]
        assert (line["documents"], line["removed"], line["duplicates"], line["documents_out"]) == (
            33,
            2,
            2,
            31,
        )
        assert line["duplicate_passages"] == len(dropped)
        assert line["passages"] == ledger["passages"] == len(passages(store, encoder))
        assert line["passages"] + line["duplicate_passages"] == len(passages(whole, encoder))
        assert line["words"] == line["words_out"] + sum(row["words"] for row in dropped)
        assert ledger["removed"] == [
            {
                "source": "texts",
                "filter": "duplicate_passages",
                "reason": "no_passage_left",
                "documents": 2,
                "words": 0,
            }
        ]
        kinds = {row["reason"]: (row["passages"], row["words"]) for row in ledger["removed_passages"]}
        assert kinds == {
            reason: (len(own := [row["words"] for row in dropped if row["reason"] == reason]), sum(own))
            for reason in ("same_words", "near_duplicate")
        }
        assert "deduplicate passages" in ledger["seconds"]

    def test_is_shown_with_examples(self, store):
        (path,) = store.glob("segments/*/removed.parquet")
        examples = read_examples(path)
        assert sum(row["reason"] == "same_words" for row in examples) == 5
        ledger = {**ledger_of(store), "examples": examples}
        titles = dict(ledger_tables(ledger))
        assert "same_words" in "\n".join(titles["removed passages"])
        page = Text()
        page.feed(ledger_page("mine", ledger))
        passage = next(row for row in examples if row["reason"] == "same_words")
        name = f"{passage['document_id']}#{passage['position']}"
        assert f"{name}, texts.jsonl:" in page.text
        assert "Removed passages" in page.text

    def test_words_cut_in_two_count_once(self, tmp_path, write_jsonl, tiny_model, encoder):
        long = "力" * 200
        rows = [
            {"id": name, "text": text} for name, text in (("a", f"{long} the end"), ("b", f"{long} the end"))
        ]
        path = write_jsonl(tmp_path / "long.jsonl", rows)
        build(recipe(path, tiny_model), tmp_path / "store", encoder=encoder)
        (line,) = ledger_of(tmp_path / "store")["sources"]
        assert (line["documents_out"], line["words_out"]) == (1, 3)


class Text(HTMLParser):
    """Gather the text of a page."""

    text = ""

    def handle_data(self, data):
        self.text += data


def test_the_store_is_the_same_whatever_the_number_of_workers(tmp_path, store, corpus, tiny_model, encoder):
    with LocalExecutor(2) as executor:
        build(recipe(corpus, tiny_model), tmp_path / "two", encoder=encoder, executor=executor)
    assert content(tmp_path / "two") == content(store)
    assert removed_of(tmp_path / "two") == removed_of(store)


def test_a_build_stopped_at_any_moment_goes_on_to_the_same_store(
    tmp_path, store, corpus, tiny_model, encoder, monkeypatch
):
    """Whatever is left on the disk was flushed, so each flush is a moment to stop at."""
    flush, left = os.fsync, 0

    def stop(descriptor):
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", stop)
    wanted, stops = recipe(corpus, tiny_model), 0
    for moment in range(20, 2000, 7):
        left = moment % 37 + 3
        try:
            build(wanted, tmp_path / "other", encoder=encoder)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 4
    assert content(tmp_path / "other") == content(store)
    (line,), (expected,) = ledger_of(tmp_path / "other")["sources"], ledger_of(store)["sources"]
    assert line | {"cached": 0} == expected | {"cached": 0}


def test_other_passages_of_the_same_documents_are_compared_anew(tmp_path, corpus, tiny_model, encoder):
    wanted = recipe(corpus, tiny_model)
    longer = wanted.model_copy(update={"passages": wanted.passages.model_copy(update={"words": 300})})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compactds.indexer.build_run.encode_shards", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(wanted, tmp_path / "store", encoder=encoder)
    build(longer, tmp_path / "store", encoder=encoder)
    build(longer, tmp_path / "fresh", encoder=encoder)
    assert content(tmp_path / "store") == content(tmp_path / "fresh")
    assert (
        ledger_of(tmp_path / "store")["removed_passages"] == ledger_of(tmp_path / "fresh")["removed_passages"]
    )


def _interrupt(*_, **__):
    raise KeyboardInterrupt


def test_documents_can_be_compared_first(tmp_path, sentences, write_jsonl, tiny_model, encoder):
    a, b, c, d = sentences[:4]
    texts = [[a, b, c], [a, b, c], [c, d], [d, a]]
    rows = [{"id": f"d{number}", "text": " ".join(parts)} for number, parts in enumerate(texts)]
    path = write_jsonl(tmp_path / "few.jsonl", rows)
    found = {}
    for level in ("document", "passage", "both"):
        build(recipe(path, tiny_model, {"level": level}), tmp_path / level, encoder=encoder)
        (line,) = ledger_of(tmp_path / level)["sources"]
        kinds = {
            (row["document_id"], row["reason"])
            for row in removed_of(tmp_path / level)
            if row["position"] is None
        }
        found[level] = list(passages(tmp_path / level, encoder)), line["duplicate_passages"], kinds
    firsts = ["d0#0", "d0#1", "d0#2"]
    gone = ("d3", "no_passage_left")
    assert found["document"] == (
        [*firsts, "d2#0", "d2#1", "d3#0", "d3#1"],
        0,
        {("d1", "same_words")},
    )
    assert found["passage"] == ([*firsts, "d2#1"], 6, {("d1", "no_passage_left"), gone})
    assert found["both"] == ([*firsts, "d2#1"], 3, {("d1", "same_words"), gone})


@pytest.mark.parametrize("beside", [True, False])
def test_ready_made_vectors_stay_with_their_documents(tmp_path, write_jsonl, beside):
    vectors = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
    rows = [{"id": f"d{number}", "text": f"Text {number % 8} of many words."} for number in range(12)]
    changes: dict = {"duplicates": {"level": "passage", "near": False}, "exact.dtype": "float32"}
    if beside:
        np.save(tmp_path / "v.npy", vectors)
        changes["vectors"] = str(tmp_path / "v.npy")
    else:
        rows = [{**row, "vector": vector.tolist()} for row, vector in zip(rows, vectors, strict=True)]
        changes["sources.vector"] = "vector"
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert build(recipe_for([str(path)], changes), tmp_path / "store").duplicate_passages == 4
    with Datastore.open(tmp_path / "store") as store:
        assert store.count() == 8
        for number in range(8):
            (hit,) = store.search(vectors=vectors[number], k=1, where=f"document_id = 'd{number}'")
            assert hit.score == pytest.approx(float(vectors[number] @ vectors[number]), rel=1e-5)


class TestSurvey:
    def test_tells_of_passages_too(self, corpus, tiny_model):
        found = survey(recipe(corpus, tiny_model), sample=100)
        assert {row["reason"] for row in found["removed_passages"]} == {"same_words", "near_duplicate"}
        (line,) = found["sources"]
        assert (line["documents_out"], line["duplicates"]) == (31, 2)
        assert {row["reason"] for row in found["examples"]} == {
            "same_words",
            "near_duplicate",
            "no_passage_left",
        }

    def test_splits_nothing_if_only_documents_are_compared(self, corpus, tiny_model):
        (line,) = survey(recipe(corpus, tiny_model, {}), sample=100)["sources"]
        assert line["passages"] == line["duplicate_passages"] == 0


class TestGrowth:
    @pytest.fixture
    def more(self, tmp_path, sentences, write_jsonl):
        def write(**texts):
            rows = [
                {"id": name, "text": " ".join(sentences[n] for n in parts)} for name, parts in texts.items()
            ]
            return [str(write_jsonl(tmp_path / "more.jsonl", rows))]

        return write

    def test_passages_are_compared_among_those_added(self, store, more, encoder):
        before = passages(store, encoder)
        result = add(store, more(n1=[0, 150, 151], n2=[150, 152], n3=[151]), encoder=encoder)
        assert (result.documents, result.passages, result.duplicates) == (2, 4, 1)
        assert [name for name in passages(store, encoder) if name not in before] == [
            "n1#0",
            "n1#1",
            "n1#2",
            "n2#1",
        ]
        with Datastore.open(store, encoder=encoder) as opened:
            assert opened.get("n2#1").position == 1

    def test_a_document_is_replaced_though_its_first_passage_is_left_out(self, store, more, encoder):
        result = add(store, more(n1=[150], d0=[150, 151]), replace=True, encoder=encoder)
        assert (result.documents, result.replaced) == (2, 1)
        with Datastore.open(store, encoder=encoder) as opened:
            assert opened.count("document_id = 'd0'") == 1
            assert opened.get("d0#1").position == 1

    def test_one_with_nothing_left_replaces_nothing(self, store, more, encoder):
        result = add(store, more(n1=[150], d0=[150]), replace=True, encoder=encoder)
        assert (result.documents, result.replaced, result.duplicates) == (1, 0, 1)

    def test_compacting_and_comparing_keep_numbers(self, tmp_path, store, whole, more, encoder):
        add(store, more(n1=[150], n2=[150, 151]), encoder=encoder)
        delete(store, ids=["d3"])
        left = {name: text for name, text in passages(store, encoder).items() if not name.startswith("d3#")}
        result = compact(store)
        assert passages(store, encoder) == left
        assert result.documents == len({name.partition("#")[0] for name in left})
        assert verify(store) == []
        rows = removed_of(store)
        assert {row["document_id"] for row in rows if row["position"] is None} == {"d11", "d21"}
        with Datastore.open(store, encoder=encoder) as opened:
            assert all(opened.get(name).text == text for name, text in left.items())
        found = diff(store, whole)
        assert set(found.only_in_second.examples) == {"d11", "d21", "d3"}
        assert found.only_in_first.examples == ("n1", "n2")


@pytest.mark.parametrize("level", ["documents", "Passage", "", True, None, 3])
def test_a_level_that_does_not_exist_is_refused(corpus, tiny_model, level):
    with pytest.raises(ConfigError, match=r"'level' in \[duplicates\] is .*'document', 'passage' or 'both'"):
        recipe(corpus, tiny_model, {"level": level})
