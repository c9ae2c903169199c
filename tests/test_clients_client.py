"""Both clients: what they send, what they make of answers, when they try again."""

import dataclasses
import inspect
import json
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime

import anyio
import httpx2
import numpy as np
import pytest

from compactds import clients
from compactds.clients import (
    AsyncClient,
    AuthenticationError,
    BadRequestError,
    Client,
    ClientError,
    ConnectionFailedError,
    Hit,
    Hits,
    NotFoundError,
    Passage,
    SearchReport,
    ServerError,
    TimedOutError,
    UnavailableError,
    UnexpectedResponseError,
    errors,
    results,
)
from compactds.clients._retries import Retries, retry_after_s
from compactds.datastore import records

PASSAGE = {
    "id": "sky#0",
    "document_id": "sky",
    "position": 0,
    "title": "Sky",
    "text": "blue",
    "source": "tests",
    "start": 0,
    "end": 4,
    "attributes": {"year": 2016},
}
REPORT = {
    "plan": "exact",
    "matching": 1,
    "candidates": 1,
    "timings_ms": {"exact": 0.5},
    "truncated": True,
    "predicted_ms": 0.25,
    "excluded": 2,
}
ANSWER = {"hits": [{"score": 0.5, "rank": 1, "passage": PASSAGE}], "report": REPORT, "took_ms": 1.0}
HITS = Hits([Hit(0.5, 1, Passage(**PASSAGE))], SearchReport(**REPORT))


