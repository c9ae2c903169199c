"""A build on Ray ends in the same store, though a worker is killed; without Ray, it says what to install."""

import json
import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from compactds.configs.recipe import load_recipe
from compactds.indexer.build import build
from compactds.indexer.errors import BuildError
from compactds.indexer.execution import LocalExecutor
from compactds.indexer.ray_execution import RayExecutor
from compactds.indexer.workspace import ShardSizes

SIZES = {"documents": 7, "passages": 40, "task_characters": 3_000}

# In a process of its own: Ray leaves threads, handlers and warnings behind.
SCRIPT = """
import os, signal, sys
from pathlib import Path

from compactds.configs.recipe import load_recipe
from compactds.indexer import pipeline
from compactds.indexer.build import build
from compactds.indexer import encoding
from compactds.indexer.progress import LoggedProgress
from compactds.indexer.ray_execution import RayExecutor

pipeline.SHARDS = pipeline.ShardSizes(**{sizes})


def parent(pid):
    return int(Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")[2].split()[1])


def is_ours(pid):
    while pid > 1 and pid != os.getpid():
        pid = parent(pid)
    return pid == os.getpid()


def workers():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            name, pid = path.read_bytes(), int(path.parent.name)
            if name.startswith((b"ray::Map", b"ray::IDLE")) and is_ours(pid):
                yield name.startswith(b"ray::IDLE"), pid
        except (OSError, IndexError):
            pass


class KillOneAStage(LoggedProgress):
    # a worker, when something of the stage is done

    def __init__(self):
        self.left, self.killed, self.encoded = ["splitting", "encoding"], 0, 0

    def stage(self, name, total):
        self.name = name

    def advance(self, amount):
        self.encoded += amount if self.name == "encoding" else 0
        if self.name in self.left:
            self.left.remove(self.name)
            for _, pid in sorted(workers())[:1]:
                os.kill(pid, signal.SIGKILL)
                self.killed += 1


def refuse(*arguments):
    raise AssertionError("this process encodes")


encoding.encode_shard = refuse
progress = KillOneAStage()
executor = RayExecutor(2)
build(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]), executor=executor, progress=progress)
executor.close()
print(executor.workers, progress.killed, progress.encoded)
"""


def recipe(tmp_path: Path, records, write_jsonl, model: Path) -> Path:
    for number in range(3):
        write_jsonl(tmp_path / "data" / f"{number}.jsonl", records[number * 20 : number * 20 + 20])
    path = tmp_path / "recipe.toml"
    path.write_text(
        f"""
        [[sources]]
        path = "data"
        [[filters]]
        filter = "length"
        min_words = 9
        [duplicates]
        level = "both"
        [encoder]
        model = "{model}"
        dtype = "float32"
        """
    )
    return path


@pytest.mark.skipif(
    find_spec("ray") is None or not Path("/proc/self/stat").exists(), reason="needs ray, and /proc"
)
def test_a_killed_worker_changes_nothing(tmp_path, records, write_jsonl, tiny_model, monkeypatch):
    (tmp_path / "data").mkdir()
    path = recipe(tmp_path, records, write_jsonl, tiny_model)
    monkeypatch.setattr("compactds.indexer.pipeline.SHARDS", ShardSizes(**SIZES))
    passages = build(load_recipe(path), tmp_path / "straight").passages
    assert passages > 2 * SIZES["passages"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(sizes=SIZES), str(path), str(tmp_path / "store")],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-3:] == ["2", "2", str(passages)]
    (one,), (other,) = (_segments(tmp_path / name) for name in ("straight", "store"))
    assert one == other
    assert _ledger(tmp_path / "straight") == _ledger(tmp_path / "store")


def _segments(store: Path) -> list[dict]:
    segments = json.loads((store / "manifest.json").read_text())["segments"]
    for segment in segments:
        del segment["files"]["ledger.json"], segment["calibration"], segment["costs"]
    return segments


def _ledger(store: Path) -> dict:
    (path,) = store.glob("segments/*/ledger.json")
    ledger = json.loads(path.read_text())
    return ledger | {"seconds": sorted(ledger["seconds"])}


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BuildError, match=r"pip install 'compactds\[ray\]'"):
        RayExecutor(2)


class FakeRay:
    """Stand in for Ray, to see what is asked of it without starting a cluster."""

    class data:  # noqa: N801
        class DataContext:
            @staticmethod
            def get_current():
                return FakeRay

        TaskPoolStrategy = dict

        def range(self, count, override_num_blocks):
            self.rows = [{"id": number} for number in range(count)]
            return self

        def map(self, function, *, compute, num_cpus):
            self.rows = [function(row) for row in self.rows]
            return self

        def iter_rows(self):
            return iter(self.rows)

    class execution_options:  # noqa: N801
        preserve_order = False

    cloudpickle = json
    started = None

    def is_initialized(self):
        return self.started is not None

    def init(self, **options):
        if options.get("num_cpus") == 99:
            raise ConnectionError("nobody answers")
        self.started = options

    def cluster_resources(self):
        return {"CPU": 4.0}

    def put(self, value):
        return value

    def get(self, value):
        return value

    def shutdown(self):
        self.started = None


@pytest.fixture
def fake_ray(monkeypatch):
    fake = FakeRay()
    fake.data = FakeRay.data()
    fake.data.DataContext = FakeRay.data.DataContext
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.data", fake.data)
    return fake


def double(context, task, report):
    report(task)
    return {"doubled": context * task}


def test_results_come_in_order_and_what_is_done_is_told(fake_ray):
    executor = RayExecutor(3)
    told = []
    results = executor.map(double, 2, [1, 2, 3], told.append)
    assert [result["doubled"] for result in results] == [2, 4, 6]
    assert (told, executor.workers) == ([1, 2, 3], 3)
    assert executor.spreads_encoding
    assert list(LocalExecutor().map(double, 2, [5], told.append)) == list(
        executor.map(double, 2, [5], told.append)
    )
    executor.close()
    assert fake_ray.started is None


def test_it_uses_all_that_a_cluster_has_unless_told(fake_ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://somewhere:10001")
    assert RayExecutor().workers == 4
    assert fake_ray.started == {"log_to_driver": False, "logging_level": logging.ERROR}


def test_a_cluster_of_its_own_listens_on_this_machine_alone(fake_ray, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    RayExecutor(2)
    assert fake_ray.started["num_cpus"] == 2
    assert fake_ray.started["_node_ip_address"] == "127.0.0.1"


def test_a_cluster_that_cannot_be_reached_is_an_error(fake_ray):
    with pytest.raises(BuildError, match="no Ray cluster can be reached: nobody answers"):
        RayExecutor(99)
