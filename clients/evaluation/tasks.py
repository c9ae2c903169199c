"""Read multiple-choice questions: MMLU, ARC, and JSON lines of your own."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.lines import id_field, read_lines, read_records, text_field, wrong_field

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MMLU_CHOICES = 4
JSON_LINES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class Question:
    """Hold a multiple-choice question; `answer` is the index of the right choice, from 0."""

    id: str
    subject: str
    text: str
    choices: tuple[str, ...]
    answer: int


def load_mmlu(path: str | Path, split: str = "test") -> list[Question]:
    """Read MMLU: CSV files without a header, each row question, four choices and the right letter.

    `path` is the folder with `dev/` and `test/`, a folder of CSV files, or one file. The subject is
    the file's name without `_test` or `_dev`.
    """
    root = Path(path)
    folder = root / split if (root / split).is_dir() else root
    files = [root] if root.is_file() else sorted(folder.glob("*.csv"))
    return _not_empty(
        [question for file in _some(files, root, "*.csv") for question in _mmlu_rows(file)], path
    )


def load_arc(path: str | Path) -> list[Question]:
    """Read ARC: a `.jsonl[.gz]` file, or a folder of them, of records {query, choices, gold}.

    `gold` is the index of the right choice, from 0; a leading "Question: " of the query is dropped.
    The subject is the file's name.
    """
    questions = []
    for file in _json_files(Path(path)):
        subject = _stem(file)
        for number, (place, record) in enumerate(read_records(file), start=1):
            choices = _choices(place, record)
            answer = _index(place, "gold", record.get("gold"), choices)
            text = text_field(place, record, "query").removeprefix("Question:").strip()
            questions.append(Question(f"{subject}-{number}", subject, text, choices, answer))
    return _not_empty(questions, path)


def load_questions(path: str | Path) -> list[Question]:
    """Read a `.jsonl[.gz]` file, or a folder of them, of records {id, question, choices, answer}.

    `answer` is an index from 0, a letter from A, or the text of the right choice; `subject` is
    optional and the file's name if left out. Ids must be unique.
    """
    questions = []
    seen: dict[str, str] = {}
    for file in _json_files(Path(path)):
        for place, record in read_records(file):
            question_id = id_field(place, record, "id")
            if question_id in seen:
                raise EvaluationError(
                    f"{place}: id {question_id!r} again; the first is in {seen[question_id]}.",
                    value=question_id,
                    remedy="Make ids unique.",
                )
            seen[question_id] = place
            choices = _choices(place, record)
            subject = text_field(place, record, "subject") if "subject" in record else _stem(file)
            answer = _answer(place, record.get("answer"), choices)
            questions.append(
                Question(question_id, subject, text_field(place, record, "question"), choices, answer)
            )
    return _not_empty(questions, path)


def _mmlu_rows(file: Path) -> Iterator[Question]:
    subject = file.stem
    for suffix in ("_test", "_dev", "_val"):
        subject = subject.removesuffix(suffix)
    reader = csv.reader((line + "\n" for _, line in read_lines(file)), strict=True)
    number = 0
    while True:
        place = f"{file}, line {reader.line_num + 1}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise EvaluationError(
                f"{place}: not valid CSV ({error}).", value=str(file), remedy="Correct the file."
            ) from None
        if row is None:
            return
        if row:
            number += 1
            yield _mmlu_question(place, f"{subject}-{number}", subject, row)


def _mmlu_question(place: str, question_id: str, subject: str, row: Sequence[str]) -> Question:
    if len(row) != MMLU_CHOICES + 2:
        raise EvaluationError(
            f"{place}: {len(row)} columns, expected 6.",
            value=len(row),
            remedy="A row is question, four choices and the right letter.",
        )
    text, *choices, letter = row
    if len(letter) != 1 or letter not in LETTERS[:MMLU_CHOICES]:
        raise EvaluationError(
            f"{place}: the right choice is {letter[:80]!r}, expected A, B, C or D.",
            value=letter[:80],
            remedy="MMLU's files have no header, and a letter in the last column.",
        )
    for name, value in [("question", text), *zip(LETTERS, choices, strict=False)]:
        if not value.strip():
            raise wrong_field(place, name, value, "text that is not blank")
    return Question(question_id, subject, text.strip(), tuple(choices), LETTERS.index(letter))


def _choices(place: str, record: dict[str, Any]) -> tuple[str, ...]:
    choices = record.get("choices")
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise wrong_field(place, "choices", choices, f"a list of 2 to {len(LETTERS)} texts")
    for choice in choices:
        if not isinstance(choice, str) or not choice.strip():
            raise wrong_field(place, "choices", choices, "only texts that are not blank")
    return tuple(choices)


def _answer(place: str, answer: Any, choices: Sequence[str]) -> int:
    if not isinstance(answer, str):
        return _index(place, "answer", answer, choices)
    meanings = {index for index, choice in enumerate(choices) if choice == answer}
    if len(answer) == 1 and answer in LETTERS[: len(choices)]:
        meanings.add(LETTERS.index(answer))
    if len(meanings) != 1:
        problem = "one of the choices or their letters" if not meanings else "one that names a single choice"
        raise wrong_field(place, "answer", answer, problem)
    return meanings.pop()


def _index(place: str, name: str, value: Any, choices: Sequence[str]) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(choices):
        raise wrong_field(place, name, value, f"an index from 0 to {len(choices) - 1}")
    return value


def _json_files(root: Path) -> Sequence[Path]:
    if not root.is_dir():
        return [root]
    files = sorted(file for file in root.iterdir() if file.name.endswith(JSON_LINES))
    return _some(files, root, "*.jsonl or *.jsonl.gz")


def _some(files: Sequence[Path], root: Path, pattern: str) -> Sequence[Path]:
    if not files:
        problem = f"holds no {pattern}" if root.is_dir() else "does not exist"
        raise EvaluationError(f"{root} {problem}.", value=str(root), remedy="Check the path.")
    return files


def _not_empty(questions: list[Question], path: str | Path) -> list[Question]:
    if not questions:
        raise EvaluationError(
            f"{path} holds no question.", value=str(path), remedy="Check that it is the right file."
        )
    return questions


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".jsonl")