class Asked:
    """Call one method of one of the clients against a handler, and remember requests and waits."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.requests: list[httpx2.Request] = []
        self.waits: list[float] = []

    def __call__(self, answer, name, *args, url="http://store.test", options=None, **keywords):
        def handle(request):
            self.requests.append(request)
            result = answer(len(self.requests)) if callable(answer) else answer
            return result if isinstance(result, httpx2.Response) else httpx2.Response(200, json=result)

        options = {"transport": httpx2.MockTransport(handle), **(options or {})}
        if self.kind == "blocking":
            with Client(url, sleep=self.waits.append, **options) as client:
                return getattr(client, name)(*args, **keywords)

        async def sleep(seconds):
            self.waits.append(seconds)

        async def run():
            async with AsyncClient(url, sleep=sleep, **options) as client:
                return await getattr(client, name)(*args, **keywords)

        return anyio.run(run)

    @property
    def body(self):
        return json.loads(self.requests[-1].content)


@pytest.fixture(params=["blocking", "asynchronous"])
def ask(request) -> Asked:
    return Asked(request.param)


def problem(status, code="some_code", headers=None, **parts):
    body = {
        "detail": "it is wrong.",
        "code": code,
        "remedy": "Mend it.",
        "value": 5,
        "field": "k",
        "request_id": "r1",
    }
    return httpx2.Response(status, json=body | parts, headers=headers)


# What is sent


def test_a_query_is_sent_with_only_what_was_given(ask):
    ask(ANSWER, "search", "why")
    assert (ask.requests[0].method, ask.requests[0].url) == ("POST", "http://store.test/v1/search")
    assert ask.requests[0].headers["content-type"] == "application/json"
    assert ask.body == {"query": "why", "k": 10, "explain": True}


def test_every_option_of_a_search_is_sent(ask):
    ask(ANSWER, "search", "why", k=3, where={"year": 1}, candidates=7, recall=0.5)
    assert ask.body == {
        "query": "why", "k": 3, "where": {"year": 1}, "candidates": 7, "recall": 0.5, "explain": True,
    }  # fmt: skip


def test_another_mode_is_sent_and_the_usual_one_is_not(ask):
    ask(ANSWER, "search", "why", mode="dense")
    assert "mode" not in ask.body
    ask(ANSWER, "search", "why", mode="sparse")
    assert ask.body["mode"] == "sparse"


@pytest.mark.parametrize("queries", [["a", "b"], ("a", "b"), np.array(["a", "b"])])
def test_several_queries_are_a_list(ask, queries):
    assert ask({"results": [ANSWER, ANSWER]}, "search", queries) == [HITS, HITS]
    assert ask.body["query"] == ["a", "b"]


@pytest.mark.parametrize(
    "vector",
    [
        [0.5, 1],
        (0.5, 1),
        np.array([0.5, 1], np.float32),
        np.array([0.5, 1], np.float16),
        np.array([0.5, 9, 1, 9])[::2],
        [np.float32(0.5), np.float64(1)],
    ],
)
def test_one_vector_is_a_vector(ask, vector):
    assert ask(ANSWER, "search", vectors=vector) == HITS
    assert ask.body["vector"] == [0.5, 1]


@pytest.mark.parametrize(
    "vectors", [[[0.5, 1]], ((0.5, 1),), np.array([[0.5, 1]], np.float32), [np.array([0.5, 1])], [(0.5, 1)]]
)
def test_several_vectors_are_vectors(ask, vectors):
    assert ask({"results": [ANSWER]}, "search", vectors=vectors) == [HITS]
    assert ask.body["vectors"] == [[0.5, 1]]


def test_vectors_keep_every_bit_of_float32(ask):
    vector = np.random.default_rng(0).normal(size=100).astype(np.float32)
    ask(ANSWER, "search", vectors=vector)
    assert np.array_equal(np.array(ask.body["vector"], np.float32), vector)


def test_an_empty_list_of_vectors_is_one_vector_without_numbers_and_an_empty_array_is_none(ask):
    ask(ANSWER, "search", vectors=[])
    assert ask.body["vector"] == []
    ask({"results": []}, "search", vectors=np.empty((0, 3)))
    assert ask.body["vectors"] == []


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """An expression as compactds.filters has them: a dataclass that writes itself as JSON."""

    year: int

    def to_json(self):
        return {"year": {"$gte": self.year}}


@pytest.mark.parametrize(
    ("where", "sent"),
    [
        ("year >= 2015", "year >= 2015"),
        (Condition(2015), {"year": {"$gte": 2015}}),
        ({"$not": Condition(2015)}, {"$not": {"year": {"$gte": 2015}}}),
        ({"day": {"$gte": date(2015, 1, 2)}}, {"day": {"$gte": "2015-01-02"}}),
        ({"at": datetime(2015, 1, 2, tzinfo=UTC)}, {"at": "2015-01-02T00:00:00+00:00"}),
        ({"year": np.int64(5)}, {"year": 5}),
        ({"year": {"$in": np.array([5, 6])}}, {"year": {"$in": [5, 6]}}),
    ],
)
def test_where_is_a_dict_a_string_or_an_expression(ask, where, sent):
    ask(ANSWER, "search", "why", where=where)
    assert ask.body["where"] == sent
    ask({"count": 5}, "count", where)
    assert ask.body == {"where": sent}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"query": "\ud800"}, "surrogates"),
        ({"query": "a", "where": {"a": object()}}, "it holds a object"),
        ({"query": "a", "where": {1: 2}}, "str"),
        ({"query": "a", "where": {"a": {1, 2}}}, "it holds a set"),
        ({"query": "a", "k": 2**70}, "64"),
    ],
)
def test_what_json_cannot_hold_is_refused_before_sending(ask, arguments, said):
    with pytest.raises(BadRequestError, match=said) as caught:
        ask(ANSWER, "search", **arguments)
    assert caught.value.code == "invalid_request"
    assert ask.requests == []


def test_a_recursive_where_is_refused_before_sending(ask):
    where: dict = {}
    where["$not"] = where
    with pytest.raises(BadRequestError):
        ask({"count": 1}, "count", where)


@pytest.mark.parametrize(
    ("passage_id", "path"),
    [
        ("sky#0", "/v1/passages/sky%230"),
        ("a/b: c?d&e%#1", "/v1/passages/a%2Fb%3A%20c%3Fd%26e%25%231"),
        ("日#0", "/v1/passages/%E6%97%A5%230"),
        ("\ud800#0", "/v1/passages/%ED%A0%80%230"),
        ("", "/v1/passages/"),
    ],
)
def test_a_passage_id_is_percent_encoded(ask, passage_id, path):
    assert ask(PASSAGE, "get", passage_id) == Passage(**PASSAGE)
    assert ask.requests[0].url.raw_path == path.encode()


def test_a_passage_id_longer_than_any_url_is_refused_before_sending(ask):
    with pytest.raises(BadRequestError, match="100,000 characters"):
        ask(PASSAGE, "get", "a" * 100_000)
    assert ask.requests == []


def test_facets_and_count_and_describe(ask):
    answer = {"facets": {"year": [{"value": 2016, "count": 3}]}}
    assert ask(answer, "facets", ("year",), {"a": 1}, 5) == {"year": [(2016, 3)]}
    assert ask.body == {"fields": ["year"], "limit": 5, "where": {"a": 1}}
    assert ask({"count": 7}, "count") == 7
    assert ask.body == {}
    assert ask({"name": "x"}, "describe") == {"name": "x"}


def test_the_key_is_sent_and_not_shown(ask):
    ask({}, "describe", options={"api_key": "sesame"})
    assert ask.requests[0].headers["authorization"] == "Bearer sesame"
    assert "sesame" not in repr(Client(api_key="sesame"))
    ask({}, "describe", options={"api_key": "schlüssel"})
    assert dict(ask.requests[1].headers.raw)[b"authorization"] == "Bearer schlüssel".encode()


@pytest.mark.parametrize(
    "key", [" sesame", "sesame\n", "ses\r\name", "ses\x00ame", "ses\ud800me", "", 5], ids=ascii
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(kind, key):
    with pytest.raises(BadRequestError, match="API key") as caught:
        kind(api_key=key)
    assert "ses" not in str(caught.value)
    assert caught.value.value is None


def test_a_client_that_was_closed_says_so():
    with Client() as client:
        pass
    for ask in (client.count, client.health, client.describe):
        with pytest.raises(ClientError, match="the client is closed"):
            ask()


def test_an_asynchronous_client_that_was_closed_says_so():
    async def run():
        async with AsyncClient() as client:
            pass
        await client.health()

    with pytest.raises(ClientError, match="the client is closed"):
        anyio.run(run)


def test_another_fault_is_not_taken_for_a_closed_client(ask):
    def answer(_):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        ask(answer, "count")


def test_a_path_before_the_routes_is_kept(ask):
    ask({}, "describe", url="http://store.test/prefix/")
    assert ask.requests[0].url == "http://store.test/prefix/v1/store"


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://", "http://a:port", None, 5])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_url_that_is_none_is_refused(kind, url):
    with pytest.raises(BadRequestError, match="not the URL of a server"):
        kind(url)


# What comes back


def test_hits_are_a_list_with_a_report(ask):
    hits = ask(ANSWER, "search", "why")
    assert hits == HITS
    assert hits.report == SearchReport(**REPORT)
    assert hits[0].passage.attributes["year"] == 2016


def test_keys_of_a_newer_server_are_ignored(ask):
    answer = ANSWER | {
        "more": 1,
        "hits": [{"score": 0.5, "rank": 1, "passage": PASSAGE | {"more": 1}, "more": 1}],
    }
    assert ask(answer, "search", "why") == HITS


@pytest.mark.parametrize("name", ["Passage", "Hit", "SearchReport"])
def test_results_have_the_fields_of_the_embedded_ones(name):
    ours, theirs = getattr(results, name), getattr(records, name)
    assert [(f.name, f.default) for f in dataclasses.fields(ours)] == [
        (f.name, f.default) for f in dataclasses.fields(theirs)
    ]
    assert issubclass(results.Hits, list)
    assert issubclass(records.Hits, list)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (405, BadRequestError),
        (413, BadRequestError),
        (422, BadRequestError),
        (429, UnavailableError),
        (500, ServerError),
        (502, ServerError),
        (503, UnavailableError),
    ],
)
def test_a_problem_becomes_an_error_with_all_its_parts(ask, status, kind):
    with pytest.raises(kind) as caught:
        ask(problem(status), "search", "why")
    error = caught.value
    assert type(error) is kind
    assert str(error) == "it is wrong. Mend it."
    assert (error.code, error.value, error.field, error.status, error.request_id) == (
        "some_code", 5, "k", status, "r1",
    )  # fmt: skip


@pytest.mark.parametrize("content", [b"<html>oops</html>", b"", b"[]", b'{"error": 1}', b"\xff"])
@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFoundError), (502, ServerError), (302, UnexpectedResponseError)]
)
def test_an_error_that_is_no_problem_still_tells_url_and_status(ask, content, status, kind):
    with pytest.raises(kind, match=f"http://store.test/v1/store answered {status}") as caught:
        ask(httpx2.Response(status, content=content), "describe")
    assert caught.value.status == status


@pytest.mark.parametrize(
    "content", [b"<html>hello</html>", b"", b"[]", b"{}", b"null", b'{"hits": [1], "report": {}}']
)
def test_an_answer_that_is_no_result_is_unexpected(ask, content):
    with pytest.raises(UnexpectedResponseError, match=r"http://store\.test/v1/search") as caught:
        ask(httpx2.Response(200, content=content), "search", "why")
    assert "compactds server" in caught.value.remedy


def test_health_tells_ready_from_not_ready_without_insisting(ask):
    assert ask({"status": "ready"}, "health") is True
    assert ask(problem(503), "health") is False
    assert (len(ask.requests), ask.waits) == (2, [])


# Trying again


def test_a_busy_server_is_asked_again_until_it_answers(ask):
    answers = [problem(503), problem(429), httpx2.Response(200, json=ANSWER)]
    assert ask(lambda number: answers[number - 1], "search", "why") == HITS
    assert len(ask.waits) == 2
    assert 0.1 <= ask.waits[0] <= 0.2 <= ask.waits[1] <= 0.4
    assert len({request.content for request in ask.requests}) == 1


def test_a_broken_connection_is_made_again(ask):
    def answer(number):
        if number == 1:
            raise httpx2.ConnectError("refused")
        if number == 2:
            raise httpx2.RemoteProtocolError("hung up")
        return ANSWER

    assert ask(answer, "search", "why") == HITS
    assert len(ask.waits) == 2


@contextmanager
def flaky_server(answers):
    """Serve one raw answer per connection, on loopback; an empty one hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run():
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def raw(status, body):
    return f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_a_server_that_hangs_up_and_is_busy_gets_the_request_again(ask):
    answers = [b"", raw("503 Busy", ""), raw("429 Slow Down", ""), raw("200 OK", '{"count": 7}')]
    with flaky_server(answers) as url:
        assert ask(None, "count", url=url, options={"transport": None, "retries": 3}) == 7
    assert len(ask.waits) == 3


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]
)
def test_half_an_answer_or_another_protocol_is_a_failed_connection(ask, answer):
    with flaky_server([answer, answer]) as url, pytest.raises(ConnectionFailedError, match=url):
        ask(None, "count", url=url, options={"transport": None, "retries": 1})


