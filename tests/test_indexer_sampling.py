"""A sample is like the whole, of all kinds of files, and what of it would stop a build is told."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compactds.configs.recipe import recipe_for
from compactds.indexer.build import build
from compactds.indexer.errors import BuildError, RecordError
from compactds.indexer.pipeline import source_options
from compactds.indexer.planning import sample_corpus
from compactds.indexer.sampling import choose_sample
from compactds.indexer.sources import list_input_files
from compactds.indexer.survey import survey


def lines(count, name="r"):
    texts = (f"light of the star {name} {n}" for n in range(count))
    return "".join(json.dumps({"id": f"{name}{n}", "text": text}) + "\n" for n, text in enumerate(texts))


def sampled(path, wanted):
    options = source_options(recipe_for([str(path)]))
    chosen = choose_sample(options, [list_input_files(one) for one in options], wanted)
    return {task.files[0].name: task.limit for task in chosen.tasks}, chosen


@pytest.fixture
def mixed(tmp_path):
    """Twenty-one texts and a file of 24 records."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(21):
        (folder / f"{number:02}.txt").write_text(f"moon {number}")
    (folder / "records.jsonl").write_text(lines(24))
    return folder


class TestWhatIsSampled:
    def test_is_everything_if_that_is_no_more_than_was_asked_for(self, mixed):
        (line,) = survey(recipe_for([str(mixed)]), sample=1000)["sources"]
        assert line["documents"] == 45
        (line,) = survey(recipe_for([str(mixed)]), sample=45)["sources"]
        assert line["documents"] == 45

    def test_is_of_every_kind_of_file_as_much_as_there_is_of_it(self, mixed):
        limits, chosen = sampled(mixed, 15)
        assert limits["records.jsonl"] == 8
        assert sum(limits.values()) == 15
        assert (chosen.files, chosen.all_files) == (8, 22)
        assert list(limits) == sorted(limits)
        assert survey(recipe_for([str(mixed)]), sample=15)["sources"][0]["documents"] == 15

    @pytest.mark.parametrize("wanted", [1, 2, 3])
    def test_is_no_more_than_was_asked_for(self, mixed, wanted):
        assert sum(sampled(mixed, wanted)[0].values()) == wanted

    def test_is_more_of_larger_files(self, tmp_path):
        for name, count in (("a", 300), ("b", 100)):
            (tmp_path / f"{name}.jsonl").write_text(lines(count))
        assert sampled(tmp_path, 40)[0] == {"a.jsonl": 29, "b.jsonl": 11}

    def test_is_of_many_files_if_they_are_small_and_of_few_if_large(self, tmp_path):
        for number in range(60):
            (tmp_path / f"{number:02}.jsonl").write_text(lines(5))
        assert len(sampled(tmp_path, 1000)[0]) == 60
        assert len(sampled(tmp_path, 200)[0]) == 40
        assert len(sampled(tmp_path, 60)[0]) == 20

    def test_counts_rows_and_guesses_where_it_would_have_to_read_all(self, tmp_path):
        pq.write_table(pa.table({"text": ["x"] * 30}), tmp_path / "a.parquet")
        (tmp_path / "b.json").write_text(json.dumps([{"text": "y" * 1900}] * 10))
        (tmp_path / "c.parquet").write_bytes(b"damaged")
        limits, _ = sampled(tmp_path, 20)
        assert limits == {"a.parquet": 14, "b.json": 5, "c.parquet": 1}


def told_by_build(path, out, encoder):
    with pytest.raises(BuildError) as caught:
        build(recipe_for([str(path)]), out, encoder=encoder)
    return str(caught.value)


class TestWhatWouldStopABuild:
    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("broken.pdf", b"%PDF-1.4 broken"),
            ("x.jsonl", b'{"text": "fine"}\n{"txet": "x"}\n'),
            ("x.jsonl.gz", b"no gzip"),
            ("x.html", b"\x00\x01"),
            ("x.parquet", b"no table"),
        ],
    )
    def test_is_told_in_the_words_of_the_build(self, mixed, tmp_path, name, data):
        (mixed / name).write_bytes(data)
        recipe = recipe_for([str(mixed)])
        expected = told_by_build(mixed, tmp_path / "store", None)
        assert name in expected
        assert survey(recipe)["stops"] == [expected]
        assert sample_corpus(recipe).stops == (expected,)

    def test_is_nothing_where_broken_records_are_left_out(self, mixed):
        (mixed / "broken.pdf").write_bytes(b"%PDF-1.4 broken")
        recipe = recipe_for([str(mixed)], {"skip_invalid": True})
        assert survey(recipe)["stops"] == []
        assert sample_corpus(recipe).stops == ()

    def test_is_no_empty_file(self, mixed):
        (mixed / "empty.txt").write_text("")
        assert survey(recipe_for([str(mixed)]))["stops"] == []

    def test_is_the_error_itself_where_nothing_can_be_used(self, tmp_path):
        (tmp_path / "a.jsonl").write_text("{broken\n")
        for sample in (survey, sample_corpus):
            with pytest.raises(RecordError, match=r"a\.jsonl:1: invalid JSON"):
                sample(recipe_for([str(tmp_path)]))

    def test_is_told_of_a_file_that_may_not_be_read(self, mixed, monkeypatch):
        closed, read_bytes = mixed / "00.txt", Path.read_bytes

        def refusing(path):
            if path == closed:
                raise PermissionError(13, "Permission denied", str(path))
            return read_bytes(path)

        monkeypatch.setattr("os.access", lambda path, mode: path != closed)
        monkeypatch.setattr(Path, "read_bytes", refusing)
        (stop,) = survey(recipe_for([str(mixed)]))["stops"]
        assert stop.startswith(f"{closed} cannot be read: Permission denied.")

    def test_is_told_of_a_dataset_of_the_hub(self, monkeypatch):
        class Examples(list):
            column_names = None

        module = ModuleType("datasets")
        module.load_dataset = lambda *_, **__: Examples([{"text": "a"}, {"text": 5}])
        monkeypatch.setitem(sys.modules, "datasets", module)
        (stop,) = survey(recipe_for(["hf:owner/name"]))["stops"]
        assert stop.startswith("hf:owner/name[train]: row 2: the text in 'text' must be a string")
