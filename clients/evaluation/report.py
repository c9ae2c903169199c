"""Show what an evaluation found: as a table to read and as JSON to keep."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from compactds.clients.evaluation.choices import ChoicesReport
from compactds.clients.evaluation.intervals import Interval
from compactds.clients.evaluation.recall import RecallReport
from compactds.clients.evaluation.retrieval import RetrievalReport

HEADER = ("task", "measure", "value", "95 % interval", "chance", "searches", "seconds", "searches/s")
LEFT_ALIGNED = 2  # columns of names; the others are numbers
VERSIONED = ("compactds", "ir_measures", "numpy")


@dataclass(frozen=True, slots=True)
class Figure:
    """Hold one number of a result: what it is called, its value, its interval, what chance reaches."""

    name: str
    value: float
    interval: Interval | None = None
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class TaskResult:
    """Hold what one task of a run found.

    `queries` is how many searches were made in `seconds`. `notes` are sentences a reader must know to
    judge the figures. `breakdown` is JSON data by subject or the like; `items` by query or question.
    """

    task: str
    figures: tuple[Figure, ...]
    queries: int
    seconds: float
    notes: tuple[str, ...] = ()
    breakdown: Mapping[str, Any] = field(default_factory=dict)
    items: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Hold a whole run: which store, with which settings, when, by which software, with what result.

    `store` is what the store's `describe` returns.
    """

    store_path: str
    store: Mapping[str, Any]
    settings: Mapping[str, Any]
    results: tuple[TaskResult, ...]
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: Mapping[str, str] = field(default_factory=lambda: software_versions())


def truncation_notes(truncated: int, queries: int) -> list[str]:
    """Return the note on queries that the encoder did not read to their end, if there are any."""
    if not truncated:
        return []
    longer = f"{truncated:,} of {_counted(queries, 'query', 'queries')} were longer than the encoder reads"
    return [f"{longer}; their ends were not used"]


def retrieval_result(task: str, report: RetrievalReport) -> TaskResult:
    """Return a retrieval report as one result of a run."""
    notes = []
    if not report.judged_found:
        notes.append(
            "no relevant document was found for any query: are the store's document ids the collection's?"
        )
    if report.short:
        rankings = _counted(len(report.run), "ranking")
        notes.append(f"{report.short:,} of {rankings} with fewer than {_counted(report.depth, 'document')}")
    if report.without_text:
        left_out = _counted(report.without_text, "judged query has", "judged queries have")
        notes.append(f"{left_out} no text and cannot be used")
    if report.without_relevant:
        left_out = _counted(report.without_relevant, "query has", "queries have")
        notes.append(f"{left_out} no relevant document and cannot be used")
    notes += truncation_notes(report.truncated, len(report.run))
    return TaskResult(
        task=task,
        figures=tuple(Figure(result.name, result.mean, result.interval) for result in report.measures),
        queries=len(report.run),
        seconds=report.seconds,
        notes=tuple(notes),
        breakdown={"collection": report.collection, "depth": report.depth},
        items=[{"query": query_id, **scores} for query_id, scores in report.per_query.items()],
    )


def choices_result(task: str, report: ChoicesReport) -> TaskResult:
    """Return a report on multiple-choice questions as one result of a run."""
    figures = [Figure("accuracy", report.accuracy, report.interval, report.chance)]
    if len(report.subjects) > 1:
        figures.append(Figure("mean of subjects", report.macro, report.macro_interval, report.macro_chance))
    questions, subjects = len(report.outcomes), len(report.subjects)
    notes = [
        f"{_counted(questions, 'question')}, {_counted(subjects, 'subject')}; "
        f"{_counted(report.queries, 'search', 'searches')}, one for each choice"
    ]
    if report.tied:
        tied = _counted(report.tied, "question has", "questions have")
        notes.append(f"{tied} several best choices, which share the credit")
    notes += truncation_notes(report.truncated, report.queries)
    return TaskResult(
        task=task,
        figures=tuple(figures),
        queries=report.queries,
        seconds=report.seconds,
        notes=tuple(notes),
        breakdown={
            "subjects": {
                subject.subject: {
                    "questions": subject.questions,
                    "accuracy": subject.accuracy,
                    "interval": _ends(subject.interval),
                }
                for subject in report.subjects
            }
        },
        items=[
            {
                "question": outcome.question_id,
                "chosen": outcome.chosen,
                "answer": outcome.answer,
                "credit": outcome.credit,
            }
            for outcome in report.outcomes
        ],
    )


