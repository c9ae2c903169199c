"""Datasets of the hub are read at one commit, which the ledger keeps."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner

from compactds.cli.main import app
from compactds.configs.recipe import recipe_for
from compactds.datastore import Datastore
from compactds.indexer.adding import add
from compactds.indexer.build import build
from compactds.indexer.compacting import compact
from compactds.indexer.progress import LoggedProgress
from compactds.indexer.workspace import ShardSizes

FIRST, SECOND = "a" * 40, "b" * 40
SETTINGS = {"sources.vector": "vector", "index.kind": "flat"}


class Hub:
    """Take the place of the hub: datasets as they were at each commit, and the newest of them."""

    def __init__(self):
        self.newest = FIRST
        self.broken_after = None
        self.read = []

    def ask(self, name, revision):
        return self.newest

    def load_dataset(self, name, config, *, revision, **_):
        self.read.append(revision)
        return Examples(revision, self.broken_after)


class Examples:
    column_names = ("id", "text", "vector")

    def __init__(self, revision, broken_after):
        self.revision, self.broken_after = revision, broken_after

    def __iter__(self):
        for number in range(9):
            if number == self.broken_after:
                raise OSError("the connection was lost")
            vector = np.array([number + 1.0, 1.0])
            yield {"id": f"d{number}", "text": f"{number} of {self.revision}", "vector": vector}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    hub = Hub()
    module = ModuleType("datasets")
    module.load_dataset = hub.load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr("compactds.indexer.sources.hub._ask_for_commit", hub.ask)
    return hub


def recipe(**source):
    return recipe_for(
        ["hf:owner/name"], SETTINGS | {f"sources.{key}": value for key, value in source.items()}
    )


def revisions(store):
    with Datastore.open(store) as opened:
        return [row for ledger in opened.ledgers() for row in ledger.get("revisions", ())]


def texts(store):
    with Datastore.open(store) as opened:
        return {opened.get(f"d{number}#0").text[-40:] for number in range(9)}


def test_the_commit_that_was_read_is_in_the_ledger(hub, tmp_path):
    build(recipe(), tmp_path / "store")
    expected = {"source": "owner/name", "dataset": "owner/name", "revision": "", "commit": FIRST}
    assert (hub.read, revisions(tmp_path / "store")) == ([FIRST], [expected])
    done = CliRunner().invoke(app, ["inspect", str(tmp_path / "store")])
    assert FIRST in done.output
    page = tmp_path / "account.html"
    CliRunner().invoke(app, ["inspect", str(tmp_path / "store"), "--ledger", str(page)])
    assert FIRST in page.read_text()


def test_a_build_that_goes_on_reads_the_commit_it_began_with(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("compactds.indexer.pipeline.SHARDS", ShardSizes(documents=4))
    hub.broken_after = 6
    with pytest.raises(Exception, match="the connection was lost"):
        build(recipe(), tmp_path / "store")
    hub.newest, hub.broken_after = SECOND, None
    assert build(recipe(), tmp_path / "store").resumed
    assert hub.read == [FIRST, FIRST]
    assert texts(tmp_path / "store") == {FIRST}
    assert revisions(tmp_path / "store")[0]["commit"] == FIRST


def test_the_next_build_reads_the_newest(hub, tmp_path):
    build(recipe(), tmp_path / "store")
    hub.newest = SECOND
    assert not build(recipe(), tmp_path / "store").unchanged
    assert texts(tmp_path / "store") == {SECOND}


def test_other_settings_keep_the_commit_of_the_documents_that_are_kept(hub, tmp_path):
    class Stop(LoggedProgress):
        def stage(self, name, total):
            if name == "writing":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(recipe(), tmp_path / "store", progress=Stop())
    hub.newest = SECOND
    build(recipe_for(["hf:owner/name"], SETTINGS | {"name": "other"}), tmp_path / "store")
    assert hub.read == [FIRST]
    assert revisions(tmp_path / "store")[0]["commit"] == FIRST


def test_a_commit_in_the_recipe_is_read_and_built_once(hub, tmp_path):
    pinned = recipe(revision=SECOND)
    build(pinned, tmp_path / "store")
    assert (hub.read, revisions(tmp_path / "store")[0]["revision"]) == ([SECOND], SECOND)
    assert build(pinned, tmp_path / "store").unchanged
    assert not build(recipe(revision="v1"), tmp_path / "store").unchanged
    assert not build(recipe(revision="v1"), tmp_path / "store").unchanged  # v1 may be another one by now


def test_a_dataset_of_which_no_commit_is_known_is_read_as_it_is(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("compactds.indexer.sources.hub._ask_for_commit", lambda *_: None)
    build(recipe(), tmp_path / "store")
    assert (hub.read, revisions(tmp_path / "store")) == ([None], [])


def test_additions_and_compacting_keep_the_commits(hub, tmp_path):
    rows = [{"id": "x", "text": "other", "vector": [1, 2]}]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(recipe_for([str(tmp_path / "own.jsonl")], SETTINGS), tmp_path / "store")
    assert revisions(tmp_path / "store") == []
    add(tmp_path / "store", ["hf:owner/name"], overrides={"sources.vector": "vector"})
    assert [row["commit"] for row in revisions(tmp_path / "store")] == [FIRST]
    compact(tmp_path / "store")
    assert [row["commit"] for row in revisions(tmp_path / "store")] == [FIRST]
