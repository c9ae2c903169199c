"""The HTTP contract: what each route answers, and what hostile or mistaken requests get."""

import json
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from fastapi.openapi.models import OpenAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from compactds.datastore.errors import (
    DamagedStoreError,
    EncoderError,
    EncoderMismatchError,
    EncoderNotFoundError,
    PassageNotFoundError,
    SearchError,
    StoreFormatError,
    VectorError,
)
from compactds.datastore.records import Hit, Hits, Passage, SearchReport
from compactds.filters import FieldType, Schema, evaluate, parse_where
from compactds.filters.corpus.overlap import OverlapError
from compactds.server import ServerSettings, create_app, validation
from compactds.server.errors import ServeError
from compactds.server.validation import describe_invalid

TEXTS = {
    "sky#0": ("the sky is blue because air scatters blue light", "physics", 2016),
    "sky#1": ("at dusk the sky turns red", "physics", 2010),
    "cell#0": ("a cell divides in two", "biology", 2018),
    "état/αβγ: x#0": ("unicode ids are ids too, 日本 🚀", "linguistics", None),
}
VECTORS = {"sky#0": (1, 0), "sky#1": (0.8, 0.6), "cell#0": (0, 1), "état/αβγ: x#0": (-1, 0)}


class FakeEngine:
    """Rank four passages by shared words, or by inner product with two-dimensional vectors."""

    def __init__(self) -> None:
        self.schema = Schema({"subject": FieldType.STRING, "year": FieldType.INT64})
        self.failure: Exception | None = None
        self.calls: list[dict[str, Any]] = []
        self.passages = {
            name: Passage(
                name,
                name.rpartition("#")[0],
                int(name[-1]),
                name.rpartition("#")[0].title(),
                text,
                "tests",
                0,
                len(text),
                {"subject": subject} | ({"year": year} if year else {}),
            )
            for name, (text, subject, year) in TEXTS.items()
        }

    def column(self, name: str) -> pa.Array:
        return pa.array([passage.attributes.get(name) for passage in self.passages.values()])

    def allowed(self, where: Any) -> list[Passage]:
        if self.failure:
            raise self.failure
        expression = parse_where(where, self.schema)
        passages = list(self.passages.values())
        if expression is None:
            return passages
        mask = evaluate(expression, self, len(passages))
        return [passage for passage, allow in zip(passages, mask, strict=True) if allow]

    def search(self, query=None, *, vectors=None, k=10, where=None, **effort):
        self.calls.append({"k": k, "where": where, **effort})
        allowed = self.allowed(where)
        if isinstance(query, str):
            return self.rank(allowed, k, lambda name: words(query, TEXTS[name][0]))
        if query is not None:
            return [self.search(text, k=k, where=where) for text in query]
        if not isinstance(vectors[0], float | int):
            return [self.search(vectors=vector, k=k, where=where) for vector in vectors]
        if len(vectors) != 2:
            raise VectorError("2 dimensions are needed.", value=len(vectors), remedy="Give 2.")
        return self.rank(allowed, k, lambda name: dot(vectors, VECTORS[name]))

    def rank(self, allowed, k, score) -> Hits:
        best = sorted(allowed, key=lambda passage: -score(passage.id))[:k]
        hits = [Hit(score(passage.id), rank, passage) for rank, passage in enumerate(best, 1)]
        return Hits(hits, SearchReport("exact", len(allowed), len(allowed), {"exact": 0.5}))

    def get(self, passage_id: str) -> Passage:
        self.allowed(None)
        if passage_id not in self.passages:
            raise PassageNotFoundError(
                f"no passage {passage_id!r}.", value=passage_id, remedy="Search first."
            )
        return self.passages[passage_id]

    def count(self, where: Any = None) -> int:
        return len(self.allowed(where))

    def facets(self, fields, where=None, limit=10):
        counts = {}
        for field in fields:
            self.schema[field]
            values = [p.attributes[field] for p in self.allowed(where) if field in p.attributes]
            ordered = sorted(
                {(value, values.count(value)) for value in values}, key=lambda item: (-item[1], item[0])
            )
            counts[field] = ordered[:limit]
        return counts

    def describe(self) -> dict[str, Any]:
        return {"name": "fake", "passages": len(self.passages), "schema": self.schema.to_json()}


def words(left: str, right: str) -> float:
    return float(len(set(left.split()) & set(right.split())))


def dot(left, right) -> float:
    return float(sum(a * b for a, b in zip(left, right, strict=True)))


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def http(engine):
    with TestClient(create_app(engine), base_url=HERE) as client:
        yield client


HERE = "http://localhost"
SHARED = TestClient(create_app(FakeEngine()), base_url=HERE)


def limited(engine, **limits) -> TestClient:
    return TestClient(create_app(engine, ServerSettings(**limits)), base_url=HERE)


def search(http, **body):
    return http.post("/v1/search", json=body)


def post_raw(http, content, path="/v1/search"):
    return http.post(path, content=content, headers={"content-type": "application/json"})


def check_problem(response, status: int, code: str) -> dict[str, Any]:
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert response.headers["content-type"] == "application/problem+json"
    assert set(problem) == {
        "type", "title", "status", "detail", "code", "field", "value", "remedy", "request_id",
    }  # fmt: skip
    assert problem["status"] == status
    assert problem["type"] == f"urn:compactds:problem:{code}"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["detail"]
    assert problem["remedy"]
    assert "Traceback" not in response.text
    return problem


