"""A real store, opened in process and served over a real socket: the same answers four ways."""

import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import date

import anyio
import httpx2
import numpy as np
import pytest

from compactds.clients import (
    AsyncClient,
    AuthenticationError,
    BadRequestError,
    Client,
    ConnectionFailedError,
    NotFoundError,
    TimedOutError,
)
from compactds.configs.recipe import EncoderConfig, Recipe, Source
from compactds.datastore import Datastore
from compactds.datastore.encoders.base import EncoderSpec
from compactds.datastore.errors import SearchError
from compactds.filters import field, to_json
from compactds.indexer.build import build
from compactds.server import ServerSettings, create_app, serving

WHERES = [
    None,
    {"subject": "physics"},
    {"year": {"$gte": 2000, "$lt": 2020}, "open": True},
    "subject = 'law' AND weight > 2.5",
    {"tags": {"$contains": "odd"}, "$not": {"source": "atlas"}},
    {"date": {"$gte": date(2020, 1, 1)}},
    {"document_id": "doc/7"},
    {"year": {"$exists": False}},
    {"year": 1},
]


class WordEncoder:
    """Add up one fixed random direction per word: no model, and texts that share words are near."""

    spec = EncoderSpec(
        model="words",
        kind="static",
        dimension=16,
        max_tokens=None,
        normalized=True,
        query_prompt="",
        passage_prompt="",
        pooling="sum",
        fingerprint="words-16",
    )

    def encode_passages(self, texts):
        sums = np.array([sum(map(self.direction, text.split())) for text in texts], np.float32)
        sums = sums.reshape(-1, 16)
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)

    encode_queries = encode_passages

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]

    @staticmethod
    def direction(word):
        return np.random.default_rng(zlib.crc32(word.lower().encode())).normal(size=16)


@pytest.fixture(scope="module")
def store(tmp_path_factory, records, write_jsonl):
    folder = tmp_path_factory.mktemp("served")
    source = write_jsonl(folder / "records.jsonl", records)
    recipe = Recipe(name="served", sources=[Source(path=str(source))], encoder=EncoderConfig(model="words"))
    build(recipe, folder / "store", encoder=WordEncoder())
    with Datastore.open(folder / "store", encoder=WordEncoder()) as opened:
        yield opened


@pytest.fixture(scope="module")
def url(store):
    with serving(store, ServerSettings(port=0, max_body_bytes=100_000)) as url:
        yield url


@pytest.fixture
def client(url):
    with Client(url) as client:
        yield client


@pytest.fixture(scope="module")
def queries(records):
    texts = [str(record["text"]) for record in records]
    return [text[: 10 + 7 * number % 60].strip() for number, text in enumerate(texts)] + ["日本 🚀", "\x00?"]


def run_async(url, method, *args, **keywords):
    async def run():
        async with AsyncClient(url) as client:
            return await getattr(client, method)(*args, **keywords)

    return anyio.run(run)


def plain(hits):
    """Return hits as comparable values: embedded ones and those from HTTP are of different classes."""
    return [asdict(hit) for hit in hits]


@pytest.mark.parametrize("where", WHERES, ids=str)
def test_batches_agree_embedded_over_http_and_through_both_clients(store, url, client, queries, where):
    embedded = store.search(queries, k=5, where=where)
    expected = [plain(hits) for hits in embedded]
    assert [plain(hits) for hits in client.search(queries, k=5, where=where)] == expected
    assert [plain(hits) for hits in run_async(url, "search", queries, k=5, where=where)] == expected
    if not isinstance(where, dict) or "date" not in where:
        answer = httpx2.post(
            f"{url}/v1/search", json={"query": queries, "k": 5, "where": where}, trust_env=False
        )
        assert [result["hits"] for result in answer.json()["results"]] == expected
    assert {len(hits) for hits in embedded} == {min(5, store.count(where))}


