"""Encoding through an HTTP server, against a real one on the loopback interface."""

import email.utils
import json
import re
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from compactds.datastore.encoders import EncoderOptions, EncoderSpec, Steady, load_encoder, load_spec
from compactds.datastore.encoders.embedding_client import EmbeddingClient
from compactds.datastore.encoders.endpoint import PROBE_TEXT, same_probe
from compactds.datastore.encoders.vectors import VectorsEncoder, vectors_spec
from compactds.datastore.errors import EncoderError, EncoderMismatchError, SearchError

DIMENSION = 96
KEY = "secret-key"


def vector_of(text: str, seed: int = 0) -> np.ndarray:
    """Return the vector that the test server gives a text: random, but always the same one."""
    state = np.random.default_rng([seed, *text.encode()])
    return state.normal(size=DIMENSION) * 3


class EmbeddingServer(ThreadingHTTPServer):
    """Speak both protocols, record the requests, and fail first as often as a test asks."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        self.failures = []  # (status, headers, body) for the next requests
        self.seed = 0
        self.noise = 0.0
        self.needs_key = False
        self.answer = None  # what to answer instead of vectors

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: EmbeddingServer

    def log_message(self, *args):
        """Say nothing."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body, self.headers))
        if self.server.failures:
            self.reply(*self.server.failures.pop(0))
        elif self.server.needs_key and self.headers.get("Authorization") != f"Bearer {KEY}":
            self.reply(401, {}, {"error": "no key"})
        elif self.server.answer is not None:
            self.reply(200, {}, self.server.answer)
        elif self.path == "/v1/embeddings":
            rows = self.vectors(body["input"])
            data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
            self.reply(200, {}, {"object": "list", "data": data[::-1], "model": body["model"]})
        elif self.path == "/embed":
            self.reply(200, {}, self.vectors(body["inputs"]))
        else:
            self.reply(404, {}, {"error": f"no route {self.path}"})

    def vectors(self, texts):
        found = [vector_of(text, self.server.seed) for text in texts]
        return [(row + self.server.noise * np.sin(np.arange(DIMENSION))).tolist() for row in found]

    def reply(self, status, headers, body):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server():
    server = EmbeddingServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["openai", "tei"])
def options(request, server):
    url = server.url + ("/v1" if request.param == "openai" else "")
    return EncoderOptions(model="some-model", kind=request.param, url=url, batch_size=2)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


class TestEncoding:
    def test_vectors_come_back_normalised_in_the_order_of_the_texts(self, options):
        texts = ["one", "two", "three", "", "天空"]
        found = load_encoder(options).encode_passages(texts)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, unit(np.stack([vector_of(text) for text in texts])), atol=1e-6)

    def test_texts_travel_in_batches_and_nothing_may_be_cut(self, options, server):
        encoder = load_encoder(options)
        server.requests.clear()
        encoder.encode_queries(["a", "b", "c", "d", "e"])
        bodies = [body for _, body, _ in server.requests]
        if options.kind == "openai":
            assert [body["input"] for body in bodies] == [["a", "b"], ["c", "d"], ["e"]]
            assert bodies[0]["model"] == "some-model"
        else:
            assert [body["inputs"] for body in bodies] == [["a", "b"], ["c", "d"], ["e"]]
            assert all(body["truncate"] is False for body in bodies)

    def test_no_texts_ask_nothing(self, options, server):
        encoder = load_encoder(options)
        server.requests.clear()
        assert encoder.encode_queries([]).shape == (0, DIMENSION)
        assert not server.requests

    def test_prompts_are_put_before_the_texts(self, options):
        encoder = load_encoder(
            EncoderOptions(**as_dict(options) | {"query_prompt": "q: ", "passage_prompt": "p: "})
        )
        np.testing.assert_allclose(encoder.encode_queries(["x"])[0], unit(vector_of("q: x")), atol=1e-6)
        np.testing.assert_allclose(encoder.encode_passages(["x"])[0], unit(vector_of("p: x")), atol=1e-6)

    def test_the_prompts_of_a_preset_are_used_for_its_model(self, options):
        encoder = load_encoder(EncoderOptions(**as_dict(options) | {"model": "intfloat/e5-base-v2"}))
        np.testing.assert_allclose(encoder.encode_queries(["x"])[0], unit(vector_of("query: x")), atol=1e-6)
        assert (encoder.spec.dimension, encoder.spec.max_tokens) == (DIMENSION, None)

    def test_the_dimension_may_be_cut_and_normalisation_left_out(self, options):
        cut = load_encoder(EncoderOptions(**as_dict(options) | {"dimension": 8}))
        raw = load_encoder(EncoderOptions(**as_dict(options) | {"normalize": False}))
        np.testing.assert_allclose(cut.encode_queries(["x"])[0], unit(vector_of("x")[:8]), atol=1e-6)
        np.testing.assert_allclose(raw.encode_queries(["x"])[0], vector_of("x"), rtol=1e-6)
        with pytest.raises(EncoderError, match="dimension = 97 is more than the endpoint's 96"):
            load_encoder(EncoderOptions(**as_dict(options) | {"dimension": 97}))

    def test_texts_are_checked_before_they_leave(self, options):
        encoder = load_encoder(options)
        with pytest.raises(EncoderError, match="list of texts"):
            encoder.encode_queries("one")
        with pytest.raises(EncoderError, match="lone surrogate"):
            encoder.encode_queries(["\ud800"])

    def test_tokens_cannot_be_counted_so_no_limit_can_be_kept(self, options):
        encoder = load_encoder(options)
        assert encoder.spec.max_tokens is None
        for count in (encoder.count_tokens, encoder.token_offsets):
            with pytest.raises(EncoderError, match="cannot be counted"):
                count(["x"])
        with pytest.raises(EncoderError, match="cannot be counted"):
            _ = encoder.overhead_tokens
        with pytest.raises(EncoderError, match="max_tokens = 512 cannot be kept"):
            load_encoder(EncoderOptions(**as_dict(options) | {"max_tokens": 512}))

    def test_a_server_that_changes_its_model_midway_is_noticed(self, options, server):
        encoder = load_encoder(options)
        short = [[1.0] * 4]
        server.answer = {"data": [{"index": 0, "embedding": short[0]}]} if options.kind == "openai" else short
        with pytest.raises(EncoderError, match="gave vectors of 4 dimensions, not 96"):
            encoder.encode_queries(["x"])
        encoder.close()


