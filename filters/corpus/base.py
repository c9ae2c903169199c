"""What a corpus filter is: a small object that keeps a document, or drops it with a reason and a value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Record(Protocol):
    """Name what a corpus filter may look at: one input record before it is split into passages."""

    @property
    def id(self) -> str:
        """Return the document's id, unique in its corpus."""
        ...

    @property
    def text(self) -> str:
        """Return the text that is judged."""
        ...

    @property
    def title(self) -> str:
        """Return the title, empty if there is none."""
        ...

    @property
    def source(self) -> str:
        """Return what the recipe calls the source."""
        ...

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Return the remaining fields."""
        ...


@dataclass(frozen=True, slots=True)
class Drop:
    """Say that a filter drops a document, and why.

    `reason` is a stable snake_case word that the ledger counts by; `value` is what was measured, next to
    the limit it broke: a count, a share, a language, the id of the copy that is kept.
    """

    filter: str
    reason: str
    value: float | str
    limit: float | str | None = None


class CorpusFilter(Protocol):
    """Judge documents one at a time, by nothing but the document itself.

    Judging changes nothing in the filter, so that one may be used by many workers, or be made anew in
    each of them from its recipe, with the same outcome.
    """

    @property
    def name(self) -> str:
        """Return what recipes and the ledger call the filter."""
        ...

    def judge(self, document: Record) -> Drop | None:
        """Return why the document is dropped, or None if it is kept."""
        ...


class TextEditor(Protocol):
    """Change the text of documents, as a filter that masks personal data does."""

    @property
    def name(self) -> str:
        """Return what recipes and the ledger call the editor."""
        ...

    def edit(self, text: str) -> tuple[str, Mapping[str, int]]:
        """Return the new text, and how many places were changed by kind of change."""
        ...
