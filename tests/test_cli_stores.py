"""`compactds inspect`, `verify` and `serve` on a real store."""

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from urllib.request import urlopen

import numpy as np
import pytest
from typer.testing import CliRunner

from compactds.cli.main import app
from compactds.cli.serve import curl, server_settings
from compactds.configs.recipe import recipe_for
from compactds.datastore import Datastore
from compactds.datastore.errors import StoreError
from compactds.indexer.build import build

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments], prog_name="compactds")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of six records with ready-made vectors, named `records`."""
    folder = tmp_path_factory.mktemp("stores")
    records = folder / "records.jsonl"
    records.write_text("".join(f'{{"id": "{n}", "text": "text {n}", "year": {n}}}\n' for n in range(6)))
    np.save(folder / "v.npy", np.eye(6, dtype=np.float32))
    build(recipe_for([str(records)], {"vectors": str(folder / "v.npy")}), folder / "store")
    return folder / "store"


@pytest.fixture
def damaged(store, tmp_path):
    """A copy of the store with one byte of its vectors changed."""
    copy = tmp_path / "damaged"
    subprocess.run(["cp", "-r", store, copy], check=True)
    vectors = next(copy.glob("segments/*/exact.*"))
    content = bytearray(vectors.read_bytes())
    content[1] ^= 1
    vectors.write_bytes(content)
    return copy


class TestInspect:
    def test_a_reader_learns_what_the_store_holds(self, store):
        text = run("inspect", store).stdout
        assert text.splitlines()[0] == "records"
        for line in ("documents  6", "passages   6", "year         int64", "both   none   vectors"):
            assert line in text
        assert "passages.arrow" in text
        assert "bytes a passage" in text
        assert "records          6" in text  # the ledger's line of the source
        assert "truncated: 0" in text

    def test_json_holds_everything(self, store):
        document = json.loads(run("inspect", store, "--json").stdout)
        assert document["passages"] == 6
        assert document["schema"]["year"] == "int64"
        assert document["ledgers"][0]["sources"][0]["documents"] == 6

    def test_it_says_what_an_open_store_says_without_opening_the_index(self, store, monkeypatch):
        with Datastore.open(store) as opened:
            described = opened.describe(measure=True)
            ledgers = opened.ledgers()
        monkeypatch.setattr(Datastore, "open", None)
        described["ram_bytes"].pop("filters")
        account = {
            "memory": {"predicted": None, "measured": None},
            "calibrated_on": ["passages of the store"],
        }
        expected = {**described, **account, "ledgers": ledgers}
        assert json.loads(run("inspect", store, "--json").stdout) == json.loads(json.dumps(expected))

    def test_it_says_what_conditions_on_each_field_take_in_memory(self, store):
        text = run("inspect", store).stdout
        lines = text[text.index("attributes, and") :].splitlines()[1:]
        assert lines[0].split("  ")[-1] == "measured"
        (year,) = [line.split() for line in lines if line.startswith("  year ")]
        assert year[:7] == ["year", "int64", "codes", "of", "1", "byte", "61"]  # 6 codes, 6 values, counts
        assert year[-1] == "yes"
        assert "  limits: columns 67.1 MB, results 33.6 MB" in lines
        fields = json.loads(run("inspect", store, "--json").stdout)["filters"]["fields"]
        assert (fields["year"]["ram_bytes"], fields["year"]["known"]) == (61, "measured")

    def test_columns_of_large_stores_are_built_on_request_only(self, store, monkeypatch):
        monkeypatch.setattr(importlib.import_module("compactds.cli.inspect"), "MEASURED_ROWS", 5)

        def year(*flags):
            return json.loads(run("inspect", store, "--json", *flags).stdout)["filters"]["fields"]["year"]

        assert (year()["form"], year()["known"]) == ("not in memory", "at most")
        assert year()["ram_bytes"] >= year("--measure")["ram_bytes"] == 61
        assert year("--measure")["known"] == "measured"
        assert "at most" in run("inspect", store).stdout

    def test_a_ledger_that_is_gone_fails(self, damaged):
        ledger = next(damaged.glob("segments/*/ledger.json"))
        for content in (b"{", b"\xff"):
            ledger.write_bytes(content)
            assert run("inspect", damaged).exit_code == 1
        ledger.unlink()
        done = run("inspect", damaged)
        assert done.exit_code == 1
        assert "ledger.json cannot be read" in done.stderr

    def test_two_encoders_are_told_apart(self, store, monkeypatch):
        inspect = importlib.import_module("compactds.cli.inspect")
        described = json.loads(run("inspect", store, "--json").stdout)
        described["exact_encoder"] = described["encoder"] | {"model": "large", "fingerprint": "f" * 40}
        sections = dict(inspect._sections(described, []))
        assert [line.split()[:2] for line in sections["encoders"]] == [
            ["stage", "model"],
            ["index", "none"],
            ["exact", "large"],
        ]

    def test_a_folder_without_a_store_fails(self, tmp_path):
        done = run("inspect", tmp_path)
        assert done.exit_code == 1
        assert done.stderr.startswith(f"error: no datastore at {tmp_path}")


class TestVerify:
    def test_a_whole_store_passes(self, store):
        done = run("verify", store)
        assert (done.exit_code, done.stdout) == (0, f"{store} is whole\n")
        assert json.loads(run("verify", store, "--json").stdout) == {
            "store": str(store),
            "ok": True,
            "problems": [],
        }

    def test_a_changed_byte_is_found(self, damaged):
        done = run("verify", damaged)
        assert done.exit_code == 1
        assert "exact." in done.stdout.splitlines()[0]
        assert done.stdout.splitlines()[-1] == "1 problem; build the store again, or restore it from a copy"
        done = run("verify", damaged, "--json")
        assert done.exit_code == 1
        assert not json.loads(done.stdout)["ok"]

    def test_a_folder_without_a_store_fails(self, tmp_path):
        assert run("verify", tmp_path).exit_code == 1


class TestWhereAServerIsNamed:
    @pytest.mark.parametrize(
        ("store", "url"),
        [
            ("localhost:8080", "http://localhost:8080"),
            ("127.0.0.1:80/api", "http://127.0.0.1:80/api"),
            ("[::1]:80", "http://[::1]:80"),
            (":8080", "http://localhost:8080"),
            ("8080", "http://localhost:8080"),
        ],
    )
    def test_an_address_without_its_scheme_is_told_how_to_be_written(self, store, url):
        for arguments in (["search", store, "why?"], ["evaluate", store, "--task", "demo"]):
            done = run(*arguments)
            assert done.exit_code == 2
            assert f"there is no folder {store!r}; for a server, write {url}" in done.stderr

    def test_a_folder_of_such_a_name_is_a_folder(self, store, tmp_path, monkeypatch):
        shutil.copytree(store, tmp_path / "host:8080")
        monkeypatch.chdir(tmp_path)
        assert "for a server" not in run("search", "host:8080", "why?").stderr

    @pytest.mark.parametrize("command", ["inspect", "verify", "serve", "compact", "delete", "tune", "diff"])
    def test_a_url_is_no_folder(self, command):
        done = run(command, "http://127.0.0.1:1", *(["other"] if command == "diff" else []))
        assert done.exit_code == 2
        assert "it takes the folder of a store; this is the URL of a server" in done.stderr


class TestServe:
    def test_a_store_is_served_until_it_is_stopped(self, store):
        command = [sys.executable, "-c", "from compactds.cli.main import main; main()"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPACTDS_")}
        with subprocess.Popen(
            [*command, "serve", str(store), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as server:
            lines = [server.stdout.readline() for _ in range(3)]
            url = lines[0].split()[-1]
            with urlopen(f"{url}/v1/store") as answer:
                assert json.load(answer)["passages"] == 6
            server.send_signal(signal.SIGINT)
            remarks = server.communicate(timeout=60)[1]
        assert server.returncode == 0
        assert lines[0] == f"serving {store} at {url}\n"
        assert lines[1] == f"docs: {url}/docs\n"
        assert lines[2].startswith(f"try:  curl -s {url}/v1/store")
        assert remarks.startswith("records: 6 passages; the index takes ")
        assert "'/v1/store' 200" in remarks
        assert remarks.endswith("stopped\n")

    def test_an_address_beyond_this_machine_needs_a_key(self, store, monkeypatch):
        monkeypatch.delenv("COMPACTDS_SERVE_API_KEY", raising=False)
        done = run("serve", store, "--host", "0.0.0.0", "--port", "0")
        assert done.exit_code == 1
        assert (
            "Set an API key, in the variable COMPACTDS_SERVE_API_KEY or as api_key in a file" in done.stderr
        )

    def test_a_port_in_use_is_told(self, store):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = run("serve", store, "--port", port)
        assert done.exit_code == 1
        assert f"port {port} on 127.0.0.1 is in use" in done.stderr

    def test_a_store_whose_encoder_is_gone_is_not_served(self, tiny_model, tmp_path):
        model = tmp_path / "model"
        shutil.copytree(tiny_model, model)
        (tmp_path / "a.txt").write_text("light of the star")
        build(recipe_for([str(tmp_path / "a.txt")], {"encoder": {"model": str(model)}}), tmp_path / "store")
        shutil.rmtree(model)
        done = run("serve", tmp_path / "store", "--port", "0")
        assert done.exit_code == 1
        assert "serving" not in done.stdout
        assert str(model) in done.stderr

    def test_of_a_damaged_store_nothing_is_said_but_the_damage(self, damaged):
        done = run("serve", damaged, "--port", "0")
        assert done.exit_code == 1
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert "the index takes" not in done.stderr

    def test_a_store_is_checked_before_it_is_served_if_asked_for(self, store, monkeypatch):
        asked = []

        def refused(path, *, verify):
            asked.append(verify)
            raise StoreError("ann.faiss fails its checksum.")

        monkeypatch.setattr("compactds.datastore.Datastore.open", refused)
        for flags in ([], ["--verify"]):
            done = run("serve", store, "--port", "0", *flags)
            assert done.exit_code == 1
            assert "fails its checksum" in done.stderr
        assert asked == [False, True]

    def test_wrong_settings_exit_with_2(self, store, monkeypatch):
        assert run("serve", store, "--port", "70000").exit_code == 2
        assert run("serve", store, "--config", "absent.toml").exit_code == 1  # like any missing file
        monkeypatch.setenv("COMPACTDS_SERVE_MAX_K", "many")
        assert run("serve", store).exit_code == 2

    def test_settings_reach_the_server(self, tmp_path, monkeypatch):
        file = tmp_path / "serve.toml"
        file.write_text("max_k = 7\nport = 1\n")
        monkeypatch.setenv("COMPACTDS_SERVE_API_KEY", "secret")
        settings = server_settings(file, {"port": 2, "host": None})
        assert (settings.host, settings.port, settings.max_k) == ("127.0.0.1", 2, 7)
        assert settings.api_key == "secret"

    def test_the_curl_example_holds_valid_json(self):
        command = curl("http://x", "why?", where='{"year": 1}', with_key=True)
        assert "$COMPACTDS_SERVE_API_KEY" in command
        body = command.split(" -d '")[1].removesuffix("'")
        assert json.loads(body) == {"query": "why?", "k": 3, "where": {"year": 1}}
