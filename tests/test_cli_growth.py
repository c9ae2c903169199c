"""The commands that change and compare stores print what they did, and exit as documented."""

import json

import pytest
from typer.testing import CliRunner

from compactds.cli.main import app
from compactds.configs.recipe import recipe_for
from compactds.indexer.build import build
from compactds.indexer.workspace import locked


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path):
    write(tmp_path / "first.jsonl", range(10))
    build(recipe_for([str(tmp_path / "first.jsonl")], {"sources.vector": "vector"}), tmp_path / "store")
    return tmp_path / "store"


def write(path, numbers, **more):
    rows = [
        {
            "id": f"d{number}",
            "text": f"words {number}",
            "vector": [number + 1, 1],
            "group": number % 2,
            **more,
        }
        for number in numbers
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_add_says_what_the_store_holds_now(store, tmp_path):
    done = run("add", store, write(tmp_path / "more.jsonl", range(10, 13)))
    assert done.exit_code == 0, done.output
    assert "added 3 documents, 3 passages" in done.output
    assert "13 documents, 13 passages, 2 segments" in done.output
    done = run("add", store, write(tmp_path / "more.jsonl", range(12, 14)), "--replace", "--json")
    answer = json.loads(done.stdout)
    assert (answer["documents"], answer["replaced"], answer["total_documents"]) == (2, 1, 14)
    done = run("add", store, write(tmp_path / "more.jsonl", range(3, 4)), "--replace")
    assert "1 document replaced" in done.output


def test_add_refuses_what_is_held_and_what_makes_no_sense(store, tmp_path):
    done = run("add", store, write(tmp_path / "more.jsonl", range(3, 5)))
    assert done.exit_code == 1
    assert "'d3', 'd4'" in done.output
    assert "--replace" in done.output
    assert run("add", store).exit_code == 2
    assert run("add", store, "x.jsonl", "--attribute", "year").exit_code == 2
    assert run("add", tmp_path / "none", "x.jsonl").exit_code == 1


def test_delete_by_id_and_by_condition(store):
    assert "deleted 2 documents" in run("delete", store, "--id", "d1", "--id", "d2").output
    done = run("delete", store, "--where", "group = 1", "--dry-run")
    assert "would delete 4 documents, 4 passages; 4 are left" in done.output
    answer = json.loads(run("delete", store, "--where", '{"group": 1}', "--json").stdout)
    assert (answer["documents"], answer["left"], answer["dry_run"]) == (4, 4, False)
    done = run("delete", store, "--id", "d4", "--id", "d1", "--ignore-missing")
    assert "not in the store: d1" in done.output
    assert "70% of the passages on disk" in done.output


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2),
        (("--id", "d1", "--where", "group = 1"), 2),
        (("--where", "grup = 1"), 2),
        (("--where", "{"), 2),
        (("--id", "x"), 1),
    ],
)
def test_delete_refuses_what_makes_no_sense(store, arguments, code):
    assert run("delete", store, *arguments).exit_code == code


def test_compact_says_what_it_did(store):
    assert "compact already" in run("compact", store).output
    run("delete", store, "--id", "d1")
    done = run("compact", store)
    assert "1 segment, 1 deleted passage dropped" in done.output
    run("delete", store, "--id", "d2")
    assert json.loads(run("compact", store, "--json", "--memory", "1MB").stdout)["dropped"] == 1
    assert run("compact", store.parent / "none").exit_code == 1
    assert run("compact", store, "--memory", "much").exit_code == 2


def test_compact_that_is_stopped_says_how_to_go_on(store, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    run("delete", store, "--id", "d1")
    with monkeypatch.context() as patch:
        patch.setattr("compactds.indexer.compacting.finish_segment", stop)
        done = run("compact", store)
    assert done.exit_code == 130
    assert f"What is done is kept in {store}/.compact" in done.stderr.splitlines()[-1]
    done = run("compact", store)
    assert "went on" in done.output
    assert "9 passages" in done.output


@pytest.mark.parametrize("change", ["build", "add", "delete", "compact"])
def test_while_a_store_is_changed_a_second_change_is_refused(store, tmp_path, change):
    more = write(tmp_path / "more.jsonl", range(10, 13))
    arguments = {
        "build": ("build", more, "--vector-field", "vector", "--out", store),
        "add": ("add", store, more),
        "delete": ("delete", store, "--id", "d1"),
        "compact": ("compact", store),
    }[change]
    before = (store / "manifest.json").read_bytes()
    with locked(store):
        done = run(*arguments)
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        f"error: another build or change of {store} is under way.",
        "Wait for it to end, then run this command again.",
    ]
    assert (store / "manifest.json").read_bytes() == before
    assert run(*arguments).exit_code == 0


