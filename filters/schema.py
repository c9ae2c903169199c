"""The typed attributes of a store: what a field may hold and what each field is called."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from compactds.filters.errors import UnknownFieldError, nearest, reported, shown


class FieldType(StrEnum):
    """Name the types an attribute can have; a value of any type may be missing."""

    BOOL = "bool"
    INT64 = "int64"
    FLOAT64 = "float64"
    STRING = "string"
    DATE = "date"
    TIMESTAMP = "timestamp"
    STRING_LIST = "list<string>"
    INT64_LIST = "list<int64>"

    @property
    def is_list(self) -> bool:
        """Tell whether a value is a list of scalars."""
        return self in (FieldType.STRING_LIST, FieldType.INT64_LIST)

    @property
    def element(self) -> "FieldType":
        """Return the type of one element: the type itself unless it is a list."""
        match self:
            case FieldType.STRING_LIST:
                return FieldType.STRING
            case FieldType.INT64_LIST:
                return FieldType.INT64
            case _:
                return self


_NAMES_SHOWN = 20

DOCUMENT_ID = "document_id"
"""The field of every store that holds the id of a passage's document."""

LONGEST_NAME = 1_000
"""Characters of a name that is compared with others to find the nearest."""


@dataclass(frozen=True, slots=True)
class Schema:
    """Map field names to types, in a fixed order."""

    fields: Mapping[str, FieldType]

    def __getitem__(self, name: str) -> FieldType:
        """Return the type of a field; raise UnknownFieldError naming the nearest valid one."""
        if isinstance(name, str) and name in self.fields:
            return self.fields[name]
        readable = isinstance(name, str) and len(name) <= LONGEST_NAME
        near = self._near(name) if readable else None
        known = ", ".join(islice(self.fields, _NAMES_SHOWN)) or "none"
        if len(self.fields) > _NAMES_SHOWN:
            known += f" and {len(self.fields) - _NAMES_SHOWN} more"
        remedy = f"Did you mean {near!r}?" if near else f"Known fields: {known}."
        raise UnknownFieldError(
            f"unknown field {shown(name)}.", value=reported(name), remedy=remedy, field=name
        )

    def _near(self, name: str) -> str | None:
        """Return the field whose name is nearest, capitals apart, or None if none is near.

        `id` is what a document's own id is called in its source.
        """
        folded = {known.casefold(): known for known in self.fields}
        asked = name.casefold()
        near = DOCUMENT_ID if asked == "id" and DOCUMENT_ID in folded else nearest(asked, folded)
        return None if near is None else folded[near]

    def __contains__(self, name: object) -> bool:
        return name in self.fields

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def to_json(self) -> dict[str, str]:
        """Return names and type names, as the manifest keeps them."""
        return {name: kind.value for name, kind in self.fields.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> "Schema":
        """Read what `to_json` wrote; raise ValueError for an unknown type name."""
        return cls({name: FieldType(kind) for name, kind in data.items()})
