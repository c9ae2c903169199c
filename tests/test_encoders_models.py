"""Loading and running models of every local kind, on tiny ones that these tests make."""

import dataclasses
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

from compactds.datastore.encoders import EncoderOptions, EncoderSpec, load_encoder, load_spec
from compactds.datastore.encoders.computation import Computation
from compactds.datastore.encoders.sentence_transformer import (
    SentenceTransformerEncoder,
    load_sentence_transformer,
)
from compactds.datastore.encoders.settings import Settings
from compactds.datastore.encoders.static import StaticEncoder, distill, open_static
from compactds.datastore.errors import EncoderError, EncoderMismatchError, EncoderNotFoundError

HIDDEN = 32
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["query", "passage", "the", "a", "sky", "is", "blue", "red", "cell", "membrane", "energy", "of"]
WORDS += ["light", "and", "why", "how", "un", "able"]
PIECES = [chr(code) for code in range(ord("a"), ord("z") + 1)]
VOCABULARY = (
    SPECIALS + WORDS + [p for p in PIECES if p not in WORDS] + [f"##{p}" for p in PIECES] + [":", ".", "?"]
)
TEXTS = ["why is the sky blue", "membrane", "energy of light and the red cell . " * 6, "", "Ünable?"]


def write_tokenizer(folder: Path, *, pad_token: str | None = "[PAD]") -> None:
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token=pad_token,
        eos_token="[SEP]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    ).save_pretrained(folder)


def write_bert(folder: Path, *, normalize: bool = True, seed: int = 1) -> None:
    """Write a sentence-transformers folder: a two-layer BERT of random weights, mean pooling."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,  # large enough for every layer to matter
    )
    BertModel(config).save_pretrained(folder)
    write_tokenizer(folder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")] + [("2_Normalize", "Normalize")] * normalize
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for i, (path, kind) in enumerate(modules)
            ]
        )
    )
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 48}))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "bert"
    write_bert(folder)
    return folder


@pytest.fixture
def own_bert(bert: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may damage."""
    return Path(shutil.copytree(bert, tmp_path / "own"))


def token_ids(folder: Path, text: str) -> list[int]:
    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids


def hidden_states(folder: Path, text: str, limit: int = 48) -> np.ndarray:
    """Run the transformer by itself, one text at a time and so without padding: (tokens, hidden)."""
    ids = token_ids(folder, text)
    if len(ids) > limit:
        ids = [*ids[: limit - 1], ids[-1]]
    with torch.inference_mode():
        output = BertModel.from_pretrained(folder).eval()(input_ids=torch.tensor([ids]))
    return output.last_hidden_state[0].numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def load(folder: Path, **options: object) -> SentenceTransformerEncoder:
    encoder = load_encoder(EncoderOptions(model=str(folder), dtype="float32", **options))
    assert isinstance(encoder, SentenceTransformerEncoder)
    return encoder


