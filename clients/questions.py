"""Turn evaluation questions into the texts that `exclude_overlap_with` takes."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

RUN_WORDS = 13
"""A question of so many words is compared by runs of them, a shorter one as a whole."""


class Question(Protocol):
    """Name what is read of a question."""

    @property
    def text(self) -> str:
        """Return the question without its choices."""
        ...

    @property
    def choices(self) -> Sequence[str]:
        """Return the choices in order, none if there are none."""
        ...


def overlap_texts(questions: Sequence[Question]) -> list[str]:
    """Return what passages are compared with: each question followed by its choices.

    A short question is a text without its choices as well, unless several questions begin with it: "which
    of the following is true?" says nothing alone. Blank and repeated texts are left out.
    """
    times = Counter(question.text for question in questions)
    whole = [" \n".join((question.text, *question.choices)) for question in questions]
    short = [text for text, count in times.items() if count == 1 and len(text.split()) < RUN_WORDS]
    return [text for text in dict.fromkeys((*whole, *short)) if text.strip()]
