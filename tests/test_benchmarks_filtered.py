"""The benchmark of filtered search reads published files, makes filters as it says, and counts honestly."""

import importlib
import io
import json
import struct
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from compactds.datastore.attributes import AttributeColumns, arrow_schema
from compactds.filters import FieldType, Schema, parse_where

ROOT = Path(__file__).parents[1]
INSTALLED = ("hnswlib", "faiss-hnsw", "faiss-ivf", "duckdb")
SHORT_RUN = ("--hold-out", "20", "--per-bucket", "1", "--repeats", "1", "--warm-up", "0.002")
VENUES = ("acl", "emnlp", "lrec", "coling", "naacl", "eacl", "tacl", "rare")


@pytest.fixture
def part(monkeypatch):
    """Import a part of the benchmark by its name."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def unit(seed: int, rows: int, dimension: int = 16) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((rows, dimension))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def papers(rows: int, seed: int = 3) -> list[dict]:
    draw = np.random.default_rng(seed)
    return [
        {
            "venue": VENUES[min(int(draw.zipf(1.6)) - 1, 7)],
            "year": int(draw.integers(1990, 2026)),
            "month": None if draw.random() < 0.1 else str(draw.choice(["May", "June", "July", "August"])),
            "authors": [f"O'Person {number}" for number in set(draw.zipf(1.5, 3).tolist()) if number < 99],
            "has_software": bool(draw.random() < 0.2),
            "lang": "eng" if draw.random() < 0.97 else "fra",
            "words": int(draw.integers(20, 400)),
        }
        for _ in range(rows)
    ]


WHERES = [
    {"venue": "acl"},
    {"month": {"$ne": "May"}},
    {"month": {"$nin": ["May", "June", "never"]}},
    {"venue": {"$in": ["acl", "lrec"]}, "year": {"$gte": 2000, "$lte": 2010}},
    {"$not": {"year": {"$gte": 2000, "$lte": 2010}}},
    {"$not": {"month": {"$gt": "July"}}},
    {"authors": {"$contains": "O'Person 1"}},
    {"authors": {"$contains": "nobody"}},
    {"$not": {"authors": {"$contains_any": ["O'Person 1", "O'Person 2"]}}},
    {"$not": {"authors": {"$contains_any": ["O'Person 1"]}, "has_software": True}},
    {"$or": [{"has_software": True}, {"$and": [{"lang": "fra"}, {"words": {"$lt": 100}}]}]},
    {"$not": {"$or": [{"venue": "acl"}, {"$not": {"month": {"$in": ["May"]}}}]}},
]


class TestWhereExpressions:
    @pytest.fixture
    def columns(self, part):
        return part("peers.filtered_where").Columns(papers(300))

    @pytest.mark.parametrize("where", WHERES)
    def test_masks_are_what_compactds_allows(self, columns, where, tmp_path):
        kinds = {"year": FieldType.INT64, "words": FieldType.INT64, "has_software": FieldType.BOOL}
        kinds |= dict.fromkeys(("venue", "month", "lang"), FieldType.STRING)
        schema = Schema({**kinds, "authors": FieldType.STRING_LIST})
        table = pa.Table.from_pylist(papers(300)).select(list(schema)).cast(arrow_schema(schema))
        pa.parquet.write_table(table, tmp_path / "attributes.parquet")
        source = AttributeColumns(tmp_path / "attributes.parquet", schema)
        expected = source.filter.rows(parse_where(where, schema)).mask()
        source.close()
        assert np.array_equal(columns.mask(where), expected)

    @pytest.mark.parametrize("where", WHERES)
    def test_sql_says_the_same(self, part, columns, where):
        table = pa.Table.from_pylist(papers(300))
        missing = frozenset({"month"})
        condition = part("peers.filtered_where").to_sql(where, "list_contains", "list_has_any", missing)
        with duckdb.connect() as database:
            database.register("papers", table)
            found = database.execute(f"SELECT coalesce({condition}, false) FROM papers").fetchnumpy()
        assert np.array_equal(next(iter(found.values())), columns.mask(where))

    def test_chroma_gets_no_operators_it_does_not_have(self, part):
        to_chroma = part("peers.filtered_where").to_chroma
        for where in WHERES:
            text = json.dumps(to_chroma(where))
            assert '"$not"' not in text
            assert "contains_any" not in text
        assert to_chroma(WHERES[8]) == {
            "$and": [
                {"authors": {"$not_contains": "O'Person 1"}},
                {"authors": {"$not_contains": "O'Person 2"}},
            ]
        }
        assert to_chroma(WHERES[4]) == {"$or": [{"year": {"$lt": 2000}}, {"year": {"$gt": 2010}}]}


class TestMadeFilters:
    @pytest.fixture
    def problem(self, part):
        return part("fanns.cases").make_problem(
            unit(1, 3_000).astype(np.float16), unit(2, 30), papers(3_000), per_bucket=2, unfiltered=5
        )

    def test_every_case_is_as_selective_as_its_bucket_says(self, part, problem):
        window = part("fanns.filters").Window
        assert {case.bucket.shape for case in problem.cases} == {*part("fanns.filters").SHAPES, "unfiltered"}
        assert {case.bucket.correlation for case in problem.cases} == {"positive", "none", "negative"}
        for case in problem.cases[5:]:
            assert window.of(case.bucket.selectivity, 3_000).holds(case.matching)
            assert case.matching == problem.columns.mask(case.where).sum()

    def test_shapes_are_what_they_are_called(self, problem):
        for case in problem.cases[5:]:
            text, shape = json.dumps(case.where), case.bucket.shape
            expected = {
                "equality": len(case.where) == 1 and "$" not in text,
                "range": '"$gte"' in text and '"$lte"' in text,
                "membership": '"$in"' in text,
                "contains": '"$contains' in text,
                "conjunction": len(case.where) > 1,
                "disjunction": [*case.where] == ["$or"],
                "negation": '"$nin"' in text or '"$not"' in text,
            }
            assert expected[shape], case

    def test_filters_allow_more_near_rows_if_positive_and_fewer_if_negative(self, problem):
        def share(correlation):
            return np.mean(
                [
                    case.near_share / (case.matching / 3_000)
                    for case in problem.cases[5:]
                    if case.bucket.correlation == correlation and 0.05 < case.bucket.selectivity < 0.6
                ]
            )

        assert share("positive") > 1.1
        assert share("negative") < 0.9
        assert 0.85 < share("none") < 1.15

    def test_recall_counts_allowed_rows_once_and_others_not_at_all(self, problem):
        number = next(n for n, case in enumerate(problem.cases) if case.bucket.selectivity == 0.01)
        case = problem.cases[number]
        scores = problem.base.astype(np.float32) @ problem.queries[case.query]
        allowed = np.flatnonzero(problem.columns.mask(case.where))
        best = allowed[np.argsort(-scores[allowed])][:10].tolist()
        others = np.flatnonzero(~problem.columns.mask(case.where))
        top_others = others[np.argsort(-scores[others])][:10].tolist()
        assert problem.recall(number, best) == 1
        assert problem.recall(number, best[:5] + best[:5]) == 0.5
        assert problem.recall(number, top_others) == 0
        assert problem.recall(number, [-1, 99_999]) == 0
        assert problem.disallowed(number, [*top_others, *best, -1]) == 10

    def test_a_filter_of_few_rows_is_answered_in_full_by_those(self, problem):
        number = next(n for n, case in enumerate(problem.cases) if case.matching < 10)
        rows = np.flatnonzero(problem.columns.mask(problem.cases[number].where)).tolist()
        assert problem.recall(number, rows) == 1

    def test_shapes_that_the_attributes_do_not_have_are_left_out(self, part):
        records = [{"venue": "acl" if row % 2 else "lrec"} for row in range(400)]
        cases = part("fanns.cases").make_problem(
            unit(1, 400).astype(np.float16), unit(2, 9), records, per_bucket=1, unfiltered=1
        )
        assert {case.bucket.shape for case in cases.cases} == {"unfiltered", "equality"}


@pytest.fixture
def corpus(tmp_path) -> list[str]:
    np.save(tmp_path / "vectors.npy", unit(1, 700).astype(np.float16))
    lines = [json.dumps({"id": str(row), **paper}) for row, paper in enumerate(papers(700))]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    paths = ("--vectors", str(tmp_path / "vectors.npy"), "--corpus", str(tmp_path / "corpus.jsonl"))
    return [*paths, *common(tmp_path)]


def common(tmp_path: Path) -> list[str]:
    return [
        *("--folder", str(tmp_path / "indexes"), "--environments", str(tmp_path / "environments")),
        *("--threads", "1", "--rounds", "2", "--json", str(tmp_path / "out.json")),
    ]


class TestBuckets:
    def test_every_installed_system_is_asked_and_compared(self, part, corpus, tmp_path, capsys):
        part("filtered").main([*corpus, *SHORT_RUN, "--rounds", "1", "--peers", *INSTALLED])
        printed = capsys.readouterr().out
        record = json.loads((tmp_path / "out.json").read_text())
        assert [system["name"] for system in record["systems"]] == ["compactds", *INSTALLED]
        for system in record["systems"]:
            costs = system["costs"]
            assert min(costs["build_peak_bytes"], costs["search_peak_bytes"], costs["disk_bytes"]) > 0
            for bucket in system["buckets"]:
                assert all(not setting["failed"] for setting in bucket["settings"]), bucket
                assert all(setting["disallowed"] == 0 for setting in bucket["settings"]), bucket
        ours, *_, exact = record["systems"]
        for bucket in (*ours["buckets"], *exact["buckets"]):  # so few rows are searched exactly
            assert bucket["settings"][0]["recall"] == 1
            assert bucket["settings"][0]["queries_per_second"] > 0
        assert all(bucket["filter_ms"]["first_ms"] > 0 for bucket in ours["buckets"][1:])
        for head in (
            "680 vectors of 16",
            "By selectivity",
            "Where most is lost",
            "Beside others",
            "peak RSS",
        ):
            assert head in printed

    def test_a_quick_run_asks_no_peers_and_fewer_rows(self, part, corpus):
        options = part("filtered").read_options([*corpus, "--quick"])
        assert (options.rows, options.peers, options.rounds) == (10_000, [], 2)
        assert part("filtered").read_options([*corpus, "--peers", "none"]).peers == []

    def test_data_made_up_lies_in_crowds_that_filters_exclude_whole(self, part, tmp_path):
        vectors, records = part("fanns.made_up").made_up(2_000, 32)
        rows = vectors.astype(np.float32)
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=2e-3)
        topics = np.array([record["topic"] for record in records])
        nearest = np.argsort(-(rows[:50] @ rows.T), axis=1)[:, 1:11]
        assert (topics[nearest] == topics[:50, np.newaxis]).mean() > 0.8
        again, _ = part("fanns.made_up").made_up(2_000, 32)
        assert (vectors == again).all()
        made_up = ("--made-up", "700", "--dimension", "32", "--peers", "none")
        part("filtered").main([*made_up, *SHORT_RUN, *common(tmp_path)])
        (ours,) = json.loads((tmp_path / "out.json").read_text())["systems"]
        assert {bucket["correlation"] for bucket in ours["buckets"]} == {"positive", "none", "negative"}
        assert all(bucket["settings"][0]["recall"] == 1 for bucket in ours["buckets"])

    def test_vectors_and_records_must_be_equally_many(self, part, corpus, tmp_path):
        (tmp_path / "corpus.jsonl").write_text("{}\n")
        with pytest.raises(SystemExit, match=r"1 records, expected 700"):
            part("filtered").main(corpus)

    def test_rows_must_be_left_to_search(self, part, corpus):
        with pytest.raises(SystemExit, match="--hold-out is 700"):
            part("filtered").main([*corpus, "--hold-out", "700"])

    def test_a_system_that_fails_is_left_out_and_the_run_fails(self, part, corpus, monkeypatch, capsys):
        systems = part("peers.filtered_systems")
        broken = replace(systems.SYSTEMS["compactds"], adapter="no_such_adapter")
        monkeypatch.setitem(systems.SYSTEMS, "compactds", broken)
        with pytest.raises(SystemExit) as caught:
            part("filtered").main(
                [*corpus, "--peers", "hnswlib", "--per-bucket", "1", "--rounds", "1", "--warm-up", "0"]
            )
        assert caught.value.code == 1
        assert "left out: compactds: the process ended" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "wrong",
        [
            [],
            ["--vectors", "a.npy"],
            ["--fanns", "a", "--vectors", "b", "--corpus", "c"],
            ["--made-up", "9", "--fanns", "a"],
        ],
    )
    def test_one_kind_of_data_must_be_given(self, part, wrong, capsys):
        with pytest.raises(SystemExit):
            part("filtered").read_options(wrong)
        assert "give --vectors and --corpus, or --made-up, or --fanns" in capsys.readouterr().err


class TestTables:
    """Numbers made up, so that it is known who is ahead."""

    @pytest.fixture
    def systems(self, part):
        cases, rounds = part("fanns.cases"), part("fanns.rounds")
        bucket = cases.Bucket(0.1, "range", "none")

        def measured(found, milliseconds, used=None, /, **setting):
            one = rounds.Measured(setting, [found], [used], milliseconds, [], 0)
            one.seconds, one.rates = [milliseconds / 1000], [1000 / milliseconds]
            return one

        def system(name, *settings, first_ms=0.0):
            held = {cases.UNFILTERED: [measured(1, 1.0)], bucket: list(settings)}
            return rounds.System(name, None, {}, [], held, {bucket: {"first_ms": first_ms}})

        ours = system(
            "compactds",
            measured(0.96, 3.0, "lists", recall=0.95),
            measured(1.0, 2.0, "exact", plan="exact"),
            measured(0.5, 0.1, "open", plan="open"),
            first_ms=2.0,
        )
        return SimpleNamespace(bucket=bucket, ours=ours, system=system, measured=measured)

    def test_times_are_compared_with_unfiltered_queries_asked_the_same_and_finding_as_much(
        self, part, systems
    ):
        tables, cases = part("fanns.tables"), part("fanns.cases")
        ours, measured = systems.ours, systems.measured
        ours.measured[cases.UNFILTERED] = [measured(0.9, 1.0), measured(0.97, 2.0), measured(1.0, 8.0)]
        rows = {name: cells for name, *cells in tables.time_rows(ours)}
        assert rows["p50 ms"] == ["3.000", "3.000", "0.1 range none"]
        assert rows["× an unfiltered query"][:2] == ["3.00", "3.00"]
        assert rows["× an unfiltered query of the bucket's recall"][:2] == ["1.50", "1.50"]
        assert rows["× an unfiltered query, filter not seen before"][0] == "5.00"
        assert rows["buckets over 2 × an unfiltered query of the bucket's recall"][0] == "0"
        for plan, shape, recall in (("lists", "equality", 0.8), ("exact", "contains", 1.0)):
            other = cases.Bucket(0.2, shape, "none")
            ours.measured[other], ours.filter_ms[other] = [measured(recall, 2.1, plan)], {"first_ms": 0.0}
        rows = {name: cells for name, *cells in tables.time_rows(ours)}
        assert tables.searched_recall(ours) == pytest.approx(
            0.88
        )  # of 0.96 and 0.8: what is exact is left out
        assert rows["× an unfiltered query of all buckets' recall"][:2] == ["2.10", "3.00"]
        assert rows["× an unfiltered query of the bucket's recall"][:2] == ["1.50", "2.10"]
        assert rows["buckets over 2 × an unfiltered query of all buckets' recall"][0] == "3"
        assert rows["buckets over 2 × an unfiltered query of the bucket's recall"][0] == "1"

    def test_regret_is_against_the_fastest_plan_that_reaches_the_recall(self, part, systems):
        assert part("fanns.tables").regret(systems.ours, systems.bucket, 0.95) == pytest.approx(1.5)

    def test_there_is_none_where_the_best_plan_was_chosen(self, part, systems):
        chosen, best, _ = systems.ours.measured[systems.bucket]
        chosen.plans = ["exact"]
        assert part("fanns.tables").regret(systems.ours, systems.bucket, 0.95) == 1
        best.plans = ["lists"]  # the plan that was forced could not be taken
        assert part("fanns.tables").regret(systems.ours, systems.bucket, 0.95) is None

    def test_a_peer_is_compared_at_its_cheapest_setting_that_reaches_the_recall(self, part, systems):
        settings = [
            systems.measured(0.9, 1.0, ef=1),
            systems.measured(0.97, 4.0, ef=2),
            systems.measured(1, 9.0, ef=3),
        ]
        peer = systems.system("hnswlib", *settings)
        best, ahead, ratio = part("fanns.tables").against(systems.ours, peer, 0.95)[systems.bucket]
        assert (best.setting, ahead) == ({"ef": 2}, True)
        assert ratio == pytest.approx(4 / 3)

    def test_who_evaluates_filters_itself_is_compared_with_the_time_that_includes_it(self, part, systems):
        against = part("fanns.tables").against
        for name, expected in (("faiss-ivf", True), ("lancedb", False)):
            peer = systems.system(name, systems.measured(0.97, 4.0))
            assert against(systems.ours, peer, 0.95)[systems.bucket][1] is expected

    def test_without_the_recall_time_does_not_count(self, part, systems):
        against = part("fanns.tables").against
        fast = systems.system("hnswlib", systems.measured(0.2, 0.01))
        assert against(systems.ours, fast, 0.95)[systems.bucket][1]
        better = systems.system("hnswlib", systems.measured(0.99, 50.0))
        assert not against(systems.ours, better, 0.999)[systems.bucket][1]
        failing = systems.system("hnswlib", replace(systems.measured(0.0, 1.0), failed=["no"]))
        assert against(systems.ours, failing, 0.95)[systems.bucket][:2] == (None, True)

    def test_buckets_in_which_a_peer_is_ahead_are_listed(self, part, systems):
        peer = systems.system("faiss-ivf", systems.measured(0.97, 1.5, nprobe=8))
        listed = part("fanns.tables").behind(systems.ours, [peer], 0.95)
        assert "0.1 range none | 0.96 in 3.000 ms (lists)" in listed
        assert "faiss-ivf 0.97 in 1.500 ms (nprobe 8), ours 2.00 × as long" in listed


def write_fvecs(path: Path, vectors: np.ndarray) -> None:
    with path.open("wb") as out:
        for vector in vectors:
            out.write(struct.pack("<i", len(vector)) + vector.astype("<f4").tobytes())


def write_ivecs(path: Path, rows: list[list[int]]) -> None:
    with path.open("wb") as out:
        for row in rows:
            out.write(struct.pack(f"<{len(row) + 1}i", len(row), *row))


def write_lines(path: Path, objects: list[dict]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in objects))


@pytest.fixture
def published(tmp_path) -> Path:
    """A small arxiv-for-fanns, with exact answers by brute force."""
    folder = tmp_path / "arxiv-for-fanns-tiny"
    folder.mkdir()
    base, queries, draw = unit(5, 400), unit(6, 12), np.random.default_rng(7)
    rows = [
        {
            "submitter": None if row % 5 else f"Person {row}",
            "has_comment": bool(row % 2),
            "number_of_sub_categories": int(draw.zipf(1.8)) % 9 + 1,
            "update_date": int(draw.integers(13_655, 20_216)),
            "main_categories": sorted(set(draw.choice(["math", "cs", "hep-th"], 2).tolist())),
            "authors": [f"Author {row % 7}"],
        }
        for row in range(400)
    ]
    rows[17]["number_of_sub_categories"] = 99
    em = [{"label": 99 if number == 3 else 2} for number in range(12)]
    r = [{"range_start": 14_000 + 100 * number, "range_end": 17_000} for number in range(12)]
    emis = [{"label": "math" if number % 2 else "cs"} for number in range(12)]
    allowed = {
        "": lambda _, row: True,
        "_em": lambda n, row: row["number_of_sub_categories"] == em[n]["label"],
        "_r": lambda n, row: r[n]["range_start"] <= row["update_date"] <= r[n]["range_end"],
        "_emis": lambda n, row: emis[n]["label"] in row["main_categories"],
    }
    write_fvecs(folder / "database_vectors.fvecs", base)
    write_fvecs(folder / "query_vectors.fvecs", queries)
    write_lines(folder / "database_attributes.jsonl", rows)
    for name, wanted in (("em", em), ("r", r), ("emis", emis)):
        write_lines(folder / f"{name}_query_attributes.jsonl", wanted)
    for suffix, allows in allowed.items():
        truth = []
        for number, query in enumerate(queries):
            held = [row for row in range(400) if allows(number, rows[row])]
            truth.append(sorted(held, key=lambda row, query=query: -float(base[row] @ query))[:100])
        write_ivecs(folder / f"ground_truth{suffix}.ivecs", truth)
    return folder


class TestPublishedFiles:
    def test_they_are_run_as_they_are(self, part, published, tmp_path, capsys):
        part("filtered").main(["--fanns", str(published), "--peers", "duckdb", *common(tmp_path)])
        printed = capsys.readouterr().out
        record = json.loads((tmp_path / "out.json").read_text())
        assert [*record["sets"]] == ["none", "em", "r", "emis"]
        for name, of_systems in record["sets"].items():
            for system in ("compactds", "duckdb"):
                for point in of_systems[system]:
                    assert (point["recall"], point["failed"]) == (pytest.approx(1), 0), (name, system)
                    assert len(point["rates"]) == 2
        assert "400 vectors of 16 dimensions, 12 queries a set, k = 10" in printed
        assert "Filters emis:" in printed
        assert "build, peak RSS MiB" in printed

    def test_sets_and_queries_can_be_fewer(self, part, published, tmp_path):
        options = ("--sets", "em", "--limit", "5", "--dtype", "float16", "--peers", "none")
        part("filtered").main(["--fanns", str(published), *options, *common(tmp_path)])
        record = json.loads((tmp_path / "out.json").read_text())
        assert [*record["sets"]] == ["em"]
        assert "5 queries" in record["title"]

    def test_lines_of_query_attributes_become_where_expressions(self, part, published):
        files = part("fanns.files")
        assert files.read_set(published, "em").wheres[3] == {"number_of_sub_categories": 99}
        assert files.read_set(published, "em").truth[3].tolist() == [17]
        assert files.read_set(published, "r").wheres[1] == {"update_date": {"$gte": 14_100, "$lte": 17_000}}
        assert files.read_set(published, "emis").wheres[0] == {"main_categories": {"$contains": "cs"}}
        assert files.read_set(published, "none", 4).wheres == [None] * 4

    def test_rows_of_truth_differ_in_length_and_may_be_filled_up(self, part, tmp_path):
        write_ivecs(tmp_path / "truth.ivecs", [[3, 1, 2], [], [7, -1, -1]])
        found = part("fanns.files").read_ivecs(tmp_path / "truth.ivecs")
        assert [row.tolist() for row in found] == [[3, 1, 2], [], [7]]

    def test_an_empty_truth_is_found_whatever_is_returned(self, part):
        share = part("fanns.published").share
        assert share([], [1, 2]) == 1
        assert share([4, 5], [5, -1, 6]) == 0.5

    def test_damaged_files_are_refused(self, part, tmp_path):
        files, path = part("fanns.files"), tmp_path / "bad"
        path.write_bytes(struct.pack("<4i", 2, 0, 0, 2))
        with pytest.raises(SystemExit, match=r"no \.fvecs file: 16 bytes, dimension 2"):
            files.map_fvecs(path)
        path.write_bytes(struct.pack("<6i", 2, 0, 0, 1, 0, 0))
        with pytest.raises(SystemExit, match="different dimensions"):
            files.map_fvecs(path)
        path.write_bytes(struct.pack("<3i", 5, 0, 0))
        with pytest.raises(SystemExit, match="row 0 has length 5"):
            files.read_ivecs(path)

    def test_too_few_queries_or_lines_are_refused(self, part, published, tmp_path):
        arguments = ["--fanns", str(published), *common(tmp_path)]
        (published / "r_query_attributes.jsonl").write_text('{"range_start": 1, "range_end": 2}\n')
        with pytest.raises(SystemExit, match="has 1 lines, expected 12"):
            part("filtered").main([*arguments, "--sets", "r"])
        write_fvecs(published / "query_vectors.fvecs", unit(6, 3))
        with pytest.raises(SystemExit, match="has 3 queries, and exact answers to 12"):
            part("filtered").main([*arguments, "--sets", "em"])


class Picky:
    """An adapter whose index cannot answer every filter."""

    PACKAGES = ("numpy",)

    def build(self, vectors, folder, threads, options):
        (folder / "index").write_bytes(bytes(8))

    def open_index(self, folder, threads, options):
        def prepare_filtered(setting, where):
            if where == {"year": 1}:
                raise ValueError("no such year")
            return lambda query: [3, 1]

        return SimpleNamespace(
            settings=[{"n": 1}],
            ram_bytes=5,
            plan="some",
            prepare=lambda setting: (lambda query: [3, 1], None),
            prepare_filtered=prepare_filtered,
            close=lambda: None,
        )


class TestTheWorker:
    def test_a_filter_that_cannot_be_answered_is_told_and_the_rest_is_asked(self, part, tmp_path, capsys):
        np.save(tmp_path / "base.npy", unit(1, 30))
        np.save(tmp_path / "queries.npy", unit(2, 20))
        wheres = [{"year": 2}, {"year": 1}, None]
        (tmp_path / "cases.json").write_text(json.dumps([{"query": 4, "where": where} for where in wheres]))
        place = {"folder": str(tmp_path / "index"), "options": {}}
        asked = {"do": "ask_cases", "setting": {}, "numbers": [2, 1, 0], "repeats": 3, "warm_up": 0.02}
        messages = [
            {"do": "build", "vectors": str(tmp_path / "base.npy"), **place},
            {"do": "open", "queries": str(tmp_path / "queries.npy"), **place},
            {"do": "read_cases", "path": str(tmp_path / "cases.json")},
            {**asked, "answers": True},
            {**asked, "answers": False},
            {**asked, "warm_up": None, "answers": False},
            {"do": "time_filters", "numbers": [0], "repeats": 1},
            {"do": "peak"},
        ]
        replies = io.StringIO()
        worker = part("peers.filtered_worker").FilteredWorker(Picky(), 1)
        part("peers.worker").serve(worker, map(json.dumps, messages), replies)
        built, _, read, first, second, third, untold, peak = map(json.loads, replies.getvalue().splitlines())
        assert built["build_peak_bytes"] > 0
        assert read == {"cases": 3}
        assert first["rows"] == [[3, 1], [], [3, 1]]
        assert first["failed"] == {"1": "ValueError: no such year"}
        assert first["plans"] == ["some"] * 3
        for timed in (second, third):
            assert [len(seconds) for seconds in timed["seconds"]] == [3, 0, 3]
        assert untold == {"times": []}
        assert peak["peak_bytes"] > 1_000_000
        assert "no such year" in capsys.readouterr().err

    def test_each_system_has_an_adapter(self, part):
        launch, systems = part("peers.launch"), part("peers.filtered_systems")
        for peer in systems.SYSTEMS.values():
            assert (launch.HERE / f"{peer.adapter}.py").exists()
            assert peer.worker == "filtered_worker"
        assert {*systems.SYSTEMS} > systems.GIVEN_BITMAPS

    def test_a_process_runs_the_worker_its_system_names(self, part, tmp_path):
        launch = part("peers.launch")
        peer = part("peers.filtered_systems").SYSTEMS["duckdb"]
        with launch.Process(peer, sys.executable, tmp_path / "log", cores=[0], threads=1) as process:
            assert process.tell("peak")["peak_bytes"] > 0
