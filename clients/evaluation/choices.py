"""Answer multiple-choice questions from what is retrieved, without a language model.

Each choice is searched for together with its question, and scored by how well the best passages match:
a store that holds the answer tends to hold a passage close to question and right choice. This measures
the store and its encoder end to end; it is a weak reader, so compare stores by it, not with language
models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.intervals import Interval, mean_of_proportions, wilson
from compactds.clients.evaluation.protocol import Hit, Searcher
from compactds.clients.evaluation.searching import (
    PLAIN,
    Asking,
    Progress,
    ask,
    check_count,
    ignore_progress,
    is_truncated,
)
from compactds.clients.evaluation.tasks import Question

NOTHING_FOUND = float("-inf")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold how one question was answered.

    `chosen` is the first best choice, `tied` how many choices share the best score, and `credit` 1 /
    tied if the right choice is among them, else 0: what guessing among them is worth on average.
    """

    question_id: str
    subject: str
    chosen: int
    answer: int
    tied: int
    credit: float
    chance: float


@dataclass(frozen=True, slots=True)
class SubjectResult:
    """Hold the accuracy on one subject, with Wilson's interval."""

    subject: str
    questions: int
    correct: float
    accuracy: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class ChoicesReport:
    """Hold how many multiple-choice questions were answered right.

    `accuracy` is over all questions, `macro` the plain mean of the subjects' accuracies, each with its
    95 % interval; `chance` and `macro_chance` are what guessing reaches. `tied` counts questions whose
    best score is shared. `top_n` is how many hits score a choice. `truncated` counts
    queries that the encoder did not read to their end.
    """

    accuracy: float
    interval: Interval
    chance: float
    macro: float
    macro_interval: Interval
    macro_chance: float
    subjects: tuple[SubjectResult, ...]
    outcomes: tuple[Outcome, ...]
    tied: int
    top_n: int
    queries: int
    seconds: float
    truncated: int = 0


def evaluate_choices(
    searcher: Searcher,
    questions: Sequence[Question],
    *,
    top_n: int = 1,
    asking: Asking = PLAIN,
    progress: Progress = ignore_progress,
) -> ChoicesReport:
    """Answer every question by searching for it with each of its choices.

    A choice scores the mean of its `top_n` best hits, the top hit alone by default. `progress` counts
    searches, one a choice. Raises EvaluationError without questions.
    """
    check_count("top_n", top_n)
    if not questions:
        raise EvaluationError("there are no questions.", value=0, remedy="Give at least one.")
    texts = [f"{question.text} {choice}" for question in questions for choice in question.choices]
    answers = ask(searcher, texts, top_n, asking, progress)
    scores = iter([mean_score(hits, top_n) for hits in answers.hits])
    outcomes = tuple(judge(question, [next(scores) for _ in question.choices]) for question in questions)
    subjects = _by_subject(outcomes)
    correct = sum(outcome.credit for outcome in outcomes)
    return ChoicesReport(
        accuracy=correct / len(outcomes),
        interval=wilson(correct, len(outcomes)),
        chance=fmean(outcome.chance for outcome in outcomes),
        macro=fmean(subject.accuracy for subject in subjects),
        macro_interval=mean_of_proportions([(subject.correct, subject.questions) for subject in subjects]),
        macro_chance=_macro_chance(outcomes),
        subjects=subjects,
        outcomes=outcomes,
        tied=sum(outcome.tied > 1 for outcome in outcomes),
        top_n=top_n,
        queries=len(texts),
        seconds=answers.seconds,
        truncated=sum(map(is_truncated, answers.hits)),
    )


def mean_score(hits: Sequence[Hit], top_n: int) -> float:
    """Return the mean score of the `top_n` best hits, minus infinity if there is none."""
    best = hits[:top_n]
    return fmean(hit.score for hit in best) if best else NOTHING_FOUND


def judge(question: Question, scores: Sequence[float]) -> Outcome:
    """Compare a question's answer with its choices' scores; equal best scores share the credit."""
    best = max(scores)
    winners = [index for index, score in enumerate(scores) if score == best]
    return Outcome(
        question_id=question.id,
        subject=question.subject,
        chosen=winners[0],
        answer=question.answer,
        tied=len(winners),
        credit=1 / len(winners) if question.answer in winners else 0.0,
        chance=1 / len(scores),
    )


def _by_subject(outcomes: Sequence[Outcome]) -> tuple[SubjectResult, ...]:
    earned_by: dict[str, list[float]] = {}
    for outcome in outcomes:
        earned_by.setdefault(outcome.subject, []).append(outcome.credit)
    return tuple(
        SubjectResult(subject, len(earned), sum(earned), fmean(earned), wilson(sum(earned), len(earned)))
        for subject, earned in sorted(earned_by.items())
    )


def _macro_chance(outcomes: Sequence[Outcome]) -> float:
    chances: dict[str, list[float]] = {}
    for outcome in outcomes:
        chances.setdefault(outcome.subject, []).append(outcome.chance)
    return fmean(fmean(values) for values in chances.values())
