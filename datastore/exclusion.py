"""Leave out of results what overlaps with evaluation questions, and search further for as many others."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compactds.datastore.errors import SearchError
from compactds.datastore.queries import MAX_K, Effort, check_queries
from compactds.datastore.ranking import Answer
from compactds.datastore.records import Passage
from compactds.datastore.search import Ranking
from compactds.filters.corpus.overlap import OverlapIndex
from compactds.filters.corpus.overlap_questions import Question
from compactds.filters.corpus.overlap_words import normalized

Exclude = Sequence[str | Question] | bool | None
Rank = Callable[[Sequence[int], Effort], list[Answer]]
Fetch = Callable[[Sequence[NDArray[np.int64]]], list[list[Passage]]]

ROWS_AT_ONCE = 50_000
"""Passages that are read and compared together."""

INDEXES_KEPT = 4

_building = threading.Lock()


class Found(NamedTuple):
    """Hold what one query found: its answer, the passages of its rows, and how many were left out."""

    answer: Answer
    passages: Sequence[Passage]
    excluded: int = 0


class Judge:
    """Tell which passages overlap with questions; each is compared once, however often it is found."""

    def __init__(self, index: OverlapIndex | None) -> None:
        self._index = index
        self._verdicts: dict[int, bool] = {}

    def keep(self, answer: Answer, passages: Sequence[Passage], k: int) -> Found:
        """Return the `k` best passages without overlap, with the number of others that ranked above."""
        rows = answer.ranking.rows.tolist()
        clean = np.flatnonzero(~np.array(self._overlapping(rows, passages), bool))[:k]
        passed = int(clean[-1]) + 1 if len(clean) == k else len(rows)
        ranking = Ranking(answer.ranking.scores[clean], answer.ranking.rows[clean], answer.ranking.scored)
        return Found(
            replace(answer, ranking=ranking), [passages[place] for place in clean], passed - len(clean)
        )

    def _overlapping(self, rows: Sequence[int], passages: Sequence[Passage]) -> list[bool]:
        if self._index is None:
            return [False] * len(rows)
        unknown = {
            row: passage.text
            for row, passage in zip(rows, passages, strict=True)
            if row not in self._verdicts
        }
        self._verdicts.update(zip(unknown, self._index.overlapping(list(unknown.values())), strict=True))
        return [self._verdicts[row] for row in rows]


def make_judges(exclude: Exclude, query: Any) -> list[Judge]:
    """Return what judges passages: one for all queries or one for each, none if nothing is excluded.

    `exclude` holds questions that all queries share; with True every query is its own question. A query
    without a single word excludes nothing. Raises SearchError for what are no questions, OverlapError for
    questions without a single word.
    """
    if exclude is None or exclude is False:
        return []
    if exclude is not True:
        return [Judge(overlap_index(exclude))]
    if query is None:
        raise SearchError(
            "exclude_overlap_with is True, and the queries are vectors.",
            value=True,
            remedy="Give the texts of the questions.",
        )
    texts, _ = check_queries(query)
    return [Judge(OverlapIndex([text]) if normalized(text).strip() else None) for text in texts]


def overlap_index(questions: Sequence[str | Question]) -> OverlapIndex:
    """Return the index of a set of questions; those of the last few sets are kept."""
    if isinstance(questions, str | bytes | bytearray) or not isinstance(questions, Sequence):
        raise SearchError(
            f"exclude_overlap_with is of type {type(questions).__name__}, expected a list of texts.",
            value=repr(questions)[:80],
            remedy="Give ['…', '…'], or True for the queries themselves.",
        )
    wrong = next((place for place, each in enumerate(questions) if not _is_question(each)), None)
    if wrong is not None:
        raise SearchError(
            f"exclude_overlap_with[{wrong}] is of type {type(questions[wrong]).__name__}, expected text.",
            value=repr(questions[wrong])[:80],
            remedy="Give every question as text.",
        )
    with _building:  # what several searches ask for at once is built once
        return _built(tuple(questions))


@lru_cache(maxsize=INDEXES_KEPT)
def _built(questions: tuple[str | Question, ...]) -> OverlapIndex:
    return OverlapIndex(questions)


def _is_question(value: Any) -> bool:
    return isinstance(value, str | Question)


def search_clean(
    judges: Sequence[Judge], count: int, effort: Effort, rank: Rank, fetch: Fetch
) -> list[Found]:
    """Return for each of `count` queries its `effort.k` best passages without overlap.

    A query that lacks passages is asked again for twice as many, until it has them, the store has no more,
    or MAX_K were looked at. `rank` answers the queries at some places, `fetch` reads the passages of rows.
    """
    found: dict[int, Found] = {}
    pending: Sequence[int] = range(count)
    k = effort.k
    while pending:
        asked = replace(effort, k=k, candidates=effort.candidates and max(effort.candidates, k))
        unfinished = []
        size = max(1, ROWS_AT_ONCE // k)
        for start in range(0, len(pending), size):
            places = list(pending[start : start + size])
            answers = rank(places, asked)
            passages = fetch([answer.ranking.rows for answer in answers])
            for place, answer, texts in zip(places, answers, passages, strict=True):
                judge = judges[place if len(judges) > 1 else 0]
                found[place] = judge.keep(answer, texts, effort.k)
                if len(found[place].passages) < effort.k and len(texts) == k < MAX_K:
                    unfinished.append(place)
        pending = unfinished
        k = min(2 * k, MAX_K)
    return [found[place] for place in range(count)]
