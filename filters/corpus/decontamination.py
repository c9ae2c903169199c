"""Keep evaluation questions out of a corpus: whole documents, or the paragraphs that hold them."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from compactds.filters.corpus.base import Drop, Record
from compactds.filters.corpus.overlap import Match, OverlapIndex, paragraphs
from compactds.filters.corpus.overlap_words import words_of

NAME = "decontamination"


@dataclass(frozen=True, slots=True)
class Removal:
    """Hold a paragraph that overlaps with a question: its number and its place in the text, and the match."""

    paragraph: int
    start: int
    end: int
    text: str
    match: Match


def contaminated(index: OverlapIndex, text: str) -> list[Removal]:
    """Return the paragraphs of a text that overlap with a question, in order.

    Of a run that goes over several paragraphs, those go that hold enough of it by themselves, or else all
    of them. What would stand together once they are gone is compared again, so that the rest overlaps with
    no question.
    """
    if not index.has_tiny_questions and not index.overlaps(text):
        return []
    spans = paragraphs(text)
    left = list(range(len(spans)))
    removals: list[Removal] = []
    while left:
        found = _overlapping(index, text, [spans[number] for number in left])
        if not found:
            break
        for place, match in found.items():
            start, end = spans[left[place]]
            removals.append(Removal(left[place], start, end, text[start:end], match))
        left = [number for place, number in enumerate(left) if place not in found]
    return sorted(removals, key=lambda removal: removal.paragraph)


def without(text: str, removals: list[Removal]) -> str:
    """Return the text without these paragraphs and the space after them."""
    spans = paragraphs(text)
    gone = {removal.paragraph for removal in removals}
    starts = [*(start for start, _ in spans), len(text)]
    if spans:
        starts[0] = 0
    return "".join(text[starts[n] : starts[n + 1]] for n in range(len(spans)) if n not in gone)


def removal_record(removal: Removal, index: OverlapIndex, document_id: str) -> dict[str, Any]:
    """Return a line of the report: the paragraph, the question it matched, and how."""
    question = index.questions[removal.match.question]
    return {
        "document_id": document_id,
        "paragraph": removal.paragraph,
        "text": removal.text,
        "question_id": question.id or str(removal.match.question),
        "question": question.text,
        "kind": removal.match.kind,
        "value": removal.match.value,
        "shared": removal.match.shared,
    }


class ContaminatedDocuments:
    """Drop documents that overlap with an evaluation question."""

    name = NAME

    def __init__(self, index: OverlapIndex) -> None:
        self.index = index

    def judge(self, document: Record) -> Drop | None:
        """Return the strongest overlap, or None; the value names the question."""
        match = self.index.matches(document.text)
        if match is None:
            return None
        limit = self.index.threshold if match.kind == "jaccard" else float(self.index.words)
        return Drop(self.name, f"overlaps_question_{match.kind}", match.id or str(match.question), limit)


class ContaminatedParagraphs:
    """Take the paragraphs that overlap with an evaluation question out of documents."""

    name = NAME

    def __init__(self, index: OverlapIndex) -> None:
        self.index = index

    def edit(self, text: str) -> tuple[str, Mapping[str, int]]:
        """Return the text without these paragraphs, and how many of them were taken out by kind of match."""
        removals = contaminated(self.index, text)
        if not removals:
            return text, {}
        return without(text, removals), Counter(removal.match.kind for removal in removals)


def _overlapping(index: OverlapIndex, text: str, spans: list[tuple[int, int]]) -> dict[int, Match]:
    """Return the strongest match of each of these paragraphs that overlaps, the text being only them."""
    pieces = [text[start:end] for start, end in spans]
    found: dict[int, Match] = {}
    if index.has_tiny_questions:
        whole = {number: index.matches_tiny(piece) for number, piece in enumerate(pieces)}
        found = {number: match for number, match in whole.items() if match is not None}
    matches = index.spans("\n\n".join(pieces))
    ends = list(accumulate(len(words_of(piece)) for piece in pieces)) if matches else []
    for match in matches:
        for number in _held_by(match, ends, index.words):
            known = found.get(number)
            if known is None or match.value > known.value:
                found[number] = match
    return found


def _held_by(match: Match, ends: list[int], enough: int) -> list[int]:
    """Return the paragraphs, known by how many words end with each, that a match is taken out with."""
    touched = range(bisect_right(ends, match.start), bisect_left(ends, match.end) + 1)
    alone = [
        number
        for number in touched
        if min(match.end, ends[number]) - max(match.start, ends[number - 1] if number else 0) >= enough
    ]
    return alone or list(touched)
