"""`compactds build`: flags become a recipe, a stopped build says how to go on, results are reported."""

import importlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from compactds.cli.main import app
from compactds.configs.recipe import EncoderConfig
from compactds.indexer.build_result import BuildResult, ReplacedStore
from compactds.indexer.embedding_cache import CacheOptions

build_module = importlib.import_module("compactds.indexer.build")

RESULT = BuildResult(
    path=Path("store"),
    documents=3,
    passages=1200,
    seconds=2.0,
    resumed=False,
    unchanged=False,
    rejected=0,
    duplicates=0,
    truncated=0,
    index="flat",
    peak_rss_bytes=1_500_000_000,
    bytes_per_passage=910.4,
)

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, ["build", *map(str, arguments)], prog_name="compactds")


@pytest.fixture
def built(monkeypatch):
    """Replace the build by one that notes its recipe and returns `built.result`."""

    class Built:
        result = RESULT
        recipe = None
        out = None
        cache = None
        replace = None

    def build(recipe, out, *, progress, encoder, executor, cache, replace):
        Built.recipe, Built.out, Built.cache, Built.replace = recipe, out, cache, replace
        progress.stage("reading", None)
        progress.advance(3)
        if isinstance(Built.result, BaseException):
            raise Built.result
        return Built.result

    monkeypatch.setattr(build_module, "build", build)
    return Built


def with_result(built, **changes):
    built.result = BuildResult(**{name: getattr(RESULT, name) for name in RESULT.__slots__} | changes)