def as_dict(options: EncoderOptions) -> dict:
    return {name: getattr(options, name) for name in ("model", "kind", "url", "batch_size")}


class TestAddress:
    @pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/embeddings"])
    def test_an_url_alone_means_an_openai_compatible_server(self, server, path):
        encoder = load_encoder(EncoderOptions(model="m", url=server.url + path))
        assert encoder.spec.kind == "openai"
        assert server.requests[0][0] == "/v1/embeddings"

    def test_an_url_ending_in_embed_means_text_embeddings_inference(self, server):
        assert load_encoder(EncoderOptions(model="m", url=f"{server.url}/embed")).spec.kind == "tei"

    def test_what_does_not_fit_is_refused(self, server):
        for change, message in [
            ({"kind": "openai"}, "kind 'openai' needs a url"),
            ({"kind": "static", "url": server.url}, "kind 'static' takes no url"),
            ({"kind": "tei", "url": "file:///etc/passwd"}, "is not one of an HTTP server"),
        ]:
            with pytest.raises(EncoderError, match=message):
                load_encoder(EncoderOptions(model="m", **change))


class TestKey:
    def test_the_key_is_sent_but_never_recorded(self, options, server, monkeypatch):
        server.needs_key = True
        monkeypatch.setenv("EMBEDDING_KEY", KEY)
        encoder = load_encoder(EncoderOptions(**as_dict(options) | {"api_key_env": "EMBEDDING_KEY"}))
        assert encoder.spec.api_key_env == "EMBEDDING_KEY"
        assert KEY not in json.dumps(encoder.spec.to_json())

    def test_a_key_that_is_missing_or_wrong_is_named_by_its_variable(self, options, server, monkeypatch):
        server.needs_key = True
        monkeypatch.delenv("EMBEDDING_KEY", raising=False)
        with_key = EncoderOptions(**as_dict(options) | {"api_key_env": "EMBEDDING_KEY"})
        with pytest.raises(EncoderError, match="environment variable EMBEDDING_KEY, named by api_key_env"):
            load_encoder(with_key)
        monkeypatch.setenv("EMBEDDING_KEY", "wrong")
        with pytest.raises(EncoderError, match=r"answered 401.*api_key_env") as caught:
            load_encoder(with_key)
        assert "wrong" not in str(caught.value)