# Searching


def test_one_query_is_answered_with_hits_best_first(http):
    answer = search(http, query="blue sky", k=2).json()
    assert [(hit["rank"], hit["score"], hit["passage"]["id"]) for hit in answer["hits"]] == [
        (1, 2.0, "sky#0"),
        (2, 1.0, "sky#1"),
    ]
    assert answer["took_ms"] >= 0
    assert set(answer) == {"hits", "took_ms"}


def test_a_hit_carries_the_whole_passage(http, engine):
    hit = search(http, query="blue sky", k=1).json()["hits"][0]
    assert hit["passage"] == asdict(engine.passages["sky#0"])


def test_a_batch_is_answered_in_its_order(http):
    results = search(http, query=["cell", "dusk red"], k=1).json()["results"]
    assert [result["hits"][0]["passage"]["id"] for result in results] == ["cell#0", "sky#1"]


def test_an_empty_batch_has_no_results(http):
    assert search(http, query=[]).json()["results"] == []
    assert search(http, vectors=[]).json()["results"] == []


def test_vectors_are_searched_alone_and_in_a_batch(http):
    assert search(http, vector=[1.0, 0.1], k=1).json()["hits"][0]["passage"]["id"] == "sky#0"
    results = search(http, vectors=[[0, 1], [-1, 0]], k=1).json()["results"]
    assert [result["hits"][0]["passage"]["id"] for result in results] == ["cell#0", "état/αβγ: x#0"]


@pytest.mark.parametrize(
    "where", [{"subject": "physics", "year": {"$gte": 2015}}, "subject = 'physics' AND year >= 2015"]
)
def test_where_is_an_object_or_an_sql_condition(http, where):
    assert [hit["passage"]["id"] for hit in search(http, query="cell", where=where).json()["hits"]] == [
        "sky#0"
    ]


def test_a_report_comes_when_asked_for(http):
    expected = {
        "plan": "exact", "matching": 2, "candidates": 2, "timings_ms": {"exact": 0.5}, "truncated": False,
        "predicted_ms": 0.0, "excluded": 0,
    }  # fmt: skip
    assert search(http, query="sky", explain=True, where={"subject": "physics"}).json()["report"] == expected
    batch = search(http, query=["sky"], explain=True, where={"subject": "physics"}).json()
    assert batch["results"][0]["report"] == expected


def test_effort_reaches_the_engine_only_when_given(http, engine):
    search(http, query="sky", candidates=50, recall=0.9, mode="dense")
    search(http, query="sky")
    assert engine.calls[-2:] == [
        {"k": 10, "where": None, "candidates": 50, "recall": 0.9},
        {"k": 10, "where": None},
    ]


def test_wheres_of_a_batch_and_questions_to_exclude_reach_the_engine(http, engine):
    wheres = [{"year": 2016}, None, "year > 2000"]
    asked = []
    engine.search = lambda query, **options: asked.append(options) or []
    search(http, query=["sky", "cell", "dusk"], where=wheres, exclude_overlap_with=["why is the sky blue"])
    search(http, query=["sky"], exclude_overlap_with=True)
    assert asked == [
        {"k": 10, "where": wheres, "exclude_overlap_with": ["why is the sky blue"]},
        {"k": 10, "exclude_overlap_with": True},
    ]


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"query": ["sky", "cell"], "where": ["year > 1"]}, "where", "given with a batch of 2"),
        ({"query": "sky", "where": ["year > 1"]}, "where", "given with one query"),
        ({"vector": [1, 0], "where": []}, "where", "given with one query"),
        ({"query": ["sky"], "where": [5]}, "where[0]", "an object or an SQL condition"),
        ({"query": ["sky"], "where": [["year > 1"]]}, "where[0]", "an object or an SQL condition"),
        ({"query": ["sky"], "where": 5}, "where", "or a list of these"),
        ({"query": "sky", "exclude_overlap_with": "sky"}, "exclude_overlap_with", "true or a list"),
        ({"query": "sky", "exclude_overlap_with": {}}, "exclude_overlap_with", "true or a list"),
        ({"query": "sky", "exclude_overlap_with": ["a", 5]}, "exclude_overlap_with[1]", "a string"),
    ],
    ids=str,
)
def test_wheres_and_questions_that_do_not_fit_are_refused(http, engine, body, field, says):
    calls = len(engine.calls)
    problem = search(http, **body)
    assert problem.status_code == 422
    assert (problem.json()["code"], problem.json()["field"]) == ("invalid_request", field)
    assert says in problem.json()["detail"]
    assert len(engine.calls) == calls


def test_at_most_20000_questions_are_excluded(http):
    problem = search(http, query="sky", exclude_overlap_with=["a b c d"] * 20_001)
    assert (problem.status_code, problem.json()["code"]) == (422, "limit_exceeded")
    assert problem.json()["field"] == "exclude_overlap_with"
    assert search(http, query="sky", exclude_overlap_with=["a b c d"] * 20_000).status_code == 200


def test_questions_without_a_word_are_a_problem_of_the_request(http, engine):
    engine.failure = OverlapError("no words.", value=1, remedy="Give some.")
    problem = search(http, query="sky", exclude_overlap_with=["?"])
    assert (problem.status_code, problem.json()["code"]) == (422, "invalid_overlap")