class TestSentenceTransformer:
    def test_vectors_are_the_normalised_mean_of_the_hidden_states_in_the_order_of_the_texts(self, bert):
        expected = unit(np.stack([hidden_states(bert, text).mean(axis=0) for text in TEXTS]))

        encoder = load(bert, batch_size=2)

        np.testing.assert_allclose(encoder.encode_passages(TEXTS), expected, atol=1e-5)
        np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected, atol=1e-5)

    def test_the_same_texts_give_the_same_bytes_each_time(self, bert):
        first, second = load(bert), load(bert)
        assert first.encode_passages(TEXTS).tobytes() == second.encode_passages(TEXTS).tobytes()

    def test_vectors_are_float32_rows_and_no_texts_give_no_rows(self, bert):
        encoder = load(bert)
        vectors = encoder.encode_queries(["sky"])
        assert (vectors.dtype, vectors.shape) == (np.float32, (1, HIDDEN))
        assert encoder.encode_queries([]).shape == (0, HIDDEN)
        assert encoder.encode_passages([]).dtype == np.float32

    def test_prompts_come_before_the_text(self, bert):
        encoder = load(bert, query_prompt="query: ", passage_prompt="passage: ")
        plain = load(bert)
        np.testing.assert_allclose(
            encoder.encode_queries(["blue sky"]), plain.encode_queries(["query: blue sky"]), atol=1e-6
        )
        np.testing.assert_allclose(
            encoder.encode_passages(["blue sky"]), plain.encode_passages(["passage: blue sky"]), atol=1e-6
        )

    def test_prompts_are_taken_from_the_model_unless_given(self, own_bert):
        prompts = {"query": "why ", "document": "the "}
        (own_bert / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
        assert load(own_bert).spec.query_prompt == "why "
        assert load(own_bert).spec.passage_prompt == "the "
        assert load(own_bert, query_prompt="").spec.query_prompt == ""

    def test_a_smaller_dimension_is_the_beginning_of_the_vector_normalised_again(self, bert):
        full, cut = load(bert), load(bert, dimension=8)
        assert cut.spec.dimension == 8
        expected = unit(full.encode_passages(TEXTS)[:, :8])
        np.testing.assert_allclose(cut.encode_passages(TEXTS), expected, atol=1e-6)

    def test_a_larger_dimension_is_refused(self, bert):
        with pytest.raises(EncoderError, match="dimension = 64 is more than the model's 32"):
            load(bert, dimension=64)

    @pytest.mark.parametrize(
        ("pooling", "pool"),
        [
            ("cls", lambda states: states[0]),
            ("lasttoken", lambda states: states[-1]),
            ("max", lambda states: states.max(axis=0)),
            ("cls+mean", lambda states: np.concatenate([states[0], states.mean(axis=0)])),
        ],
    )
    def test_pooling_may_be_chosen(self, bert, pooling, pool):
        encoder = load(bert, pooling=pooling, normalize=False)
        expected = np.stack([pool(hidden_states(bert, text)) for text in TEXTS])
        assert encoder.spec.pooling == pooling
        assert encoder.spec.dimension == expected.shape[1]
        np.testing.assert_allclose(encoder.encode_passages(TEXTS), expected, atol=1e-5)

    def test_pooling_may_leave_out_the_prompt_but_the_text_still_sees_it(self, bert):
        encoder = load(bert, pooling="mean-without-prompt", passage_prompt="query : ", normalize=False)
        states = hidden_states(bert, "query : blue sky")
        expected = states[3:].mean(axis=0)  # [CLS], query and : are left out
        np.testing.assert_allclose(encoder.encode_passages(["blue sky"])[0], expected, atol=1e-5)

    def test_an_unknown_pooling_is_refused_with_the_known_ones(self, bert):
        with pytest.raises(EncoderError, match=r"pooling 'median' is unknown\. Use one of mean, cls"):
            load(bert, pooling="median")

    def test_normalisation_is_the_models_own_unless_given(self, bert, tmp_path):
        write_bert(tmp_path / "raw", normalize=False)
        assert load(bert).spec.normalized
        assert not load(tmp_path / "raw").spec.normalized
        given = load(tmp_path / "raw", normalize=True).encode_queries(TEXTS)
        np.testing.assert_allclose(np.linalg.norm(given, axis=1), 1, atol=1e-6)
        assert not np.allclose(np.linalg.norm(load(bert, normalize=False).encode_queries(TEXTS), axis=1), 1)

    def test_a_transformer_without_modules_is_mean_pooled(self, own_bert):
        (own_bert / "modules.json").unlink()
        encoder = load(own_bert)
        assert (encoder.spec.pooling, encoder.spec.normalized, encoder.spec.max_tokens) == ("mean", False, 64)
        expected = np.stack([hidden_states(own_bert, text, limit=64).mean(axis=0) for text in TEXTS])
        np.testing.assert_allclose(encoder.encode_passages(TEXTS), expected, atol=1e-5)

    def test_bfloat16_changes_passages_a_little_and_queries_not_at_all(self, bert):
        exact = load(bert)
        short = load_encoder(EncoderOptions(model=str(bert), dtype="bfloat16"))
        cosines = (exact.encode_passages(TEXTS) * short.encode_passages(TEXTS)).sum(axis=1)
        assert short.computes_in_bfloat16
        assert not exact.computes_in_bfloat16
        assert (cosines > 0.99).all()
        assert (cosines < 1 - 1e-6).any()
        np.testing.assert_array_equal(exact.encode_queries(TEXTS), short.encode_queries(TEXTS))
        assert exact.spec == short.spec

    def test_automatic_dtype_follows_the_hardware(self, bert, monkeypatch):
        for supported in (True, False):
            monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda supported=supported: supported)
            monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
            encoder = load_encoder(EncoderOptions(model=str(bert), device="cpu"))
            assert encoder.computes_in_bfloat16 is supported

    def test_threads_may_share_an_encoder(self, bert):
        encoder = load(bert)
        expected = encoder.encode_queries(TEXTS)
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: encoder.encode_queries(TEXTS), range(12)):
                np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            ("one text", "takes a list of texts"),
            (b"bytes", "takes a list of texts"),
            (["fine", None], "text 1 is of type NoneType, not str"),
            (["fine", "é\udc80"], r"text 1 holds the lone surrogate U\+DC80 at character 1"),
        ],
    )
    def test_what_is_not_a_list_of_text_is_refused(self, bert, texts, message):
        encoder = load(bert)
        for method in (
            encoder.encode_queries,
            encoder.encode_passages,
            encoder.count_tokens,
            encoder.token_offsets,
        ):
            with pytest.raises(EncoderError, match=message):
                method(texts)

    def test_control_characters_and_other_scripts_are_encoded(self, bert):
        vectors = load(bert).encode_passages(["\x00\x07\x1b", "天空為何是藍色", "👩‍🔬🧬", "\u202e\ufeff"])
        assert np.isfinite(vectors).all()

    def test_vectors_that_are_not_finite_are_an_error(self, bert):
        encoder = load(bert)
        with torch.no_grad():
            encoder._model[0].model.embeddings.word_embeddings.weight[VOCABULARY.index("sky")] = np.nan
        with pytest.raises(EncoderError, match="not finite for text 1"):
            encoder.encode_passages(["blue", "sky"])


