"""What the server needs of a store: the part of `Datastore` that its routes call."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from compactds.datastore.records import Hits, Passage


class SearchEngine(Protocol):
    """Answer searches, look passages up, count them, and say what the store is.

    Any number of threads may call at once. Whatever goes wrong for a reason is raised as a
    CompactdsError, which the server turns into a problem.
    """

    def search(self, *args: Any, **kwargs: Any) -> Hits | list[Hits]:
        """Return Hits for one query, a list of Hits for several.

        Called as `search(query, k=…)` with a text or a list of texts, or as `search(vectors=…, k=…)`
        with one vector or a list of them; `where`, `candidates`, `recall` and `exclude_overlap_with` are
        passed when given, `where` perhaps as a list with one expression or None for each query.
        """
        ...

    def get(self, passage_id: str) -> Passage:
        """Return one passage; raise PassageNotFoundError if there is none with this id."""
        ...

    def count(self, where: Any = None) -> int:
        """Return how many passages a where expression allows."""
        ...

    def facets(
        self, fields: Sequence[str], where: Any = None, limit: int = 10
    ) -> Mapping[str, Sequence[tuple[Any, int]]]:
        """Return the most frequent values of each field, with their counts."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return what the store is, as JSON data."""
        ...
