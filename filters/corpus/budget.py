"""How much of each source, or of all, may enter: documents are admitted in the order of the input."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compactds.filters.corpus.base import Drop
from compactds.filters.corpus.options import option

_ALL = ""


@dataclass(slots=True)
class Budget:
    """Admit documents until a source, or the whole corpus, has its share of words or documents.

    Unlike a filter it remembers what was admitted, so it must see every document that filters keep, once,
    in the order of the input, in one place: the outcome is then the same whatever the number of workers.
    The document that crosses a limit is not admitted; later ones that still fit are.
    """

    words: int | None = option(None, about="The most words.", minimum=0)
    documents: int | None = option(None, about="The most documents.", minimum=0)
    per_source: bool = option(True, about="Count for each source; if false, for all together.")
    name: str = option("budget", about="What the ledger calls the budget.")
    _spent: dict[str, tuple[int, int]] = field(default_factory=dict, init=False, repr=False)

    def refuse(self, source: str, words: int) -> Drop | None:
        """Return which limit a document of so many words would break; nothing is counted."""
        spent_words, spent_documents = self._spent.get(self._account(source), (0, 0))
        if self.documents is not None and spent_documents + 1 > self.documents:
            return Drop(self.name, "enough_documents", spent_documents + 1, self.documents)
        if self.words is not None and spent_words + words > self.words:
            return Drop(self.name, "enough_words", spent_words + words, self.words)
        return None

    def admit(self, source: str, words: int) -> Drop | None:
        """Count a document of so many words as admitted, or return which limit it would break."""
        drop = self.refuse(source, words)
        if drop is None:
            account = self._account(source)
            spent_words, spent_documents = self._spent.get(account, (0, 0))
            self._spent[account] = (spent_words + words, spent_documents + 1)
        return drop

    def _account(self, source: str) -> str:
        return source if self.per_source else _ALL

    def to_json(self) -> dict[str, Any]:
        """Return what was admitted, for a build to go on from: words and documents by source."""
        return {source: list(spent) for source, spent in self._spent.items()}

    def restore(self, spent: Mapping[str, Any]) -> None:
        """Go on from what `to_json` returned."""
        self._spent = {source: (int(words), int(documents)) for source, (words, documents) in spent.items()}
