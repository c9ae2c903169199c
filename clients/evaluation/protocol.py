"""What an evaluation needs of a store: one search method, embedded or over HTTP."""

from collections.abc import Sequence
from typing import Any, Protocol


class Passage(Protocol):
    """Name what is read of a passage."""

    @property
    def id(self) -> str:
        """Return the passage's id, unique in the store."""
        ...

    @property
    def document_id(self) -> str:
        """Return the id of the document the passage is a piece of."""
        ...


class Hit(Protocol):
    """Name what is read of a hit."""

    @property
    def score(self) -> float:
        """Return the score; higher is better."""
        ...

    @property
    def passage(self) -> Passage:
        """Return the passage that was found."""
        ...


class Searcher(Protocol):
    """Answer a batch of queries; `compactds.datastore.Datastore` and `compactds.clients.Client` do."""

    def search(
        self,
        query: Sequence[str],
        /,
        *,
        k: int,
        where: Any = None,
        recall: float | None = None,
        exclude_overlap_with: Sequence[str] | None = None,
    ) -> Sequence[Sequence[Hit]]:
        """Return at most `k` hits for each query, best first; `recall=1.0` searches exactly.

        `exclude_overlap_with` is passed only by evaluations that leave out what holds their questions.
        """
        ...
