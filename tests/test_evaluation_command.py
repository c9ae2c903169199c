"""`compactds evaluate` over a small real store, in process and over HTTP."""

import json
import re

import pytest
import typer
from typer.testing import CliRunner

from compactds.cli.command import command
from compactds.cli.evaluate import _demo_notes, evaluate
from compactds.configs.recipe import EncoderConfig, Exact, Passages, Recipe, Source
from compactds.datastore import Datastore
from compactds.indexer.build import build
from compactds.server import ServerSettings, serving

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)
app.command()(command(evaluate))


def run(*arguments, **keywords):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **keywords)


@pytest.fixture(scope="module")
def store(tmp_path_factory, records, write_jsonl, tiny_model):
    folder = tmp_path_factory.mktemp("evaluated")
    source = write_jsonl(folder / "records.jsonl", records)
    recipe = Recipe(
        sources=[Source(path=str(source))],
        passages=Passages(words=24, embed_title=False),
        # The random model puts all texts close together: rounding would shuffle them.
        encoder=EncoderConfig(model=str(tiny_model), dtype="float32", normalize=True),
        exact=Exact(dtype="float32"),
    )
    build(recipe, folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def collection(tmp_path_factory, records):
    """A collection whose queries are short documents of the store, each relevant to itself."""
    folder = tmp_path_factory.mktemp("collection")
    short = [record for record in records if len(record["text"].split()) <= 24]
    (folder / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": f"q{record['id']}", "text": record["text"]}) for record in short)
    )
    (folder / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{record['id']}\t{record['id']}\t1\n" for record in short)
    )
    return folder


def figures(document):
    return {
        (result["task"], figure["name"]): figure["value"]
        for result in document["results"]
        for figure in result["figures"]
    }


def test_decontaminated_the_store_does_not_find_the_documents_that_the_queries_are(store, collection):
    asked = ("--tasks", f"retrieval={collection}", "--measures", "RR@10", "--decontaminate", "--json")
    done = run(store, *asked)
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["settings"]["decontaminate"] is True
    assert figures(document) == {(f"retrieval {collection.name}", "RR@10"): 0.0}
    with Datastore.open(store) as opened, serving(opened, ServerSettings(port=0)) as url:
        served = run(url, *asked)
    assert figures(json.loads(served.stdout)) == figures(document)


def test_a_store_finds_the_documents_that_the_queries_are(store, collection):
    done = run(store, "--tasks", f"retrieval={collection}", "recall", "--measures", "nDCG@10,RR@10", "--json")
    assert done.exit_code == 0, done.stderr
    found = figures(json.loads(done.stdout))
    name = f"retrieval {collection.name}"
    assert found == {
        (name, "nDCG@10"): 1.0,
        (name, "RR@10"): 1.0,
        ("recall", "recall@10"): 1.0,
        ("recall", "worst recall@10"): 1.0,
    }
    assert name in done.stderr  # progress


def test_a_server_gives_the_same_figures_as_its_store(store, collection):
    arguments = ["--task", f"retrieval={collection}", "--task", "demo", "--limit", "2", "--json"]
    embedded = json.loads(run(store, *arguments).stdout)
    with (
        Datastore.open(store) as opened,
        serving(opened, ServerSettings(port=0, api_key="secret", max_batch=3, max_k=50)) as url,
    ):
        served = run(url, *arguments, env={"COMPACTDS_API_KEY": "secret"})
        locked_out = run(url, *arguments, env={"COMPACTDS_API_KEY": None})
    assert served.exit_code == 0, served.stderr
    document = json.loads(served.stdout)
    assert figures(document) == figures(embedded)
    assert document["store"]["passages"] == embedded["store"]["passages"]
    assert "limits" not in document["store"]
    assert (locked_out.exit_code, locked_out.stdout) == (1, "")


def test_a_table_is_printed_and_reports_are_written(store, collection, tmp_path):
    page, full, ranks = tmp_path / "report.md", tmp_path / "report.json", tmp_path / "run.trec"
    task = f"retrieval={collection}"
    done = run(store, "-t", task, "--measures", "P(rel=1,judged_only=False)@1", "--out", page, "--run", ranks)
    assert done.exit_code == 0, done.stderr
    assert re.search(r"\| P@1 +\| 1\.0000 \|", done.stdout)
    assert page.read_text() == done.stdout
    assert "measures P(rel=1,judged_only=False)@1; depth 1; " in done.stdout
    assert ranks.read_text().splitlines()[0].split()[:2] == ["qdoc/0", "Q0"]
    assert run(store, "-t", task, "--out", full, "--where", "subject = 'law'").exit_code == 0
    document = json.loads(full.read_text())
    assert document["settings"]["where"] == "subject = 'law'"
    assert document["settings"]["measures"] == ["nDCG@10", "R@100", "RR@10", "AP@100"]
    assert document["settings"]["depth"] == 100
    assert document["results"][0]["items"][0]["query"] == "qdoc/0"


def test_a_where_expression_leaves_out_what_it_does_not_allow(store, collection):
    arguments = [store, "-t", f"retrieval={collection}", "--measures", "R@10", "--json", "--where"]
    as_json = run(*arguments, '{"document_id": "doc/0"}')
    as_sql = run(*arguments, "document_id = 'doc/0'")
    (value,) = figures(json.loads(as_json.stdout)).values()
    queries = json.loads(as_json.stdout)["results"][0]["queries"]
    assert value == pytest.approx(1 / queries)
    assert figures(json.loads(as_sql.stdout)) == figures(json.loads(as_json.stdout))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "name at least one task"),
        (["--tasks", "quiz=x"], "'quiz' is no kind of task"),
        (["--tasks", "mmlu"], "mmlu needs a path: mmlu=PATH"),
        (["--tasks", "retrieval="], "retrieval needs a path"),
        (["--tasks", "demo=x"], "demo takes no path"),
        (["--tasks", "demo", "--where", "{"], "not JSON"),
        (["--tasks", "demo", "--run", "x"], "exactly one retrieval task"),
        (["--tasks", "demo", "--out", "missing/report.md"], "is not a file in an existing folder"),
        (["--tasks", "demo", "--out", "."], "is not a file in an existing folder"),
        (["--tasks", "demo", "--limit", "0"], "Invalid value for '--limit'"),
        (["--tasks", "recall", "--where", "color = 'red'"], "unknown field 'color'"),
        (["--tasks", "recall", "--recall", "0"], "recall is 0"),
        (["--tasks", "recall", "-k", "10001"], "k is 10001"),
        (["--tasks", "retrieval=x", "--depth", "9"], "measure nDCG@10 looks at 10 documents, and depth is 9"),
    ],
)
def test_wrong_use_is_refused(store, arguments, problem):
    done = run(store, *arguments)
    assert done.exit_code == 2
    assert problem in " ".join(done.stderr.replace("│", " ").split())
    assert done.stdout == ""