def test_threads_asking_at_once_get_the_same_answers(http):
    queries = ["blue sky", "cell", "dusk red", "日本"] * 8
    alone = [search(http, query=query).json()["hits"] for query in queries]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda query: search(http, query=query).json()["hits"], queries))
    assert together == alone


# The other routes


@pytest.mark.parametrize("passage_id", list(TEXTS))
def test_a_passage_is_found_by_its_encoded_id(http, engine, passage_id):
    response = http.get(f"/v1/passages/{quote(passage_id, safe='')}")
    assert response.json() == asdict(engine.passages[passage_id])


@pytest.mark.parametrize("path", ["nothing%230", "", "%00", "%F0%9F", "a/../b%230", "%ED%A0%80"])
def test_an_unknown_passage_is_a_404(http, path):
    check_problem(http.get(f"/v1/passages/{path}"), 404, "passage_not_found")


def test_count_counts_with_and_without_where(http):
    assert http.post("/v1/count", json={}).json() == {"count": 4}
    assert http.post("/v1/count", json={"where": "year > 2015"}).json() == {"count": 2}


def test_facets_count_values(http):
    answer = http.post(
        "/v1/facets", json={"fields": ["subject", "year"], "where": "year > 0", "limit": 2}
    ).json()
    assert answer["facets"] == {
        "subject": [{"value": "physics", "count": 2}, {"value": "biology", "count": 1}],
        "year": [{"value": 2010, "count": 1}, {"value": 2016, "count": 1}],
    }


def test_the_store_is_described_with_the_limits(http):
    answer = http.get("/v1/store").json()
    assert answer["name"] == "fake"
    assert answer["limits"] == {
        "max_k": 1000,
        "max_batch": 256,
        "max_hits": 50_000,
        "max_candidates": 100_000,
        "max_query_chars": 100_000,
        "max_body_bytes": 16_000_000,
        "max_concurrent": 64,
        "max_dimension": 65_536,
    }
    assert limited(FakeEngine(), max_batch=10**6).get("/v1/store").json()["limits"]["max_batch"] == 10_000


def test_health_and_readiness(http, engine):
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_checks_answer_head(http, engine, path):
    response = http.head(path)
    assert (response.status_code, response.content) == (200, b"")
    engine.failure = IndexError("0")
    assert limited(engine).head("/readyz").status_code == 503


def test_a_store_of_vectors_alone_is_ready(engine, monkeypatch):
    def refuse(*_, **__):
        raise SearchError("this store takes vectors.")

    monkeypatch.setattr(engine, "search", refuse)
    assert limited(engine).get("/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize(
    ("failure", "code"), [(DamagedStoreError("x is short."), "damaged_store"), (IndexError("0"), "not_ready")]
)
def test_a_store_that_cannot_be_searched_is_not_ready_but_the_process_is_alive(engine, failure, code):
    engine.failure = failure
    with TestClient(create_app(engine), base_url=HERE) as http:
        check_problem(http.get("/readyz"), 503, code)
        assert http.get("/healthz").status_code == 200


# Mistakes and attacks


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"query": "a", "k": 0}, "k", "k is 0, expected at least 1."),
        ({"query": "a", "k": -1}, "k", "k is -1, expected at least 1."),
        ({"query": "a", "k": True}, "k", "k is true, expected a whole number."),
        ({"query": "a", "k": "5"}, "k", 'k is "5", expected a whole number.'),
        ({"query": "a", "k": 1.5}, "k", "k is 1.5, expected a whole number."),
        ({"query": "a", "k": None}, "k", "k is null, expected a whole number."),
        ({"query": "a", "k": [1]}, "k", "k is [1], expected a whole number."),
        ({"query": 5}, "query", "query is 5, expected a string or a list of strings."),
        ({"query": {"a": 1}}, "query", 'query is {"a":1}, expected a string or a list of strings.'),
        ({"query": ["a", 5]}, "query[1]", "query[1] is 5, expected a string."),
        ({"query": ["a", None]}, "query[1]", "query[1] is null, expected a string."),
        ({"vector": []}, "vector", "vector is [], expected at least 1 of them."),
        ({"vector": ["1"]}, "vector[0]", 'vector[0] is "1", expected a number.'),
        ({"vector": [True]}, "vector[0]", "vector[0] is true, expected a number."),
        ({"vector": [1e300]}, "vector[0]", "vector[0] is 1e+300, expected at most 3.40282e+38."),
        ({"vectors": [[1, 2], [None]]}, "vectors[1][0]", "vectors[1][0] is null, expected a number."),
        ({"vectors": [1, 2]}, "vectors[0]", "vectors[0] is 1, expected a list."),
        (
            {"query": "a", "where": 5},
            "where",
            "where is 5, expected an object, an SQL condition in a string, or a list of these.",
        ),
        (
            {"query": "a", "where": [1]},
            "where[0]",
            "where[0] is 1, expected an object or an SQL condition in a string.",
        ),
        ({"query": "a", "recall": 0}, "recall", "recall is 0, expected more than 0."),
        ({"query": "a", "recall": 1.01}, "recall", "recall is 1.01, expected at most 1."),
        ({"query": "a", "candidates": 0}, "candidates", "candidates is 0, expected at least 1."),
        ({"query": "a", "explain": "yes"}, "explain", 'explain is "yes", expected true or false.'),
        ({"query": "a", "mode": 1}, "mode", "mode is 1, expected a string."),
        ({}, "query", "query is missing."),
        ({"query": None}, "query", "query is missing."),
        ({"query": "a", "vector": [1, 2]}, "vector", "query and vector are both given."),
    ],
)
def test_a_wrong_value_is_named_with_its_place(http, body, field, said):
    problem = check_problem(search(http, **body), 422, "invalid_request")
    assert (problem["field"], problem["detail"]) == (field, said)


