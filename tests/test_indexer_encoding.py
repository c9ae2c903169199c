"""Encoding shards: the same vectors with the cache and without, however much of it is there."""

import json
import shutil
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from compactds.datastore.encoders import EncoderOptions, load_encoder, vectors_spec
from compactds.datastore.encoders.lazy import LazyEncoder
from compactds.datastore.errors import EncoderError
from compactds.indexer import remembered_encoders
from compactds.indexer.bundles import load_build_encoder
from compactds.indexer.embedding_cache import CacheOptions
from compactds.indexer.encoding import (
    EncodingCount,
    encode_shard,
    encode_shards,
)
from compactds.indexer.errors import BuildError
from compactds.indexer.given_vectors import GivenVectors, take_given_vectors
from compactds.indexer.passages import PassageOptions, Passager
from compactds.indexer.remembered_encoders import load_remembered
from compactds.indexer.workspace import Workspace, write_table

WORDS = ["sky", "is", "blue", "light", "and", "energy", "cell", "of", "the", "red", "?"]
TEXTS = [
    f"{number} " + " ".join(np.random.default_rng([number, 7]).choice(WORDS, number % 60))
    for number in range(90)
]


@dataclass
class Told:
    """Remember what a build was told."""

    done: int = 0
    notes: list = field(default_factory=list)

    def stage(self, name, total):
        """Take no notice."""

    def advance(self, amount):
        self.done += amount

    def note(self, message):
        self.notes.append(message)


@dataclass
class WordEncoder:
    """Give a text the numbers of its characters; count what is encoded."""

    scale: float = 1.0
    cache_key: str = "words"
    encoded: list = field(default_factory=list)
    spec = vectors_spec(4, normalized=False)

    def encode_passages(self, texts):
        self.encoded += texts
        rows = [[len(text), text.count("e"), text.count(" "), 1] for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), 4) * np.float32(self.scale)


def workspace_of(root, shards):
    workspace = Workspace(root)
    workspace.shards.mkdir(parents=True)
    for number, texts in enumerate(shards):
        table = {"ordinal": list(range(len(texts))), "title": ["about t" * (len(text) % 2) for text in texts]}
        write_table(workspace.shards / f"{number:06d}.arrow", pa.table(table | {"text": texts}))
    return workspace


PASSAGER = Passager(PassageOptions(split=False), [])


def encode(root, shards, encoder, cache=None, dtype="float16"):
    """Encode shards in a new workspace; return the bytes of the vectors, the count, and what was told."""
    shutil.rmtree(root, ignore_errors=True)
    workspace, told = workspace_of(root, shards), Told()
    counts = encode_shards(workspace, len(shards), encoder, "exact", PASSAGER, dtype, told, cache)
    count = EncodingCount(*(sum(column) for column in zip(*map(astuple, counts), strict=True)))
    assert told.done == sum(map(len, shards))
    files = [(workspace.shards / f"{number:06d}.exact.npy").read_bytes() for number in range(len(shards))]
    return files, count, told.notes


@pytest.fixture
def cache(tmp_path):
    return CacheOptions(tmp_path / "cache")