def test_every_flag_reaches_the_recipe(built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(
        *("a.jsonl", "b", "--out", "store", "--name", "mine", "--encoder", "e5", "--exact-encoder", "gte"),
        *("--index", "ivf", "--memory", "1GB", "--words", "100", "--no-split", "--skip-invalid"),
        *("--attribute", "year=int64", "--attribute", "a=b=date"),
    )
    assert done.exit_code == 0
    recipe = built.recipe
    assert built.out == Path("store")
    assert [source.path for source in recipe.sources] == [str(tmp_path / "a.jsonl"), str(tmp_path / "b")]
    assert recipe.name == "mine"
    assert recipe.encoder == EncoderConfig(model="e5")
    assert recipe.exact_encoder == EncoderConfig(model="gte")
    assert (recipe.index.kind, recipe.index.memory_bytes) == ("ivf", 10**9)
    assert (recipe.passages.words, recipe.passages.split) == (100, False)
    assert recipe.skip_invalid
    assert recipe.attributes == {"year": "int64", "a=b": "date"}


def test_ready_made_vectors_reach_the_recipe(built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("a.jsonl", "--out", "store", "--vectors", "v.npy")
    assert built.recipe.vectors == tmp_path / "v.npy"
    run("a.jsonl", "--out", "store", "--vector-field", "embedding")
    assert built.recipe.sources[0].vector == "embedding"


def test_flags_win_over_a_recipe(built, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[sources]]\npath = "a"\n[passages]\nwords = 99\n[index]\nkind = "flat"\n')
    run(recipe, "-o", "store", "--words", "50")
    assert (built.recipe.passages.words, built.recipe.index.kind) == (50, "flat")
    assert not built.recipe.skip_invalid


def test_the_printed_recipe_builds_the_same(built, tmp_path):
    printed = run("a.jsonl", "--print-recipe", "--words", "50", "--attribute", "year=int64")
    assert built.recipe is None
    assert tomllib.loads(printed.stdout)["passages"]["words"] == 50
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(printed.stdout)
    assert run(recipe, "--print-recipe").stdout == printed.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "name the folder of the store"),
        (["a", "-o", "s", "--attribute", "year"], "'year' is not NAME=TYPE"),
        (["a", "-o", "s", "--attribute", "=int64"], "'=int64' is not NAME=TYPE"),
        (["a", "-o", "s", "--attribute", "year=int"], "command line: 'year' in [attributes] is 'int'"),
        (["a", "-o", "s", "--memory", "12XB"], "command line: 'memory' in [index] is '12XB'"),
        (["a", "-o", "s", "--words", "0"], "--words"),
        (["a", "-o", "s", "--cache", "c", "--no-cache"], "contradicts --cache"),
        (["a", "-o", "s", "--cache", __file__], "is a file"),
    ],
)
def test_wrong_use_is_told_before_anything_is_read(built, arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert built.recipe is None


def test_vectors_are_kept_in_the_users_cache_or_where_told_or_nowhere(built, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run("a", "-o", "s")
    assert built.cache == CacheOptions(tmp_path / "home" / "compactds")
    usual = built.recipe
    run("a", "-o", "s", "--cache", "mine")
    assert built.cache == CacheOptions(tmp_path / "mine")
    run("a", "-o", "s", "--no-cache")
    assert built.cache is None
    assert built.recipe == usual


def test_a_recipe_that_is_missing_fails_like_any_missing_file(built):
    done = run("absent.toml", "-o", "s")
    assert done.exit_code == 1
    assert "absent.toml: no such file" in done.stderr


def test_a_summary_says_what_was_made_and_what_it_took(built):
    done = run("a", "-o", "store")
    assert done.stdout.splitlines() == [
        "built store",
        "3 documents, 1,200 passages, flat index",
        "2.0 s, 600 passages/s, peak memory 1.5 GB, 910 bytes a passage on disk",
        'next: compactds search store "your question"',
    ]
    assert "reading: 3 done" in done.stderr


def test_a_store_that_takes_no_text_is_not_to_be_searched_with_text(tmp_path):
    records = tmp_path / "records.jsonl"
    records.write_text('{"text": "light"}\n{"text": "heat"}\n')
    np.save(tmp_path / "v.npy", np.eye(2, dtype=np.float32))
    lines = run(records, "-o", tmp_path / "store", "--vectors", tmp_path / "v.npy").stdout.splitlines()
    assert lines[-2:] == [
        "no encoder is named, so queries come as vectors, from Python or over HTTP",
        f"next: compactds serve {tmp_path / 'store'}",
    ]


def test_a_summary_says_what_was_left_out(built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with_result(built, resumed=True, rejected=2, duplicates=3, truncated=4)
    rejects = Path("store") / "segments" / "1-abc" / "rejects.jsonl"
    rejects.parent.mkdir(parents=True)
    rejects.touch()
    lines = run("a", "-o", "store").stdout.splitlines()
    assert lines[0] == "went on and finished store"
    assert f"2 records left out; where and why: {rejects}" in lines
    assert "3 documents occurred twice; one copy is kept" in lines
    assert "4 passages are longer than the encoder reads; what is beyond was cut" in lines


def test_a_summary_says_which_store_was_replaced(built):
    with_result(built, replaced=ReplacedStore("notes", 20, 1051))
    done = run("a.jsonl", "--out", "store")
    assert "replaced the store that was there: 'notes', 1,051 passages of 20 documents" in done.stdout
    found = json.loads(run("a.jsonl", "--out", "store", "--json").stdout)
    assert found["replaced"] == {"name": "notes", "documents": 20, "passages": 1051}


def test_a_store_that_is_up_to_date_is_not_summed_up_again(built):
    with_result(built, unchanged=True, seconds=0.0)
    assert run("a", "-o", "store").stdout.splitlines() == [
        "up to date: store",
        "3 documents, 1,200 passages, flat index",
    ]


def test_json_is_one_document(built):
    report = json.loads(run("a", "-o", "store", "--json").stdout)
    assert report["path"] == "store"
    assert (report["documents"], report["passages"], report["index"]) == (3, 1200, "flat")


def test_a_stopped_build_says_how_to_go_on(built):
    built.result = KeyboardInterrupt()
    done = run("a", "-o", "store")
    assert done.exit_code == 130
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "stopped"  # where nothing is left, there is nothing to go on with
    built.result.add_note("It is kept in x\x1b/y.")
    assert run("a", "-o", "store").stderr.splitlines()[-2:] == ["stopped", "It is kept in x /y."]


def test_a_build_that_fails_says_where_its_work_is_kept(tmp_path):
    (tmp_path / "records.jsonl").write_text("".join(f'{{"text": "text {n}"}}\n' for n in range(5)))
    arguments = (tmp_path / "records.jsonl", "--vectors", tmp_path / "v.npy", "-o", tmp_path / "store")
    np.save(tmp_path / "v.npy", np.ones((4, 3)))
    note = (
        f"What is done is kept in {tmp_path}/store/.build; the same command goes on from there. "
        "With other input or options it may start over."
    )
    assert run(*arguments).stderr.splitlines()[-1] == note
    assert run(*arguments, "--debug").stderr.count(note) == 1
    np.save(tmp_path / "v.npy", np.ones((5, 3)))
    assert run(*arguments).stdout.startswith("went on and finished")


def test_a_missing_source_fails_without_a_store(tmp_path):
    done = run(tmp_path / "absent.jsonl", "-o", tmp_path / "store", "--vectors", tmp_path / "v.npy")
    assert done.exit_code == 1
    assert "absent.jsonl" in done.stderr
    assert not (tmp_path / "store").exists()


def test_records_with_vectors_become_a_store(tmp_path):
    records = tmp_path / "records.jsonl"
    records.write_text("".join(f'{{"id": "{n}", "text": "text {n}", "year": {n}}}\n' for n in range(5)))
    np.save(tmp_path / "v.npy", np.eye(5, dtype=np.float32))
    arguments = (records, "-o", tmp_path / "store", "--vectors", tmp_path / "v.npy", "--json")
    report = json.loads(run(*arguments).stdout)
    assert (report["documents"], report["passages"], report["unchanged"]) == (5, 5, False)
    assert json.loads(run(*arguments).stdout)["unchanged"]


@pytest.mark.parametrize(
    "array",
    [None, np.ones((5, 3), int), np.ones(5), np.zeros((5, 3)), np.full((5, 3), 1e300), np.ones((4, 3))],
    ids=["missing", "integers", "flat", "zeros", "too large", "too few"],
)
def test_vectors_that_cannot_be_used_end_a_plan_as_they_end_a_build(tmp_path, array):
    (tmp_path / "records.jsonl").write_text("".join(f'{{"text": "text {n}"}}\n' for n in range(5)))
    if array is not None:
        np.save(tmp_path / "v.npy", array)
    arguments = (tmp_path / "records.jsonl", "--vectors", tmp_path / "v.npy", "-o", tmp_path / "store")
    built, planned = run(*arguments), run(*arguments, "--plan")
    assert (built.exit_code, planned.exit_code) == (1, 1)
    told, foretold = (done.stderr[done.stderr.index("error: ") :] for done in (built, planned))
    assert told.splitlines()[:2] == foretold.replace(" sampled", "").splitlines()


@pytest.mark.parametrize("flags", [[], ["--replace"]])
def test_a_store_that_grew_is_built_over_if_the_flag_says_so(built, tmp_path, flags):
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "a"}\n')
    assert run(source, "--out", tmp_path / "store", *flags).exit_code == 0
    assert built.replace == bool(flags)


def test_a_limit_on_the_size_of_files_is_told_and_nothing_is_lost(tmp_path):
    """As on a full disk, the same command goes on; which disk has room is no help here."""
    rows = [{"id": f"d{n}", "text": f"{n} words " * 400, "vector": [n + 1, 1]} for n in range(400)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = (
        "import resource, sys\n"
        "from compactds.cli.main import app\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))\n"
        "app(['build', 'a.jsonl', '--vector-field', 'vector', '--workers', '1', '--out', 'store'])\n"
    )
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(  # what measures coverage would write files, too
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=unmeasured,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "error: the system does not let a file in store grow any further" in done.stderr
    assert "Raise the limit" in done.stderr
    assert "Traceback" not in done.stderr
    found = run(tmp_path / "a.jsonl", "--vector-field", "vector", "--out", tmp_path / "store", "--no-cache")
    assert found.exit_code == 0, found.output
    assert "400 documents" in found.output


def test_a_misspelt_filter_is_wrong_use_as_a_misspelt_key_is(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[sources]]\npath = "a.txt"\n[[filters]]\nfilter = "lenght"\n')
    (tmp_path / "a.txt").write_text("light")
    done = run(recipe, "--out", tmp_path / "store")
    assert done.exit_code == 2
    assert "Did you mean 'length'?" in done.stderr


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("where", "note"),
    [
        (
            "yaer IS NULL OR year >= 2",
            "attribute 'yaer', which a filter's condition asks for. Did you mean 'year'?",
        ),
        ("year >= 2 AND nosuch = 3", "attribute 'nosuch', which a filter's condition asks for."),
        ("year >= 2 AND (title IS NULL OR source = 'x' OR document_id != 'x')", None),
        ("rare = 1 OR year >= 2", None),  # one document has it, which an earlier filter removed
    ],
)
def test_an_attribute_that_a_filter_asks_for_and_no_document_has_is_noted(tmp_path, where, note, dry_run):
    rows = [f'{{"id": "{n}", "text": "text {n}", "year": {n}, "vector": [{n}, 1]}}\n' for n in range(1, 6)]
    rows.append('{"id": "r", "text": "z", "year": -1, "rare": 1, "vector": [7, 1]}\n')
    (tmp_path / "records.jsonl").write_text("".join(rows))
    table = '[[sources]]\npath = "records.jsonl"\nvector = "vector"\n[[filters]]\nfilter = "where"\n'
    first = f'{table}where = "year > 0"\n[[filters]]\nfilter = "where"\nwhere = "{where}"\nname = "second"\n'
    (tmp_path / "recipe.toml").write_text(first)
    done = run(tmp_path / "recipe.toml", "-o", tmp_path / "store", *["--dry-run"] * dry_run)
    if note is None:
        assert done.exit_code == 0, done.output
        assert "No document has" not in done.output
    else:
        assert f"No document has the {note}" in " ".join(done.stderr.split())