def test_mistakes_are_found_before_the_encoders_are_loaded(store, collection, tmp_path, monkeypatch):
    def load_encoders(self):
        raise AssertionError("too early")

    monkeypatch.setattr(Datastore, "load_encoders", load_encoders)
    for arguments, code in (
        (["demo", f"mmlu={tmp_path / 'nowhere'}"], 1),
        (["demo", f"retrieval={collection}", "--measures", "ndcg@10"], 2),
        (["demo", "--where", "color = 'red'"], 2),
        (["demo", "--where", "subject ="], 2),
    ):
        assert run(store, *arguments).exit_code == code
    assert "too early" in run(store, "demo").stderr


def test_queries_that_were_cut_are_counted(store, tmp_path):
    questions = [
        {"id": 1, "question": "light " * 40, "choices": ["a", "b"], "answer": 0},
        {"id": 2, "question": "light", "choices": ["a", "b", "c"], "answer": 0},
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, questions)))
    (tmp_path / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": str(n), "text": "sun " * n}) for n in (1, 40))
    )
    (tmp_path / "qrels.tsv").write_text("1\tdoc/0\t1\n40\tdoc/0\t1\n")
    done = run(
        store, f"choices={tmp_path / 'own.jsonl'}", f"retrieval={tmp_path}", f"recall={tmp_path}", "--json"
    )
    notes = [result["notes"][-1] for result in json.loads(done.stdout)["results"]]
    longer = "queries were longer than the encoder reads; their ends were not used"
    assert notes == [f"2 of 5 {longer}", f"1 of 2 {longer}", f"1 of 2 {longer}"]


def test_the_demos_questions_are_named_where_the_store_is_another(store):
    done = run(store, "--tasks", "demo", "recall", "--limit", "1", "--json")
    notes = {result["task"]: result["notes"] for result in json.loads(done.stdout)["results"]}
    about = "the questions are about the demo's corpus, and this store is"
    other = f"{about} 'datastore': it need not hold the answers"
    assert notes["demo"][0] == other
    assert notes["recall"][:2] == ["the queries are the demo's questions; recall=FILE takes your own", other]


def test_the_demos_own_store_is_asked_without_a_remark():
    described = {"name": "demo"}
    assert _demo_notes("demo", "", described) == []
    assert _demo_notes("recall", "", described) == [
        "the queries are the demo's questions; recall=FILE takes your own"
    ]
    assert _demo_notes("recall", "queries.txt", {"name": "mine"}) == []
    assert "and this store is another:" in _demo_notes("demo", "", {})[0]


def test_an_unknown_measure_and_a_missing_file_are_told_before_any_search(store, collection, tmp_path):
    unknown = run(store, "demo", f"retrieval={collection}", "--measures", "ndcg@10")
    assert unknown.exit_code == 2
    assert "Did you mean nDCG@10?" in unknown.stderr
    missing = run(store, "--tasks", "demo", f"mmlu={tmp_path / 'nowhere'}")
    assert missing.exit_code == 1
    assert "nowhere does not exist" in missing.stderr
    assert "done in" not in unknown.stderr + missing.stderr
    assert run(tmp_path, "--tasks", "demo").exit_code == 1