class TestCache:
    def test_a_rebuild_encodes_nothing_and_stores_the_same_bytes(self, tmp_path, cache):
        shards = [TEXTS[:50], TEXTS[50:]]
        plain, count, notes = encode(tmp_path / "work", shards, WordEncoder())
        assert (count.cached, notes) == (0, [])
        assert encode(tmp_path / "work", shards, WordEncoder(), cache)[0] == plain
        encoder = WordEncoder()
        again, count, notes = encode(tmp_path / "work", shards, encoder, cache)
        assert again == plain
        assert encoder.encoded == []
        assert count == EncodingCount(truncated=0, zero=0, cached=90)
        assert notes == ["90 vectors came from the embedding cache."]

    def test_only_what_is_new_is_encoded(self, tmp_path, cache):
        encode(tmp_path / "work", [TEXTS[:40]], WordEncoder(), cache)
        encoder = WordEncoder()
        shards = [TEXTS[:20] + TEXTS[60:65], TEXTS[65:70] + TEXTS[30:40]]
        found, count, _ = encode(tmp_path / "work", shards, encoder, cache)
        assert found == encode(tmp_path / "work", shards, WordEncoder())[0]
        assert len(encoder.encoded) == 10
        assert count.cached == 30

    def test_another_number_format_is_another_cache(self, tmp_path, cache):
        encode(tmp_path / "work", [TEXTS], WordEncoder(), cache)
        plain = encode(tmp_path / "work", [TEXTS], WordEncoder(), dtype="float32")[0]
        found, count, _ = encode(tmp_path / "work", [TEXTS], WordEncoder(), cache, dtype="float32")
        assert (found, count.cached) == (plain, 0)

    def test_zero_vectors_are_counted_as_they_are_stored_from_the_cache_too(self, tmp_path, cache):
        for expected in (0, 90):  # too small for float16
            _, count, _ = encode(tmp_path / "work", [TEXTS], WordEncoder(scale=1e-12), cache)
            assert (count.zero, count.cached) == (90, expected)

    def test_an_encoder_that_promises_nothing_is_not_cached(self, tmp_path, cache):
        class Unsteady(WordEncoder):
            @property
            def cache_key(self):
                raise AttributeError

            @cache_key.setter
            def cache_key(self, key):
                """Take none."""

        for _ in range(2):
            encoder = Unsteady()
            encode(tmp_path / "work", [TEXTS], encoder, cache)
            assert len(encoder.encoded) == 90
        assert not cache.folder.exists()

    def test_a_full_cache_is_told(self, tmp_path, cache):
        small = replace(cache, limit_bytes=2500)
        notes = encode(tmp_path / "work", [TEXTS[:50], TEXTS[50:]], WordEncoder(), small)[2]
        assert notes[-1].startswith("The embedding cache is full: ")

    def test_finished_shards_are_counted_and_not_encoded_again(self, tmp_path, cache):
        workspace, encoder = workspace_of(tmp_path / "work", [TEXTS[:50], TEXTS[50:]]), WordEncoder()
        arguments = (encoder, "exact", PASSAGER, "float16", Told())
        first = encode_shards(workspace, 1, *arguments, cache)
        assert encode_shards(workspace, 2, *arguments, cache) == (EncodingCount(0, 0, 0),) * 2
        assert first == (EncodingCount(0, 0, 0),)
        assert len(encoder.encoded) == 90


class TestVectorsThatCannotBeStored:
    def test_vectors_that_are_not_finite_are_an_error(self, tmp_path):
        with pytest.raises(BuildError, match="a vector that is not finite, for passage 0 of shard 0"):
            encode(tmp_path / "work", [TEXTS], WordEncoder(scale=np.nan))

    def test_numbers_beyond_float16_are_an_error_that_names_the_way_out(self, tmp_path, cache):
        with pytest.raises(BuildError, match=r"float16 cannot hold.*Set dtype = 'float32' in .* \[exact\]"):
            encode(tmp_path / "work", [TEXTS], WordEncoder(scale=1e5), cache)
        encode(tmp_path / "work", [TEXTS], WordEncoder(scale=1e5), cache, dtype="float32")


class TestTransformers:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_cached_and_new_vectors_together_are_those_of_a_build_without_a_cache(
        self, tmp_path, cache, bert, dtype
    ):
        encoder = load_encoder(EncoderOptions(model=str(bert), dtype=dtype))
        plain = encode(tmp_path / "work", [TEXTS], encoder)[0]
        encode(tmp_path / "work", [TEXTS[::3] + TEXTS[:1]], encoder, cache)
        mixed, count, _ = encode(tmp_path / "work", [TEXTS], encoder, cache)
        assert mixed == plain
        encode(tmp_path / "work", [TEXTS[:10], TEXTS[5:]], encoder, cache)
        assert encode(tmp_path / "work", [TEXTS], encoder, cache)[0] == plain
        assert count.cached < 90

    def test_a_shard_alone_is_encoded_as_it_is_among_others(self, tmp_path, bert):
        encoder = load_encoder(EncoderOptions(model=str(bert)))
        workspace = workspace_of(tmp_path / "alone", [TEXTS[:30], TEXTS[30:]])
        encode_shard(workspace, 1, encoder, "exact", PASSAGER, "float16", Told())
        alone = (workspace.shards / "000001.exact.npy").read_bytes()
        assert alone == encode(tmp_path / "work", [TEXTS[:30], TEXTS[30:]], encoder)[0][1]


