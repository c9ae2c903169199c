"""Which documents are chosen by their id or attributes, whatever their text says."""

from dataclasses import dataclass
from functools import cached_property

from xxhash import xxh3_64_intdigest

from compactds.filters.corpus.base import Drop, Record
from compactds.filters.corpus.conditions import Condition
from compactds.filters.corpus.options import option


@dataclass(frozen=True, slots=True)
class Sample:
    """Keep a share of the documents, chosen by a hash of their ids.

    The choice depends on nothing but id and seed: not on order, workers or other documents. With one seed
    a smaller sample is part of every larger one.
    """

    share: float = option(about="The share of documents to keep.", minimum=0, maximum=1)
    seed: int = option(0, about="Another seed chooses other documents.", minimum=0, maximum=2**64 - 1)
    name: str = option("sample", about="What the ledger calls the filter.")

    def judge(self, document: Record) -> Drop | None:
        """Return the document's place between 0 and 1 if it is not in the sample."""
        place = sample_place(document.id, self.seed)
        return Drop(self.name, "not_sampled", place, self.share) if place >= self.share else None


def sample_place(document_id: str, seed: int) -> float:
    """Return a number from 0 to below 1, evenly spread over ids: 53 bits of XXH3-64."""
    return (xxh3_64_intdigest(document_id.encode("utf-8", "surrogatepass"), seed=seed) >> 11) / 2**53


@dataclass(frozen=True)
class Where:
    """Keep the documents that a where expression allows, over their id, title, source and attributes."""

    where: str = option(about="An SQL condition: lang = 'en' AND year >= 2015.")
    name: str = option("where", about="What the ledger calls the filter.")

    def __post_init__(self) -> None:
        self._condition  # noqa: B018  # a condition that cannot be read is refused at once

    @property
    def attributes(self) -> tuple[str, ...]:
        """Return the names of the attributes that the condition asks for, sorted."""
        return self._condition.attributes

    @cached_property
    def _condition(self) -> Condition:
        return Condition(self.where)

    def judge(self, document: Record) -> Drop | None:
        """Return the condition if the document does not meet it; raises FilterError for a wrong type."""
        return None if self._condition.allows(document) else Drop(self.name, "not_allowed", self.where)