def test_diff_says_what_differs(store, tmp_path):
    assert "no differences: 10 documents" in run("diff", store, store).output
    write(tmp_path / "other.jsonl", range(2, 12), color="red")
    build(recipe_for([str(tmp_path / "other.jsonl")], {"sources.vector": "vector"}), tmp_path / "other")
    done = run("diff", store, tmp_path / "other", "--examples", "1")
    assert done.exit_code == 0
    assert "2 only in A" in done.output
    assert ": d0, …" in done.output
    assert "color: differs in 8 documents" in done.output
    assert "schema.color: none in A, string in B" in done.output
    answer = json.loads(run("diff", store, tmp_path / "other", "--json").stdout)
    assert (answer["equal"], answer["only_in_second"]["count"]) == (False, 2)
    assert run("diff", store, tmp_path / "none").exit_code == 1


class TestABuildOverAStoreThatGrew:
    """What was added or deleted is in no recipe: a build from one would lose it."""

    CHANGES = {  # noqa: RUF012
        "add": lambda store, path: run("add", store, write(path / "more.jsonl", range(10, 13))),
        "delete": lambda store, _: run("delete", store, "--id", "d1", "--id", "d2"),
    }

    def rebuild(self, tmp_path, *flags, numbers=range(11)):
        write(tmp_path / "first.jsonl", numbers)
        store = tmp_path / "store"
        return run("build", tmp_path / "first.jsonl", "--vector-field", "vector", "--out", store, *flags)

    @pytest.mark.parametrize("compacted", [False, True], ids=["", "compacted"])
    @pytest.mark.parametrize(
        ("change", "lost"), [("add", "3 documents were added"), ("delete", "2 passages were deleted")]
    )
    def test_is_refused_with_what_would_be_lost(self, store, tmp_path, change, lost, compacted):
        assert self.CHANGES[change](store, tmp_path).exit_code == 0
        if compacted:
            assert run("compact", store).exit_code == 0
        before = (store / "manifest.json").read_bytes()
        done = self.rebuild(tmp_path)
        assert done.exit_code == 1
        assert lost in done.output
        assert "--replace" in done.output
        assert (store / "manifest.json").read_bytes() == before
        assert not (store / ".build").exists()
        done = self.rebuild(tmp_path, "--replace")
        assert done.exit_code == 0, done.output
        assert "11 documents, 11 passages" in done.output
        assert self.rebuild(tmp_path, numbers=range(12)).exit_code == 0  # it has grown no more

    def test_does_nothing_where_recipe_and_inputs_are_what_they_were(self, store, tmp_path):
        assert self.rebuild(tmp_path, numbers=range(10)).exit_code == 0
        for change in self.CHANGES.values():
            assert change(store, tmp_path).exit_code == 0
        done = run("build", tmp_path / "first.jsonl", "--vector-field", "vector", "--out", store)
        assert "up to date" in done.output
        assert "11 documents" in done.output

    def test_goes_ahead_where_nothing_was_added_or_deleted(self, store, tmp_path):
        assert run("compact", store).exit_code == 0
        assert self.rebuild(tmp_path).exit_code == 0


def test_changes_say_that_running_servers_keep_the_old_store(store, tmp_path):
    hint = "servers that are running keep the store they opened until they are restarted"
    assert hint in run("add", store, write(tmp_path / "more.jsonl", range(10, 13))).stderr
    assert hint not in run("delete", store, "--id", "d1", "--dry-run").stderr
    assert hint not in run("delete", store, "--id", "absent", "--ignore-missing").stderr
    assert hint in run("delete", store, "--id", "d1").stderr
    assert hint in run("compact", store).stderr
    assert hint not in run("compact", store).stderr


@pytest.mark.parametrize("change", [("add", "more"), ("delete", "--id", "d1"), ("compact",)])
def test_a_damaged_store_is_refused_before_anything_changes(store, tmp_path, change):
    more = write(tmp_path / "more.jsonl", range(10, 13))
    (vectors,) = store.glob("segments/*/exact.f16")
    vectors.write_bytes(vectors.read_bytes()[:-10])
    before = sorted((path, path.read_bytes()) for path in store.rglob("*") if path.is_file())
    arguments = [more if argument == "more" else argument for argument in change[1:]]
    done = run(change[0], store, *arguments)
    assert done.exit_code == 1
    assert "exact.f16 has 30 bytes, the manifest says 40" in done.output
    assert "nothing was changed" in done.output
    assert sorted((path, path.read_bytes()) for path in store.rglob("*") if path.is_file()) == before


def test_a_store_inside_its_source_can_be_built_again_and_added_to(tmp_path, monkeypatch):
    source = tmp_path / "docs"
    source.mkdir()
    write(source / "first.jsonl", range(10))
    monkeypatch.chdir(source)
    recipe = '[[sources]]\npath = "docs"\nvector = "vector"\n'
    (tmp_path / "recipe.toml").write_text(recipe)
    assert run("build", tmp_path / "recipe.toml", "--out", "store").exit_code == 0
    again = run("build", tmp_path / "recipe.toml", "--out", "store")
    assert again.exit_code == 0, again.output
    assert "up to date" in again.output
    refused = run("add", "store", "store")
    assert refused.exit_code == 1
    assert "store is a datastore, which is no source" in refused.output
