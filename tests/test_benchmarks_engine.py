"""The comparison with peers runs on tiny data with the peers that are installed, and counts as it says."""

import importlib
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
INSTALLED = ("compactds", "compactds-search", "hnswlib", "faiss-hnsw", "faiss-ivf")


@pytest.fixture
def part(monkeypatch):
    """Import a part of the benchmark by its name."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def unit(seed: int, rows: int, dimension: int = 16) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((rows, dimension))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    paths = [tmp_path / f"base{number}.npy" for number in range(2)]
    for seed, path in enumerate(paths):
        np.save(path, unit(seed, 200 + 100 * seed))
    return paths


@pytest.fixture
def arguments(files, tmp_path):
    return [
        *("--vectors", *map(str, files), "--hold-out", "10", "20", "--folder", str(tmp_path / "indexes")),
        *(
            "--environments",
            str(tmp_path / "environments"),
            "--rounds",
            "2",
            "--visit",
            "0.001",
            "--pairs",
            "3",
        ),
        *("--batch", "8", "--threads", "1", "--json", str(tmp_path / "out.json")),
    ]


class TestAWholeRun:
    def test_every_installed_system_is_built_asked_and_reported(self, part, arguments, tmp_path, capsys):
        part("engine").main([*arguments, "--peers", *INSTALLED[1:], "--recall", "0.9"])
        printed = capsys.readouterr().out
        record = json.loads((tmp_path / "out.json").read_text())
        assert tuple(system["name"] for system in record["systems"]) == INSTALLED
        assert "470 vectors of 16 dimensions, 30 queries" in printed
        for system in record["systems"]:
            assert system["rows"] == 470
            assert max(measured["recall"] for measured in system["settings"]) >= 0.9, system["name"]
            assert all(len(measured["rates"]) == 2 for measured in system["settings"])
            assert all(measured["p50_ms"] <= measured["p99_ms"] for measured in system["settings"])
            assert system["ram_bytes"] > 0
            assert system["disk_bytes"] > 0
            assert {"numpy"} < set(system["versions"])
            (batches,) = system["batches"]
            assert len(batches["pairs"]) == 3
            assert all(rate > 0 for pair in batches["pairs"] for rate in pair)
        for head in ("recall@10 of at least 0.9", "bytes a vector", "batches of 8", "recall asked for"):
            assert head in printed

    def test_a_system_that_fails_is_left_out_and_the_run_fails(
        self, part, arguments, tmp_path, monkeypatch, capsys
    ):
        launch = part("peers.launch")
        monkeypatch.setitem(launch.PEERS, "compactds", launch.Peer("compactds", "no_such_adapter"))
        with pytest.raises(SystemExit) as caught:
            part("engine").main([*arguments, "--peers", "hnswlib"])
        assert caught.value.code == 1
        assert "left out: compactds: the process ended" in capsys.readouterr().out
        record = json.loads((tmp_path / "out.json").read_text())
        assert [system["name"] for system in record["systems"]] == ["hnswlib"]

    def test_indexes_of_the_same_vectors_are_kept_if_wanted(self, part, arguments, monkeypatch, capsys):
        engine = part("engine")
        for wanted in ([], ["--reuse"], []):
            options = engine.read_options([*arguments, *wanted])
            options.folder.mkdir(exist_ok=True)
            np.save(options.folder / "base.npy", unit(5, 50))
            built = engine.build(part("peers.launch").PEERS["hnswlib"], options)
            assert built["rows"] == 50
            told = capsys.readouterr().err
            assert ("building" in told) is not bool(wanted)

    def test_hold_out_counts_must_match_the_files(self, part, arguments, capsys):
        with pytest.raises(SystemExit):
            part("engine").read_options([*arguments, "--hold-out", "1", "2", "3"])
        assert "2, one for each file" in capsys.readouterr().err


class TestTheProblem:
    def test_held_out_rows_are_asked_and_not_searched(self, part, files, tmp_path):
        np.save(tmp_path / "asked.npy", unit(9, 5))
        problem = part("peers.vectors").read_problem(files, [tmp_path / "asked.npy"], [3, 4])
        assert (problem.base.shape, problem.queries.shape) == ((493, 16), (12, 16))
        assert np.array_equal(problem.queries[:5], unit(9, 5).astype(np.float32))
        everything = np.concatenate([np.load(path) for path in files])
        searched, asked = set(map(bytes, problem.base)), set(map(bytes, problem.queries[5:].astype("f2")))
        assert not searched & asked
        assert searched | asked == set(map(bytes, everything))

    def test_rows_and_queries_can_be_fewer(self, part, files):
        problem = part("peers.vectors").read_problem(files, [], [30], rows=50, queries=7)
        assert (len(problem.base), len(problem.queries)) == (50, 7)

    @pytest.mark.parametrize("settings", [{"rows": 5}, {"queries": 0}])
    def test_too_little_to_ask_is_refused(self, part, files, settings):
        with pytest.raises(SystemExit, match="too few"):
            part("peers.vectors").read_problem(files, [], [30], **settings)

    def test_the_tenth_best_is_by_brute_force(self, part, monkeypatch):
        vectors = part("peers.vectors")
        monkeypatch.setattr(vectors, "BLOCK_ROWS", 7)
        base, queries = unit(1, 40), unit(2, 3).astype(np.float32)
        expected = np.sort(queries @ base.astype(np.float32).T, axis=1)[:, -10]
        assert vectors.tenth_best(base, queries) == pytest.approx(expected, abs=1e-6)

    def test_recall_counts_a_row_once_ties_as_found_and_unknown_rows_not_at_all(self, part):
        vectors = part("peers.vectors")
        base = np.repeat(np.eye(16, dtype=np.float16), 12, axis=0)  # rows 0 to 11 are the same
        query = np.eye(16, dtype=np.float32)[:1]
        problem = vectors.Problem(base, query, vectors.tenth_best(base, query))
        assert problem.recall([0], [range(2, 12)]) == 1
        assert problem.recall([0], [[0] * 10]) == 0.1
        assert problem.recall([0], [[0, 1, -1, 999]]) == 0.2
        assert problem.recall([0], [range(100, 110)]) == 0
        assert problem.recall([0], [[]]) == 0


class TestTables:
    @staticmethod
    def system(name, *points, **facts):
        settings = [
            {"setting": {"ef": n}, "recall": recall, "queries_per_second": rate, "p50_ms": 1, "p99_ms": 2}
            for n, (recall, rate) in enumerate(points)
        ]
        return {"name": name, "settings": settings, "ram_bytes": 640, "rows": 10, **facts}

    def test_the_cheapest_setting_that_reaches_a_recall_is_taken_and_none_is_made_up(self, part):
        tables = part("peers.tables")
        points = self.system("a", (0.9, 900), (0.96, 300), (0.97, 400))["settings"]
        assert tables.cheapest(points, 0.95)["queries_per_second"] == 400
        assert tables.cheapest(points, 0.98) is None
        systems = [
            self.system("compactds", (0.95, 800)),
            self.system("b", (0.96, 200)),
            self.system("c", (0.5, 9)),
        ]
        rows = tables.at_recall(systems, 0.95).splitlines()[2:]
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
        assert [row[4] for row in cells] == ["1.00", "4.00", ""]
        assert cells[2][1:3] == ["none", "at most 0.5000"]
        assert {row[-1] for row in cells} == {"64"}

    def test_curves_leave_out_settings_that_a_faster_one_beats(self, part):
        curve = part("peers.tables").curves([self.system("a", (0.9, 900), (0.95, 300), (0.97, 400))])
        assert "0.900 → 900 · 0.970 → 400 |" in curve

    def test_without_systems_that_take_a_recall_there_is_no_table_of_it(self, part):
        assert part("peers.tables").asked([self.system("a", (1, 1))]) == ""


class Fixed:
    """An adapter whose index always finds rows 0 to 9."""

    PACKAGES = ("numpy",)

    def __init__(self, batches: bool = True) -> None:
        self.batches = batches

    def build(self, vectors, folder, threads, options):
        (folder / "index").write_bytes(bytes(len(vectors)))

    def open_index(self, folder, threads, options):
        many = (lambda queries: np.tile(np.arange(10), (len(queries), 1))) if self.batches else None
        return SimpleNamespace(
            settings=[{"n": 1}],
            ram_bytes=5,
            prepare=lambda setting: (lambda query: np.arange(10), many),
            close=lambda: None,
        )


class TestTheWorker:
    def talk(self, part, tmp_path, adapter, *messages):
        np.save(tmp_path / "base.npy", unit(1, 30))
        np.save(tmp_path / "queries.npy", unit(2, 20))
        place = {"folder": str(tmp_path / "index"), "options": {}}
        first = [
            {"do": "build", "vectors": str(tmp_path / "base.npy"), **place},
            {"do": "open", "queries": str(tmp_path / "queries.npy"), **place},
        ]
        worker, replies = part("peers.worker"), io.StringIO()
        lines = [json.dumps(message) for message in [*first, *messages]]
        worker.serve(worker.Worker(adapter, 1), lines, replies)
        return [json.loads(line) for line in replies.getvalue().splitlines()]

    def ask(self, **changed):
        wanted = {"setting": {"n": 1}, "order": list(range(20)), "batch": 1, "seconds": None, "answers": True}
        return {"do": "ask", **wanted, **changed}

    def test_it_builds_opens_and_answers_one_at_a_time_and_in_batches(self, part, tmp_path):
        messages = [self.ask(), self.ask(batch=8), {"do": "memory"}]
        built, opened, one, many, memory = self.talk(part, tmp_path, Fixed(), *messages)
        assert built["versions"] == {"numpy": np.__version__}
        assert (opened["settings"], opened["ram_bytes"], opened["disk_bytes"]) == ([{"n": 1}], 5, 30)
        assert one["rows"] == many["rows"] == [list(range(10))] * 20
        assert (len(one["seconds"]), len(many["seconds"])) == (20, 3)
        assert one["asked"] == many["asked"] == 20
        assert set(memory) == {"own_bytes", "mapped_bytes"}

    def test_it_stops_after_the_call_that_uses_up_its_time(self, part, tmp_path):
        *_, reply = self.talk(part, tmp_path, Fixed(), self.ask(seconds=1e-12, answers=False))
        assert (reply["asked"], len(reply["seconds"])) == (1, 1)
        assert "rows" not in reply

    def test_a_system_that_takes_no_batches_says_so(self, part, tmp_path):
        *_, reply = self.talk(part, tmp_path, Fixed(batches=False), self.ask(batch=8))
        assert reply == {"cannot_batch": True}

    def test_an_error_is_a_reply_and_not_the_end(self, part, tmp_path):
        *_, wrong, right = self.talk(part, tmp_path, Fixed(), self.ask(order=[99]), self.ask())
        assert "IndexError" in wrong["error"]
        assert right["asked"] == 20


class TestProcesses:
    def test_what_a_library_prints_does_not_mix_with_replies(self, part, tmp_path, monkeypatch):
        launch = part("peers.launch")
        peer = launch.Peer("hnswlib", "hnswlib_graph")
        with launch.Process(peer, sys.executable, tmp_path / "log", cores=[0], threads=1) as process:
            with pytest.raises(launch.PeerError, match="hnswlib: FileNotFoundError"):
                process.tell("build", vectors=str(tmp_path / "none.npy"), folder="", options={})
            with pytest.raises(launch.PeerError, match="AttributeError"):
                process.tell("dance")

    def test_a_process_that_is_gone_is_told_with_its_log(self, part, tmp_path):
        launch = part("peers.launch")
        peer = launch.Peer("gone", "no_such_adapter")
        with launch.Process(peer, sys.executable, tmp_path / "log", cores=[0], threads=1) as process:
            for _ in range(2):
                with pytest.raises(launch.PeerError, match=r"gone: the process ended; see .*log"):
                    process.tell("memory")
        assert "no_such_adapter" in (tmp_path / "log").read_text()

    def test_every_peer_has_an_adapter_and_pins_if_it_has_an_environment(self, part):
        launch = part("peers.launch")
        for peer in launch.PEERS.values():
            assert (launch.HERE / f"{peer.adapter}.py").exists()
            if peer.environment:
                pins = (launch.HERE / f"requirements-{peer.environment}.txt").read_text().split()
                assert all("==" in pin for pin in pins)


class TestEnvironments:
    @pytest.fixture
    def commands(self, part, tmp_path, monkeypatch):
        """Run nothing; note what would be run, and end with what `ends` says."""
        launch = part("peers.launch")
        noted = SimpleNamespace(run=[], ends=0)

        def run(command, **_):
            noted.run.append(command)
            (tmp_path / "made" / "scann").mkdir(parents=True, exist_ok=True)
            return subprocess.CompletedProcess(command, noted.ends)

        monkeypatch.setattr(launch.subprocess, "run", run)
        return noted

    def test_one_is_made_when_it_is_first_needed_and_again_when_its_pins_change(
        self, part, commands, tmp_path, capsys
    ):
        launch = part("peers.launch")
        for expected in (2, 2):
            python = launch.python_for(launch.PEERS["scann"], tmp_path / "made")
            assert python == str(tmp_path / "made" / "scann" / "bin" / "python")
            assert len(commands.run) == expected
        assert capsys.readouterr().err.count("installing scann==") == 1
        (tmp_path / "made" / "scann" / "installed.txt").write_text("scann==0\n")
        launch.python_for(launch.PEERS["scann"], tmp_path / "made")
        assert len(commands.run) == 4

    def test_none_is_made_for_what_is_installed_here(self, part, commands, tmp_path):
        launch = part("peers.launch")
        assert launch.python_for(launch.PEERS["hnswlib"], tmp_path) == sys.executable
        assert not commands.run

    def test_one_that_cannot_be_made_is_told(self, part, commands, tmp_path):
        launch = part("peers.launch")
        commands.ends = 1
        with pytest.raises(launch.PeerError, match=r"scann: .* ended with 1"):
            launch.python_for(launch.PEERS["scann"], tmp_path / "made")
