"""Vectors that depend on their text alone: batches of few shapes, whatever is encoded together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compactds.datastore.encoders import EncoderOptions, Steady, load_encoder
from compactds.datastore.encoders.batches import BatchShape, encode_texts, padded_length
from compactds.datastore.encoders.computation import Computation, machine_facts, wants_bfloat16
from compactds.datastore.encoders.static import distill
from compactds.datastore.errors import EncoderError

WORDS = ["sky", "is", "blue", "light", "and", "energy", "cell", "of", "the", "red", "?"]
TEXTS = [" ".join(np.random.default_rng(number).choice(WORDS, number)) for number in range(0, 60, 3)]


class TestPaddedLengths:
    @given(tokens=st.integers(0, 10_000), limit=st.none() | st.integers(1, 10_000))
    def test_a_text_fits_and_little_is_padding(self, tokens, limit):
        tokens = tokens if limit is None else min(tokens, limit)
        length = padded_length(tokens, limit)
        assert tokens <= length <= max(16, 1.125 * tokens + 16)
        assert limit is None or length <= max(limit, tokens)

    def test_only_texts_at_the_limit_have_no_padding(self):
        assert all(padded_length(tokens, 256) > tokens for tokens in range(256))
        assert padded_length(256, 256) == 256
        assert padded_length(300, None) == 320

    def test_there_are_few(self):
        assert sorted({padded_length(tokens, 256) for tokens in range(257)}) == list(range(16, 257, 16))
        assert len({padded_length(tokens, 8192) for tokens in range(8193)}) < 60


class TestBatchShapes:
    def test_a_filled_batch_has_the_same_rows_for_one_text_as_for_many(self):
        shape = BatchShape(2048, filled=True)
        assert [shape.rows(256, texts) for texts in (1, 8, 100)] == [8, 8, 8]
        assert shape.rows(4096, 1) == 1

    def test_others_are_no_larger_than_the_next_power_of_two(self):
        shape = BatchShape(2048, filled=False)
        assert [shape.rows(64, texts) for texts in (1, 2, 3, 5, 31, 32, 33, 500)] == [
            1,
            2,
            4,
            8,
            32,
            32,
            32,
            32,
        ]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def encoder(request, bert):
    return load_encoder(EncoderOptions(model=str(bert), dtype=request.param, batch_size=4))


class TestVectors:
    @settings(max_examples=25, deadline=None)
    @given(chosen=st.lists(st.sampled_from(range(len(TEXTS))), max_size=40))
    def test_a_passage_has_the_same_bytes_whatever_it_is_encoded_with(self, encoder, chosen):
        alone = np.concatenate([encoder.encode_passages([text]) for text in TEXTS])
        together = encoder.encode_passages([TEXTS[number] for number in chosen])
        np.testing.assert_array_equal(together, alone[chosen])

    def test_the_number_of_threads_changes_nothing(self, encoder):
        threads = torch.get_num_threads()
        found = []
        try:
            for number in (1, 2, 3, 8, 16):
                torch.set_num_threads(number)
                found.append(encoder.encode_passages(TEXTS).tobytes())
                assert torch.get_num_threads() == number
        finally:
            torch.set_num_threads(threads)
        assert len(set(found)) == 1

    def test_a_few_shapes_are_all_the_model_ever_sees(self, bert, monkeypatch):
        encoder = load_encoder(EncoderOptions(model=str(bert), batch_size=4, dtype="float32"))
        seen = set()
        forward = encoder._model.forward
        monkeypatch.setattr(
            encoder._model,
            "forward",
            lambda features: (seen.add(tuple(features["input_ids"].shape)), forward(features))[1],
        )
        for start in range(0, 20, 3):
            encoder.encode_passages(TEXTS[start:])
        assert seen == {(16, 16), (8, 32), (5, 48)}

    def test_a_model_that_reads_no_tokens_is_refused(self, encoder, monkeypatch):
        monkeypatch.setattr(encoder._model, "preprocess", lambda *_, **__: {"bag": torch.ones(1, 3)})
        with pytest.raises(EncoderError, match="reads no token ids"):
            encode_texts(encoder._model, ["x"], "", 48, BatchShape(64, filled=True))

    def test_a_static_model_gives_the_same_bytes_too(self, bert):
        encoder = distill(bert, "static:tiny", 8)
        alone = np.concatenate([encoder.encode_passages([text]) for text in TEXTS])
        chosen = np.random.default_rng(1).permutation(len(TEXTS))
        np.testing.assert_array_equal(encoder.encode_passages([TEXTS[i] for i in chosen]), alone[chosen])


class TestCacheKeys:
    def test_they_tell_apart_all_that_changes_a_vector(self, bert, monkeypatch):
        def key(**options):
            encoder = load_encoder(EncoderOptions(model=str(bert), **{"dtype": "float32", **options}))
            assert isinstance(encoder, Steady)
            return encoder.cache_key

        keys = [
            key(),
            key(dtype="bfloat16"),
            key(batch_size=8),
            key(passage_prompt="p: "),
            key(max_tokens=20),
        ]
        assert len(set(keys)) == len(keys)
        assert key() == keys[0]
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        assert key() != keys[0]

    def test_a_machine_without_a_list_of_instructions_has_a_name_for_them(self, monkeypatch):
        from pathlib import Path

        def fail(*_, **__):
            raise FileNotFoundError

        monkeypatch.setattr(Path, "open", fail)
        monkeypatch.setattr("platform.processor", lambda: "some processor")
        assert machine_facts()["instructions"] == "some processor"
        assert machine_facts()["driver"] == ""

    def test_a_library_that_is_not_there_has_no_version(self, monkeypatch):
        monkeypatch.setattr("compactds.datastore.encoders.computation._PACKAGES", ("no-such-package",))
        assert machine_facts()["no-such-package"] == "none"


def test_batches_are_larger_on_a_gpu():
    assert Computation(32).batch_tokens("cuda") > Computation(32).batch_tokens("cpu") == 32 * 64


def test_what_is_asked_for_wins_over_what_the_hardware_likes():
    assert wants_bfloat16("bfloat16", "cpu") is True
    assert wants_bfloat16("float32", "cuda") is False
    assert wants_bfloat16("auto", "mps") is False