def test_every_query_of_a_batch_has_its_own_where_over_http_too(store, url, client):
    queries = [f"gravity of star {number}" for number in range(len(WHERES))]
    expected = [plain(store.search(query, where=where)) for query, where in zip(queries, WHERES, strict=True)]
    assert [plain(hits) for hits in client.search(queries, where=WHERES)] == expected
    assert [plain(hits) for hits in run_async(url, "search", queries, where=tuple(WHERES))] == expected


@pytest.mark.parametrize("query", ["gravity", ["gravity", "light"], ["gravity"] * 3], ids=str)
def test_a_list_of_filters_that_does_not_fit_is_refused_in_the_same_words(store, url, client, query):
    wheres = [WHERES[0]] if len(query) == 2 else WHERES[:2]
    told = []
    for search in (
        store.search,
        client.search,
        lambda *asked, **options: run_async(url, "search", *asked, **options),
    ):
        with pytest.raises((SearchError, BadRequestError), match="where is a list of") as refused:
            search(query, where=wheres)
        told.append((refused.value.message, refused.value.value, refused.value.remedy))
    assert told == [told[0]] * 3
    answer = httpx2.post(f"{url}/v1/search", json={"query": query, "where": wheres}, trust_env=False)
    assert (answer.status_code, answer.json()["detail"]) == (422, told[0][0])


@pytest.mark.parametrize(
    ("wheres", "field"),
    [
        ([None, {"yaer": 1}], "where[1].yaer"),
        (["year > 1", "year >="], "where[1]"),
        ([{"year": "x"}, {"yaer": 1}], "where[0].year"),
        ({"yaer": 1}, "where.yaer"),
    ],
    ids=str,
)
def test_a_wrong_filter_is_named_by_its_place_in_a_list(url, wheres, field):
    body = {"query": ["star", "brain"], "where": wheres}
    answer = httpx2.post(f"{url}/v1/search", json=body, trust_env=False)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_passages_that_overlap_are_left_out_embedded_and_over_http(store, url, client, records):
    questions = [str(record["text"]) for record in records[:20]]
    plainly = store.search("gravity of a star", k=30)
    expected = store.search("gravity of a star", k=30, exclude_overlap_with=questions)
    assert len(expected) == 30
    assert expected.report.excluded > 0
    assert plain(expected) != plain(plainly)
    for found in (
        client.search("gravity of a star", k=30, exclude_overlap_with=tuple(questions)),
        run_async(url, "search", "gravity of a star", k=30, exclude_overlap_with=questions),
    ):
        assert plain(found) == plain(expected)
        assert found.report.excluded == expected.report.excluded
    itself = questions[1]
    (found,) = client.search([itself], k=3, exclude_overlap_with=True)
    assert plain(found) == plain(store.search(itself, k=3, exclude_overlap_with=True))
    assert found.report.excluded >= 1


def test_questions_to_exclude_that_hold_no_word_are_refused_everywhere(client):
    with pytest.raises(BadRequestError, match="has a word to compare") as refused:
        client.search("gravity", exclude_overlap_with=["?!"])
    assert refused.value.code == "invalid_overlap"
    with pytest.raises(BadRequestError, match="true or a list of strings"):
        client.search("gravity", exclude_overlap_with="a text")


@pytest.mark.parametrize("where", WHERES, ids=str)
def test_single_queries_agree(store, url, client, where):
    expected = store.search("gravity of a star", k=3, where=where)
    found = client.search("gravity of a star", k=3, where=where)
    assert plain(found) == plain(expected)
    assert (found.report.plan, found.report.matching, found.report.candidates) == (
        expected.report.plan,
        expected.report.matching,
        expected.report.candidates,
    )
    assert set(found.report.timings_ms) == set(expected.report.timings_ms)


def test_vectors_agree(store, client):
    vectors = np.random.default_rng(3).normal(size=(4, 16)).astype(np.float32)
    expected = [plain(hits) for hits in store.search(vectors=vectors, k=4)]
    assert [plain(hits) for hits in client.search(vectors=vectors, k=4)] == expected
    alone = plain(store.search(vectors=vectors[0], k=4))
    assert plain(client.search(vectors=vectors[0], k=4)) == alone
    assert plain(client.search(vectors=vectors[0].tolist(), k=4)) == alone