def recall_result(task: str, report: RecallReport) -> TaskResult:
    """Return a report on recall as one result of a run; its speed is that of the search as asked."""
    speed = f"exact search took {report.exact_seconds:.2f} s"
    if report.seconds > 0:
        speed += f", {report.exact_seconds / report.seconds:.1f} times as long"
    nothing = sum(value is None for value in report.per_query)
    matching_nothing = _counted(nothing, "query matches", "queries match")
    left_out = [f"{matching_nothing} nothing and cannot be used"] if nothing else []
    return TaskResult(
        task=task,
        figures=(
            Figure(f"recall@{report.k}", report.mean, report.interval),
            Figure(f"worst recall@{report.k}", report.worst),
        ),
        queries=len(report.per_query),
        seconds=report.seconds,
        notes=(speed, *left_out, *truncation_notes(report.truncated, len(report.per_query))),
        breakdown={"exact_seconds": report.exact_seconds},
        items=[{"query": index, "recall": value} for index, value in enumerate(report.per_query)],
    )


def to_json(evaluation: Evaluation, *, items: bool = False) -> dict[str, Any]:
    """Return JSON data; `items` adds one record per query and question."""
    return {
        "store_path": evaluation.store_path,
        "store": dict(evaluation.store),
        "settings": dict(evaluation.settings),
        "date": evaluation.date,
        "versions": dict(evaluation.versions),
        "results": [_result_json(result, items) for result in evaluation.results],
    }


def to_markdown(evaluation: Evaluation) -> str:
    """Return a Markdown page that reads well as plain text: the store, a table, notes."""
    store = evaluation.store
    identity = [_counted(store[f"{one}s"], one) for one in ("document", "passage") if f"{one}s" in store]
    encoder = store.get("encoder")
    if isinstance(encoder, Mapping):
        identity.append(f"encoder {encoder.get('model')} ({str(encoder.get('fingerprint'))[:12]})")
    settings = [
        f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in evaluation.settings.items()
        if value is not None
    ]
    software = [f"{name} {number}" for name, number in evaluation.versions.items()]
    lines = [
        ": ".join([evaluation.store_path, ", ".join(identity)] if identity else [evaluation.store_path]),
        "; ".join([*settings, evaluation.date, *software]),
        "",
        *_table([HEADER, *(row for result in evaluation.results for row in _rows(result))]),
    ]
    notes = [f"- {result.task}: {note}" for result in evaluation.results for note in result.notes]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def software_versions() -> dict[str, str]:
    """Return the versions of what computes the figures."""
    versions = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _rows(result: TaskResult) -> list[tuple[str, ...]]:
    rate = f"{result.queries / result.seconds:.0f}" if result.seconds > 0 else ""
    return [
        (
            result.task if first else "",
            figure.name,
            f"{figure.value:.4f}",
            f"{figure.interval.low:.4f} to {figure.interval.high:.4f}" if figure.interval else "",
            "" if figure.chance is None else f"{figure.chance:.4f}",
            f"{result.queries:,}" if first else "",
            f"{result.seconds:.1f}" if first else "",
            rate if first else "",
        )
        for first, figure in ((index == 0, figure) for index, figure in enumerate(result.figures))
    ]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as an aligned Markdown table; the first row is the header."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(cells[0]))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < LEFT_ALIGNED else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if column < LEFT_ALIGNED else "-" * (width - 1) + ":"
        for column, width in enumerate(widths)
    ]
    return [line(cells[0]), line(rule), *(line(row) for row in cells[1:])]


def _result_json(result: TaskResult, items: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "task": result.task,
        "figures": [
            {
                "name": figure.name,
                "value": figure.value,
                "interval": _ends(figure.interval),
                "chance": figure.chance,
            }
            for figure in result.figures
        ],
        "queries": result.queries,
        "seconds": result.seconds,
        "queries_per_second": result.queries / result.seconds if result.seconds > 0 else None,
        "notes": list(result.notes),
        **result.breakdown,
    }
    return record | {"items": [dict(item) for item in result.items]} if items else record


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
