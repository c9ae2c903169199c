"""Infer the schema of attributes as documents stream by, and turn attributes into typed columns."""

from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from compactds.datastore.attributes import arrow_schema
from compactds.filters.errors import nearest
from compactds.filters.schema import FieldType, Schema
from compactds.indexer.attribute_types import Kind, convert, kind_of, resolve, shown
from compactds.indexer.documents import Document
from compactds.indexer.errors import AttributeNameError, AttributeTypeError

RESERVED_NAMES = frozenset({"document_id", "title", "source", "id", "text"})
MAX_NAME_CHARACTERS = 128
MAX_FIELDS = 256
_WHOLE = frozenset({Kind.INTEGER, Kind.TEXT_INTEGER})
_INSTANTS = frozenset({Kind.DATE, Kind.TIMESTAMP})
_EXPECTED: dict[Kind, tuple[FieldType, frozenset[Kind]]] = {
    **dict.fromkeys(_WHOLE, (FieldType.INT64, _WHOLE)),
    Kind.DATE: (FieldType.DATE, _INSTANTS),
    Kind.TIMESTAMP: (FieldType.TIMESTAMP, _INSTANTS),
}
"""What one takes an attribute for by its first value, and the values among which it stays no less."""
_WIDER = frozenset({FieldType.FLOAT64, FieldType.STRING})


class AttributeInference:
    """Watch attributes go by and settle on one type for each.

    Integers and floats share float64, dates and timestamps share timestamp. Strings that all are ISO
    8601 dates or timestamps become dates or timestamps; with any other string among them they stay
    strings. csv text is read as the narrowest type that fits all of a column. Anything else that mixes
    is an error. A field in `overrides` gets the type given there, and its values must convert to it.
    """

    def __init__(self, overrides: Mapping[str, FieldType] | None = None) -> None:
        self._overrides = dict(overrides or {})
        # For each field the kinds seen, each with the place and the value that showed it first.
        self._seen: dict[str, dict[Kind, tuple[str, str]]] = {}

    def observe(self, document: Document) -> None:
        """Take note of a document's attributes.

        Raise AttributeTypeError for a value that fits no type with those before it, or not the type it
        was given; AttributeNameError for a reserved, empty or overlong name, and for one field too many.
        """
        for name, value in document.attributes.items():
            seen = self._seen.get(name)
            if seen is None:
                self._check_name(name, document.origin)
                seen = self._seen[name] = {}
            if value is None:
                continue
            if name in self._overrides:
                self._check_override(name, value, document.origin)
            elif Kind.STRING not in seen or not isinstance(value, str):
                kind = kind_of(value, document.attributes_are_text)
                self._add(name, kind, document.origin, shown(value), value)

    def misfit(self, document: Document) -> str:
        """Take note of a document's attributes if they fit; else say why not, and take note of none.

        Raise AttributeNameError as `observe` does.
        """
        before = {name: dict(self._seen[name]) for name in document.attributes if name in self._seen}
        try:
            self.observe(document)
        except AttributeNameError:
            raise
        except AttributeTypeError as error:
            for name in document.attributes:
                self._seen.pop(name, None)
            self._seen |= before
            return error.message.removeprefix(f"{document.origin}: ").removesuffix(".")
        return ""

    def copy(self) -> "AttributeInference":
        """Return an inference that has seen the same, and goes on by itself."""
        copied = AttributeInference(self._overrides)
        copied._seen = {name: dict(kinds) for name, kinds in self._seen.items()}
        return copied

    def merge(self, data: Mapping[str, Any]) -> None:
        """Take note of what another inference, over documents that follow, returned from `to_json`.

        Raise AttributeTypeError as `observe` does, and take note of nothing then.
        """
        merged = self.copy()
        merged._merge(data)
        self._seen = merged._seen

    def _merge(self, data: Mapping[str, Any]) -> None:
        for name, kinds in data.items():
            if name not in self._seen:
                self._check_name(name, next((origin for origin, _ in kinds.values()), name))
                self._seen[name] = {}
            for kind, (origin, example) in kinds.items():
                self._add(name, Kind(kind), origin, example, example)

    def names(self) -> frozenset[str]:
        """Return the names of all attributes seen."""
        return frozenset(self._seen)

    def remarks(self, known: Container[str] = ()) -> Iterator[str]:
        """Yield a sentence for each type that was given and not needed, and for each that did not last.

        Integers become float64 with the first number that is none; dates, and integers of csv, become strings
        with the first text that is none. Of `known` fields, which a store has already, that is not said.
        """
        for name in sorted(self._overrides.keys() - self._seen.keys()):
            near = nearest(name, self._seen)
            meant = f" Did you mean {near!r}?" if near else ""
            yield f"No document has the attribute {name!r}, which is given a type.{meant}"
        for name, seen in sorted(self._seen.items()):
            was, kinds = _EXPECTED.get(next(iter(seen), Kind.STRING), (None, frozenset()))
            settled = self._type(name)
            if was is None or settled not in _WIDER or name in known or name in self._overrides:
                continue
            origin, example = next(iter(seen.values()))
            others = (witness for kind, witness in seen.items() if kind not in kinds)
            later, other = seen.get(Kind.STRING) or next(others)  # plain text widens more than numbers do
            yield (
                f"Attribute {name!r} is {settled} and not {was}: it is {example} at {origin}, "
                f"and {other} at {later}."
            )

    def schema(self) -> Schema:
        """Return the type of every field seen, in order of name."""
        return Schema({name: self._type(name) for name in sorted(self._seen)})

    def to_json(self) -> dict[str, Any]:
        """Return what was seen, small enough to be saved after every shard."""
        return {
            name: {kind.value: list(witness) for kind, witness in seen.items()}
            for name, seen in self._seen.items()
        }

    @classmethod
    def from_json(
        cls, data: Mapping[str, Any], overrides: Mapping[str, FieldType] | None = None
    ) -> "AttributeInference":
        """Go on from what `to_json` returned; raise ValueError for an unknown kind."""
        inference = cls(overrides)
        inference._seen = {
            name: {Kind(kind): (origin, value) for kind, (origin, value) in seen.items()}
            for name, seen in data.items()
        }
        return inference

    def _type(self, name: str) -> FieldType:
        return self._overrides.get(name) or resolve(self._seen[name]) or FieldType.STRING

    def _add(self, name: str, kind: Kind, origin: str, example: str, value: Any) -> None:
        seen = self._seen[name]
        if kind in seen:
            return
        if resolve([*seen, kind]) is None:
            other, (other_origin, other_example) = next(
                ((known, witness) for known, witness in seen.items() if resolve([known, kind]) is None),
                next(iter(seen.items())),
            )
            raise AttributeTypeError(
                f"{origin}: attribute {name!r} is {with_article(kind)}, {example}, "
                f"but {with_article(other)}, {other_example}, at {other_origin}.",
                value=value,
                remedy=_override_remedy(name),
            )
        seen[kind] = (origin, example)

    def _check_override(self, name: str, value: Any, origin: str) -> None:
        kind = self._overrides[name]
        try:
            convert(value, kind)
        except ValueError as error:
            raise AttributeTypeError(
                f"{origin}: attribute {name!r} is to be {kind.value}, but {error}.",
                value=value,
                remedy=f'Correct the value, or give the field another type, such as "{name}" = "string". '
                "--skip-invalid leaves out what does not fit.",
            ) from None

    def _check_name(self, name: str, origin: str) -> None:
        reason = ""
        if name in RESERVED_NAMES:
            reason = f"attribute {name!r} has a name that every passage uses itself"
        elif not name.strip() or not name.isprintable():
            reason = f"attribute name {name!r} is empty or holds characters that cannot be shown"
        elif len(name) > MAX_NAME_CHARACTERS:
            reason = (
                f"attribute name {shown(name)} has {len(name)} characters; at most {MAX_NAME_CHARACTERS} fit"
            )
        elif len(self._seen) >= MAX_FIELDS:
            reason = f"attribute {name!r} is one more than the {MAX_FIELDS} a store can have"
        if reason:
            raise AttributeNameError(
                f"{origin}: {reason}.",
                value=name,
                remedy="Rename it in the data, or name the attributes to keep in the source's `attributes`.",
            )


