"""`compactds evaluate`: measure a store or a server on retrieval, questions and recall."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compactds.cli.command import Json
from compactds.cli.output import say, say_json
from compactds.cli.progress import progress
from compactds.cli.stores import (
    KEY_VARIABLE,
    check_recall,
    check_search,
    load_encoders,
    open_store,
    where_condition,
)

if TYPE_CHECKING:
    from compactds.clients.evaluation import Evaluation, Options, Task
    from compactds.clients.evaluation.suite import Outcome

KINDS = ("retrieval", "mmlu", "arc", "choices", "recall", "demo")
WITHOUT_PATH = ("recall", "demo")
DEMO_NAME = "demo"
"""What the store of the bundled corpus is called."""
_SEPARATOR = re.compile(r"[,\s]+(?![^(]*\))")  # not the commas inside P(rel=2,judged_only=True)@5


def evaluate(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="The folder of a store, or the URL of a server.")
    ],
    more_tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="KIND=PATH", help="More tasks, as --tasks takes them.", show_default=False),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks",
            "--task",
            "-t",
            metavar="KIND=PATH",
            help="retrieval=FOLDER, mmlu=FOLDER, arc=FILE, choices=FILE, recall[=FILE] or demo. Repeatable.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="The k of recall@k.")] = 10,
    top_n: Annotated[int, typer.Option(min=1, help="How many hits score a choice, by their mean score.")] = 1,
    where: Annotated[
        str | None,
        typer.Option(help="Which passages may be returned: an SQL condition, or JSON if it starts with '{'."),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            callback=check_recall, help="The recall to search with, above 0 up to 1; 1 is exact search."
        ),
    ] = None,
    decontaminate: Annotated[
        bool, typer.Option("--decontaminate", help="Leave out passages that overlap with a task's questions.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many questions per subject, or queries per task.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="What the choice of --limit and the intervals start from.")
    ] = 2025,
    measures: Annotated[
        str, typer.Option(help="Measures of retrieval, separated by commas.")
    ] = "nDCG@10,R@100,RR@10,AP@100",
    depth: Annotated[
        int | None, typer.Option(min=1, help="Documents per ranking [what the measures need].")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Score only these queries of a collection: its split test, dev, …")
    ] = None,
    run_file: Annotated[
        Path | None, typer.Option("--run", help="Write retrieval's rankings here, in TREC's run format.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Write the report here: Markdown if it ends in .md, else full JSON."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure how well a store retrieves, and what that is worth.

    Its worth is the share of questions that are answered from what is retrieved.
    """
    from compactds.clients.evaluation import Asking, Evaluation, Options, to_json, to_markdown, write_run
    from compactds.clients.evaluation.measures import check_depth, parse_measures
    from compactds.clients.evaluation.retrieval import MAX_K
    from compactds.clients.evaluation.searching import BATCH_SIZE, MAX_HITS

    named = _named_tasks([*(tasks or []), *(more_tasks or [])])
    _check_output(out, "'--out'")
    _check_output(run_file, "'--run'")
    if run_file is not None and [kind for kind, _ in named].count("retrieval") != 1:
        raise typer.BadParameter("it needs exactly one retrieval task", param_hint="'--run'")
    condition = where_condition(where)
    names = [name for name in _SEPARATOR.split(measures) if name]
    if any(kind == "retrieval" for kind, _ in named):
        check_depth(parse_measures(names), depth)
    with open_store(store, os.environ.get(KEY_VARIABLE)) as engine, _demo_file() as demo:
        check_search(engine, where=condition, k=k, recall=recall)
        description, limits = _describe(engine)
        asking = Asking(
            where=condition,
            recall=recall,
            batch_size=min(BATCH_SIZE, limits.get("max_batch", BATCH_SIZE)),
            max_hits=limits.get("max_hits", MAX_HITS),
        )
        options = Options(
            asking=asking,
            k=k,
            top_n=top_n,
            limit=limit,
            seed=seed,
            measures=names,
            depth=depth,
            split=split,
            max_k=limits.get("max_k", MAX_K),
            decontaminate=decontaminate,
        )
        # Everything is read and checked before the first search.
        loaded = [_load(kind, path, demo, options) for kind, path in named]
        load_encoders(engine)
        outcomes = [_run(task, engine) for task in loaded]
    results = tuple(
        replace(outcome.result, notes=(*_demo_notes(kind, path, description), *outcome.result.notes))
        for (kind, path), outcome in zip(named, outcomes, strict=True)
    )
    evaluation = Evaluation(store, description, _settings(options, where, outcomes), results)
    if out is not None:
        _write(evaluation, out)
    for outcome in outcomes:
        if outcome.run is not None and run_file is not None:
            write_run(outcome.run, run_file)
    if json:
        say_json(to_json(evaluation))
        return
    for line in to_markdown(evaluation).splitlines():
        say(line)