def test_an_unknown_key_is_refused_with_the_nearest_one(http):
    problem = check_problem(search(http, query="a", wher={}), 422, "unknown_key")
    assert (problem["field"], problem["remedy"]) == ("wher", "Did you mean 'where'?")
    problem = check_problem(http.post("/v1/count", json={"zzz": 1}), 422, "unknown_key")
    assert problem["remedy"] == "Known keys: where."


@pytest.mark.parametrize(
    ("path", "body", "key", "remedy"),
    [
        ("/v1/facets", {"feilds": ["year"]}, "feilds", "Did you mean 'fields'?"),
        ("/v1/search", {"query": 5, "wher": {}}, "wher", "Did you mean 'where'?"),
        ("/v1/count", {"": 1}, "", "Known keys: where."),
        ("/v1/count", {"a" * 5000: 1}, "a" * 100, "Known keys: where."),
    ],
    ids=["missing", "wrong", "empty", "long"],
)
def test_a_misspelt_key_is_named_before_what_is_missing_or_wrong(http, path, body, key, remedy):
    problem = check_problem(http.post(path, json=body), 422, "unknown_key")
    assert (problem["value"], problem["remedy"]) == (key, remedy)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/search", {"vector": [""] * 60_000}, "vector[0]"),
        ("/v1/search", {"vectors": [[""] * 50] * 2000}, "vectors[0][0]"),
        ("/v1/search", {"vectors": [1] * 10_000}, "vectors[0]"),
        ("/v1/search", {"query": [1] * 10_000}, "query[0]"),
        ("/v1/facets", {"fields": [1] * 100}, "fields[0]"),
        ("/search", {"queries": [1] * 10_000}, "queries[0]"),
        ("/v1/count", {f"key {number}": 1 for number in range(20_000)}, "key 0"),
    ],
    ids=["vector", "vectors", "numbers", "query", "fields", "queries", "keys"],
)
def test_a_body_wrong_throughout_costs_no_more_than_its_first_mistake(path, body, field, monkeypatch):
    made = []

    def describe(errors, model):
        made.extend(errors)
        return describe_invalid(errors, model)

    monkeypatch.setattr(validation, "describe_invalid", describe)
    response = post_raw(SHARED, json.dumps(body).encode(), path)
    assert (response.status_code, response.json()["field"]) == (422, field)
    assert len(made) == 1


@pytest.mark.parametrize(
    ("path", "body", "field", "most"),
    [
        ("/v1/search", {"vector": [1.0] * 65_537}, "vector", 65_536),
        ("/v1/search", {"vectors": [[1.0]] * 10_001}, "vectors", 10_000),
        ("/v1/search", {"query": ["a"] * 10_001}, "query", 10_000),
        ("/search", {"queries": ["a"] * 10_001}, "queries", 10_000),
        ("/v1/facets", {"fields": ["year"] * 101}, "fields", 100),
    ],
    ids=["vector", "vectors", "query", "queries", "fields"],
)
def test_a_list_longer_than_any_server_takes_is_refused(engine, path, body, field, most):
    http = limited(engine, max_batch=10**6)
    problem = check_problem(http.post(path, json=body), 422, "limit_exceeded")
    assert problem["field"] == field
    assert problem["detail"].endswith(f"expected at most {most} of them.")
    assert len(json.dumps(problem)) < 2000


@pytest.mark.parametrize(
    ("body", "said"), [(b"[]", "The body is not a JSON object."), (b"", "The request has no body.")]
)
def test_a_body_that_is_no_object_is_told_the_keys(http, body, said):
    problem = check_problem(post_raw(http, body), 422, "invalid_request")
    assert problem["detail"] == said
    assert "vectors" in problem["remedy"]


def test_a_missing_required_key_is_named(http):
    problem = check_problem(http.post("/v1/facets", json={}), 422, "invalid_request")
    assert (problem["field"], problem["detail"]) == ("fields", "fields is missing.")


@pytest.mark.parametrize("fields", [[], "subject", [1]])
def test_facets_refuse_odd_fields(http, fields):
    check_problem(http.post("/v1/facets", json={"fields": fields}), 422, "invalid_request")


@pytest.mark.parametrize("query", ["", " \t\n", "\u3000", ["sky", ""]])
def test_a_query_without_text_is_refused(http, query):
    problem = check_problem(search(http, query=query), 422, "empty_query")
    assert problem["field"] == ("query" if isinstance(query, str) else "query[1]")


def test_another_mode_is_refused(http):
    assert (
        "'hybrid'" in check_problem(search(http, query="a", mode="hybrid"), 422, "unsupported_mode")["detail"]
    )


