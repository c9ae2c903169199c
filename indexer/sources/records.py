"""Turn records into documents: which key is which, what a document must have, what is an attribute."""

import re
from collections.abc import Container, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compactds.indexer.documents import Document, content_id
from compactds.indexer.errors import RecordError, SourceError
from compactds.indexer.sources.options import FIELDS, SKIP_REMEDY, InputFile, Notices, Record, SourceOptions
from compactds.indexer.sources.values import attribute_value, clean_text, flatten

MAX_ID_CHARACTERS = 512
_SHOWN_KEYS = 20
_SHOWN_CHARACTERS = 60
_UNSAFE_IN_ID = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
RECORD_KEYS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "_id", "doc_id", "document_id"),
    "text": ("text", "contents", "content", "body"),
    "title": ("title",),
    "source": ("source",),
    "vector": (),
}
_ALIASES = frozenset(key for keys in RECORD_KEYS.values() for key in keys)
_FILE_KEYS: Mapping[str, tuple[str, ...]] = {name: (name,) for name in FIELDS} | {"vector": ()}


class DocumentShape:
    """Make documents of the records of one source, all with the same options."""

    def __init__(
        self,
        options: SourceOptions,
        source: str,
        *,
        files: bool = False,
        attributes_are_text: bool = False,
        notices: Notices | None = None,
    ) -> None:
        """Take `source` for documents that name none; `files` tells that each file is one document.

        `notices` is told if text is taken from a key of another name that nobody has named.
        """
        self._keys = dict(_FILE_KEYS) if files else record_keys(options)
        self._named = set() if files else set(options.fields)
        self._source = source
        self._kept = options.attributes
        self._ids = options.ids
        self._files = files
        self.vector_key = self._keys["vector"][0] if self._keys["vector"] else None
        self._allow_empty_text = options.allow_empty_text or self.vector_key is not None
        self._attributes_are_text = attributes_are_text
        self._dimension: int | None = None
        self._notices = None if files or "text" in self._named else notices

    def check_columns(self, columns: Iterable[str], origin: str) -> None:
        """Raise SourceError if a table has no column for text, or none of one that `fields` names."""
        known = set(columns)
        for name in ("text", *sorted(self._named)):
            keys = self._keys[name]
            if not any(f"{key}.".startswith(f"{column}.") for key in keys for column in known):
                raise SourceError(
                    f"{origin} has no column {' or '.join(map(repr, keys))} for {name}.",
                    value=sorted(known),
                    remedy=f"The columns are: {_listed(sorted(known))}. {_naming(name, keys, sorted(known))}",
                )

    def columns(self, available: Iterable[str]) -> list[str] | None:
        """Return the columns worth reading, None for all: those that mean something here or are kept."""
        if self._kept is None:
            return None
        wanted = {key.split(".")[0] for keys in self._keys.values() for key in keys}
        wanted |= {key for keys in self._keys.values() for key in keys}
        wanted |= {name.split(".")[0] for name in self._kept} | set(self._kept)
        return [name for name in available if name in wanted]

    def document(self, record: Record, file: InputFile | None = None) -> Document:
        """Return the document of a record of a file, if it is in one.

        Raise RecordError naming its place, the field and the remedy.
        """
        try:
            values = flatten(record.values)
        except ValueError as error:
            raise RecordError(str(error), origin=record.origin, remedy=SKIP_REMEDY) from None
        id_key, identifier = self._id(values, record.origin)
        text_key, text = self._text(values, record.origin)
        title_key, title = self._line(values, "title", record.origin)
        source_key, source = self._line(values, "source", record.origin)
        if identifier and self._ids != "record" and not self._files:
            identifier = f"{file.name}:{identifier}" if self._ids == "file" and file else ""
        used = {id_key, text_key, title_key, source_key, self.vector_key}
        return Document(
            id=identifier or content_id(title, text),
            text=text,
            title=title,
            source=source or self._source,
            origin=clean_text(record.origin),
            attributes=self._attributes(values, used, record.origin),
            vector=self._vector(values, record.origin),
            id_from_content=not identifier,
            attributes_are_text=self._attributes_are_text,
        )

    def _attributes(
        self, values: Mapping[str, Any], used: Container[str | None], origin: str
    ) -> dict[str, Any]:
        try:
            return {
                clean_text(name): attribute_value(value)
                for name, value in values.items()
                if name not in used and self._keeps(name) and not (value is None and name in _ALIASES)
            }
        except ValueError as error:
            raise RecordError(str(error), origin=origin, remedy=SKIP_REMEDY) from None

    def _find(self, values: Mapping[str, Any], field: str) -> tuple[str | None, Any]:
        """Return the first key of a field with a value, and the value; else the first key present."""
        present = None
        for key in self._keys[field]:
            if key in values:
                if values[key] is not None:
                    return key, values[key]
                present = present or key
        return present, None

    def _keeps(self, name: str) -> bool:
        if not name:
            return False
        if self._kept is None or name in self._kept:
            return True
        return any(name.startswith(f"{kept}.") for kept in self._kept)

    def _id(self, values: Mapping[str, Any], origin: str) -> tuple[str | None, str]:
        key, value = self._find(values, "id")
        if value is None:
            if "id" in self._named:
                raise _missing("id", self._keys["id"], values, origin)
            return key, ""
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise _wrong_type("id", key, value, "a string or an integer", origin)
        identifier = str(value)
        reason = ""
        if not identifier.strip():
            reason = f"the id in {key!r} is empty"
        elif len(identifier) > MAX_ID_CHARACTERS:
            reason = f"the id in {key!r} has {len(identifier):,} characters; at most {MAX_ID_CHARACTERS} fit"
        elif _UNSAFE_IN_ID.search(identifier):
            reason = f"the id {identifier!r} in {key!r} holds control characters"
        if reason:
            raise RecordError(reason, origin=origin, value=value, remedy=SKIP_REMEDY)
        return key, identifier

    def _text(self, values: Mapping[str, Any], origin: str) -> tuple[str | None, str]:
        key, value = self._find(values, "text")
        if value is None and key is None:
            raise _missing("text", self._keys["text"], values, origin)
        if value is None and self._allow_empty_text:
            return key, ""
        if value is None:
            raise RecordError(f"the text in {key!r} is empty", origin=origin, remedy=SKIP_REMEDY)
        if not isinstance(value, str):
            raise _wrong_type("text", key, value, "a string", origin)
        text = clean_text(value)
        if not self._allow_empty_text and (not text or text.isspace()):
            raise RecordError(f"the text in {key!r} is empty", origin=origin, value=value, remedy=SKIP_REMEDY)
        if self._notices is not None and key is not None and key != "text":
            self._notices.add(Notices(text_key=key, first_text_key=origin))
            self._notices = None  # once is enough
        return key, text

    def _line(self, values: Mapping[str, Any], field: str, origin: str) -> tuple[str | None, str]:
        """Return a title or source: one line of text, "" where there is none."""
        key, value = self._find(values, field)
        if value is None:
            return key, ""
        if isinstance(value, str):
            return key, " ".join(clean_text(value).split())
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return key, str(value)
        raise _wrong_type(field, key, value, "a string", origin)

    def _vector(self, values: Mapping[str, Any], origin: str) -> NDArray[np.float32] | None:
        if self.vector_key is None:
            return None
        value = values.get(self.vector_key)
        if value is None:
            raise _missing("vector", (self.vector_key,), values, origin)
        try:
            with np.errstate(over="ignore"):
                vector = np.asarray(value).astype(np.float32, casting="same_kind")
        except (TypeError, ValueError):
            raise _wrong_type("vector", self.vector_key, value, "a list of numbers", origin) from None
        reason = ""
        if vector.ndim != 1 or not len(vector):
            reason = f"the vector in {self.vector_key!r} has shape {vector.shape}, not one dimension"
        elif not np.isfinite(vector).all():
            reason = f"the vector in {self.vector_key!r} holds NaN, or a number too large for float32"
        elif not vector.any():
            reason = f"the vector in {self.vector_key!r} is zero"
        elif self._dimension not in (None, len(vector)):
            reason = f"the vector has {len(vector)} numbers, those before it {self._dimension}"
        if reason:
            raise RecordError(reason, origin=origin, remedy=SKIP_REMEDY)
        self._dimension = len(vector)
        return vector