def _named_tasks(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return (kind, path) of each KIND=PATH; the path is empty where the kind needs none."""
    if not texts:
        raise typer.BadParameter(
            "name at least one task, such as mmlu=FOLDER, retrieval=FOLDER or demo", param_hint="'--tasks'"
        )
    named = []
    for text in texts:
        kind, _, path = text.partition("=")
        problem = ""
        if kind not in KINDS:
            problem = f"{kind!r} is no kind of task; there are {', '.join(KINDS)}"
        elif not path and kind not in WITHOUT_PATH:
            problem = f"{kind} needs a path: {kind}=PATH"
        elif path and kind == "demo":
            problem = "demo takes no path: its questions come with the package"
        if problem:
            raise typer.BadParameter(problem, param_hint="'--tasks'")
        named.append((kind, path))
    return named


def _load(kind: str, path: str, demo: Path, options: "Options") -> "Task":
    """Read and check a task; demo's questions serve recall too where it has no path."""
    from compactds.clients.evaluation import load_task

    if kind == "demo":
        return load_task("choices", str(demo), options, name="demo")
    return load_task(kind, path or str(demo), options)


@contextmanager
def _demo_file() -> Iterator[Path]:
    from importlib.resources import as_file, files

    with as_file(files("compactds.configs") / "demo" / "questions.jsonl") as path:
        yield path


def _run(task: "Task", engine: Any) -> "Outcome":
    told = 0
    with progress() as shown:
        shown.stage(task.name, task.searches)

        def done(searches: int) -> None:
            nonlocal told
            shown.advance(searches - told)
            told = searches

        return task.run(engine, done)


def _demo_notes(kind: str, path: str, description: Mapping[str, Any]) -> list[str]:
    """Return what to know where the demo's questions are asked, of its store or of another."""
    if kind != "demo" and (kind != "recall" or path):
        return []
    notes = ["the queries are the demo's questions; recall=FILE takes your own"] if kind == "recall" else []
    if description.get("name") != DEMO_NAME:
        whose = (
            f"this store is {description['name']!r}" if description.get("name") else "this store is another"
        )
        notes.append(f"the questions are about the demo's corpus, and {whose}: it need not hold the answers")
    return notes


def _describe(engine: Any) -> tuple[dict[str, Any], dict[str, int]]:
    """Return what the store is, and a server's limits on requests."""
    description = engine.describe()
    return description, description.pop("limits", {})


def _settings(options: "Options", where: str | None, outcomes: "Sequence[Outcome]") -> dict[str, Any]:
    from compactds.clients.evaluation.measures import needed_depth, parse_measures

    ranked = any(outcome.run is not None for outcome in outcomes)
    depth = options.depth or needed_depth(parse_measures(options.measures))
    return {
        "k": options.k,
        "top_n": options.top_n,
        "where": where,
        "recall": options.asking.recall,
        "decontaminate": options.decontaminate or None,
        "limit": options.limit,
        "seed": options.seed,
        "split": options.split,
        "measures": list(options.measures) if ranked else None,
        "depth": depth if ranked else None,
    }


def _check_output(path: Path | None, option: str) -> None:
    """Refuse a file that cannot be written, before the work rather than after it."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise typer.BadParameter(f"{path} is not a file in an existing folder", param_hint=option)


def _write(evaluation: "Evaluation", path: Path) -> None:
    from json import dumps

    from compactds.clients.evaluation import to_json, to_markdown

    page = path.suffix == ".md"
    text = to_markdown(evaluation) if page else dumps(to_json(evaluation, items=True), indent=1) + "\n"
    path.write_text(text, encoding="utf-8")
