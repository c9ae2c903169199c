"""Encoding on workers: the bytes and counts of encoding here, marks that both understand, or not at all."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from compactds.configs.recipe import load_recipe
from compactds.datastore.encoders import EncoderOptions, load_encoder
from compactds.datastore.errors import EncoderMismatchError
from compactds.indexer import encoding, spread_encoding
from compactds.indexer.build import build
from compactds.indexer.embedding_cache import CacheOptions
from compactds.indexer.execution import LocalExecutor
from compactds.indexer.passages import PassageOptions
from compactds.indexer.progress import LoggedProgress
from compactds.indexer.workspace import ShardSizes, Workspace


class Elsewhere(LocalExecutor):
    """Stand for an engine on other machines: does what it is given here, and remembers what that was."""

    spreads_encoding = True

    def __init__(self, fail_after=None):
        super().__init__()
        self.contexts, self.numbers, self.fail_after = set(), [], fail_after

    def map(self, function, context, tasks, report):
        for task in tasks:
            if function is spread_encoding.encode_task:
                if len(self.numbers) == self.fail_after:
                    raise KeyboardInterrupt
                self.contexts.add(context)
                self.numbers.append(task)
            yield function(context, task, report)


class Told(LoggedProgress):
    """Remember how many passages were encoded, and notes."""

    def __init__(self):
        self.name, self.encoded, self.notes = "", 0, []

    def stage(self, name, total):
        self.name = name

    def advance(self, amount):
        self.encoded += amount if self.name.startswith("encoding") else 0

    def note(self, message):
        self.notes.append(message)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Make shards of few passages, and forget encoders between tests."""
    monkeypatch.setattr("compactds.indexer.pipeline.SHARDS", ShardSizes(documents=7, passages=40))
    yield
    spread_encoding._loaded.cache_clear()


@pytest.fixture
def data(tmp_path, records, write_jsonl):
    return write_jsonl(tmp_path / "data.jsonl", records)


def recipe(data, encoder, exact=None):
    path = data.with_name("recipe.toml")
    text = f'[[sources]]\npath = "data.jsonl"\n[encoder]\n{encoder}\n'
    path.write_text(text + (f"[exact_encoder]\n{exact}\n" if exact else ""))
    return load_recipe(path)


def content(store: Path) -> tuple:
    """Return what a store holds but for timings: the digests of its files, and the ledger."""
    (segment,) = json.loads((store / "manifest.json").read_text())["segments"]
    ledger = json.loads((store / "segments" / segment["name"] / "ledger.json").read_text())
    ledger["seconds"] = sorted(ledger["seconds"])
    del segment["files"]["ledger.json"], segment["calibration"], segment["costs"], segment["name"]
    return segment, {key: value for key, value in ledger.items() if key != "resumed"}


def transformer(folder, dtype="float32"):
    return f'model = "{folder}"\ndtype = "{dtype}"'


def refuse(*arguments):
    raise AssertionError("encoded here")


class TestTheSameStore:
    @pytest.mark.parametrize(
        ("encoder", "exact", "roles"),
        [
            ("transformer:tiny", None, ["exact"]),
            ("static:tiny", None, ["exact"]),
            ("transformer:tiny", "transformer:bert", ["ann", "exact"]),
            ("static:tiny", "transformer:bert", ["ann", "exact"]),
        ],
    )
    def test_it_is_that_of_encoding_here(
        self, tmp_path, data, tiny_model, bert, encoder, exact, roles, monkeypatch
    ):
        folders = {"tiny": tiny_model, "bert": bert}

        def table(name):
            kind, _, model = (name or "::").partition(":")
            if kind == "static":
                return f'model = "static:{folders[model]}"\ndimension = 8'
            return transformer(folders[model]) if model in folders else None

        wanted = recipe(data, table(encoder), table(exact))
        passages = build(wanted, tmp_path / "here").passages
        monkeypatch.setattr(encoding, "encode_shard", refuse)
        executor, told = Elsewhere(), Told()
        build(wanted, tmp_path / "there", executor=executor, progress=told)
        assert content(tmp_path / "there") == content(tmp_path / "here")
        assert told.encoded == passages * len(roles)
        assert sorted(context.role for context in executor.contexts) == roles
        assert len(executor.numbers) >= 2 * len(roles)

    def test_cuts_and_cached_vectors_are_counted_as_here(self, tmp_path, data, tiny_model, monkeypatch):
        wanted = recipe(data, transformer(tiny_model))
        wanted = wanted.model_copy(update={"passages": wanted.passages.model_copy(update={"split": False})})
        cache = CacheOptions(tmp_path / "cache")
        build(wanted, tmp_path / "here", cache=cache)
        build(wanted, tmp_path / "again", cache=cache)
        told = Told()
        result = build(wanted, tmp_path / "there", executor=Elsewhere(), cache=cache, progress=told)
        assert content(tmp_path / "there") == content(tmp_path / "again")
        assert result.truncated > 0
        assert result.cached == told.encoded == result.passages
        assert f"{result.passages:,} vectors came from the embedding cache." in told.notes

    def test_workers_add_to_the_cache_and_say_when_it_is_full(self, tmp_path, data, tiny_model):
        wanted = recipe(data, transformer(tiny_model))
        cache, told = CacheOptions(tmp_path / "cache"), Told()
        passages = build(wanted, tmp_path / "there", executor=Elsewhere(), cache=cache).passages
        assert build(wanted, tmp_path / "here", cache=cache).cached == passages
        small = CacheOptions(tmp_path / "small", limit_bytes=2_500)
        build(wanted, tmp_path / "full", executor=Elsewhere(), cache=small, progress=told)
        assert any(note.startswith("The embedding cache is full: ") for note in told.notes)


