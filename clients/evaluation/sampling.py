"""Draw part of a task, the same part every time."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from compactds.clients.evaluation.beir import Collection
from compactds.clients.evaluation.intervals import SEED
from compactds.clients.evaluation.searching import check_count
from compactds.clients.evaluation.tasks import Question

T = TypeVar("T")


def sample(items: Sequence[T], limit: int, seed: int = SEED, salt: str = "") -> list[T]:
    """Return at most `limit` items, in their order; raise EvaluationError for a limit below 1."""
    check_count("limit", limit)
    chooser = random.Random(f"{seed} {salt}")
    return [items[index] for index in sorted(chooser.sample(range(len(items)), min(limit, len(items))))]


def sample_by_subject(questions: Sequence[Question], limit: int, seed: int = SEED) -> list[Question]:
    """Return at most `limit` questions of each subject, in their order.

    Which ones depends on the seed and on the subject's own questions, not on the other subjects.
    """
    by_subject: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        by_subject.setdefault(question.subject, []).append(index)
    kept = [
        index
        for subject, indices in by_subject.items()
        for index in sample(indices, limit, seed, salt=subject)
    ]
    return [questions[index] for index in sorted(kept)]


def sample_collection(collection: Collection, limit: int, seed: int = SEED) -> Collection:
    """Return the collection with at most `limit` of its queries, in their order."""
    kept = sample(list(collection.queries), limit, seed)
    return replace(
        collection,
        queries={query_id: collection.queries[query_id] for query_id in kept},
        judgements={query_id: collection.judgements[query_id] for query_id in kept},
    )