class TestRetries:
    @pytest.fixture
    def waits(self):
        return []

    @pytest.fixture
    def client(self, server, waits):
        client = EmbeddingClient("tei", server.url, "m", sleep=waits.append)
        yield client
        client.close()

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_a_busy_server_is_asked_again_after_growing_waits(self, client, server, waits, status):
        server.failures = [(status, {}, b"")] * 3
        np.testing.assert_allclose(client.embed(["x"])[0], vector_of("x"), rtol=1e-6)
        assert waits == [0.5, 1.0, 2.0]

    def test_the_server_may_say_how_long_to_wait_but_not_for_ever(self, client, server, waits):
        later = email.utils.formatdate(time.time() + 30, usegmt=True)
        headers = ["7", "86400", later, "soon"]
        server.failures = [(429, {"Retry-After": value}, b"") for value in headers]
        client.embed(["x"])
        assert waits[0] == 7.0
        assert waits[1] == 60.0
        assert 25 < waits[2] <= 30
        assert waits[3] == 4.0  # not understood: its turn in 0.5, 1, 2, 4

    def test_it_gives_up_after_five_attempts(self, client, server, waits):
        server.failures = [(503, {}, b"model is loading")] * 9
        with pytest.raises(EncoderError, match="answered 503: model is loading"):
            client.embed(["x"])
        assert len(server.requests) == 5
        assert len(waits) == 4

    def test_a_server_that_is_not_there_is_one_clear_error(self, server, waits):
        client = EmbeddingClient("openai", server.url, "m", sleep=waits.append)
        server.shutdown()
        server.server_close()
        with pytest.raises(EncoderError, match=rf"{server.url}/embeddings cannot be reached"):
            client.embed(["x"])
        assert waits == [0.5, 1.0, 2.0, 4.0]
        client.close()

    @pytest.mark.parametrize(
        ("status", "remedy"),
        [(400, "too long"), (413, "too long"), (422, "too long"), (404, "Check the url")],
    )
    def test_other_refusals_are_shown_at_once(self, client, server, waits, status, remedy):
        server.failures = [(status, {}, {"error": "inputs must have less than 512 tokens"})]
        with pytest.raises(EncoderError, match=rf"answered {status}: .*less than 512 tokens.*{remedy}"):
            client.embed(["x"])
        assert not waits


class TestQueriesTooLong:
    @pytest.mark.parametrize(
        ("status", "said", "limit"),
        [
            (
                413,
                "Validation error: `inputs` must have less than 512 tokens. Given: 1000",
                "512 tokens",
            ),
            (400, "This model's maximum context length is 8,192 tokens, you requested 9000", "8,192 tokens"),
            (422, "the input holds too many tokens for this model, its length is 700", "what it says: "),
            (413, "Payload Too Large", "what it says: "),
        ],
    )
    def test_are_the_askers_fault_and_the_limit_is_named(self, options, server, status, said, limit):
        encoder = load_encoder(options)
        server.failures = [(status, {}, {"error": said})]
        with pytest.raises(SearchError, match=re.escape(limit)) as caught:
            encoder.encode_queries(["why? " * 2000])
        assert caught.value.value == 10_000
        assert "the query is too long" in str(caught.value)
        server.failures = [(status, {}, {"error": said})]
        with pytest.raises(SearchError, match="one of 2 queries is too long"):
            encoder.encode_queries(["why?", "why? " * 2000])

    @pytest.mark.parametrize(
        "said", ["batch size 64 > maximum allowed batch size 32", "no model of that name", ""]
    )
    def test_other_refusals_stay_the_servers(self, options, server, said):
        encoder = load_encoder(options)
        server.failures = [(422, {}, {"error": said})]
        with pytest.raises(EncoderError, match="answered 422"):
            encoder.encode_queries(["why?"])

    def test_a_passage_too_long_is_the_builds(self, options, server):
        encoder = load_encoder(options)
        server.failures = [(413, {}, {"error": "must have less than 512 tokens"})]
        with pytest.raises(EncoderError, match="split into shorter passages"):
            encoder.encode_passages(["why?"])


def test_vectors_kept_of_a_server_are_told_apart_by_its_address(options, server):
    first = load_encoder(options)
    assert isinstance(first, Steady)
    assert first.cache_key == load_encoder(options).cache_key
    assert first.cache_key != load_encoder(replace(options, url=options.url + "/")).cache_key
    assert first.cache_key != load_encoder(replace(options, passage_prompt="p: ")).cache_key