def record_keys(options: SourceOptions) -> dict[str, tuple[str, ...]]:
    """Return the keys to try for each of our names; raise SourceError for a name that is not ours."""
    for name, key in options.fields.items():
        if name not in FIELDS or not key:
            raise SourceError(
                f"fields.{name} = {key!r} is not a field of a document.",
                value=name,
                remedy=f"`fields` maps {', '.join(FIELDS)} to keys of the records.",
            )
    return {
        name: (options.fields[name],) if name in options.fields else keys
        for name, keys in RECORD_KEYS.items()
    }


def _missing(field: str, keys: tuple[str, ...], values: Mapping[str, Any], origin: str) -> RecordError:
    known = sorted(str(key) for key in values)
    has = f"The record has {_listed(known)}." if known else "The record has no keys."
    return RecordError(
        f"no {field}: {' or '.join(map(repr, keys))} is missing",
        origin=origin,
        remedy=f"{SKIP_REMEDY} {has} {_naming(field, keys, known)}",
    )


def _naming(field: str, keys: Iterable[str], known: list[str]) -> str:
    """Return how to say which key holds a field, with the one that looks most like it."""
    near = [found for key in keys for found in get_close_matches(key, known, n=1, cutoff=0.6)]
    if field == "vector":
        return f"Name the key with --vector-field{f' {near[0]}' if near else ''}."
    example = near[0] if near else "key"
    return f"If another key holds the {field}, name it in a recipe, under [[sources]]: " + (
        f'fields = {{ {field} = "{example}" }}.'
    )


def _listed(names: list[str]) -> str:
    """Return the first names of many, cut where they are too long to read."""
    shown = [
        clean_text(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…")
        for name in names
    ]
    more = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    return ", ".join(shown[:_SHOWN_KEYS]) + more


def _wrong_type(field: str, key: str | None, value: Any, wanted: str, origin: str) -> RecordError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
    return RecordError(
        f"the {field} in {key!r} must be {wanted}, not {type(value).__name__} {shown}",
        origin=origin,
        value=value,
        remedy=f"{SKIP_REMEDY} {_naming(field, (), [])}",
    )