class TestStopped:
    @pytest.mark.parametrize("second", [Elsewhere, LocalExecutor])
    def test_finished_shards_are_not_encoded_again_whoever_goes_on(self, tmp_path, data, tiny_model, second):
        wanted = recipe(data, transformer(tiny_model))
        passages = build(wanted, tmp_path / "straight").passages
        first = Elsewhere(fail_after=2)
        with pytest.raises(KeyboardInterrupt):
            build(wanted, tmp_path / "store", executor=first)
        executor, told = second(), Told()
        build(wanted, tmp_path / "store", executor=executor, progress=told)
        assert first.numbers == [0, 1]
        assert set(getattr(executor, "numbers", [])).isdisjoint(first.numbers)
        assert told.encoded == passages
        assert content(tmp_path / "store") == content(tmp_path / "straight")

    def test_a_last_shard_alone_is_encoded_here(self, tmp_path, data, tiny_model):
        wanted = recipe(data, transformer(tiny_model))
        build(wanted, tmp_path / "straight", executor=(straight := Elsewhere()))
        with pytest.raises(KeyboardInterrupt):
            build(wanted, tmp_path / "store", executor=Elsewhere(fail_after=len(straight.numbers) - 1))
        executor = Elsewhere()
        build(wanted, tmp_path / "store", executor=executor)
        assert executor.numbers == []
        assert content(tmp_path / "store") == content(tmp_path / "straight")

    def test_a_shard_whose_worker_was_lost_after_it_is_told_and_left(
        self, tmp_path, data, tiny_model, monkeypatch
    ):
        told = Told()

        class Twice(Elsewhere):
            def map(self, function, context, tasks, report):
                for result in super().map(function, context, tasks, report):
                    if function is spread_encoding.encode_task:
                        before = told.encoded
                        monkeypatch.setattr(spread_encoding, "encode_shard", refuse)
                        assert function(context, self.numbers[-1], report) == result
                        told.again += told.encoded - before
                        monkeypatch.undo()
                    yield result

        told.again = 0
        build(recipe(data, transformer(tiny_model)), tmp_path / "store", executor=Twice(), progress=told)
        assert told.again == told.encoded / 2 > 0


class TestWhoEncodes:
    """A worker must compute what this process would."""

    def spread(self, tmp_path, options, cache=None, executor=None):
        workspace = Workspace(tmp_path / "work")
        workspace.root.mkdir(exist_ok=True)
        encoders = {"exact": load_encoder(options)}
        executor = executor or Elsewhere()
        return spread_encoding.spread_encoding(
            executor, workspace, encoders, "exact", "ann", options, PassageOptions(), "float16", cache
        )

    @pytest.mark.parametrize("here", ["float32", "bfloat16"])
    def test_the_number_format_is_decided_here(self, tmp_path, data, tiny_model, monkeypatch, here):
        wanted = recipe(data, transformer(tiny_model, "auto"))
        monkeypatch.setattr(spread_encoding, "wants_bfloat16", lambda dtype, device: here == "bfloat16")
        executor = Elsewhere()
        build(wanted, tmp_path / "there", executor=executor)
        (context,) = executor.contexts
        assert (context.options.dtype, context.options.device) == (here, "cpu")
        build(recipe(data, transformer(tiny_model, here)), tmp_path / "here")
        there, here = content(tmp_path / "there"), content(tmp_path / "here")
        assert there == here

    def test_a_gpu_is_used_here_alone(self, tmp_path, tiny_model, monkeypatch):
        options = EncoderOptions(model=str(tiny_model), device="cpu")
        assert self.spread(tmp_path, options) is not None
        monkeypatch.setattr("sentence_transformers.util.get_device_name", lambda: "cuda:0")
        spec = load_encoder(options).spec
        assert spread_encoding._decided(replace(options, device="auto"), spec, tmp_path) is None
        assert spread_encoding._decided(replace(options, device="cuda"), spec, tmp_path) is None

    def test_an_endpoint_is_asked_from_here(self, tmp_path, tiny_model):
        spec = replace(load_encoder(EncoderOptions(model=str(tiny_model))).spec, kind="openai")
        assert spread_encoding._decided(EncoderOptions(), spec, tmp_path) is None

    def test_a_static_model_that_the_build_does_not_carry_is_used_here(self, tmp_path, tiny_model):
        options = EncoderOptions(model=f"static:{tiny_model}", dimension=8)
        assert self.spread(tmp_path, options) is None

    def test_an_encoder_that_keeps_its_tokenizer_is_used_here(self, tmp_path, tiny_model, monkeypatch):
        monkeypatch.setattr(spread_encoding, "write_tokenizers", lambda workspace, encoders: None)
        assert self.spread(tmp_path, EncoderOptions(model=str(tiny_model))) is None

    def test_an_encoder_that_was_given_stays_here(self, tmp_path, data, tiny_model):
        executor, encoder = Elsewhere(), load_encoder(EncoderOptions(model=str(tiny_model)))
        build(recipe(data, transformer(tiny_model)), tmp_path / "store", executor=executor, encoder=encoder)
        assert executor.numbers == []

    def test_another_model_on_a_worker_is_an_error(self, tmp_path, data, tiny_model, bert, monkeypatch):
        model = shutil.copytree(tiny_model, tmp_path / "model")

        def load(workspace, role, options, cache):
            return load_encoder(replace(options, model=str(bert)))

        monkeypatch.setattr(spread_encoding, "load_build_encoder", load)
        with pytest.raises(EncoderMismatchError, match="a worker finds another model as") as raised:
            build(recipe(data, transformer(model)), tmp_path / "store", executor=Elsewhere())
        assert "all machines" in raised.value.remedy
