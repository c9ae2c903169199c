"""What evaluation questions look like to the search for overlaps: their spellings and their parts."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compactds.filters.corpus.overlap_words import normalized

MIN_WORDS = 4
MIN_BYTES = 12
"""A question of fewer words, or of fewer bytes without spaces, says too little to be found inside text."""

_APOSTROPHES = re.compile("['’‘ʼ＇`´](?<=[^\\W_].)(?=[^\\W_])")
_PUNCTUATION = re.compile(r"[^\w\s](?<=[^\W_].)[^\w\s]*(?=[^\W_])")


@dataclass(frozen=True, slots=True)
class Question:
    """Hold one question of an evaluation set, with the options to choose from, if it has any."""

    text: str
    choices: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Hold one run of words of a question that text is searched for.

    A `generic` part opens several questions that have different choices, as "which of the following is
    true" does; by itself it says nothing.
    """

    question: int
    words: tuple[bytes, ...]
    generic: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """Sort the parts of questions by how text is searched for them.

    `long` ones have at least as many words as the runs compared; `whole` ones have fewer and are found
    as they are; `tiny` ones count only as the whole of a text.
    """

    long: list[Part]
    whole: list[Part]
    tiny: list[Part]


def spellings(text: str) -> list[str]:
    """Return a text as it is, without apostrophes in words, and without any punctuation in words.

    Punctuation separates words; who deletes it joins them: "don't" becomes "dont", "x^2" "x2".
    """
    return list(dict.fromkeys((text, _APOSTROPHES.sub("", text), _PUNCTUATION.sub("", text))))


def question_parts(questions: Sequence[Question], run_words: int, *, keep_stems: bool) -> Parts:
    """Return what to search for, each run of words once a question.

    A question with its choices in order is one part; without them it is another if it is shorter than
    `run_words`, or with `keep_stems` always.
    """
    parts = Parts([], [], [])
    for number, question in enumerate(questions):
        stems = _spelled((question.text,))
        joined = _spelled((question.text, *question.choices)) if question.choices else stems
        strong = all(_is_findable(words) for words in stems)
        for words in dict.fromkeys((*stems, *joined)):
            part = Part(number, words)
            is_stem = words in stems
            if not words:
                continue
            if len(words) >= run_words:
                if keep_stems or not is_stem or words in joined:
                    parts.long.append(part)
            elif not _is_findable(words):
                parts.tiny.append(part)
            elif is_stem or not strong:
                parts.whole.append(part)
    return Parts(parts.long, _marked(parts.whole, questions), parts.tiny)


def _spelled(texts: Iterable[str]) -> list[tuple[bytes, ...]]:
    variants = [tuple(normalized(text).split()) for text in spellings(" \n".join(texts))]
    return list(dict.fromkeys(variants))


def _is_findable(words: Sequence[bytes]) -> bool:
    return len(words) >= MIN_WORDS and sum(map(len, words)) >= MIN_BYTES


def _marked(parts: list[Part], questions: Sequence[Question]) -> list[Part]:
    """Return the parts, those marked as generic that questions with different choices have in common."""
    choices = defaultdict(set)
    for part in parts:
        choices[part.words].add(questions[part.question].choices or None)
    return [
        Part(part.question, part.words, bool(questions[part.question].choices) and len(others) > 1)
        for part in parts
        for others in (choices[part.words] - {None},)
    ]
