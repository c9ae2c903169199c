"""What a recipe would remove, and what a build did, as tables, JSON and one page of HTML."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from compactds.cli.ledger import example_lines, ledger_page, merged
from compactds.cli.main import app
from compactds.configs.recipe import load_recipe
from compactds.datastore.manifest import read_manifest
from compactds.indexer.build import build
from compactds.indexer.errors import BuildError
from compactds.indexer.stored_recipe import stored_recipe

runner = CliRunner()
HOSTILE = "<script>alert(1)</script> & \u001b[31m"


def run(*arguments):
    return runner.invoke(app, list(map(str, arguments)), prog_name="compactds")


@pytest.fixture
def recipe(tmp_path) -> Path:
    texts = [f"one two three four {number}" for number in range(8)] + [HOSTILE, "short", texts_copy()]
    lines = [json.dumps({"id": f"d{number}", "text": text}) for number, text in enumerate(texts)]
    (tmp_path / "notes.jsonl").write_text("\n".join(lines))
    np.save(tmp_path / "v.npy", np.eye(11, dtype=np.float32))
    path = tmp_path / "mine.toml"
    path.write_text(
        'vectors = "v.npy"\n[[sources]]\npath = "notes.jsonl"\n'
        '[[filters]]\nfilter = "length"\nmin_words = 4\n[duplicates]\n'
    )
    return path


def texts_copy() -> str:
    return "ONE two three four 3"


@pytest.fixture
def store(tmp_path, recipe) -> Path:
    build(load_recipe(recipe), tmp_path / "store")
    return tmp_path / "store"


class Tags(HTMLParser):
    """Check that all elements are closed in order, and gather the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_text(page: str) -> str:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return " ".join(" ".join(tags.text).split())


class TestDryRun:
    def test_shows_what_would_go_and_why_and_builds_nothing(self, tmp_path, recipe):
        done = run("build", recipe, "--dry-run", "--workers", "1")
        assert done.exit_code == 0, done.stderr
        assert "length" in done.stdout
        assert "too_few_words" in done.stdout
        assert "notes.jsonl:10" in done.stdout
        assert "8 of 11 documents sampled in 1 of 1 file would be kept; nothing was built" in done.stdout
        assert "\u001b" not in done.stdout
        assert not list(tmp_path.glob("**/manifest.json"))

    def test_names_what_would_stop_the_build(self, tmp_path, recipe):
        for number in range(7):
            (tmp_path / f"{number}.jsonl").write_text("{broken\n" if number else '{"text": "x"}\n')
        done = run("build", tmp_path, "--dry-run", "--workers", "1")
        assert done.exit_code == 0, done.stderr
        assert (
            "6 of the files sampled cannot be used as they are, and the build would stop there" in done.stdout
        )
        assert f"{tmp_path / '1.jsonl'}:1: invalid JSON" in done.stdout
        assert "6.jsonl:1" not in done.stdout
        done = run("build", tmp_path, "--dry-run", "--workers", "1", "--skip-invalid")
        assert "would stop" not in done.stdout

    def test_as_json(self, recipe):
        found = json.loads(run("build", recipe, "--dry-run", "--sample", "4", "--json").stdout)
        assert found["sources"][0]["documents"] == 4
        assert found["removed"] == found["examples"] == []

    def test_as_a_page(self, tmp_path, recipe):
        run("build", recipe, "--dry-run", "--ledger", tmp_path / "page.html")
        text = page_text((tmp_path / "page.html").read_text())
        assert "mine: a sample" in text
        assert "8 of 43 words" not in text
        assert "11 documents" in text

    def test_a_page_needs_a_dry_run(self, tmp_path, recipe):
        done = run("build", recipe, "--ledger", tmp_path / "page.html", "-o", tmp_path / "s")
        assert done.exit_code == 2
        assert "goes with --dry-run" in done.stderr

    def test_a_mistake_in_a_filter_is_told_when_the_recipe_is_printed(self, recipe):
        recipe.write_text(recipe.read_text().replace('"length"', '"lenght"'))
        done = run("build", recipe, "--print-recipe")
        assert done.exit_code != 0
        assert "Did you mean 'length'?" in done.stderr

    def test_an_unknown_executor_is_refused(self, recipe):
        done = run("build", recipe, "--dry-run", "--executor", "slurm")
        assert done.exit_code == 2
        assert "'slurm' is neither local nor ray" in done.stderr