@pytest.mark.parametrize(
    ("limits", "body", "field"),
    [
        ({"max_k": 5}, {"query": "a", "k": 6}, "k"),
        ({"max_k": 5}, {"query": "a", "k": 10**9}, "k"),
        ({"max_candidates": 5}, {"query": "a", "candidates": 6}, "candidates"),
        ({"max_batch": 2}, {"query": ["a", "b", "c"]}, "query"),
        ({"max_batch": 2}, {"vectors": [[1, 0]] * 3}, "vectors"),
        ({"max_hits": 19}, {"query": ["a", "b"], "k": 10}, "k"),
        ({"max_query_chars": 3}, {"query": "four"}, "query"),
        ({"max_query_chars": 3}, {"query": ["a", "four"]}, "query[1]"),
    ],
)
def test_more_than_a_limit_names_the_limit(engine, limits, body, field):
    problem = check_problem(search(limited(engine, **limits), **body), 422, "limit_exceeded")
    ((name, value),) = limits.items()
    assert problem["field"] == field
    assert f"{name}, which is {value}" in problem["detail"]


def test_what_equals_a_limit_is_allowed(engine):
    http = limited(engine, max_k=2, max_batch=2, max_hits=4, max_query_chars=3, max_candidates=2)
    assert search(http, query=["sky", "red"], k=2, candidates=2).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"hello",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"query": "a", "k": NaN}',
        b'{"vector": [NaN]}',
        b'{"vector": [Infinity]}',
        b'{"vector": [1e999]}',
        b'{"query": "\\ud800"}',
        b'{"query": "a\xed\xa0\x80"}',
        b'{"query": "a"} {"query": "b"}',
        b'{"query": "a", "k": ' + b"9" * 5000 + b"}",
        b'{"where": ' + b'{"$not": ' * 100_000 + b"{}" + b"}" * 100_001,
        b"[" * 1_000_000,
    ],
    ids=range(14),
)
def test_a_body_that_is_not_json_is_a_400(http, body):
    check_problem(post_raw(http, body), 400, "invalid_json")


@pytest.mark.parametrize("depth", [100, 300, 1000])
def test_a_deeply_nested_where_is_refused(http, depth):
    where = b'{"$not": ' * depth + b'{"year": 1}' + b"}" * depth
    for path in ("/v1/search", "/v1/count"):
        key = b'"query": "a", ' if path == "/v1/search" else b""
        check_problem(post_raw(http, b"{" + key + b'"where": ' + where + b"}", path), 422, "invalid_where")


@pytest.mark.parametrize("depth", [10, 300, 1000])
def test_a_deeply_nested_value_is_shown_cut(http, depth):
    body = b'{"query": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    problem = check_problem(post_raw(http, body), 422, "invalid_request")
    assert len(json.dumps(problem)) < 2000


def test_a_huge_value_is_shown_cut(http):
    problem = check_problem(search(http, query="a", k="9" * 100_000), 422, "invalid_request")
    assert len(json.dumps(problem)) < 2500


def test_huge_integers_are_refused(http):
    check_problem(post_raw(http, b'{"query": "a", "k": 1' + b"0" * 30 + b"}"), 422, "invalid_request")
    check_problem(search(http, query="a", k=2**63), 422, "limit_exceeded")
    check_problem(search(http, query="a", where={"year": 2**64 - 1}), 422, "wrong_type")


@pytest.mark.parametrize(
    "query", ["日本 🚀", "\x00", "\u202egnp.exe", "'; DROP TABLE x; --", "e\u0301" * 1000]
)
def test_any_text_is_a_query(http, query):
    assert len(search(http, query=query).json()["hits"]) == 4


@pytest.mark.parametrize(
    ("where", "code", "value", "field"),
    [
        ({"yaer": 2015}, "unknown_field", "yaer", "where.yaer"),
        ({"author": {"nmae": "x"}}, "unknown_field", "author.nmae", "where.author.nmae"),
        ({"year": "2015"}, "wrong_type", "2015", "where.year"),
        ("subject = 'x' AND year = '2015'", "wrong_type", "2015", "where.year"),
        ({"subject": "x", "year": {"$get": 2015}}, "invalid_where", "$get", "where.year"),
        ({"year": {"$in": 2015}}, "invalid_where", 2015, "where.year"),
        ({"year": {"$in": []}}, "invalid_where", None, "where.year"),
        ({"year": {"$exists": 1}}, "invalid_where", 1, "where.year"),
        ({"year": {"$not": 1}}, "invalid_where", 1, "where.year"),
        ({"author": {}}, "invalid_where", None, "where.author"),
        ({"author": {"name": {}}}, "invalid_where", None, "where.author.name"),
        ("year >=", "invalid_where", None, "where"),
        ({"$nor": []}, "invalid_where", None, "where"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/search", "/v1/count"])
def test_a_wrong_where_is_explained(http, where, code, value, field, path):
    body = {"where": where} | ({"query": "a"} if path == "/v1/search" else {})
    problem = check_problem(http.post(path, json=body), 422, code)
    assert problem["field"] == field
    if value is not None:
        assert problem["value"] == value


def test_a_long_name_of_a_field_is_cut(http):
    problem = check_problem(search(http, query="a", where={"y" * 9000: {"$get": 1}}), 422, "invalid_where")
    assert problem["field"].startswith("where.yyy")
    assert len(problem["field"]) < 600


def test_a_field_that_facets_do_not_know_is_named_where_it_stands(http):
    def field(fields, where):
        answer = http.post("/v1/facets", json={"fields": fields, "where": where})
        return check_problem(answer, 422, "unknown_field")["field"]

    assert field(["subject", "yaer"], {"year": 2015}) == "fields[1]"
    assert field(["subject", "yaer"], {"yaer": 2015}) == "fields[1]"
    assert field(["subject"], {"yaer": 2015}) == "where.yaer"


def test_a_vector_of_another_dimension_is_refused(http):
    assert check_problem(search(http, vector=[1, 2, 3]), 422, "invalid_vector")["value"] == 3
    problem = check_problem(search(http, vectors=[[1, 2], [1]]), 422, "invalid_vector")
    assert problem["field"] == "vectors[1]"


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "json", "x" * 9999]
)
def test_another_content_type_is_a_415(http, content_type):
    headers = {} if content_type is None else {"content-type": content_type}
    response = http.post("/v1/search", content=b'{"query": "a"}', headers=headers)
    check_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/ld+json"]
)
def test_json_by_any_name_is_taken(http, content_type):
    response = http.post("/v1/search", content=b'{"query": "a"}', headers={"content-type": content_type})
    assert response.status_code == 200


