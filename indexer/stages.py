"""Run a stage of a build so that every finished task is marked and done only once."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compactds.indexer.execution import Executor, Report, StageFunction
from compactds.indexer.workspace import settled


@dataclass(frozen=True, slots=True)
class _Marked:
    """Say which function does a stage's tasks, with what context, and where finished ones are marked."""

    folder: Path
    function: StageFunction
    context: Any


def run_stage(
    folder: Path,
    executor: Executor,
    function: StageFunction,
    context: Any,
    tasks: Sequence[Any],
    report: Report,
) -> Iterator[dict[str, Any]]:
    """Yield the result of every task in order, doing those that have no mark in `folder` yet.

    The process that does a task writes its mark, when all files of the task are written: a build that
    stops at any moment loses no more than the tasks under way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marked = {path.stem for path in folder.glob("*.json")}
    numbers = [number for number in range(len(tasks)) if _name(number) not in marked]
    missing = [(number, tasks[number]) for number in numbers]
    fresh = executor.map(_do, _Marked(folder, function, context), missing, report)
    waiting = set(numbers)
    for number in range(len(tasks)):
        yield next(fresh) if number in waiting else json.loads(_mark(folder, number).read_bytes())


def _do(marked: _Marked, numbered: tuple[int, Any], report: Report) -> dict[str, Any]:
    number, task = numbered
    result = marked.function(marked.context, task, report)
    with settled(_mark(marked.folder, number)) as beside:
        beside.write_text(json.dumps(result))
    return result


def _mark(folder: Path, number: int) -> Path:
    return folder / f"{_name(number)}.json"


def _name(number: int) -> str:
    return f"{number:06d}"