def to_arrow(records: Sequence[Mapping[str, Any]], schema: Schema) -> pa.Table:
    """Return a table of the schema's columns, one row a record; missing values are null.

    Values may be those of a Document or what JSON makes of them (dates as ISO 8601 strings). Fields
    outside the schema are left out. Raise AttributeTypeError for a value that is not of its type.
    """
    types = arrow_schema(schema)
    columns = []
    for name in schema:
        values = [_converted(record.get(name), name, schema[name]) for record in records]
        columns.append(pa.array(values, type=types.field(name).type))
    return pa.Table.from_arrays(columns, schema=types)


def to_jsonable(attributes: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Return typed attributes as JSON values, as a Passage holds them, in the schema's order.

    Dates and timestamps are ISO 8601 strings (timestamps in UTC, ending in +00:00); missing ones are
    absent. Raise AttributeTypeError for a value that is not of its type.
    """
    values = ((name, _converted(attributes.get(name), name, schema[name])) for name in schema)
    return {name: _plain(value) for name, value in values if value is not None}


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Document's attributes as JSON values before their types are known.

    `to_arrow` and `to_jsonable` give the same for the result as for the attributes themselves.
    """
    return {name: _plain(value) for name, value in attributes.items()}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _converted(value: Any, name: str, kind: FieldType) -> Any:
    try:
        return convert(value, kind)
    except ValueError as error:
        raise AttributeTypeError(
            f"attribute {name!r} is {kind.value}, but {error}.", value=value, remedy=_override_remedy(name)
        ) from None


def with_article(kind: Kind) -> str:
    """Return a kind as a sentence names one: "an integer"."""
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _override_remedy(name: str) -> str:
    return (
        f'Make the values alike, or give the field a type: `{name} = "string"` under [attributes] '
        f"in the recipe, or --attribute {name}=string. --skip-invalid leaves out what does not fit."
    )
