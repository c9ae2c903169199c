"""Find evaluation questions in text: exactly, whatever its case and punctuation.

`OverlapIndex(questions).matches(text)` answers in one of three modes:

- `ngram`: text and question share a run of 13 words.
- `span`: they share a run of 32 words, as MassiveDS excludes.
- `jaccard`: the sets of 13-word runs of the question and of the text, or of one of its paragraphs, have a
  Jaccard similarity of at least 0.7, as CompactDS excludes.

A question too short for its mode is found whole: see `docs/decontamination.md`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from compactds.filters.corpus.overlap_questions import MIN_BYTES, MIN_WORDS, Part, Question, question_parts
from compactds.filters.corpus.overlap_tables import RunTable, all_runs, merged_runs, openings
from compactds.filters.corpus.overlap_words import Hashes, gram_hashes, normalized, word_hashes
from compactds.filters.errors import CompactdsError, reported, shown

Mode = Literal["ngram", "span", "jaccard"]
Kind = Literal["ngram", "span", "jaccard", "whole"]

DEFAULT_WORDS: dict[Mode, int] = {"ngram": 13, "span": 32, "jaccard": 13}
DEFAULT_THRESHOLD = 0.7
MOST_WORDS = 1000

_PLACES_AT_ONCE = 1 << 18
_TELLING_WORDS = 3

_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")
_LINES = re.compile(r"\n\s*")


class OverlapError(CompactdsError):
    """Refuse questions or settings that text cannot be compared with."""

    code = "invalid_overlap"


@dataclass(frozen=True, slots=True)
class Match:
    """Say what a text shares with a question.

    `question` is its place among those given. `value` is the number of words of the longest run that both
    have, or with `kind` "jaccard" the similarity. `start` and `end` count words of the text; `shared` is
    what stands there as it was compared.
    """

    question: int
    id: str
    kind: Kind
    value: float
    start: int
    end: int
    shared: str


class OverlapIndex:
    """Hold evaluation questions so that any text is compared with all of them at once.

    `words` is the length of the runs compared (13, or 32 with mode "span"), at least 4; `threshold` is the
    least similarity of mode "jaccard", over 0 and up to 1. An index is never changed, may be used by many
    threads, and gives the same answers in every process. Raises OverlapError for questions without a
    single word, and for settings outside these limits.
    """

    def __init__(
        self,
        questions: Iterable[str | Question],
        mode: Mode = "ngram",
        *,
        words: int | None = None,
        threshold: float = DEFAULT_THRESHOLD,
    ) -> None:
        self.mode, self.words, self.threshold = _checked(mode, words, threshold)
        self.questions = tuple(Question(given) if isinstance(given, str) else given for given in questions)
        self._run_kind: Kind = "span" if mode == "span" else "ngram"
        parts = question_parts(self.questions, self.words, keep_stems=mode == "jaccard")
        self._parts = [*parts.long, *parts.whole]
        if not self._parts and not parts.tiny:
            raise OverlapError(
                f"none of the {len(self.questions)} questions has a word to compare.",
                value=len(self.questions),
                remedy="Give at least one question of letters or digits.",
            )
        self._tiny: dict[tuple[bytes, ...], list[Part]] = {}
        for part in parts.tiny:
            self._tiny.setdefault(part.words, []).append(part)
        longest = max((sum(map(len, words)) for words in self._tiny), default=0)
        self._longest_tiny = 3 * longest + 20 if longest else 0  # characters, with some marks between words
        self._runs = all_runs([part.words for part in parts.long], range(len(parts.long)), self.words)
        numbers = range(len(parts.long), len(self._parts))
        self._openings = openings([part.words for part in parts.whole], MIN_WORDS)
        self._wholes = _tables_by_length(self._parts, numbers)

    def overlaps(self, text: str) -> bool:
        """Tell whether the text overlaps with any question."""
        return self.matches(text) is not None

    def overlapping(self, texts: Sequence[str]) -> list[bool]:
        """Tell for each text whether it overlaps with any question; faster than one text at a time."""
        compared = [normalized(text) for text in texts]
        ends = np.cumsum([len(words.split()) for words in compared])
        hashes = word_hashes(b" ".join(compared))
        starts = [run[2] for run in self._found_runs(hashes)]
        starts.extend(start for _, start in self._found_wholes(hashes))
        likely = set(np.searchsorted(ends, starts, "right").tolist())
        likely.update(np.flatnonzero(np.diff(ends, prepend=0) < MIN_BYTES).tolist())
        return [place in likely and self.overlaps(text) for place, text in enumerate(texts)]

    def matches(self, text: str) -> Match | None:
        """Return the strongest match: the longest run, or the highest similarity; of equals the first."""
        found = self.all_matches(text)
        return min(found, key=lambda match: (-match.value, match.start, match.question)) if found else None

    def all_matches(self, text: str) -> list[Match]:
        """Return the strongest match of every question that the text overlaps with, in the text's order."""
        strongest: dict[int, Match] = {}
        for match in self._each(text):
            known = strongest.get(match.question)
            if known is None or (-match.value, match.start) < (-known.value, known.start):
                strongest[match.question] = match
        return sorted(strongest.values(), key=lambda match: (match.start, match.question))

    @property
    def has_tiny_questions(self) -> bool:
        """Tell whether some questions count only where they are all of a text."""
        return bool(self._tiny)

    def matches_tiny(self, text: str) -> Match | None:
        """Return the question that is all of the text, and is too short to be found inside one."""
        if len(text) > self._longest_tiny:
            return None
        return next(self._tiny_matches(tuple(normalized(text).split())), None)

    def spans(self, text: str) -> list[Match]:
        """Return the runs of the text that questions have too, in the text's order, none inside another."""
        reached: dict[int, int] = {}
        runs = []
        for match in sorted(self._each(text), key=lambda match: (match.start, -match.end, match.question)):
            if match.end > reached.get(match.question, 0):
                reached[match.question] = match.end
                runs.append(match)
        return runs

    def _each(self, text: str) -> Iterator[Match]:
        """Yield every match, verified word by word."""
        compared = normalized(text)
        hashes = word_hashes(compared)
        if len(hashes) < MIN_BYTES:
            yield from self._tiny_matches(tuple(compared.split()))
        runs = list(self._found_runs(hashes))
        wholes = self._found_wholes(hashes)
        if not runs and not wholes:
            return
        words = compared.split()
        yield from self._verified_wholes(wholes, words)
        if self.mode == "jaccard":
            for start, end in _paragraphs(text, len(words)) if runs else ():
                yield from self._similar(runs, words, start, end)
            return
        for number, place, start, length in runs:
            part = self._parts[number]
            shared = words[start : start + length]
            if list(part.words[place : place + length]) == shared:
                yield self._match(part, self._run_kind, length, words, start, start + length)

    def _tiny_matches(self, words: tuple[bytes, ...]) -> Iterator[Match]:
        for part in self._tiny.get(words, ()):
            yield self._match(part, "whole", len(words), words, 0, len(words))

    def _found_runs(self, hashes: Hashes) -> Iterator[tuple[int, int, int, int]]:
        """Yield (part, place in it, start, words) of shared runs by their hashes.

        A run is cut where a text has more places to look at than are looked at together.
        """
        grams = gram_hashes(hashes, self.words)
        places = self._runs.places(grams)
        for first in range(0, len(places), _PLACES_AT_ONCE):
            at = places[first : first + _PLACES_AT_ONCE]
            yield from merged_runs(self._runs.find(grams[at], at), self.words)

    def _found_wholes(self, hashes: Hashes) -> list[tuple[int, int]]:
        """Return (part, start) of the short questions in a text by their hashes."""
        grams = gram_hashes(hashes, MIN_WORDS)
        opened = self._openings.places(grams)
        found: list[tuple[int, int]] = []
        if not len(opened):
            return found
        lengths = self._openings.find(grams[opened], opened)
        for length in np.unique(lengths.part).tolist():
            at = lengths.in_text[lengths.part == length]
            at = at[at <= len(hashes) - length]
            here = self._wholes[length].find(gram_hashes(hashes, length, at), at)
            found.extend(zip(here.part.tolist(), here.in_text.tolist(), strict=True))
        return found

    def _verified_wholes(self, found: list[tuple[int, int]], words: Sequence[bytes]) -> Iterator[Match]:
        for number, start in found:
            part = self._parts[number]
            end = start + len(part.words)
            if tuple(words[start:end]) != part.words:
                continue
            if not part.generic or self._has_choice(part, words[end:]):
                yield self._match(part, "whole", len(part.words), words, start, end)

    def _has_choice(self, part: Part, after: Sequence[bytes]) -> bool:
        """Tell whether words that follow a question hold a choice that tells it from others like it."""
        choices = [normalized(choice).split() for choice in self.questions[part.question].choices]
        reach = sum(map(len, choices)) + 4 * len(choices)
        near = b" %b " % b" ".join(after[:reach])
        present = [b" %b " % b" ".join(choice) in near for choice in choices]
        telling = [len(choice) >= _TELLING_WORDS for choice in choices]
        return all(present) or any(both for both in zip(present, telling, strict=True) if all(both))

    def _similar(
        self, runs: Sequence[tuple[int, int, int, int]], words: Sequence[bytes], start: int, end: int
    ) -> Iterator[Match]:
        """Yield the questions whose sets of runs are similar to that of the words from start to end."""
        numbers = {
            number
            for number, _, at, length in runs
            if at < end - self.words + 1 and at + length >= start + self.words
        }
        here = _grams(words[start:end], self.words) if numbers else set()
        for number in sorted(numbers):
            part = self._parts[number]
            theirs = _grams(part.words, self.words)
            shared = len(here & theirs)
            similarity = shared / (len(here) + len(theirs) - shared)
            if shared and similarity >= self.threshold:
                yield self._match(part, "jaccard", similarity, words, start, end)

    def _match(
        self, part: Part, kind: Kind, value: float, words: Sequence[bytes], start: int, end: int
    ) -> Match:
        shared = b" ".join(words[start:end]).decode()
        return Match(part.question, self.questions[part.question].id, kind, value, start, end, shared)