def change_activation(model):
    """Make another model of one on disk."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))


class TestRemembering:
    def test_a_model_seen_before_is_loaded_when_a_vector_is_wanted(self, tmp_path, bert):
        options = EncoderOptions(model=str(bert), max_tokens=40, passage_prompt="sky ")
        first = load_remembered(options, tmp_path / "cache")
        lazy = load_remembered(options, tmp_path / "cache")
        assert isinstance(lazy, LazyEncoder)
        assert (lazy.spec, lazy.cache_key) == (first.spec, first.cache_key)
        assert lazy.overhead_tokens == first.overhead_tokens == 3
        assert lazy.count_tokens(TEXTS) == first.count_tokens(TEXTS)
        assert lazy.tokenizer_json == first.tokenizer_json
        for one, other in zip(lazy.token_offsets(TEXTS), first.token_offsets(TEXTS), strict=True):
            assert one.tolist() == other.tolist()
        assert not lazy.is_loaded
        assert lazy.encode_passages(TEXTS).tobytes() == first.encode_passages(TEXTS).tobytes()
        assert lazy.encode_queries(TEXTS).tobytes() == first.encode_queries(TEXTS).tobytes()
        assert lazy.is_loaded

    def test_what_is_remembered_holds_for_the_same_options_files_and_machine_only(
        self, tmp_path, bert, monkeypatch
    ):
        folder, model = tmp_path / "cache", shutil.copytree(bert, tmp_path / "own")
        options = EncoderOptions(model=str(model))
        load_remembered(options, folder)
        assert isinstance(load_remembered(options, folder), LazyEncoder)
        assert not isinstance(load_remembered(replace(options, dtype="float32"), folder), LazyEncoder)
        change_activation(model)
        changed = load_remembered(options, folder)
        assert not isinstance(changed, LazyEncoder)
        assert changed.spec.fingerprint != load_encoder(replace(options, model=str(bert))).spec.fingerprint
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        assert not isinstance(load_remembered(options, folder), LazyEncoder)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: "",
            lambda text: "[]",
            lambda text: '{"body": {}}',
            lambda text: text.replace("sky", "sly"),
            lambda text: text[:-20],
        ],
    )
    def test_a_damaged_memory_is_not_believed(self, tmp_path, bert, caplog, damage):
        options = EncoderOptions(model=str(bert))
        load_remembered(options, tmp_path / "cache")
        (path,) = (tmp_path / "cache" / "encoders").iterdir()
        path.write_text(damage(path.read_text()))
        assert not isinstance(load_remembered(options, tmp_path / "cache"), LazyEncoder)
        assert "is damaged" in caplog.text
        assert isinstance(load_remembered(options, tmp_path / "cache"), LazyEncoder)

    def test_a_model_that_changes_before_it_is_loaded_is_an_error(self, tmp_path, bert):
        model = shutil.copytree(bert, tmp_path / "own")
        options = EncoderOptions(model=str(model))
        load_remembered(options, tmp_path / "cache")
        lazy = load_remembered(options, tmp_path / "cache")
        change_activation(model)
        with pytest.raises(EncoderError, match="changed while it was in use"):
            lazy.encode_passages(["sky"])

    def test_a_folder_that_is_none_costs_the_memory_and_nothing_else(self, tmp_path, bert, caplog):
        (tmp_path / "cache").write_text("a file")
        for options in (EncoderOptions(model=str(bert)), EncoderOptions(model=f"static:{bert}", dimension=4)):
            assert load_remembered(options, tmp_path / "cache").encode_passages(["sky"]).any()
        assert "nothing is remembered" in caplog.text
        assert "the static model is not kept" in caplog.text

    def test_endpoints_and_vectors_have_nothing_to_remember(self, tmp_path):
        options = EncoderOptions(model="", kind="vectors", dimension=3)
        assert load_remembered(options, tmp_path / "cache").spec.dimension == 3
        assert not (tmp_path / "cache").exists()


class TestDistilled:
    @pytest.fixture
    def options(self, bert):
        return EncoderOptions(model=f"static:{bert}", dimension=6)

    @pytest.fixture
    def distilled(self, tmp_path, options, monkeypatch):
        """A cache that holds a distilled model, and the list of what is loaded otherwise from now on."""
        first = load_remembered(options, tmp_path / "cache")
        asked = []

        def load(options, *, bundle_root=None):
            asked.append(bundle_root)
            return load_encoder(options, bundle_root=bundle_root)

        monkeypatch.setattr(remembered_encoders, "load_encoder", load)
        return first, asked

    def test_a_static_model_is_distilled_once(self, tmp_path, options, distilled):
        first, asked = distilled
        again = load_remembered(options, tmp_path / "cache")
        assert None not in asked
        assert again.spec == first.spec
        assert again.encode_passages(TEXTS).tobytes() == first.encode_passages(TEXTS).tobytes()
        prompted = load_remembered(replace(options, query_prompt="sky "), tmp_path / "cache")
        assert None not in asked
        assert prompted.spec.fingerprint != first.spec.fingerprint

    def test_another_dimension_is_another_model(self, tmp_path, options, distilled):
        assert load_remembered(replace(options, dimension=5), tmp_path / "cache").spec.dimension == 5
        assert distilled[1] == [None]

    @pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "about.json"])
    def test_a_damaged_one_is_distilled_again(self, tmp_path, options, distilled, caplog, name):
        first, asked = distilled
        (kept,) = (tmp_path / "cache" / "models").iterdir()
        (kept / name).write_bytes((kept / name).read_bytes()[:-9] + b"damaged")
        assert load_remembered(options, tmp_path / "cache").spec == first.spec
        assert asked == [None]
        assert load_remembered(options, tmp_path / "cache").spec == first.spec
        assert asked == [None, kept]

    def test_one_that_cannot_be_opened_is_distilled_again(
        self, tmp_path, options, distilled, monkeypatch, caplog
    ):
        (kept,) = (tmp_path / "cache" / "models").iterdir()
        (kept / "model.safetensors").unlink()
        monkeypatch.setattr(remembered_encoders, "_is_whole", lambda _: True)
        assert load_remembered(options, tmp_path / "cache").spec == distilled[0].spec
        assert "cannot be used" in caplog.text

    def test_a_static_model_on_disk_is_read_as_it_is(self, tmp_path, options, distilled):
        distilled[0].save(tmp_path / "saved")
        load_remembered(EncoderOptions(model=str(tmp_path / "saved")), tmp_path / "other")
        assert not (tmp_path / "other").exists()

    def test_a_build_keeps_it_in_its_workspace_as_before(self, tmp_path, options, distilled):
        workspace = workspace_of(tmp_path / "work", [])
        cache = CacheOptions(tmp_path / "cache")
        for _ in range(2):
            encoder = load_build_encoder(workspace, "ann", options, cache)
            assert encoder.spec == distilled[0].spec
            assert (workspace.root / "encoders" / "ann" / "model.safetensors").is_file()
        assert load_build_encoder(workspace_of(tmp_path / "two", []), "ann", options).spec == encoder.spec


class Shards:
    """Stand for a workspace of ten shards that keeps nothing."""

    def read_shard(self, number, _columns):
        return pa.table({"ordinal": np.arange(number * 4_000, (number + 1) * 4_000)})

    def write_vectors(self, *_):
        """Take no notice."""


def test_vectors_that_were_taken_do_not_stay_part_of_the_process(tmp_path):
    np.save(tmp_path / "given.npy", np.ones((40_000, 512), np.float16))  # 40 MB
    resident = []

    class Watch(Told):
        def advance(self, _amount):
            lines = Path("/proc/self/status").read_text().splitlines()
            resident.append(next(int(line.split()[1]) for line in lines if line.startswith("RssFile")))

    found = take_given_vectors(Shards(), 10, 40_000, tmp_path / "given.npy", "float16", Watch())
    assert found == GivenVectors(512, normalized=False)
    assert len(resident) == 10
    assert max(resident) - min(resident) < 6_000