def test_empty_batches_agree(store, client):
    assert store.search([]) == client.search([]) == []
    assert store.search(vectors=np.empty((0, 16))) == client.search(vectors=np.empty((0, 16))) == []


def test_effort_agrees(store, client):
    for options in ({"recall": 1.0}, {"recall": 0.9}, {"candidates": 20}):
        assert plain(client.search("river", **options)) == plain(store.search("river", **options))


def test_every_passage_found_is_got_by_its_id(store, client):
    for hit in client.search("water", k=100):
        assert asdict(client.get(hit.passage.id)) == asdict(store.get(hit.passage.id)) == asdict(hit.passage)


@pytest.mark.parametrize(
    "passage_id",
    ["", "#", "doc/7", "doc/7#", "doc/7#99999", "doc/7#-1", "doc/7#٣", "\ud800#0", "é" * 5000, "a\x00b#0"],
)
def test_an_unknown_passage_is_not_found(client, passage_id):
    with pytest.raises(NotFoundError) as caught:
        client.get(passage_id)
    assert caught.value.code == "passage_not_found"


@pytest.mark.parametrize("where", WHERES, ids=str)
def test_counts_and_facets_agree(store, url, client, where):
    assert client.count(where) == run_async(url, "count", where) == store.count(where)
    names = ["subject", "year", "tags", "open", "date", "seen", "pages", "document_id"]
    expected = store.facets(names, where, 5)
    assert client.facets(names, where, 5) == run_async(url, "facets", names, where, 5) == expected


def test_the_description_agrees(store, url, client):
    described = client.describe()
    assert described.pop("limits")["max_body_bytes"] == 100_000
    assert described == store.describe()
    assert run_async(url, "describe")["name"] == "served"


def test_health(url, client):
    assert client.health() is True
    assert run_async(url, "health") is True


def test_the_asynchronous_client_needs_no_socket(store):
    async def run():
        transport = httpx2.ASGITransport(create_app(store))
        async with AsyncClient("http://localhost", transport=transport) as client:
            return await client.search("river", k=2)

    assert plain(anyio.run(run)) == plain(store.search("river", k=2))


def test_many_threads_share_one_client(store, client, queries):
    expected = [plain(store.search(query, k=3)) for query in queries]
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda query: plain(client.search(query, k=3)), queries))
    assert found == expected


def test_many_tasks_share_one_client(store, url, queries):
    found = {}

    async def run():
        async with AsyncClient(url) as client, anyio.create_task_group() as tasks:
            for query in queries:
                tasks.start_soon(ask, client, query)

    async def ask(client, query):
        found[query] = plain(await client.search(query, k=3))

    anyio.run(run)
    assert found == {query: plain(store.search(query, k=3)) for query in queries}


MISTAKES = [
    ({"k": 0}, "invalid_request", 0),
    ({"k": -1}, "invalid_request", -1),
    ({"k": 10**9}, "limit_exceeded", 10**9),
    ({"k": True}, "invalid_request", True),
    ({"k": "5"}, "invalid_request", "5"),
    ({"k": 20, "candidates": 5}, "invalid_search", 5),
    ({"recall": 2.0}, "invalid_request", 2.0),
    ({"where": {"yaer": 2015}}, "unknown_field", "yaer"),
    ({"where": {"year": "2015"}}, "wrong_type", "2015"),
    ({"where": 5}, "invalid_request", 5),
]


@pytest.mark.parametrize(("options", "code", "value"), MISTAKES)
def test_a_mistake_is_a_bad_request_with_code_value_and_remedy(client, options, code, value):
    with pytest.raises(BadRequestError) as caught:
        client.search("river", **options)
    assert (caught.value.code, caught.value.value) == (code, value)
    assert caught.value.remedy
    assert caught.value.request_id


@pytest.mark.parametrize("query", ["", "  ", ["river", ""]])
def test_a_blank_query_is_a_bad_request(client, query):
    with pytest.raises(BadRequestError) as caught:
        client.search(query)
    assert caught.value.code == "empty_query"