class TestTokens:
    def test_counts_hold_the_special_tokens_and_the_passage_prompt(self, bert):
        encoder = load(bert, query_prompt="why is the sky blue ", passage_prompt="passage: ")
        assert encoder.overhead_tokens == 4  # [CLS] passage : [SEP]
        assert encoder.count_tokens(["blue sky", ""]) == [6, 4]
        assert encoder.count_tokens([]) == []

    def test_nothing_is_cut_and_nothing_is_said(self, bert, capfd, caplog):
        long = "sky " * 300
        encoder = load(bert)
        assert encoder.count_tokens([long] * 600) == [302] * 600
        assert len(encoder.token_offsets([long])[0]) == 300
        assert capfd.readouterr() == ("", "")
        assert not caplog.records

    def test_counting_does_not_change_what_is_encoded(self, bert):
        encoder = load(bert)
        before = encoder.encode_passages(TEXTS)
        encoder.count_tokens(TEXTS)
        np.testing.assert_array_equal(encoder.encode_passages(TEXTS), before)

    def test_offsets_are_the_characters_of_each_token(self, bert):
        text = "Why, the séa is blue"
        (spans,) = load(bert, passage_prompt="passage: ").token_offsets([text])
        assert spans.dtype == np.int64
        pieces = [text[start:end] for start, end in spans]
        assert pieces == ["Why", ",", "the", "s", "é", "a", "is", "blue"]

    def test_no_text_has_no_offsets(self, bert):
        encoder = load(bert)
        assert encoder.token_offsets([]) == []
        assert encoder.token_offsets([""])[0].shape == (0, 2)

    def test_offsets_and_overhead_add_up_to_the_count(self, bert):
        encoder = load(bert, passage_prompt="passage: ")
        counts = [len(spans) + encoder.overhead_tokens for spans in encoder.token_offsets(TEXTS)]
        assert counts == encoder.count_tokens(TEXTS)

    def test_the_limit_is_the_models_unless_given(self, bert):
        assert load(bert).spec.max_tokens == 48
        short = load(bert, max_tokens=6)
        assert short.spec.max_tokens == 6
        expected = unit(hidden_states(bert, TEXTS[2], limit=6).mean(axis=0))
        np.testing.assert_allclose(short.encode_passages([TEXTS[2]])[0], expected, atol=1e-5)

    def test_a_limit_beyond_the_models_positions_is_refused(self, bert):
        with pytest.raises(EncoderError, match="max_tokens = 65 is more than the 64 positions"):
            load(bert, max_tokens=65)

    def test_a_limit_that_leaves_no_room_is_refused_when_tokens_are_counted(self, bert):
        encoder = load(bert, max_tokens=4, passage_prompt="passage: ")
        with pytest.raises(EncoderError, match="max_tokens = 4 leaves no room for text"):
            encoder.count_tokens(["sky"])


