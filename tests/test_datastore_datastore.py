"""A store answers queries, embedded: the right passages, under filters, with clear errors."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from compactds.configs.recipe import recipe_for
from compactds.datastore import Datastore
from compactds.datastore.encoders import EncoderOptions, load_encoder
from compactds.datastore.errors import (
    DamagedStoreError,
    EncoderMismatchError,
    PassageNotFoundError,
    SearchError,
    StoreError,
    StoreFormatError,
    StoreNotFoundError,
    UnsupportedModeError,
    VectorError,
)
from compactds.datastore.verify import verify
from compactds.filters import UnknownFieldError, field
from compactds.indexer.build import build


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return load_encoder(EncoderOptions(model=str(tiny_model), dtype="float32"))


@pytest.fixture(scope="module", params=["flat", "hnsw", "ivf"])
def built(request, tmp_path_factory, records, write_jsonl, tiny_model, encoder) -> Path:
    """A store of each kind of index, over the same documents."""
    root = tmp_path_factory.mktemp(request.param)
    path = write_jsonl(root / "corpus.jsonl", records)
    changes = {"encoder.model": str(tiny_model), "encoder.dtype": "float32", "index.kind": request.param}
    build(recipe_for([str(path)], changes), root / "store", encoder=encoder)
    return root / "store"


@pytest.fixture(scope="module")
def flat(tmp_path_factory, records, write_jsonl, tiny_model, encoder) -> Path:
    root = tmp_path_factory.mktemp("store")
    path = write_jsonl(root / "corpus.jsonl", records)
    build(recipe_for([str(path)], {"encoder.model": str(tiny_model)}), root / "store", encoder=encoder)
    return root / "store"


@pytest.fixture
def store(flat, encoder):
    with Datastore.open(flat, encoder=encoder) as opened:
        yield opened


@pytest.fixture
def copy(flat, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(flat, tmp_path / "copy"))


QUERIES = ["the light of the star", "blood and nerve", "a court and a vote", "price of trade"]

FILTERS = [
    None,
    {"subject": "physics"},
    {"year": {"$gte": 2000, "$lt": 2020}},
    {"$or": [{"open": True}, {"tags": {"$contains": "t3"}}]},
    "date >= '2020-01-01' AND NOT source = 'atlas'",
    field("weight").isin([0.125, 3.5]) | (field("year") == 1995),
    {"year": {"$exists": False}},
]


def matches(record: dict, place: int) -> bool:
    """Say independently whether a record passes FILTERS[place]."""
    year = record.get("year")
    return [
        True,
        record["subject"] == "physics",
        year is not None and 2000 <= year < 2020,
        record["open"] or "t3" in record["tags"],
        record["date"] >= "2020-01-01" and record["source"] != "atlas",
        record["weight"] in (0.125, 3.5) or year == 1995,
        year is None,
    ][place]


@pytest.mark.parametrize("place", range(len(FILTERS)))
@pytest.mark.parametrize("k", [1, 7, 1_000])
def test_results_are_the_best_of_the_allowed_passages(built, encoder, records, place, k):
    by_id = {record["id"]: record for record in records}
    with Datastore.open(built, encoder=encoder) as store:
        everything = store.search(QUERIES, k=10_000, recall=1.0)
        results = store.search(QUERIES, k=k, where=FILTERS[place], recall=1.0)
        relaxed = store.search(QUERIES, k=k, where=FILTERS[place])
        for hits, found, all_hits in zip(results, relaxed, everything, strict=True):
            allowed = [hit for hit in all_hits if matches(by_id[hit.passage.document_id], place)]
            assert hits.report.matching == len(allowed)
            assert store.count(FILTERS[place]) == len(allowed)
            wanted = allowed[:k]
            assert [hit.passage for hit in hits] == [hit.passage for hit in wanted]
            np.testing.assert_allclose([h.score for h in hits], [h.score for h in wanted], atol=1e-6)
            assert [hit.rank for hit in hits] == list(range(1, len(wanted) + 1))
            assert len(found) == min(k, len(allowed))
            assert all(matches(by_id[hit.passage.document_id], place) for hit in found)


def test_scores_are_cosines_of_the_encoder(store, encoder):
    query = "light of the moon"
    vector = encoder.encode_queries([query])[0]
    for hit in store.search(query, k=5):
        text = f"{hit.passage.title}\n{hit.passage.text}"
        passage = encoder.encode_passages([text])[0]
        lengths = 1 if encoder.spec.normalized else np.linalg.norm(passage) * np.linalg.norm(vector)
        assert hit.score / lengths == pytest.approx(float(passage @ vector) / lengths, abs=2e-2)


def test_text_and_its_vector_find_the_same(store, encoder):
    vectors = encoder.encode_queries(QUERIES)
    for by_text, by_vector in zip(store.search(QUERIES), store.search(vectors=vectors), strict=True):
        assert [hit.passage.id for hit in by_text] == [hit.passage.id for hit in by_vector]


def test_one_query_gives_hits_and_several_give_lists(store, encoder):
    assert store.search("light", k=3)[0].rank == 1
    assert [len(hits) for hits in store.search(["light", "law"], k=3)] == [3, 3]
    assert len(store.search(["light"], k=3)) == 1
    vector = encoder.encode_queries(["light"])
    assert [hit.rank for hit in store.search(vectors=vector[0], k=2)] == [1, 2]
    assert [len(hits) for hits in store.search(vectors=vector, k=2)] == [2]
    assert store.search([]) == []
    assert store.search(vectors=np.empty((0, 16))) == []


def test_the_report_says_how_the_answer_was_found(store):
    report = store.search("light", k=3, where={"subject": "law"}).report
    assert report.plan == "exact"
    assert report.matching == report.candidates == store.count({"subject": "law"})
    assert set(report.timings_ms) == {"encode", "filter", "search", "fetch"}
    assert store.search("light", where={"year": 1}).report.plan == "none"


def test_nearest_returns_the_rows_and_scores_of_a_search(built, encoder):
    with Datastore.open(built, encoder=encoder) as store:
        vectors = encoder.encode_queries(QUERIES)
        for where in (None, {"subject": "physics"}):
            hits = store.search(QUERIES, k=5, where=where)
            found = store.nearest(vectors, k=5, where=where)
            assert found.rows.shape == found.scores.shape == (len(QUERIES), 5)
            for query, vector in zip(hits, vectors, strict=True):
                (alone,), (scores,) = (lambda n: (n.rows, n.scores))(store.nearest(vector, k=5, where=where))
                assert [hit.score for hit in query] == scores.tolist()
                ids = [store._fetch([np.array([row])])[0][0].id for row in alone]
                assert [hit.passage.id for hit in query] == ids


def test_each_query_of_a_batch_can_have_a_filter_of_its_own(built, encoder):
    with Datastore.open(built, encoder=encoder) as store:
        wheres = [FILTERS[0], FILTERS[1], FILTERS[4], FILTERS[1]]
        together = store.search(QUERIES, k=5, where=wheres)
        for query, where, hits in zip(QUERIES, wheres, together, strict=True):
            alone = store.search(query, k=5, where=where)
            assert [hit.passage.id for hit in hits] == [hit.passage.id for hit in alone]
            assert hits.report.matching == store.count(where)
        with pytest.raises(SearchError, match="list of 2, given with a batch of 4"):
            store.search(QUERIES, where=[None, None])
        assert store.search([], where=[]) == []


def test_a_list_of_one_filter_does_not_go_for_all(built, encoder):
    with Datastore.open(built, encoder=encoder) as store:
        vectors = encoder.encode_queries(QUERIES[:2])
        for search in (
            lambda where: store.search(QUERIES[:2], where=where),
            lambda where: store.search(vectors=vectors, where=where),
            lambda where: store.nearest(vectors, where=where),
        ):
            search([None, None])
            with pytest.raises(SearchError, match="list of 1, given with a batch of 2"):
                search([FILTERS[0]])
        for search in (
            lambda: store.search(QUERIES[0], where=[FILTERS[0]]),
            lambda: store.nearest(vectors[0], where=(FILTERS[0],)),
        ):
            with pytest.raises(SearchError, match="list of 1, given with one query") as refused:
                search()
            assert refused.value.remedy.startswith("Give one expression for all queries")


@pytest.mark.parametrize("plan", ["exact", "lists", "codes", "open"])
def test_every_plan_returns_allowed_rows_only_and_as_many_as_there_are(built, encoder, plan):
    with Datastore.open(built, encoder=encoder) as store:
        vectors = encoder.encode_queries(QUERIES)
        for where in FILTERS[1:]:
            found = store.nearest(vectors, k=12, where=where, plan=plan)
            best = store.nearest(vectors, k=12, where=where, recall=1.0)
            assert ((found.rows >= 0).sum(axis=1) == min(12, store.count(where))).all()
            np.testing.assert_array_equal(found.scores[:, 0], best.scores[:, 0])


def test_an_unknown_plan_is_refused(store, encoder):
    with pytest.raises(SearchError, match="exact, lists, codes, open"):
        store.nearest(encoder.encode_queries(["light"]), plan="fastest")


def test_a_report_says_what_the_search_was_predicted_to_cost(store):
    assert store.search("light", where={"subject": "physics"}).report.predicted_ms > 0
    assert store.search("light", where={"subject": "alchemy"}).report.predicted_ms == 0


def test_nearest_fills_up_what_a_filter_leaves_empty(store, encoder):
    found = store.nearest(encoder.encode_queries(QUERIES[:1]), k=5, where={"subject": "alchemy"})
    assert found.rows.tolist() == [[-1] * 5]
    assert np.isneginf(found.scores).all()
    assert store.nearest(np.empty((0, 32)), k=3).rows.shape == (0, 3)


@pytest.mark.parametrize("wrong", [{"effort": 0}, {"effort": 2.5}, {"effort": 8, "recall": 0.9}])
def test_nearest_says_which_parameter_is_wrong(store, encoder, wrong):
    with pytest.raises(SearchError, match="effort"):
        store.nearest(encoder.encode_queries(["light"]), **wrong)


def test_threads_get_what_one_thread_gets(built, encoder):
    with Datastore.open(built, encoder=encoder) as store:
        jobs = [(QUERIES[n % 4], FILTERS[n % 7], 1 + n % 5, (None, 0.5, 1.0)[n % 3]) for n in range(120)]

        def run(job):
            return [asdict(hit) for hit in store.search(job[0], where=job[1], k=job[2], recall=job[3])]

        alone = [run(job) for job in jobs]
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(run, jobs)) == alone


def test_a_query_longer_than_the_encoder_reads_is_reported(store):
    short, long = "light of the star", "light " * 31  # the encoder reads 32 tokens, two of them special
    assert [hits.report.truncated for hits in store.search([short, long, "light " * 30])] == [
        False,
        True,
        False,
    ]
    assert not store.search(vectors=np.ones(16)).report.truncated


class TestPassagesAndCounts:
    def test_a_passage_is_found_by_its_id(self, store):
        for hit in store.search("light", k=30):
            assert store.get(hit.passage.id) == hit.passage

    @pytest.mark.parametrize(
        "name",
        ["", "#", "doc/1", "doc/1#", "doc/1#-1", "doc/1#999", "doc/1#1e3", "doc/1#٣", "nope#0", "\ud800#0"],
    )
    def test_an_id_that_is_not_there_is_an_error(self, store, name):
        with pytest.raises(PassageNotFoundError):
            store.get(name)

    def test_facets_count_values_among_allowed_passages(self, store):
        facets = store.facets(["subject", "tags", "open", "date"], where={"year": {"$lt": 2000}}, limit=3)
        for value, count in facets["subject"]:
            assert count == store.count({"$and": [{"subject": value}, {"year": {"$lt": 2000}}]})
        for value, count in facets["tags"]:
            assert count == store.count({"$and": [{"tags": {"$contains": value}}, {"year": {"$lt": 2000}}]})
        assert {type(value) for value, _ in facets["open"]} == {bool}
        assert all(isinstance(value, str) and len(value) == 10 for value, _ in facets["date"])
        counts = [count for _, count in facets["tags"]]
        assert counts == sorted(counts, reverse=True)
        assert len(counts) == 3

    def test_facets_of_a_wrong_field_or_limit_are_errors(self, store):
        with pytest.raises(UnknownFieldError, match="Did you mean 'subject'"):
            store.facets(["subjekt"])
        for limit in (0, -1, True, "5", 10**9):
            with pytest.raises(SearchError, match="limit"):
                store.facets(["subject"], limit=limit)
        with pytest.raises(SearchError, match="list of field names"):
            store.facets("subject")

    def test_the_description_is_json_and_adds_up(self, store, flat):
        description = json.loads(json.dumps(store.describe()))
        assert description["documents"] == 60
        assert description["passages"] == store.count()
        assert description["schema"]["tags"] == "list<string>"
        on_disk = {path.name: path.stat().st_size for path in flat.glob("segments/*/*")}
        assert description["disk_bytes"] == on_disk
        assert description["ram_bytes"]["index"] == 4 * 16 * description["passages"]

    def test_the_ledger_accounts_for_every_document(self, store):
        (ledger,) = store.ledgers()
        assert sum(source["documents"] for source in ledger["sources"]) == 60
        assert ledger["passages"] == store.manifest.passages


class TestWrongUse:
    @pytest.mark.parametrize("k", [0, -1, 10**9, True, 1.5, "5", None])
    def test_k(self, store, k):
        with pytest.raises(SearchError, match="k is"):
            store.search("light", k=k)

    @pytest.mark.parametrize("candidates", [0, 4, 10**9, "many"])
    def test_candidates(self, store, candidates):
        with pytest.raises(SearchError, match="candidates is"):
            store.search("light", k=5, candidates=candidates)

    @pytest.mark.parametrize("recall", [0, -0.5, 1.01, float("nan"), True, "high"])
    def test_recall(self, store, recall):
        with pytest.raises(SearchError, match="recall is"):
            store.search("light", recall=recall)

    @pytest.mark.parametrize(
        "query", ["", "  \n", 5, ["light", ""], ["light", None], b"light", {"a": 1}, "\ud800"]
    )
    def test_query(self, store, query):
        with pytest.raises(SearchError, match="query"):
            store.search(query)

    @pytest.mark.parametrize("mode", ["hybrid", "lexical", "", None, 1])
    def test_mode(self, store, mode):
        assert store.search("light", mode="dense")
        with pytest.raises(UnsupportedModeError, match="mode is"):
            store.search("light", mode=mode)

    def test_both_or_neither_of_query_and_vectors(self, store):
        with pytest.raises(SearchError, match="either"):
            store.search()
        with pytest.raises(SearchError, match="both"):
            store.search("light", vectors=np.ones(16))

    @pytest.mark.parametrize(
        "vectors",
        [
            np.zeros(16),
            np.full(16, np.nan),
            np.full(16, np.inf),
            np.full(16, 1e300),
            np.full(16, 1e30),
            np.ones(15),
            np.ones((2, 2, 16)),
            "abc",
            [],
            3.0,
            [[1.0] * 16, [1.0] * 15],
            np.ones((0, 15, 2)),
        ],
    )
    def test_vectors(self, store, vectors):
        with pytest.raises(VectorError):
            store.search(vectors=vectors)

    @pytest.mark.parametrize(
        ("vector", "fault"),
        [
            (np.zeros(16), "is zero"),
            (np.full(16, np.nan), "holds NaN, infinity or a number too large"),
            (np.full(16, 1e300), "holds NaN, infinity or a number too large"),
            (np.full(16, 1e30), "is too long for float32 to hold the square of its length"),
            (np.full(16, 1e-30), "is too short for float32 to hold the square of its length"),
        ],
    )
    def test_what_is_wrong_with_a_vector_is_said(self, store, vector, fault):
        with pytest.raises(VectorError, match=f"^query vector 1 {fault}"):
            store.search(vectors=[np.ones(16), vector])

    def test_an_unknown_field(self, store):
        with pytest.raises(UnknownFieldError, match="Did you mean 'year'"):
            store.search("light", where={"yaer": 2015})


class TestDamage:
    def test_no_store(self, tmp_path):
        (tmp_path / "file").write_text("")
        for name, why in (
            (".", r"it holds no manifest\.json"),
            ("absent", "there is no such folder"),
            ("file", "it is a file"),
        ):
            with pytest.raises(StoreNotFoundError, match=f"no datastore at .*: {why}"):
                Datastore.open(tmp_path / name)

    def test_a_newer_format(self, copy):
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
        with pytest.raises(StoreFormatError, match="format 2; this version of compactds reads format 1"):
            Datastore.open(copy)
        assert "format 2" in verify(copy)[0]

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', "\x00"])
    def test_a_manifest_that_is_none(self, copy, text):
        (copy / "manifest.json").write_text(text)
        with pytest.raises(DamagedStoreError, match=r"manifest\.json"):
            Datastore.open(copy)
        assert len(verify(copy)) == 1

    def test_a_manifest_somebody_edited(self, copy):
        text = (copy / "manifest.json").read_text()
        (copy / "manifest.json").write_text(text.replace('"documents": 60', '"documents": 61', 1))
        with pytest.raises(DamagedStoreError, match="fails its checksum"):
            Datastore.open(copy)

    @pytest.mark.parametrize(
        "name",
        ["passages.arrow", "attributes.parquet", "exact.f16", "ann.faiss", "documents.lookup", "ledger.json"],
    )
    @pytest.mark.parametrize("damage", ["truncated", "missing", "changed"])
    def test_every_file_is_checked(self, copy, name, damage):
        (path,) = copy.glob(f"segments/*/{name}")
        content = bytearray(path.read_bytes())
        if damage == "missing":
            path.unlink()
        elif damage == "truncated":
            path.write_bytes(content[:-1])
        else:
            content[len(content) // 2] ^= 0xFF
            path.write_bytes(content)
        with pytest.raises(DamagedStoreError, match=name):
            Datastore.open(copy)
        assert any(name in problem for problem in verify(copy))

    def test_an_index_file_that_is_none(self, copy, monkeypatch, encoder):
        (path,) = copy.glob("segments/*/ann.faiss")
        path.write_bytes(b"x" * path.stat().st_size)
        monkeypatch.setattr("compactds.datastore.segment.find_damage", lambda *_, **__: [])
        with pytest.raises(DamagedStoreError, match=r"ann\.faiss cannot be read"):
            Datastore.open(copy)

    def test_another_encoder_is_refused(self, flat, tiny_model):
        other = load_encoder(EncoderOptions(model=str(tiny_model), passage_prompt="a "))
        with pytest.raises(EncoderMismatchError, match="was built with"):
            Datastore.open(flat, encoder=other)

    def test_a_moved_store_is_the_same_store(self, copy, encoder, store):
        with Datastore.open(copy, encoder=encoder) as moved:
            assert moved.search("light") == store.search("light")
        assert verify(copy) == []


def test_a_store_loads_its_encoder_by_itself(flat, store):
    with Datastore.open(flat) as alone:
        alone.load_encoders()
        assert [hit.passage for hit in alone.search("light")] == [
            hit.passage for hit in store.search("light")
        ]


def test_a_store_of_vectors_only_says_that_it_takes_no_text(tmp_path, records, write_jsonl):
    path = write_jsonl(tmp_path / "corpus.jsonl", records)
    np.save(tmp_path / "v.npy", np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32))
    build(recipe_for([str(path)], {"vectors": str(tmp_path / "v.npy")}), tmp_path / "store")
    with Datastore.open(tmp_path / "store") as store:
        store.load_encoders()
        with pytest.raises(SearchError, match="ready-made vectors"):
            store.search("light")


def test_two_encoders_propose_and_decide(tmp_path, records, write_jsonl, tiny_model, encoder):
    path = write_jsonl(tmp_path / "corpus.jsonl", records)
    changes = {
        "encoder.model": f"static:{tiny_model}",
        "encoder.dimension": 8,
        "exact_encoder": {"model": str(tiny_model), "dtype": "float32"},
    }
    build(recipe_for([str(path)], changes), tmp_path / "store")
    with Datastore.open(tmp_path / "store") as store:
        assert (store.manifest.encoder.dimension, store.manifest.exact_encoder.dimension) == (8, 16)
        hits = store.search("light of the star", k=5, candidates=40)
        assert hits.report.plan == "ann"
        exact = store.search("light of the star", k=200, recall=1.0)
        scores = {hit.passage.id: hit.score for hit in exact}
        for hit in hits:
            assert hit.score == pytest.approx(scores[hit.passage.id], abs=1e-5)
        with pytest.raises(SearchError, match="two encoders"):
            store.search(vectors=np.ones(8))
    shutil.move(tmp_path / "store", tmp_path / "elsewhere")
    assert verify(tmp_path / "elsewhere") == []
    with Datastore.open(tmp_path / "elsewhere") as moved:
        assert len(moved.search("light", k=3)) == 3


def test_a_closed_store_says_that_it_is_closed(flat, encoder):
    store = Datastore.open(flat, encoder=encoder)
    store.close()
    store.close()
    for use in (lambda: store.search("light"), store.count, store.describe, lambda: store.get("doc/1#0")):
        with pytest.raises(StoreError, match="is closed"):
            use()
