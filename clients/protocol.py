"""What evaluation and integrations need of a store, whether it is opened in process or over HTTP."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class FoundPassage(Protocol):
    """A passage, read only."""

    @property
    def id(self) -> str:
        """Return `<document id>#<position>`."""
        ...

    @property
    def document_id(self) -> str:
        """Return the id of the document the passage is a piece of."""
        ...

    @property
    def position(self) -> int:
        """Return the place in the document, from 0."""
        ...

    @property
    def title(self) -> str:
        """Return the document's title."""
        ...

    @property
    def text(self) -> str:
        """Return the passage's text."""
        ...

    @property
    def source(self) -> str:
        """Return where the document came from."""
        ...

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Return the attributes as JSON values."""
        ...


class FoundHit(Protocol):
    """One result of a search, read only."""

    @property
    def score(self) -> float:
        """Return the similarity: higher is better."""
        ...

    @property
    def rank(self) -> int:
        """Return the place among the hits, from 1."""
        ...

    @property
    def passage(self) -> FoundPassage:
        """Return what was found."""
        ...


class Searcher(Protocol):
    """Search for a batch of queries; `Datastore` and `Client` both do."""

    def search(
        self, query: Sequence[str], /, *, k: int = 10, where: Any = None, recall: float | None = None
    ) -> Sequence[Sequence[FoundHit]]:
        """Return the `k` best hits of each query, best first, in the order of the queries."""
        ...