class TestFingerprint:
    def test_it_does_not_change_when_the_folder_moves_or_is_saved_by_another_version(self, bert, own_bert):
        config = json.loads((own_bert / "config.json").read_text())
        config |= {"transformers_version": "4.8.2", "_name_or_path": "elsewhere"}
        (own_bert / "config.json").write_text(json.dumps(config))
        assert load(own_bert).spec.fingerprint == load(bert).spec.fingerprint

    @pytest.mark.parametrize(
        "change",
        [
            {"query_prompt": "query: "},
            {"passage_prompt": "query: "},
            {"dimension": 16},
            {"pooling": "cls"},
            {"normalize": False},
            {"max_tokens": 32},
        ],
    )
    def test_it_changes_with_everything_that_changes_a_vector(self, bert, change):
        assert load(bert, **change).spec.fingerprint != load(bert).spec.fingerprint

    def test_it_does_not_change_with_how_vectors_are_computed(self, bert):
        other = load_encoder(EncoderOptions(model=str(bert), batch_size=3, dtype="bfloat16", device="cpu"))
        assert other.spec.fingerprint == load(bert).spec.fingerprint

    def test_it_changes_with_weights_tokenizer_and_architecture(self, bert, tmp_path):
        prints = {load(bert).spec.fingerprint}
        write_bert(tmp_path / "weights", seed=2)
        prints.add(load(tmp_path / "weights").spec.fingerprint)
        for name, old, new in [
            ("tokenizer.json", '"lowercase": true', '"lowercase": false'),
            ("config.json", '"hidden_act": "gelu"', '"hidden_act": "relu"'),
        ]:
            folder = Path(shutil.copytree(bert, tmp_path / name))
            text = (folder / name).read_text()
            assert old in text
            (folder / name).write_text(text.replace(old, new))
            prints.add(load(folder).spec.fingerprint)
        assert len(prints) == 4

    def test_sharded_weights_are_hashed_and_loaded(self, bert, tmp_path):
        folder = tmp_path / "sharded"
        shutil.copytree(bert, folder)
        model = BertModel.from_pretrained(bert)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="20KB")
        assert len(list(folder.glob("model-*.safetensors"))) > 1
        np.testing.assert_allclose(
            load(folder).encode_queries(TEXTS), load(bert).encode_queries(TEXTS), atol=1e-6
        )
        next(folder.glob("model-*.safetensors")).unlink()
        with pytest.raises(EncoderError, match="which is not there"):
            load(folder)

    def test_a_recorded_encoder_loads_again_as_it_was(self, bert):
        encoder = load(
            bert, query_prompt="query: ", pooling="cls", dimension=8, max_tokens=20, normalize=False
        )
        recorded = EncoderSpec.from_json(json.loads(json.dumps(encoder.spec.to_json())))
        again = load_spec(recorded)
        assert again.spec == encoder.spec == recorded
        np.testing.assert_array_equal(again.encode_queries(TEXTS), encoder.encode_queries(TEXTS))

    def test_another_model_in_its_place_is_refused_with_both_fingerprints(self, own_bert):
        recorded = load(own_bert).spec
        shutil.rmtree(own_bert)
        write_bert(own_bert, seed=3)
        found = load(own_bert).spec.fingerprint
        with pytest.raises(EncoderMismatchError, match=f"(?s){found}.*{recorded.fingerprint}"):
            load_spec(recorded)

    def test_a_record_with_missing_or_unknown_keys_is_refused(self, bert):
        data = load(bert).spec.to_json()
        with pytest.raises(TypeError):
            EncoderSpec.from_json(data | {"colour": "blue"})
        with pytest.raises(TypeError):
            EncoderSpec.from_json({key: data[key] for key in data if key != "pooling"})