def test_retries_end(ask):
    with pytest.raises(UnavailableError):
        ask(lambda _: problem(503), "describe", options={"retries": 3})
    assert (len(ask.requests), len(ask.waits)) == (4, 3)


def test_no_retries_means_one_request(ask):
    with pytest.raises(UnavailableError):
        ask(lambda _: problem(503), "describe", options={"retries": 0})
    assert len(ask.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500, 502])
def test_other_answers_are_final(ask, status):
    with pytest.raises(ClientError):
        ask(lambda _: problem(status), "describe")
    assert len(ask.requests) == 1


def test_a_timeout_is_final(ask):
    def answer(_):
        raise httpx2.ReadTimeout("slow")

    with pytest.raises(TimedOutError, match=r"http://store\.test/v1/store did not answer in time") as caught:
        ask(answer, "describe")
    assert "timeout_s" in caught.value.remedy
    assert len(ask.requests) == 1


def test_a_failed_connection_is_explained(ask):
    def answer(_):
        raise httpx2.ConnectError("Connection refused")

    with pytest.raises(
        ConnectionFailedError, match=r"cannot reach http://store\.test/v1/store: Connection refused"
    ):
        ask(answer, "describe")
    assert len(ask.requests) == 3


def test_an_answer_that_cannot_be_decoded_is_unexpected(ask):
    response = httpx2.Response(
        200, headers={"content-encoding": "gzip"}, stream=httpx2.ByteStream(b"not gzip")
    )
    with pytest.raises(UnexpectedResponseError, match="not HTTP"):
        ask(response, "describe")