def paragraphs(text: str) -> list[tuple[int, int]]:
    """Return where the paragraphs of a text begin and end.

    Blank lines part them; in a text without blank lines every line is one.
    """
    breaks = list(_BLANK_LINES.finditer(text.rstrip())) or list(_LINES.finditer(text.rstrip()))
    starts = [0, *(found.end() for found in breaks)]
    ends = [*(found.start() for found in breaks), len(text)]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if text[start:end].strip()]


def _paragraphs(text: str, words: int) -> list[tuple[int, int]]:
    """Return the words of the text and, if there are several, of each of its paragraphs."""
    found = [(0, words)]
    spans = paragraphs(text)
    if len(spans) > 1:
        place = 0
        for start, end in spans:
            count = len(normalized(text[start:end]).split())
            found.append((place, place + count))
            place += count
    return found


def _grams(words: Sequence[bytes], length: int) -> set[tuple[bytes, ...]]:
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


def _tables_by_length(parts: Sequence[Part], numbers: range) -> dict[int, RunTable]:
    """Return a table of whole parts for each length that occurs among them."""
    by_length: dict[int, list[int]] = {}
    for number in numbers:
        by_length.setdefault(len(parts[number].words), []).append(number)
    return {
        length: all_runs([parts[number].words for number in same], same, length)
        for length, same in by_length.items()
    }


def _checked(mode: Mode, words: int | None, threshold: float) -> tuple[Mode, int, float]:
    if mode not in get_args(Mode):
        raise OverlapError(
            f"the overlap mode {shown(mode)} is not known.",
            value=reported(mode),
            remedy=f"Use one of {', '.join(get_args(Mode))}.",
        )
    run = DEFAULT_WORDS[mode] if words is None else words
    if not isinstance(run, int) or isinstance(run, bool) or not MIN_WORDS <= run <= MOST_WORDS:
        raise OverlapError(
            f"runs of {shown(run)} words cannot be compared.",
            value=reported(run),
            remedy=f"Use from {MIN_WORDS} to {MOST_WORDS} words.",
        )
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise OverlapError(
            f"a similarity of {shown(threshold)} is no threshold.",
            value=reported(threshold),
            remedy="Use a number over 0 and up to 1, such as 0.7.",
        )
    return mode, run, float(threshold)
