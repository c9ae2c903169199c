"""`compactds tune` and `build --plan`: curves for one's own queries, codes compared, memory foretold."""

import importlib
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from compactds.cli import measuring
from compactds.cli.main import app
from compactds.cli.measuring import ServingMemory, child, serving_memory
from compactds.cli.plan import Account, duration, expected
from compactds.configs.recipe import recipe_for
from compactds.datastore import Datastore
from compactds.datastore.errors import SearchError
from compactds.datastore.manifest import read_manifest, write_manifest
from compactds.datastore.memory import can_measure
from compactds.datastore.tuning import LEAST_QUERIES, MOST_QUERIES, pick_queries
from compactds.datastore.verify import verify
from compactds.indexer.build import build
from compactds.indexer.workspace import locked

ROWS, DIMENSION = 2_000, 16
plan_module = importlib.import_module("compactds.cli.plan")
linux = pytest.mark.skipif(not can_measure(), reason="only Linux says what a process holds")
runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments], prog_name="compactds")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Records with clustered vectors of their own, and queries near them."""
    folder = tmp_path_factory.mktemp("inputs")
    draw = np.random.default_rng(7)
    centres = draw.standard_normal((40, DIMENSION))
    rows = centres[draw.integers(0, 40, ROWS)] + 0.6 * draw.standard_normal((ROWS, DIMENSION))
    np.save(folder / "v.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
    np.save(folder / "q.npy", rows[:60] + 0.3 * draw.standard_normal((60, DIMENSION)))
    lines = [json.dumps({"id": str(n), "text": f"text {n}", "year": n}) for n in range(ROWS)]
    (folder / "r.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def built(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "store"
    recipe = recipe_for([str(inputs / "r.jsonl")], {"vectors": str(inputs / "v.npy"), "index.kind": "ivf"})
    build(recipe, out)
    return out


@pytest.fixture
def store(built, tmp_path):
    return shutil.copytree(built, tmp_path / "store")


@pytest.fixture
def text_store(tmp_path, tiny_model, records, write_jsonl):
    source = write_jsonl(tmp_path / "records.jsonl", records)
    recipe = recipe_for([str(source)], {"encoder": {"model": str(tiny_model)}, "index.kind": "ivf"})
    build(recipe, tmp_path / "text-store")
    return tmp_path / "text-store"


class TestTune:
    def test_the_curve_for_own_queries_replaces_the_old_one(self, store, inputs):
        before = read_manifest(store)
        done = run("tune", store, "--queries", inputs / "q.npy")
        assert done.exit_code == 0, done.output
        assert "measured with passages of the store" in done.stdout
        assert "measured with 60 queries of q.npy" in done.stdout
        assert done.stdout.endswith("the new curve is kept\n")
        (segment,) = read_manifest(store).segments
        assert segment.calibrated_on == "60 queries of q.npy"
        assert segment.calibration[-1].promised > 0.9
        (old,) = before.segments
        assert replace(segment, calibration=old.calibration, calibrated_on=old.calibrated_on) == old
        assert verify(store) == []

    def test_what_it_promises_is_what_searches_deliver(self, store, inputs):
        assert run("tune", store, "--queries", inputs / "q.npy").exit_code == 0
        queries = np.load(inputs / "q.npy")
        with Datastore.open(store) as opened:
            exact = opened.nearest(queries, k=10, recall=1.0).rows
            found = opened.nearest(queries, k=10, recall=0.9).rows
        shares = [len(np.intersect1d(a, b)) / 10 for a, b in zip(exact, found, strict=True)]
        assert np.mean(shares) >= 0.9

    def test_a_dry_run_changes_nothing_and_needs_no_lock(self, store, inputs):
        before = (store / "manifest.json").read_bytes()
        with locked(store):
            done = run("tune", store, "--queries", inputs / "q.npy", "--dry-run")
        assert done.exit_code == 0, done.output
        assert done.stdout.endswith("the old curve stays\n")
        assert (store / "manifest.json").read_bytes() == before

    def test_a_build_under_way_keeps_it_out(self, store, inputs):
        with locked(store):
            done = run("tune", store, "--queries", inputs / "q.npy")
        assert done.exit_code == 1
        assert "another build" in done.stderr

    def test_without_queries_passages_are_used_again(self, store):
        document = json.loads(run("tune", store, "--json").stdout)
        (segment,) = document["segments"]
        assert document["kept"]
        assert segment["calibrated_on"] == "passages of the store"
        same = [
            [(point["effort"], point["candidates"], point["recall"]) for point in segment[when]]
            for when in ("before", "after")
        ]
        assert same[0] == same[1]
        assert segment["old_curve_delivered"]["0.9"] >= 0.9

    def test_texts_are_encoded_by_the_stores_encoder(self, text_store, tmp_path):
        queries = tmp_path / "q.jsonl"
        queries.write_text("".join(json.dumps({"query": f"light of star {n}"}) + "\n" for n in range(30)))
        done = run("tune", text_store, "--queries", queries, "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["segments"][0]["calibrated_on"] == "30 queries of q.jsonl"

    def test_two_encoders_both_see_the_queries(self, tmp_path, tiny_model, records, write_jsonl):
        source = write_jsonl(tmp_path / "records.jsonl", records)
        recipe = recipe_for(
            [str(source)],
            {
                "encoder": {"model": str(tiny_model), "dimension": 8},
                "exact_encoder": {"model": str(tiny_model)},
                "index.kind": "ivf",
            },
        )
        build(recipe, tmp_path / "two")
        (tmp_path / "q.txt").write_text("".join(f"cell and brain {n}\n" for n in range(25)))
        done = run("tune", tmp_path / "two", "--queries", tmp_path / "q.txt")
        assert done.exit_code == 0, done.output
        np.save(tmp_path / "q.npy", np.ones((25, 8)))
        for arguments in (["--queries", tmp_path / "q.npy"], [], ["--codes"]):
            done = run("tune", tmp_path / "two", *arguments)
            assert done.exit_code == 2
            assert "two encoders" in done.stderr

    def test_an_exact_index_has_nothing_to_calibrate(self, tmp_path, inputs):
        recipe = recipe_for([str(inputs / "r.jsonl")], {"vectors": str(inputs / "v.npy")})
        build(recipe, tmp_path / "flat")
        done = run("tune", tmp_path / "flat", "--plot", tmp_path / "c.svg")
        assert done.exit_code == 0
        assert done.stdout.endswith("every search is exact; there is nothing to calibrate\n")
        run("inspect", tmp_path / "flat", "--plot", tmp_path / "c.svg")
        assert not (tmp_path / "c.svg").exists()
        assert "there is no curve to draw" in done.stderr

    def test_a_picture_is_drawn(self, store, inputs, tmp_path):
        run("tune", store, "--queries", inputs / "q.npy", "--dry-run", "--plot", tmp_path / "c.svg")
        picture = (tmp_path / "c.svg").read_text()
        assert ">before<" in picture
        assert ">after<" in picture

    def test_text_for_a_store_of_vectors_is_refused(self, store, tmp_path):
        (tmp_path / "q.txt").write_text("why\n" * 30)
        done = run("tune", store, "--queries", tmp_path / "q.txt")
        assert done.exit_code == 2
        assert "names no encoder" in done.stderr

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.ones((LEAST_QUERIES - 1, DIMENSION)), "too few"),
            (np.ones((30, 5)), "dimensions"),
            (np.zeros((30, DIMENSION)), "query vector 0 is zero"),
            (np.ones((30, DIMENSION), int), "floats"),
        ],
    )
    def test_queries_that_are_none_are_refused(self, store, tmp_path, array, message):
        np.save(tmp_path / "q.npy", array)
        done = run("tune", store, "--queries", tmp_path / "q.npy")
        assert done.exit_code == 1
        assert message in done.stderr

    def test_few_texts_are_refused_as_few_vectors_are(self, text_store, tmp_path):
        (tmp_path / "q.txt").write_text("why\n" * (LEAST_QUERIES - 1))
        done = run("tune", text_store, "--queries", tmp_path / "q.txt")
        assert done.exit_code == 1
        assert "too few" in done.stderr

    def test_no_store_is_told_and_no_folder_made(self, tmp_path):
        assert run("tune", tmp_path / "absent").exit_code == 1
        assert not (tmp_path / "absent").exists()

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["s", "--vectors", "v.npy"],
            ["--vectors", "v.npy"],
            ["s", "--vectors", "v.npy", "--codes"],
            ["s", "--codes", "--queries", "q.txt"],
            ["s", "--plot", "curve.png"],
        ],
    )
    def test_flags_that_do_not_go_together_are_refused(self, arguments):
        assert run("tune", *arguments).exit_code == 2

    def test_of_many_queries_some_are_drawn(self):
        assert pick_queries(30) == list(range(30))
        drawn = pick_queries(10_000)
        assert len(drawn) == MOST_QUERIES
        assert drawn == sorted(set(drawn))
        with pytest.raises(SearchError, match="too few"):
            pick_queries(LEAST_QUERIES - 1)


class TestCodes:
    def test_a_stores_vectors_are_measured(self, store, tmp_path):
        before = (store / "manifest.json").read_bytes()
        done = run("tune", store, "--codes", "--plot", tmp_path / "codes.svg")
        assert done.exit_code == 0, done.output
        lines = done.stdout.splitlines()
        assert lines[0].startswith("1,800 of 2,000 vectors of 16 dimensions, 200 queries")
        assert "best 100 reranked" in lines[1]
        assert any("RaBitQ 4 bits" in line for line in lines)
        assert "the code alone" in (tmp_path / "codes.svg").read_text()
        assert (store / "manifest.json").read_bytes() == before

    def test_a_file_of_vectors_will_do(self, inputs):
        document = json.loads(run("tune", "--codes", "--vectors", inputs / "v.npy", "--json").stdout)
        assert (document["vectors"], document["dimension"], document["queries"]) == (2_000, 16, 200)
        assert document["codes"][-1]["recall"] > 0.99

    def test_few_vectors_are_refused(self, tmp_path):
        np.save(tmp_path / "v.npy", np.ones((10, 4)))
        assert run("tune", "--codes", "--vectors", tmp_path / "v.npy").exit_code == 1

    @pytest.mark.parametrize(
        "array",
        [None, np.ones((2_000, 4), int), np.ones(2_000), np.zeros((2_000, 4))],
        ids=["missing", "integers", "flat", "zeros"],
    )
    def test_a_file_that_cannot_be_used_ends_it_as_it_ends_a_build(self, inputs, tmp_path, array):
        if array is not None:
            np.save(tmp_path / "v.npy", array)
        tuned = run("tune", "--codes", "--vectors", tmp_path / "v.npy")
        built = run("build", inputs / "r.jsonl", "--vectors", tmp_path / "v.npy", "--out", tmp_path / "store")
        assert (tuned.exit_code, built.exit_code) == (1, 1)


class TestInspect:
    def test_the_curve_is_shown_and_drawn(self, store, tmp_path):
        done = run("inspect", store, "--plot", tmp_path / "curve.svg")
        assert "recall asked  effort  candidates" in done.stdout
        assert "recall@10 that is promised" in done.stdout
        assert "effort" in (tmp_path / "curve.svg").read_text()

    def test_a_picture_of_another_kind_is_refused(self, store):
        assert run("inspect", store, "--plot", "curve.png").exit_code == 2


@pytest.fixture
def measured_server(monkeypatch):
    """Stand in for the process that measures a server."""
    monkeypatch.setattr(
        plan_module,
        "serving_memory",
        lambda store=None, encoders=(): ServingMemory(
            100_000_000, 100_000_000 if store is None else 105_000_000
        ),
    )


class TestPlan:
    def test_a_plan_says_what_a_build_would_take_and_builds_nothing(self, inputs, measured_server):
        source = inputs / "r.jsonl"
        done = run("build", source, "--vectors", inputs / "v.npy", "--index", "ivf", "--plan")
        assert done.exit_code == 0, done.output
        lines = {line[:13].strip(): line[14:] for line in done.stdout.splitlines()}
        assert lines["passages"].startswith("2,000 (counted")
        assert "lists, codes of" in lines["index"]
        assert "of 512.0 MB" in lines["index memory"]
        assert "of your vectors" in lines["recall@10"]
        assert done.stdout.endswith("nothing was built\n")
        assert sorted(path.name for path in inputs.iterdir()) == ["q.npy", "r.jsonl", "v.npy"]

    def test_json_holds_all_figures(self, inputs, measured_server):
        done = run("build", inputs / "r.jsonl", "--vectors", inputs / "v.npy", "--plan", "--json")
        document = json.loads(done.stdout)
        assert document["index"]["kind"] == "flat"
        assert document["recall"]["recall"] == 1.0
        memory = document["memory"]
        assert memory["serving_bytes"] > 100_000_000
        assert memory["building_bytes"] == sum(memory["parts"].values())
        assert document["seconds"]["all"] > 0

    def test_a_budget_too_small_says_the_least_that_would_do(self, inputs):
        done = run("build", inputs / "r.jsonl", "--vectors", inputs / "v.npy", "--memory", "1kB", "--plan")
        assert done.exit_code == 1
        assert "Give at least" in done.stderr

    @pytest.mark.parametrize(
        ("recall", "words"),
        [
            ({"recall": 1.0, "candidates": 10, "source": "exact"}, "1 (exact)"),
            ({"recall": 0.95, "candidates": 40, "source": "x"}, "0.95 unless you ask for another"),
            ({"recall": None, "candidates": None, "source": "graphs"}, "not known before"),
        ],
    )
    def test_what_recall_to_expect_is_said_plainly(self, recall, words):
        assert expected(recall).startswith(words)

    def test_times_are_given_in_units_people_use(self):
        assert [duration(seconds) for seconds in (3, 300, 10_000, 400_000)] == [
            "3 s",
            "5.0 min",
            "2.8 h",
            "4.6 days",
        ]


@linux
class TestAccount:
    def test_predicted_and_measured_memory_are_kept_and_shown(
        self, store, inputs, monkeypatch, measured_server
    ):
        monkeypatch.setattr(plan_module, "MEASURED_FROM_PASSAGES", 100)
        flags = ["--vectors", inputs / "v.npy", "--index", "ivf", "--name", "other", "--workers", "1"]
        done = run("build", inputs / "r.jsonl", *flags, "--out", store)
        assert done.exit_code == 0, done.output
        manifest = read_manifest(store)
        assert manifest.measured.serving_bytes == 105_000_000
        assert manifest.measured.building_bytes > 50_000_000
        assert 100_000_000 < manifest.predicted.serving_bytes < 120_000_000
        assert verify(store) == []
        assert "to serve, the program included" in run("inspect", store).stdout
        write_manifest(store, replace(manifest, measured=None))  # as it is after the store has grown
        assert re.search(r"to serve, the program included +[\d.]+ MB +-", run("inspect", store).stdout)
        before = (store / "manifest.json").read_bytes()
        assert run("build", inputs / "r.jsonl", *flags, "--out", store).exit_code == 0
        assert (store / "manifest.json").read_bytes() == before

    def test_a_store_that_another_command_changes_already_is_left_alone(
        self, store, inputs, monkeypatch, measured_server
    ):
        monkeypatch.setattr(plan_module, "MEASURED_FROM_PASSAGES", 100)
        keep = Account.keep

        def keep_while_busy(account, result):
            with locked(result.path):
                keep(account, result)

        monkeypatch.setattr(Account, "keep", keep_while_busy)
        done = run("build", inputs / "r.jsonl", "--vectors", inputs / "v.npy", "--out", store, "--name", "x")
        assert done.exit_code == 0, done.output
        assert read_manifest(store).measured is None

    def test_what_cannot_be_measured_is_left_out(self, monkeypatch, store, inputs):
        monkeypatch.setattr(plan_module, "MEASURED_FROM_PASSAGES", 100)
        monkeypatch.setattr(plan_module, "serving_memory", lambda store=None: None)
        done = run("build", inputs / "r.jsonl", "--vectors", inputs / "v.npy", "--out", store, "--name", "x")
        assert done.exit_code == 0, done.output
        assert read_manifest(store).measured is None

    def test_encoders_count_towards_the_build(self, text_store, tiny_model, monkeypatch):
        monkeypatch.setattr(plan_module, "MEASURED_FROM_PASSAGES", 1)
        sizes = iter([ServingMemory(160_000_000, 170_000_000), ServingMemory(100_000_000, 100_000_000)])
        monkeypatch.setattr(plan_module, "serving_memory", lambda store=None: next(sizes))
        with Account(1) as account:
            source = str(text_store.parent / "records.jsonl")
            changed = {"encoder": {"model": str(tiny_model)}, "name": "changed"}
            result = build(recipe_for([source], changed), text_store)
        assert result.passages > 0
        account.keep(result)
        assert read_manifest(text_store).predicted.building_bytes > 160_000_000

    def test_what_distilling_takes_is_not_guessed(self, store, measured_server, monkeypatch):
        manifest = read_manifest(store)
        distilled = replace(manifest, encoder=replace(manifest.encoder, kind="static"))
        assert plan_module._encoders_bytes(distilled, ServingMemory(160, 170)) is None
        assert plan_module._encoders_bytes(manifest, ServingMemory(160, 170)) == 0

    def test_a_server_is_measured_in_a_process_of_its_own(self, store):
        found = serving_memory(store)
        assert 50_000_000 < found.base_bytes < found.bytes < 2 * found.base_bytes

    def test_a_server_that_cannot_be_measured_is_none(self, tmp_path, monkeypatch):
        assert serving_memory(tmp_path) is None
        monkeypatch.setattr("compactds.datastore.memory.can_measure", lambda: False)
        assert serving_memory() is None

    def test_the_process_says_what_it_holds(self, store, text_store, tiny_model, capsys):
        encoders = json.dumps([{"model": str(tiny_model)}])
        for arguments in (["", "[]"], ["", encoders], [str(store)], [str(text_store)]):
            child(arguments)
            found = json.loads(capsys.readouterr().out)
            assert 0 < found["base_bytes"] <= found["bytes"] + 10_000_000

    def test_the_process_runs_by_its_name(self):
        assert "measuring import child" in measuring._CHILD