def test_an_unknown_route_and_a_wrong_method_are_problems(http):
    check_problem(http.get("/v2/search"), 404, "not_found")
    check_problem(http.get("/v1/store/"), 404, "not_found")
    response = http.get("/v1/search")
    check_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4)
    ),
    max_leaves=12,
)
known_keys = st.sampled_from(
    [
        "query",
        "vector",
        "vectors",
        "k",
        "where",
        "recall",
        "candidates",
        "fields",
        "limit",
        "n_docs",
        "queries",
    ]
)
sound_values = st.sampled_from(
    ["sky", ["sky"], [1.0, 0.5], [[1.0, 0.5]], 3, 1.0, {"year": 2016}, "year > 1", ["year"]]
)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    path=st.sampled_from(["/v1/search", "/v1/count", "/v1/facets", "/search"]),
    body=st.dictionaries(known_keys, json_values | sound_values, max_size=5) | json_values,
)
def test_no_json_body_makes_the_server_fail(path, body):
    response = post_raw(SHARED, json.dumps(body).encode(), path)
    assert response.status_code in (200, 400, 422), response.text
    if response.status_code != 200:
        assert response.json()["remedy"]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(body=st.binary(max_size=200))
def test_no_bytes_make_the_server_fail(body):
    assert post_raw(SHARED, body).status_code in (200, 400, 422)


# Size of bodies


def test_a_body_over_the_limit_is_a_413_by_its_announced_length(engine):
    response = search(limited(engine, max_body_bytes=100), query="a" * 100)
    problem = check_problem(response, 413, "body_too_large")
    assert "100 bytes" in problem["detail"]
    assert problem["value"] == 112


def test_a_body_over_the_limit_is_a_413_when_it_comes_in_chunks(engine):
    sent = []

    def chunks():
        for _ in range(1000):
            sent.append(1)
            yield b" " * 10

    response = post_raw(limited(engine, max_body_bytes=100), chunks())
    check_problem(response, 413, "body_too_large")


def test_a_body_of_exactly_the_limit_is_read(engine):
    body = b'{"query": "sky"}'
    assert post_raw(limited(engine, max_body_bytes=len(body)), body).status_code == 200


@pytest.mark.parametrize("length", ["9" * 5000, "1" + "0" * 30])
def test_an_absurd_announced_length_is_a_413(engine, length):
    headers = {"content-type": "application/json", "content-length": length}
    response = limited(engine).post("/v1/search", content=b"{}", headers=headers)
    check_problem(response, 413, "body_too_large")


# The key


@pytest.mark.parametrize(
    "path", ["/", "/v1/store", "/docs", "/openapi.json", "/nothing", "/v1/passages/sky%230"]
)
def test_without_the_key_everything_is_closed(engine, path):
    http = limited(engine, api_key="sesame")
    response = http.get(path)
    check_problem(response, 401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert "sesame" not in response.text


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic sesame"},
        {"authorization": "sesame"},
        {"x-api-key": ""},
        {"x-api-key": "sesam"},
        {"x-api-key": b"\xff\xfe"},
    ],
)
def test_another_key_is_refused(engine, headers):
    check_problem(limited(engine, api_key="sesame").get("/v1/store", headers=headers), 401, "unauthorized")


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer sesame"}, {"authorization": "bearer sesame"}, {"x-api-key": "sesame"}],
)
def test_the_key_opens(engine, headers):
    assert limited(engine, api_key="sesame").get("/v1/store", headers=headers).status_code == 200


def test_a_key_outside_ascii_works(engine):
    http = limited(engine, api_key="schlüssel")
    assert http.get("/v1/store", headers={"x-api-key": "schlüssel".encode()}).status_code == 200


def test_health_checks_need_no_key(engine):
    http = limited(engine, api_key="sesame")
    assert http.get("/healthz").status_code == 200
    assert http.get("/readyz").status_code == 200


def test_settings_do_not_show_the_key():
    assert "sesame" not in repr(ServerSettings(api_key="sesame"))


@pytest.mark.parametrize(
    "key", [" sesame", "sesame\n", "ses\r\name", "ses\x00ame", "ses\ud800me", "", " "], ids=ascii
)
def test_an_api_key_that_no_header_can_carry_makes_no_app_and_is_not_shown(engine, key):
    with pytest.raises(ServeError, match="API key") as caught:
        create_app(engine, ServerSettings(api_key=key))
    assert "ses" not in str(caught.value)
    assert caught.value.value is None