class TestInspect:
    def test_shows_what_was_removed(self, store):
        text = run("inspect", store).stdout
        assert "too_few_words" in text
        assert "same_words" in text
        assert "documents out" in text

    def test_exports_a_page_that_is_safe_and_complete(self, tmp_path, store):
        done = run("inspect", store, "--ledger", tmp_path / "page.html")
        assert done.stdout == f"wrote {tmp_path / 'page.html'}\n"
        page = (tmp_path / "page.html").read_text()
        assert "<script" not in page
        assert "http" not in page
        text = page_text(page)
        assert "11 documents of 49 words were read, 8 of 40 words stay, as 8 passages." in text
        assert "alert(1)" in text
        assert "d9, notes.jsonl:10: 1 (limit 4), 1 words" in text
        assert "faiss-cpu" in text

    def test_exports_json_with_examples(self, tmp_path, store):
        run("inspect", store, "--ledger", tmp_path / "account.json")
        account = json.loads((tmp_path / "account.json").read_text())
        assert [example["document_id"] for example in account["examples"]] == ["d8", "d9", "d10"]
        assert account["passages"] == 8

    def test_a_summary_says_how_many_were_removed(self, tmp_path, recipe):
        done = run("build", recipe, "-o", tmp_path / "new", "--workers", "1")
        assert f"2 documents removed by filters; what and why: compactds inspect {tmp_path / 'new'}" in (
            done.stdout
        )
        assert "1 document occurred twice; one copy is kept" in done.stdout


def test_a_ledger_of_nothing_is_a_page_too():
    assert "Nothing was removed." in page_text(ledger_page("empty", {}))


def test_the_ledgers_of_several_segments_add_up():
    one = {"sources": [{"name": "a"}], "passages": 3, "seconds": {"read": 1.5}, "resumed": False}
    two = {"sources": [{"name": "b"}], "passages": 4, "seconds": {"read": 1.0, "index": 2.0}}
    assert merged([one, two]) == {
        "sources": [{"name": "a"}, {"name": "b"}],
        "passages": 7,
        "seconds": {"read": 2.5, "index": 2.0},
        "resumed": False,
    }


def test_only_the_first_examples_of_a_kind_are_shown():
    example = {"filter": "f", "reason": "r", "value": "1", "limit": None, "origin": "o", "excerpt": "text"}
    assert len(list(example_lines([example] * 5))) == 4


class TestRecipeOfAStore:
    def test_builds_the_same_store_again(self, tmp_path, recipe, store):
        printed = run("inspect", store, "--recipe")
        assert printed.exit_code == 0, printed.stderr
        assert printed.stdout.startswith("# Files are named without their folders")
        again = tmp_path / "again.toml"
        again.write_text(printed.stdout)
        assert load_recipe(again) == load_recipe(recipe)
        assert "up to date" in run("build", again, "--out", store).stdout
        assert json.loads(run("inspect", store, "--recipe", "--json").stdout)["name"] == "mine"

    def test_can_be_appended_to(self, tmp_path, store):
        again = tmp_path / "again.toml"
        again.write_text(run("inspect", store, "--recipe").stdout + '[[filters]]\nfilter = "language"\n')
        assert [table.filter for table in load_recipe(again).filters] == ["length", "language"]

    def test_says_what_came_since(self, tmp_path, store):
        line = {"id": "new", "text": "five six seven eight nine", "v": np.eye(11)[0].tolist()}
        (tmp_path / "more.jsonl").write_text(json.dumps(line))
        added = run("add", store, tmp_path / "more.jsonl", "--vector-field", "v")
        assert added.exit_code == 0, added.stderr
        assert run("delete", store, "--id", "d0").exit_code == 0
        second = run("inspect", store, "--recipe").stdout.splitlines()[1]
        assert "Since then, 1 document" in second
        assert second.endswith("What was added came from more.jsonl.")

    def test_names_files_of_filters_beside_it_and_commits(self, store):
        manifest = read_manifest(store)
        resolved = {
            "sources": [
                {"path": "hf:owner/name"},
                {"path": "hf:owner/name", "revision": "v1"},
                {"path": "a.csv"},
            ],
            "filters": [{"filter": "banned", "words": ["mine", "words.txt"]}],
        }
        kept = replace(manifest, recipe={"resolved": resolved, "files": ["words.txt"]})
        found = [{"dataset": "owner/name", "revision": "v1", "commit": "c0ffee"}]
        tables = stored_recipe(kept, found)
        assert [source.get("revision") for source in tables["sources"]] == [None, "c0ffee", None]
        assert tables["filters"] == [{"filter": "banned", "words": ["mine", "./words.txt"]}]

    def test_is_missing_where_no_build_made_the_store(self, store):
        with pytest.raises(BuildError, match="keeps no recipe"):
            stored_recipe(replace(read_manifest(store), recipe={}))
