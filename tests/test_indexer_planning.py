"""A plan counts what can be counted, estimates the rest from a sample, and says which is which."""

import gzip
import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compactds.configs.recipe import recipe_for
from compactds.datastore.ann.choose import BudgetError
from compactds.indexer import counting, ledger
from compactds.indexer.build import build
from compactds.indexer.counting import count_records
from compactds.indexer.errors import BuildError, EmptyCorpusError, SourceError
from compactds.indexer.pipeline import source_options
from compactds.indexer.planning import plan_build, sample_corpus, sampled_vectors
from compactds.indexer.sources import list_input_files, reading

LINES = [json.dumps({"id": str(n), "text": f"light of star {n} " * 20}) + "\n" for n in range(400)]


def count(path, **overrides):
    (options,) = source_options(recipe_for([str(path)], overrides))
    return count_records(options, list_input_files(options))


class TestCounting:
    @pytest.mark.parametrize(("name", "compress"), [("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress)])
    def test_lines_of_small_files_are_counted(self, tmp_path, name, compress):
        (tmp_path / name).write_bytes(compress("".join(LINES).encode()))
        found = count(tmp_path / name)
        assert (found.records, found.counted) == (400, True)

    def test_a_last_line_without_an_end_counts(self, tmp_path):
        (tmp_path / "a.jsonl").write_text("".join(LINES).rstrip("\n"))
        assert count(tmp_path / "a.jsonl").records == 400

    @pytest.mark.parametrize("block", [1 << 20, 7])
    def test_blank_lines_are_no_records(self, tmp_path, monkeypatch, block):
        monkeypatch.setattr(counting, "_READ_BYTES", block)
        (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf\n{"text": "x"}\r\n \t\n\n{"text": "y"}\r\n\r\n  ')
        found = count(tmp_path / "a.jsonl")
        assert (found.records, found.counted) == (2, True)

    def test_records_that_cannot_be_used_are_records(self, tmp_path):
        (tmp_path / "a.json").write_text('[{"text": "x"}, 7, {"text": "y"}, nothing]')
        assert count(tmp_path / "a.json").records == 4

    def test_what_cannot_be_used_is_not_held(self, tmp_path):
        (tmp_path / "a.json").write_text(json.dumps(["x" * 10_000] * 2_000))
        tracemalloc.start()
        try:
            assert count(tmp_path / "a.json").records == 2_000
            assert tracemalloc.get_traced_memory()[1] < 8_000_000  # of 20
        finally:
            tracemalloc.stop()

    def test_those_of_large_files_are_estimated(self, tmp_path, monkeypatch):
        monkeypatch.setattr(counting, "HEAD_BYTES", 20_000)
        monkeypatch.setattr(counting, "_READ_BYTES", 5_000)
        (tmp_path / "a.jsonl").write_text("".join(LINES))
        found = count(tmp_path / "a.jsonl")
        assert not found.counted
        assert found.records == pytest.approx(400, rel=0.05)

    def test_of_many_files_some_are_looked_at(self, tmp_path, monkeypatch):
        monkeypatch.setattr(counting, "LOOKED_AT_FILES", 3)
        for number in range(10):
            (tmp_path / f"{number}.jsonl").write_text("".join(LINES[:40]))
        found = count(tmp_path)
        assert not found.counted
        assert found.records == pytest.approx(400, rel=0.05)

    def test_rows_and_files_are_counted_and_values_with_line_ends_are_not(self, tmp_path):
        (tmp_path / "a.txt").write_text("light")
        (tmp_path / "b.md").write_text("star")
        (tmp_path / "c.json").write_text(json.dumps([{"text": "x"}] * 7))
        pq.write_table(pa.table({"text": ["x"] * 50}), tmp_path / "d.parquet")
        found = count(tmp_path)
        assert (found.records, found.counted) == (59, True)
        (tmp_path / "e.csv").write_text("id,text\n1,a\n2,b\n")
        found = count(tmp_path)
        assert (found.records, found.counted) == (61, False)

    def test_a_limit_is_kept(self, tmp_path):
        (tmp_path / "a.jsonl").write_text("".join(LINES))
        assert count(tmp_path / "a.jsonl", **{"sources.max_documents": 30}).records == 30

    def test_a_dataset_of_the_hub_needs_a_limit(self):
        recipe = recipe_for(["hf:owner/name"])
        (options,) = source_options(recipe)
        with pytest.raises(BuildError, match=r"^How many .* not known before it is read\. Set max_documents"):
            count_records(options, [])
        (options,) = source_options(recipe_for(["owner/name"]))
        with pytest.raises(BuildError, match=r"^There is no file or folder .* Check the path, if"):
            count_records(options, [])
        (options,) = source_options(recipe_for(["hf:owner/name"], {"sources.max_documents": 9}))
        assert count_records(options, []).records == 9

    def test_damaged_files_are_told(self, tmp_path):
        (tmp_path / "a.parquet").write_bytes(b"no table")
        (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
        for name in ("a.parquet", "b.jsonl.gz"):
            with pytest.raises(SourceError, match=name):
                count(tmp_path / name)


@pytest.fixture
def given(tmp_path):
    """Twelve hundred records with vectors of their own."""
    (tmp_path / "r.jsonl").write_text("".join((LINES * 3)[:1200]).replace('"id"', '"number"'))
    draw = np.random.default_rng(0).standard_normal((1_200, 8)).astype(np.float32)
    np.save(tmp_path / "v.npy", draw)
    return recipe_for([str(tmp_path / "r.jsonl")], {"vectors": str(tmp_path / "v.npy")})


class TestPlans:
    def test_vectors_say_exactly_how_many_there_are(self, given, tmp_path):
        planned = plan_build(given, tmp_path)
        assert planned.corpus.counted
        assert (planned.corpus.records, planned.dimension, planned.index.kind) == (1_200, 8, "flat")
        assert sampled_vectors(given).shape == (1_200, 8)

    def test_vectors_that_a_build_leaves_out_are_not_measured(self, given, tmp_path):
        vectors = np.load(tmp_path / "v.npy")
        vectors[3], vectors[700] = np.nan, 0.0
        np.save(tmp_path / "v.npy", vectors)
        kept = sampled_vectors(
            recipe_for(
                [str(tmp_path / "r.jsonl")], {"vectors": str(tmp_path / "v.npy"), "skip_invalid": True}
            )
        )
        assert kept.shape == (1_198, 8)
        assert np.isfinite(kept).all()
        with pytest.raises(BuildError, match=r"^2 sampled vectors are zero or not finite: of records 4, 701"):
            sampled_vectors(given)  # a build refuses them

    @pytest.mark.parametrize("rows", [1_199, 1_201])
    def test_a_vector_too_few_or_too_many_ends_a_plan_as_it_ends_a_build(self, given, tmp_path, rows):
        np.save(tmp_path / "v.npy", np.ones((rows, 8), np.float32))
        with pytest.raises(BuildError) as planned:
            plan_build(given, tmp_path)
        with pytest.raises(BuildError) as built:
            build(given, tmp_path / "store")
        assert str(planned.value) == str(built.value)
        assert f"holds {rows:,} vectors, the sources 1,200 records" in str(planned.value)

    def test_a_sample_of_everything_counts_what_is_not_counted_otherwise(self, given, tmp_path):
        """Lines of csv are not its records; a sample that reaches the end of every file has them all."""
        (tmp_path / "r.csv").write_text("id,text\n" + "".join(f'{n},"a\nb"\n' for n in range(30)))
        recipe = recipe_for([str(tmp_path / "r.csv")], {"vectors": str(tmp_path / "v.npy")})
        with pytest.raises(BuildError, match=r"v\.npy holds 1,200 vectors, the sources 30 records"):
            sample_corpus(recipe)
        assert sample_corpus(recipe, sample=30).records == 1_200  # there may be more than were read

    def test_a_limit_says_how_many_vectors_there_are_unless_records_are_left_out(self, given, tmp_path):
        overrides = {"vectors": str(tmp_path / "v.npy"), "sources.max_documents": 700}
        with pytest.raises(BuildError, match="the sources 700 records"):
            sample_corpus(recipe_for([str(tmp_path / "r.jsonl")], overrides))
        lenient = recipe_for([str(tmp_path / "r.jsonl")], {**overrides, "skip_invalid": True})
        assert sample_corpus(lenient).records == 1_200

    def test_what_a_damaged_file_has_is_not_known_where_records_are_left_out(self, tmp_path):
        """A build counts the damage as one record and leaves out the rest, which no number of rows tells."""
        texts = [f"light of star {number}" for number in range(4_000)]
        pq.write_table(pa.table({"text": texts}), tmp_path / "r.parquet", row_group_size=1_024)
        data = (tmp_path / "r.parquet").read_bytes()
        third = pq.read_metadata(tmp_path / "r.parquet").row_group(2).column(0).data_page_offset
        (tmp_path / "r.parquet").write_bytes(data[:third] + b"\xff" * 64 + data[third + 64 :])
        np.save(tmp_path / "v.npy", np.ones((2_049, 8), np.float32))
        overrides = {"vectors": str(tmp_path / "v.npy"), "skip_invalid": True}
        recipe = recipe_for([str(tmp_path / "r.parquet")], overrides)
        assert build(recipe, tmp_path / "store").passages == 2_048
        assert sample_corpus(recipe).records == 2_049
        np.save(tmp_path / "v.npy", np.ones((4_000, 8), np.float32))
        with pytest.raises(BuildError, match="the sources 2,049 records"):
            sample_corpus(recipe, sample=2_050)  # which reads all there is

    @pytest.mark.parametrize("lenient", [False, True])
    def test_a_sample_of_some_files_is_none_of_everything(self, given, tmp_path, lenient):
        (tmp_path / "texts").mkdir()
        for number in range(30):
            (tmp_path / "texts" / f"{number:02}.txt").write_text("light")
        np.save(tmp_path / "v.npy", np.ones((30, 8), np.float32))
        overrides = {"vectors": str(tmp_path / "v.npy"), "skip_invalid": lenient}
        assert sample_corpus(recipe_for([str(tmp_path / "texts")], overrides), sample=10).records == 30

    def test_records_that_stop_a_build_are_told_before_vectors_that_do_not_fit(self, given, tmp_path):
        with (tmp_path / "r.jsonl").open("r+") as file:
            file.write("x")
        np.save(tmp_path / "v.npy", np.ones((7, 8), np.float32))
        (stop,) = sample_corpus(given).stops
        assert "r.jsonl:1: invalid JSON" in stop

    def test_what_readers_take_to_start_is_not_taken_for_time_of_records(self, given, monkeypatch):
        real, clock, takes = reading._records, [0.0], [1e6]

        def records(*arguments):
            clock[0] += takes.pop() if takes else 1.0  # the first call takes long
            return real(*arguments)

        monkeypatch.setattr(reading, "_records", records)
        monkeypatch.setattr(ledger, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
        assert sample_corpus(given).records_per_s > 1.0
        assert not takes

    def test_a_field_of_vectors_gives_the_dimension(self, tmp_path):
        lines = [json.dumps({"id": str(n), "text": "x", "v": [1.0, n, 2.0]}) + "\n" for n in range(9)]
        (tmp_path / "r.jsonl").write_text("".join(lines))
        recipe = recipe_for([str(tmp_path / "r.jsonl")], {"sources.vector": "v"})
        planned = plan_build(recipe, tmp_path)
        assert (planned.corpus.passages, planned.corpus.exact, planned.dimension) == (9, True, 3)
        assert sampled_vectors(recipe) is None

    def test_a_plan_foretells_passages_and_bytes_of_the_build(self, tmp_path, tiny_model):
        draw = np.random.default_rng(5)
        words = ["light", "of", "star", "sun", "moon", "planet", "orbit", "gravity", "mass", "cell", "blood"]
        with (tmp_path / "r.jsonl").open("w") as file:
            for number in range(900):
                text = " ".join(draw.choice(words, 40 + number % 90)) + "."
                file.write(json.dumps({"id": str(number), "text": text}) + "\n")
        recipe = recipe_for(
            [str(tmp_path / "r.jsonl")], {"encoder": {"model": str(tiny_model)}, "passages.words": 20}
        )
        planned = plan_build(recipe, tmp_path)
        assert planned.corpus.records == 900
        assert not planned.corpus.exact
        assert planned.dimension == 16
        assert planned.encoders.passages_per_s > 0
        assert planned.encoders.dimensions == (16,)
        assert [options["model"] for options in planned.encoders.options] == [str(tiny_model)]
        result = build(recipe, tmp_path / "store")
        assert planned.corpus.passages == pytest.approx(result.passages, rel=0.1)
        actual = result.bytes_per_passage * result.passages
        assert planned.disk_bytes == pytest.approx(actual, rel=0.25)

    def test_filters_count(self, tmp_path):
        (tmp_path / "a.jsonl").write_text("".join(LINES))
        recipe = recipe_for([str(tmp_path / "a.jsonl")])
        filtered = recipe.model_validate(
            {**recipe.model_dump(), "filters": [{"filter": "sample", "share": 0.25}]}
        )
        assert sample_corpus(filtered).passages < 0.5 * sample_corpus(recipe).passages

    def test_nothing_left_is_told(self, tmp_path):
        (tmp_path / "a.jsonl").write_text("".join(LINES))
        recipe = recipe_for([str(tmp_path / "a.jsonl")])
        nothing = recipe.model_validate(
            {**recipe.model_dump(), "filters": [{"filter": "length", "min_words": 10_000}]}
        )
        with pytest.raises(EmptyCorpusError):
            sample_corpus(nothing)

    def test_a_budget_too_small_says_what_would_do(self, given, tmp_path):
        small = given.model_validate({**given.model_dump(), "index": {"memory": "1kB"}})
        with pytest.raises(BudgetError, match="Give at least"):
            plan_build(small, tmp_path)

    def test_vectors_that_are_not_there_are_told(self, given, tmp_path):
        (tmp_path / "v.npy").unlink()
        with pytest.raises(BuildError, match=r"v\.npy"):
            plan_build(given, tmp_path)
