"""A build killed at any moment and run again ends in the same store; nobody ever opens half of one."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compactds.configs.recipe import load_recipe
from compactds.datastore import Datastore
from compactds.datastore.errors import StoreNotFoundError
from compactds.datastore.verify import verify
from compactds.indexer.build import build
from compactds.indexer.workspace import ShardSizes

SIZES = {"documents": 7, "passages": 9, "task_characters": 700}
KILLS = 8

# Everything a build leaves on disk goes through fsync, so its calls are the moments that matter.
SCRIPT = """
import os, signal, sys
from pathlib import Path

from compactds.configs.recipe import load_recipe
from compactds.indexer import pipeline
from compactds.indexer.build import build

pipeline.SHARDS = pipeline.ShardSizes(**{sizes})
left = int(sys.argv[3])
flush = os.fsync


def fsync(descriptor):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(descriptor)


os.fsync = fsync
build(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]))
print(-left)
"""


@pytest.fixture
def recipe(tmp_path, records, write_jsonl) -> Path:
    (tmp_path / "data").mkdir()
    for number in range(4):
        write_jsonl(tmp_path / "data" / f"{number}.jsonl", records[number * 15 : number * 15 + 15])
    copies = [{"id": f"copy{number}", "text": records[number]["text"]} for number in (8, 17)]
    write_jsonl(tmp_path / "data" / "9.jsonl", copies)
    np.save(tmp_path / "v.npy", np.random.default_rng(0).standard_normal((62, 8)).astype(np.float32))
    path = tmp_path / "recipe.toml"
    path.write_text(
        """
        vectors = "v.npy"
        [[sources]]
        path = "data"
        [[filters]]
        filter = "length"
        min_words = 9
        [duplicates]
        """
    )
    return path


def run(recipe: Path, out: Path, kill_at: int) -> subprocess.CompletedProcess:
    code = SCRIPT.format(sizes=SIZES)
    arguments = [sys.executable, "-c", code, str(recipe), str(out), str(kill_at)]
    return subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=120)


def segments(store: Path) -> list[dict]:
    found = json.loads((store / "manifest.json").read_text())["segments"]
    for segment in found:
        del segment["files"]["ledger.json"], segment["calibration"], segment["costs"]
    return found


def test_what_is_left_of_a_workspace_that_was_being_removed_goes_with_the_next_build(tmp_path, recipe):
    build(load_recipe(recipe), tmp_path / "store")
    (tmp_path / "store" / ".build" / "shards").mkdir(parents=True)
    assert build(load_recipe(recipe), tmp_path / "store").unchanged
    assert not (tmp_path / "store" / ".build").exists()


def test_a_build_killed_at_random_moments_ends_in_the_same_store(tmp_path, recipe, monkeypatch):
    straight = run(recipe, tmp_path / "straight", 0)
    assert straight.returncode == 0, straight.stderr
    moments = int(straight.stdout)
    draw = random.Random(5)
    # One kill a store in the first runs, and in the last one kill after another.
    for round_ in range(KILLS):
        out = tmp_path / (f"store-{round_}" if round_ < KILLS // 2 else "store")
        killed = run(recipe, out, draw.randint(1, moments))
        assert killed.returncode in (-signal.SIGKILL, 0), killed.stderr
        try:
            with Datastore.open(out) as store:
                assert store.manifest.documents == segments(tmp_path / "straight")[0]["documents"]
        except StoreNotFoundError:
            assert not (out / "manifest.json").exists()
    monkeypatch.setattr("compactds.indexer.pipeline.SHARDS", ShardSizes(**SIZES))
    for out in tmp_path.glob("store*"):
        build(load_recipe(recipe), out)
        assert segments(out) == segments(tmp_path / "straight")
        assert verify(out) == []
        assert not (out / ".build").exists()