class TestDamagedModels:
    def test_weights_stored_as_a_pickle_are_refused(self, own_bert):
        (own_bert / "model.safetensors").rename(own_bert / "pytorch_model.bin")
        with pytest.raises(EncoderError, match="stores weights as a pickle"):
            load(own_bert)

    def test_a_folder_without_weights_is_refused(self, own_bert):
        (own_bert / "model.safetensors").unlink()
        with pytest.raises(EncoderError, match=r"holds no model\.safetensors"):
            load(own_bert)

    def test_cut_weights_are_one_clear_error(self, own_bert):
        weights = own_bert / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(EncoderError, match="cannot be loaded"):
            load(own_bert)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("config.json", "{", r"config\.json is not JSON"),
            ("config.json", "[]", r"config\.json holds a list, not an object"),
            ("modules.json", "{", r"modules\.json is not JSON"),
            ("modules.json", '{"0": 1}', r"modules\.json is not a list of modules"),
            ("tokenizer.json", "{}", "cannot be loaded"),
            ("config.json", '{"model_type": "unheard-of"}', "cannot be loaded"),
        ],
    )
    def test_damaged_files_are_named(self, own_bert, name, content, message):
        (own_bert / name).write_text(content)
        with pytest.raises(EncoderError, match=message):
            load(own_bert)

    def test_a_config_that_is_missing_is_named(self, own_bert):
        (own_bert / "config.json").unlink()
        with pytest.raises(EncoderError, match=r"config\.json cannot be read"):
            load(own_bert)

    def test_a_model_with_code_of_its_own_is_refused(self, own_bert):
        modules = json.loads((own_bert / "modules.json").read_text())
        modules[0]["type"] = "custom_code.Transformer"
        (own_bert / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(EncoderError, match=r"asks for the module custom_code\.Transformer"):
            load(own_bert)

    def test_a_device_that_is_not_there_is_one_clear_error(self, bert):
        with pytest.raises(EncoderError, match="cannot be loaded"):
            load(bert, device="cuda:63")

    def test_loading_is_silent(self, bert, capfd, caplog):
        load(bert).encode_passages(TEXTS)
        assert capfd.readouterr() == ("", "")
        assert not caplog.records


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(4)
    Qwen2Model(
        Qwen2Config(
            vocab_size=len(VOCABULARY),
            hidden_size=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        )
    ).save_pretrained(folder)
    write_tokenizer(folder, pad_token=None)
    return folder


class TestBidirectional:
    def states(self, folder: Path, text: str, *, causal: bool) -> np.ndarray:
        ids = torch.tensor([token_ids(folder, text)])
        size = ids.shape[1]
        mask = torch.full((size, size), -torch.inf).triu(1) if causal else torch.zeros(size, size)
        with torch.inference_mode():
            model = Qwen2Model.from_pretrained(folder).eval()
            return model(input_ids=ids, attention_mask=mask[None, None]).last_hidden_state[0].numpy()

    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_the_causal_mask_is_lifted_if_asked(self, qwen, bidirectional):
        settings = Settings(pooling="mean", bidirectional=bidirectional)
        encoder = load_sentence_transformer(qwen, "qwen", settings, Computation(dtype="float32"))
        texts = [text for text in TEXTS if text]
        expected = [self.states(qwen, text, causal=not bidirectional).mean(axis=0) for text in texts]
        np.testing.assert_allclose(encoder.encode_passages(texts), np.stack(expected), atol=5e-6)

    def test_it_is_part_of_the_fingerprint(self, qwen):
        prints = {
            load_sentence_transformer(qwen, "qwen", Settings(bidirectional=b), Computation()).spec.fingerprint
            for b in (False, True)
        }
        assert len(prints) == 2


@pytest.fixture(scope="module")
def static(bert) -> StaticEncoder:
    return distill(bert, "static:tiny", dimension=16)


class TestStatic:
    def test_a_vector_is_the_normalised_mean_of_its_tokens_vectors(self, static):
        blue, sky = static.encode_passages(["blue"]), static.encode_passages(["sky"])
        assert static.spec.dimension == 16
        np.testing.assert_allclose(np.linalg.norm(blue), 1, atol=1e-6)
        raw = open_raw(static)
        expected = unit((raw["blue"] + raw["sky"] + raw["sky"]) / 3)
        np.testing.assert_allclose(static.encode_passages(["blue Sky sky"])[0], expected, atol=1e-6)
        assert not np.allclose(blue, sky)

    def test_a_vector_does_not_depend_on_its_neighbours(self, static):
        many = static.encode_passages(TEXTS * 300)
        np.testing.assert_array_equal(many[: len(TEXTS)], static.encode_passages(TEXTS))
        np.testing.assert_array_equal(many[-1], static.encode_passages(TEXTS)[-1])

    def test_text_without_a_known_token_is_zero(self, static):
        assert not static.encode_queries(["", "天"]).any()
        assert static.encode_queries([]).shape == (0, 16)

    def test_distilling_twice_and_saving_gives_the_same_bytes(self, static, bert, tmp_path):
        distill(bert, "static:tiny", dimension=16).save(tmp_path / "first")
        static.save(tmp_path / "second")
        names = sorted(path.name for path in (tmp_path / "first").iterdir())
        assert names == ["config.json", "model.safetensors", "tokenizer.json"]
        for name in names:
            assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
        assert str(bert) not in (tmp_path / "first" / "config.json").read_text()

    def test_a_saved_model_opens_as_it_was_and_saves_again_as_it_was(self, static, tmp_path):
        static.save(tmp_path / "saved")
        opened = open_static(tmp_path / "saved", "static:tiny")
        assert opened.spec == static.spec
        np.testing.assert_array_equal(opened.encode_passages(TEXTS), static.encode_passages(TEXTS))
        opened.save(tmp_path / "again")
        assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
            tmp_path / "saved" / "model.safetensors"
        ).read_bytes()
        with pytest.raises(FileExistsError):
            opened.save(tmp_path / "again")

    def test_a_store_carries_its_model(self, bert, tmp_path):
        options = EncoderOptions(model=f"static:{bert}", dimension=8, query_prompt="why ")
        encoder = load_encoder(options)
        encoder.save(tmp_path / "store" / "encoders" / "ann")
        spec = replace(encoder.spec, bundled="encoders/ann", model="static:/gone")
        found = load_spec(spec, store_root=tmp_path / "store")
        np.testing.assert_array_equal(found.encode_queries(TEXTS), encoder.encode_queries(TEXTS))
        resumed = load_encoder(options, bundle_root=tmp_path / "store" / "encoders" / "ann")
        assert resumed.spec == encoder.spec

    def test_a_store_that_lost_its_model_says_so(self, static, tmp_path):
        with pytest.raises(EncoderError, match=r"encoders/ann lacks model\.safetensors"):
            load_spec(replace(static.spec, bundled="encoders/ann"), store_root=tmp_path)

    def test_a_bundle_outside_the_store_is_refused(self, static, tmp_path):
        for place in ("../elsewhere", "/etc"):
            with pytest.raises(EncoderError, match="outside the store"):
                load_spec(replace(static.spec, bundled=place), store_root=tmp_path)

    def test_a_static_folder_is_recognised_and_needs_no_kind(self, static, tmp_path):
        static.save(tmp_path / "model")
        for options in (
            EncoderOptions(model=str(tmp_path / "model")),
            EncoderOptions(model=str(tmp_path / "model"), kind="static"),
        ):
            assert load_encoder(options).spec.fingerprint == static.spec.fingerprint
        with pytest.raises(EncoderError, match="is a static model, not one for kind 'sentence-transformers'"):
            load_encoder(EncoderOptions(model=str(tmp_path / "model"), kind="sentence-transformers"))

    def test_models_that_model2vec_saved_open_too(self, bert, tmp_path):
        from model2vec import StaticModel

        table = np.arange(len(VOCABULARY) * 4, dtype=np.float32).reshape(-1, 4)
        tokenizer = Tokenizer.from_file(str(bert / "tokenizer.json"))
        weights = np.linspace(1, 2, len(VOCABULARY)).astype(np.float32)
        mapping = np.arange(len(VOCABULARY))[::-1].copy()
        StaticModel(
            table, tokenizer, normalize=False, weights=weights, token_mapping=mapping
        ).save_pretrained(tmp_path / "model")
        encoder = load_encoder(EncoderOptions(model=str(tmp_path / "model")))
        ids = [VOCABULARY.index(word) for word in ("sky", "blue")]
        expected = np.mean([table[mapping[i]] * weights[i] for i in ids], axis=0)
        np.testing.assert_allclose(encoder.encode_passages(["sky blue"])[0], expected, rtol=1e-6)
        assert not encoder.spec.normalized

    def test_tokens_are_counted_without_special_tokens(self, bert):
        encoder = distill(bert, "x", 8, Settings(passage_prompt="passage : "))
        assert encoder.overhead_tokens == 2
        assert encoder.count_tokens(["blue sky"]) == [4]
        assert [tuple(span) for span in encoder.token_offsets(["blue sky"])[0]] == [(0, 4), (5, 8)]
        assert encoder.spec.max_tokens is None

    def test_the_dimension_is_cut_and_what_does_not_fit_is_refused(self, static, bert, tmp_path):
        static.save(tmp_path / "model")
        cut = open_static(tmp_path / "model", "x", Settings(dimension=4))
        np.testing.assert_allclose(
            cut.encode_passages(["sky"]), unit(static.encode_passages(["sky"])[:, :4]), atol=1e-6
        )
        with pytest.raises(EncoderError, match="dimension = 17 is more than the model's 16"):
            open_static(tmp_path / "model", "x", Settings(dimension=17))
        with pytest.raises(EncoderError, match="no token limit"):
            open_static(tmp_path / "model", "x", Settings(max_tokens=100))
        with pytest.raises(EncoderError, match="of dimension 33 cannot be distilled from one of 32"):
            distill(bert, "x", dimension=33)

    def test_damaged_static_models_are_named(self, static, tmp_path):
        static.save(tmp_path / "model")
        weights = tmp_path / "model" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
        with pytest.raises(EncoderError, match=r"the static model in .* cannot be loaded"):
            open_static(tmp_path / "model", "x")
        (tmp_path / "model" / "tokenizer.json").unlink()
        with pytest.raises(EncoderError, match=r"lacks model\.safetensors or tokenizer\.json"):
            open_static(tmp_path / "model", "x")


