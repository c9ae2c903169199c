"""Errors of sources and builds; CompactdsError draws the whole tree."""

from typing import Any

from compactds.filters.errors import CompactdsError


class BuildError(CompactdsError):
    """Report a build that cannot go on."""

    code = "build_error"


class SourceError(BuildError):
    """Report a source that is missing, unreadable or of an unknown kind."""

    code = "invalid_source"


class RecordError(BuildError):
    """Report one record that cannot become a document; the message names its file and line.

    `origin` is the place; `reason` is the message without it, and without a full stop.
    """

    code = "invalid_record"

    def __init__(self, reason: str, *, origin: str = "", value: Any = None, remedy: str = "") -> None:
        super().__init__(f"{origin}: {reason}." if origin else f"{reason}.", value=value, remedy=remedy)
        self.origin = origin
        self.reason = reason


class DuplicateIdError(BuildError):
    """Report two documents with one id; the message names both places."""

    code = "duplicate_id"


class HeldIdError(BuildError):
    """Refuse to add documents whose ids the store holds already."""

    code = "held_id"


class GrownStoreError(BuildError):
    """Refuse to build over a store that was added to or deleted from since it was built."""

    code = "grown_store"


class UnknownDocumentError(BuildError):
    """Report ids of documents that the store does not hold."""

    code = "unknown_document"


class AttributeTypeError(BuildError):
    """Report an attribute whose values do not share a type."""

    code = "attribute_type"


class AttributeNameError(AttributeTypeError):
    """Report an attribute whose name a store cannot have."""


class EmptyCorpusError(BuildError):
    """Report a corpus with no documents left to index."""

    code = "empty_corpus"