def test_nothing_to_search_for_and_too_much_are_bad_requests(client):
    with pytest.raises(BadRequestError, match="query is missing"):
        client.search()
    with pytest.raises(BadRequestError, match="query and vector are both given"):
        client.search("river", vectors=[1.0] * 16)


@pytest.mark.parametrize(
    "vectors", [[1.0] * 15, [0.0] * 16, [[1.0] * 16, [1.0] * 15], np.full(16, np.nan), [1e300] * 16]
)
def test_a_vector_that_does_not_fit_is_a_bad_request(client, vectors):
    with pytest.raises(BadRequestError) as caught:
        client.search(vectors=vectors)
    assert caught.value.code in ("invalid_vector", "invalid_request")


@pytest.mark.parametrize(("depth", "status"), [(1, 200), (64, 200), (65, 422), (300, 422), (1000, 422)])
def test_a_where_expression_is_answered_up_to_64_levels_and_refused_beyond(url, depth, status):
    depth -= 1  # the comparison inside is a level, too
    where = '{"$not":' * depth + '{"year":2000}' + "}" * depth
    for path, rest in (("/v1/search", '"query": "river",'), ("/v1/count", "")):
        body = "{" + rest + f'"where": {where}' + "}"
        headers = {"content-type": "application/json"}
        response = httpx2.post(url + path, content=body, headers=headers, trust_env=False)
        assert response.status_code == status
        if status == 422:
            assert response.json()["code"] == "invalid_where"


@pytest.mark.parametrize(
    "where", ["NOT " * 5000 + "open", "(" * 5000 + "open" + ")" * 5000, "1;" * 100, "\x00", "open AND" * 9]
)
def test_a_hostile_sql_condition_is_a_bad_request(client, where):
    with pytest.raises(BadRequestError) as caught:
        client.count(where)
    assert caught.value.code in ("invalid_where", "unknown_field", "wrong_type")


def test_a_body_over_the_limit_is_a_bad_request(client):
    with pytest.raises(BadRequestError, match="100,000 bytes") as caught:
        client.search(["river " * 50] * 1000)
    assert (caught.value.code, caught.value.status) == ("body_too_large", 413)
    assert client.health() is True


def test_a_chunked_body_over_the_limit_is_refused_on_the_wire(url):
    chunks = (b" " * 10_000 for _ in range(50))
    headers = {"content-type": "application/json"}
    response = httpx2.post(f"{url}/v1/search", content=chunks, headers=headers, trust_env=False)
    assert response.json()["code"] == "body_too_large"


def test_a_server_with_a_key_admits_only_those_who_have_it(store):
    with serving(store, ServerSettings(port=0, api_key="sesame")) as url:
        with Client(url, api_key="sesame") as client:
            assert client.count() == store.count()
        for key in (None, "open"):
            with Client(url, api_key=key) as client, pytest.raises(AuthenticationError, match="API key"):
                client.count()


def test_a_server_that_is_gone_is_a_failed_connection(store):
    with serving(store, ServerSettings(port=0)) as url:
        pass
    waits = []
    with (
        Client(url, retries=1, sleep=waits.append) as client,
        pytest.raises(ConnectionFailedError, match=url),
    ):
        client.count()
    assert len(waits) == 1


def test_a_server_that_does_not_answer_in_time_is_a_timeout(store, monkeypatch):
    answer_now = threading.Event()
    monkeypatch.setattr(store, "count", lambda where=None: answer_now.wait())
    with serving(store, ServerSettings(port=0)) as url:
        with Client(url, timeout_s=0.2) as client, pytest.raises(TimedOutError):
            client.count()
        answer_now.set()


def test_a_store_that_was_closed_is_not_ready(store):
    with Datastore.open(store.path) as other:
        app = create_app(other)

    async def run():
        transport = httpx2.ASGITransport(app)
        async with AsyncClient("http://localhost", transport=transport) as client:
            return await client.health()

    assert anyio.run(run) is False


def test_an_expression_can_be_sent_as_json(store, client):
    expression = (field("year") >= 2015) & (field("subject") == "physics")
    assert client.count(to_json(expression)) == store.count(expression) > 0