def open_raw(static: StaticEncoder) -> dict[str, np.ndarray]:
    """Return the token vectors of a distilled model by token, as its file holds them."""
    from safetensors.numpy import load

    tokens = Tokenizer.from_str(static._files["tokenizer.json"].decode()).get_vocab()
    table = load(static._files["model.safetensors"])["embeddings"].astype(np.float32)
    return {token: table[row] for token, row in tokens.items()}


class Hub(SimpleHTTPRequestHandler):
    """Speak as much of the hub's protocol as a download needs, for one repository tiny/bert."""

    sha = "0123456789abcdef0123456789abcdef01234567"

    def log_message(self, *args):
        """Say nothing."""

    def files(self) -> list[str]:
        root = Path(self.directory)
        return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]

    def do_GET(self, *, body: bool = True) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/api/models/tiny/bert/tree/"):
            self.reply([{"type": "file", "path": name, "size": 1, "oid": name} for name in self.files()])
        elif path.startswith("/api/models/tiny/bert"):
            self.reply(
                {"id": "tiny/bert", "sha": self.sha, "siblings": [{"rfilename": n} for n in self.files()]}
            )
        elif path.startswith(f"/tiny/bert/resolve/{self.sha}/"):
            content = (Path(self.directory) / path.split(self.sha + "/")[1]).read_bytes()
            self.send(200, content, body=body)
        else:
            self.send(404, b'{"error": "Repository not found"}', body=body, error="RepoNotFound")

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def reply(self, data: object) -> None:
        self.send(200, json.dumps(data).encode())

    def send(self, status: int, content: bytes, *, body: bool = True, error: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hash(content) & (2**64 - 1):040x}"')
        self.send_header("X-Repo-Commit", self.sha)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if body:
            self.wfile.write(content)