def test_the_server_says_how_long_to_wait(ask):
    answers = [problem(503, headers={"retry-after": "7"}), httpx2.Response(200, json={"count": 1})]
    ask(lambda number: answers[number - 1], "count")
    assert ask.waits == [7.0]


def test_a_wait_beyond_patience_is_not_waited(ask):
    with pytest.raises(UnavailableError):
        ask(lambda _: problem(503, headers={"retry-after": "3600"}), "count")
    assert ask.waits == []


def test_waits_double_are_bounded_and_are_shortened_by_chance():
    refused = httpx2.ConnectError("refused")
    longest = Retries(20, chance=lambda: 0.0)
    assert [longest.wait_s(attempt, refused) for attempt in range(8)] == [
        0.2,
        0.4,
        0.8,
        1.6,
        3.2,
        6.4,
        10.0,
        10.0,
    ]
    shortest = Retries(20, chance=lambda: 1.0)
    assert shortest.wait_s(0, refused) == 0.1


@pytest.mark.parametrize("header", ["", "soon", "-5", "1.5", "٣", "Mon, 99 Foo 2020", "nan"])
def test_a_retry_after_that_makes_no_sense_is_no_wait(header):
    assert retry_after_s(header) == 0.0


def test_a_retry_after_can_be_a_date():
    soon = datetime.now(UTC) + timedelta(seconds=100)
    assert 90 < retry_after_s(format_datetime(soon, usegmt=True)) <= 100
    assert 90 < retry_after_s(soon.strftime("%a, %d %b %Y %H:%M:%S")) <= 100
    assert retry_after_s("Sun, 06 Nov 1994 08:49:37 GMT") == 0.0


# The package


def test_both_clients_have_the_same_methods_and_arguments():
    def public(kind):
        return {
            name: list(inspect.signature(method).parameters.items())[1:]
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert public(Client) == public(AsyncClient)
    assert list(inspect.signature(Client).parameters) == list(inspect.signature(AsyncClient).parameters)


def test_everything_public_is_exported():
    declared = {
        name
        for module in (errors, results)
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__
    }
    assert set(clients.__all__) == declared | {"Client", "AsyncClient"}
    assert all(hasattr(clients, name) for name in clients.__all__)


def test_the_drawing_of_errors_shows_the_tree():
    drawn = {}
    for line in errors.__doc__.splitlines():
        name = line.lstrip("├└│─ ").split(" ")[0]
        if name.endswith("Error"):
            drawn[name] = line
    assert set(drawn) == {name for name in clients.__all__ if name.endswith("Error")}
    assert issubclass(UnavailableError, ServerError)
    assert "│   └── UnavailableError" in errors.__doc__


def test_importing_the_clients_loads_nothing_heavy():
    script = (
        "import sys, compactds.clients\n"
        "heavy = {'numpy', 'torch', 'faiss', 'pyarrow', 'duckdb', 'fastapi', 'compactds.filters'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "[]"