def test_a_key_whose_last_byte_looks_like_a_blank_opens(engine):
    http = limited(engine, api_key="voil\u00e0")
    headers = {"authorization": "Bearer voil\u00e0".encode()}
    assert http.get("/v1/store", headers=headers).status_code == 200


# The host


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "127.8.9.1", "[::1]", "[::1]:80", "box"],
)
def test_this_machine_answers_to_its_own_names_and_the_configured_one(engine, host):
    assert limited(engine, host="Box").get("/v1/store", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.test", "evil.test:8080", "localhost.evil.test", "127.0.0.1.evil.test", "192.0.2.1", "[::2]",
        "", "localhost:80:80", "localhost, evil.test", "user@localhost", b"\xff", "a" * 5000,
    ],
    ids=range(12),
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/store", "/readyz", "/docs"])
def test_another_host_is_refused_so_that_no_web_page_can_ask_by_rebinding_its_name(http, host, path):
    problem = check_problem(http.get(path, headers={"host": host}), 421, "unknown_host")
    assert len(json.dumps(problem)) < 2000


def test_each_of_several_host_headers_must_be_known(http):
    headers = [("host", "localhost"), ("host", "evil.test")]
    check_problem(http.get("/v1/store", headers=headers), 421, "unknown_host")


def test_with_an_api_key_any_host_is_answered(engine):
    headers = {"host": "evil.test", "x-api-key": "sesame"}
    assert limited(engine, api_key="sesame").get("/v1/store", headers=headers).status_code == 200


# Many requests at once


def test_beyond_max_concurrent_requests_are_told_to_come_back(engine, monkeypatch):
    entered, go_on = threading.Event(), threading.Event()

    def wait(where=None):
        entered.set()
        go_on.wait()
        return 7

    monkeypatch.setattr(engine, "count", wait)
    app = create_app(engine, ServerSettings(max_concurrent=1))
    with TestClient(app, base_url=HERE) as http, ThreadPoolExecutor() as pool:
        first = pool.submit(http.post, "/v1/count", json={})
        try:
            entered.wait()
            response = http.get("/v1/store")
            problem = check_problem(response, 503, "overloaded")
            assert "max_concurrent" in problem["detail"]
            assert response.headers["retry-after"] == "1"
            assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200
        finally:
            go_on.set()
        assert first.result().json() == {"count": 7}
        assert http.get("/v1/store").status_code == 200


def test_a_request_that_failed_makes_room(engine):
    http = limited(engine, max_concurrent=1)
    engine.failure = RuntimeError("x")
    for _ in range(3):
        check_problem(search(http, query="a"), 500, "internal_error")
    engine.failure = None
    assert search(http, query="a").status_code == 200


# Failures inside


def test_an_unexpected_error_is_a_500_that_tells_nothing_but_the_id(http, engine, caplog):
    engine.failure = RuntimeError("/secret/path")
    response = search(http, query="a")
    problem = check_problem(response, 500, "internal_error")
    assert "secret" not in response.text
    assert problem["request_id"] in caplog.text
    assert "/secret/path" in caplog.text


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (EncoderError("/secret/path"), 503, "encoder_error"),
        (DamagedStoreError("/secret/path is short."), 500, "damaged_store"),
        (EncoderMismatchError("/secret/path"), 500, "encoder_mismatch"),
        (EncoderNotFoundError("/secret/path"), 500, "encoder_not_found"),
        (StoreFormatError("/secret/path"), 500, "unsupported_format"),
    ],
)
def test_a_fault_that_may_pass_is_a_503_and_a_lasting_one_a_500_and_neither_tells_paths(
    http, engine, caplog, failure, status, code
):
    engine.failure = failure
    response = http.get("/v1/passages/sky%230")
    check_problem(response, status, code)
    assert "secret" not in response.text
    assert "/secret/path" in caplog.text