class TestNonsense:
    @pytest.mark.parametrize(
        ("protocol", "answer", "message"),
        [
            ("tei", b"<html>hello</html>", "what is not JSON: <html>hello</html>"),
            ("tei", {"vectors": []}, "gave no list of vectors"),
            ("tei", [], r"shape \(0,\) for 1 texts"),
            ("tei", [[]], r"shape \(1, 0\) for 1 texts"),
            ("tei", [[1.0], [2.0]], r"shape \(2, 1\) for 1 texts"),
            ("tei", [["a", "b"]], "not lists of numbers"),
            ("tei", [[None, 1.0]], "not finite for text 0"),
            ("tei", [[[1.0]]], r"shape \(1, 1, 1\)"),
            ("openai", {"error": {"message": "no"}}, r"gave no data\[\]\.index"),
            ("openai", {"data": [{"embedding": [1.0]}]}, r"gave no data\[\]\.index"),
            ("openai", [1], r"gave no data\[\]\.index"),
        ],
    )
    def test_an_answer_that_makes_no_sense_is_one_clear_error(self, server, protocol, answer, message):
        server.answer = answer
        with pytest.raises(EncoderError, match=message):
            load_encoder(
                EncoderOptions(model="m", kind=protocol, url=server.url + "/v1" * (protocol == "openai"))
            )

    def test_vectors_of_different_lengths_are_refused(self, server):
        client = EmbeddingClient("tei", server.url, "m", batch_size=1)
        server.failures = [(200, {}, [[1.0, 2.0]])]
        with pytest.raises(EncoderError, match="different dimensions"):
            client.embed(["x", "y"])
        server.answer = [[1.0], [1.0, 2.0]]
        with pytest.raises(EncoderError, match="lists of numbers of one length"):
            client.embed(["x"])
        client.close()


class TestRecognition:
    def test_a_recorded_endpoint_is_recognised_by_the_vector_of_a_known_sentence(self, options, server):
        spec = load_encoder(options).spec
        np.testing.assert_allclose(spec.probe, unit(vector_of(PROBE_TEXT)[:64]), atol=1e-5)
        recorded = EncoderSpec.from_json(json.loads(json.dumps(spec.to_json())))
        server.noise = 0.01  # another number format, another GPU
        assert load_spec(recorded).spec.fingerprint == spec.fingerprint

    def test_another_model_behind_the_same_name_is_refused(self, options, server):
        spec = load_encoder(options).spec
        server.seed = 1
        with pytest.raises(EncoderMismatchError, match=f"serves another model.*{spec.fingerprint}"):
            load_spec(spec)

    def test_the_fingerprint_covers_name_prompts_and_dimension_but_not_the_address(self, server):
        base = {"model": "m", "kind": "tei", "url": server.url}
        prints = [
            load_encoder(EncoderOptions(**base | change)).spec.fingerprint
            for change in (
                {},
                {"url": f"{server.url}/embed"},
                {"batch_size": 7},
                {"model": "n"},
                {"query_prompt": "q"},
                {"dimension": 8},
                {"normalize": False},
            )
        ]
        assert len({*prints[:3]}) == 1
        assert len({*prints}) == 5

    def test_probes_of_different_lengths_or_of_nothing_are_not_the_same(self):
        assert same_probe([0.6, 0.8], [0.6, 0.8])
        assert not same_probe([0.6, 0.8], [0.6, 0.8, 0.0])
        assert not same_probe([0.0, 0.0], [0.0, 0.0])
        assert not same_probe([], [])


class TestReadyMadeVectors:
    def test_they_are_recognised_by_dimension_and_length(self):
        prints = {
            vectors_spec(dimension, normalized=normalized).fingerprint
            for dimension, normalized in [(3, True), (4, True), (3, False), (3, True)]
        }
        assert len(prints) == 3

    def test_text_is_refused_with_what_to_do(self):
        spec = vectors_spec(3, normalized=True)
        encoder = load_spec(EncoderSpec.from_json(json.loads(json.dumps(spec.to_json()))))
        assert isinstance(encoder, VectorsEncoder)
        assert encoder.spec == spec
        for method in (
            encoder.encode_queries,
            encoder.encode_passages,
            encoder.count_tokens,
            encoder.token_offsets,
        ):
            with pytest.raises(
                EncoderError, match=r"ready-made vectors of dimension 3.*Query it with vectors"
            ):
                method(["text"])
        with pytest.raises(EncoderError, match="ready-made vectors"):
            _ = encoder.overhead_tokens

    def test_a_recipe_names_their_dimension(self):
        options = EncoderOptions(model="", kind="vectors", dimension=3)
        assert load_encoder(options).spec == vectors_spec(3, normalized=True)
        with pytest.raises(EncoderError, match="need a dimension"):
            load_encoder(EncoderOptions(kind="vectors"))