class TestLocating:
    @pytest.fixture
    def hub(self, bert, monkeypatch, tmp_path):
        """A hub on the loopback interface, and an empty cache."""
        from huggingface_hub import constants

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(bert)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server
        server.shutdown()
        server.server_close()

    def test_a_hub_model_is_downloaded_once_and_then_found_in_the_cache(self, hub, bert, capfd):
        options = EncoderOptions(model="tiny/bert", dtype="float32")
        first = load_encoder(options)
        assert capfd.readouterr() == ("", "")
        assert first.spec.model == "tiny/bert"
        assert first.spec.fingerprint == load(bert).spec.fingerprint
        hub.shutdown()
        hub.server_close()
        assert load_encoder(options).spec == first.spec

    def test_what_is_nowhere_lists_what_was_tried(self, hub):
        with pytest.raises(EncoderNotFoundError, match=r"local path tiny/none .*; the hub http://127.*404"):
            load_encoder(EncoderOptions(model="tiny/none"))

    def test_a_hub_that_cannot_be_reached_is_one_clear_error(self, hub, capfd):
        hub.shutdown()
        hub.server_close()
        with pytest.raises(EncoderNotFoundError, match=r"the hub http://127.*refused"):
            load_encoder(EncoderOptions(model="tiny/bert"))
        assert capfd.readouterr() == ("", "")

    def test_offline_mode_asks_nobody(self, hub, monkeypatch):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(EncoderNotFoundError, match="not there, and HF_HUB_OFFLINE is set"):
            load_encoder(EncoderOptions(model="tiny/bert"))

    @pytest.mark.parametrize(
        "model", ["./nowhere", "a/b/c", "what is this?", "x\x00y", "~nobody/model", "y" * 5000]
    )
    def test_what_cannot_be_a_hub_id_is_not_asked_for(self, model):
        with pytest.raises(EncoderNotFoundError, match="not a hub id"):
            load_encoder(EncoderOptions(model=model))

    def test_a_folder_without_a_model_says_so(self, tmp_path):
        with pytest.raises(EncoderNotFoundError, match=r"holds no config\.json or modules\.json"):
            load_encoder(EncoderOptions(model=str(tmp_path)))

    def test_options_without_sense_are_named(self):
        for change, message in [
            ({"model": ""}, "has no model"),
            ({"kind": "magic"}, "kind = 'magic' is unknown"),
            ({"dtype": "int8"}, "dtype = 'int8' is unknown"),
            ({"dimension": 0}, "dimension = 0"),
            ({"batch_size": -1}, "batch_size = -1"),
            ({"max_tokens": 0}, "max_tokens = 0"),
        ]:
            with pytest.raises(EncoderError, match=message):
                load_encoder(EncoderOptions(**change))

    def test_a_record_keeps_every_field(self, bert):
        spec = replace(load(bert).spec, probe=(0.5, -0.25), url="http://x", bundled="a", api_key_env="KEY")
        assert EncoderSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
        assert set(spec.to_json()) == {field.name for field in dataclasses.fields(EncoderSpec)}