def test_an_error_after_half_an_answer_closes_the_connection(engine):
    app = create_app(engine)

    async def broken(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("midway")

    app.mount("/broken", broken)
    with pytest.raises(RuntimeError, match="midway"):
        TestClient(app, base_url=HERE).get("/broken/")


@pytest.mark.parametrize("sane", ["abc-1.2_3", "a" * 128])
def test_a_sane_request_id_is_kept(http, sane):
    assert http.get("/healthz", headers={"x-request-id": sane}).headers["x-request-id"] == sane


@pytest.mark.parametrize("insane", ["", "a" * 129, "a b", "<script>", b"\xff"])
def test_another_request_id_is_replaced(http, insane):
    given = http.get("/healthz", headers={"x-request-id": insane}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", given)


def test_every_request_is_logged_once_without_line_breaks(http, caplog):
    with caplog.at_level(logging.INFO, logger="compactds.server"):
        http.get("/v1/passages/a%0Ab", headers={"x-request-id": "r1"})
    (line,) = [record.getMessage() for record in caplog.records if "r1" in record.getMessage()]
    assert line.startswith(r"GET '/v1/passages/a\nb' 404 ")


# The documentation


def references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


@pytest.mark.parametrize("api_key", [None, "sesame"])
def test_openapi_is_valid_and_whole(engine, api_key):
    app = create_app(engine, ServerSettings(api_key=api_key))
    document = app.openapi()
    OpenAPI.model_validate(document)
    names = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert names <= set(document["components"]["schemas"])
    assert set(document["paths"]) == {
        "/v1/search", "/v1/passages/{passage_id}", "/v1/count", "/v1/facets", "/v1/store",
        "/search", "/healthz", "/readyz",
    }  # fmt: skip
    assert ("securitySchemes" in document["components"]) == (api_key is not None)


def test_openapi_describes_every_operation_key_and_problem(http):
    document = http.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["description"], path
            for status, response in operation["responses"].items():
                assert status == "200" or list(response["content"]) == ["application/problem+json"], path
    for name in ("SearchBody", "CountBody", "FacetsBody", "CompatibleBody"):
        schema = document["components"]["schemas"][name]
        assert schema["examples"] or schema["example"], name
        for key, value in schema["properties"].items():
            assert value["description"], key


def test_the_examples_in_openapi_are_taken(http):
    document = http.get("/openapi.json").json()
    for path in ("/v1/search", "/v1/count", "/search"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert http.post(path, json=body["example"]).status_code == 200
    facets = document["paths"]["/v1/facets"]["post"]["requestBody"]["content"]["application/json"]
    assert facets["example"]["fields"] == ["subject", "year"]


@pytest.mark.parametrize("api_key", [None, "sesame"])
def test_openapi_says_when_a_request_is_refused_whatever_it_asks(engine, api_key):
    paths = create_app(engine, ServerSettings(api_key=api_key)).openapi()["paths"]
    for path, operations in paths.items():
        for operation in operations.values():
            assert "421" in operation["responses"], path
            assert ("401" in operation["responses"]) == (path not in ("/healthz", "/readyz")), path


def test_the_root_links_to_what_answers(http):
    links = http.get("/").json()
    assert links["title"] == "compactds"
    for name in ("store", "documentation", "openapi"):
        assert http.get(links[name]).status_code == 200
    assert http.post(links["search"], json={"query": "sky"}).status_code == 200


def test_an_answer_ends_with_a_line_break_for_terminals(http):
    assert http.get("/v1/store").text.endswith("}\n")
    assert http.get("/nothing").text.endswith("}\n")


def test_the_documentation_page_is_there(http):
    assert "swagger" in http.get("/docs").text


# The format of massive-serve and DS-Serve


def test_massive_serve_gets_lists_of_lists(http):
    answer = http.post(
        "/search", json={"query": "blue sky", "n_docs": 2, "nprobe": 64, "domains": "demo"}
    ).json()
    assert answer == {
        "message": "Search completed for 1 queries.",
        "query": "blue sky",
        "n_docs": 2,
        "nprobe": 64,
        "results": {
            "scores": [[2.0, 1.0]],
            "passages": [[TEXTS["sky#0"][0], TEXTS["sky#1"][0]]],
            "IDs": [["sky#0", "sky#1"]],
        },
    }


def test_massive_serve_defaults_to_one_passage_and_takes_a_list(http):
    answer = http.post("/search", json={"query": ["cell", "dusk red"]}).json()
    assert (answer["n_docs"], answer["nprobe"]) == (1, None)
    assert answer["query"] == ["cell", "dusk red"]
    assert answer["results"] == {
        "scores": [[1.0], [2.0]],
        "passages": [[TEXTS["cell#0"][0]], [TEXTS["sky#1"][0]]],
        "IDs": [["cell#0"], ["sky#1"]],
    }
    none = {"scores": [], "passages": [], "IDs": []}
    assert http.post("/search", json={"query": []}).json()["results"] == none


@pytest.mark.parametrize(
    "extra", [{"backend": "diskann"}, {"exact_search": False}, {"diverse_search": False, "lambda": 0.5}]
)
def test_ds_serve_gets_passages_as_objects(http, extra):
    results = http.post("/search", json={"query": "blue sky", **extra}).json()["results"]
    passage = results["passages"][0][0]
    assert passage == {
        "passage_id": "sky#0",
        "text": TEXTS["sky#0"][0],
        "center_text": TEXTS["sky#0"][0],
        "source": "tests",
        "raw_query": "blue sky",
        "title": "Sky",
        "document_id": "sky",
        "attributes": {"subject": "physics", "year": 2016},
    }
    assert results["timings_ms"]["total"] >= 0


def test_ds_serve_queries_are_a_batch_and_exact_search_is_exhaustive(http, engine):
    answer = http.post("/search", json={"queries": ["cell", "dusk red"], "exact_search": True}).json()
    assert answer["query"] == ["cell", "dusk red"]
    assert answer["results"]["IDs"] == [["cell#0"], ["sky#1"]]
    assert {"k": 1, "where": None, "recall": 1.0} in engine.calls


@pytest.mark.parametrize("option", [{"diverse_search": True}, {"min_words": 5}, {"expand_index_id": 0}])
def test_options_that_would_change_the_answer_are_refused(http, option):
    problem = check_problem(http.post("/search", json={"query": "a", **option}), 422, "unsupported_option")
    assert problem["field"] == next(iter(option))


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, "query", "invalid_request"),
        ({"query": "a", "n_docs": 0}, "n_docs", "invalid_request"),
        ({"query": "a", "n_docs": "3"}, "n_docs", "invalid_request"),
        ({"query": "a", "lambda": "x"}, "lambda", "invalid_request"),
        ({"query": "a", "n_docs": 10**9}, "n_docs", "limit_exceeded"),
        ({"query": " "}, "query", "empty_query"),
    ],
)
def test_mistakes_in_this_format_are_problems_too(http, body, field, code):
    assert check_problem(http.post("/search", json=body), 422, code)["field"] == field
