"""Errors of stores, encoders and searches; CompactdsError draws the whole tree."""

from compactds.filters.errors import CompactdsError


class StoreError(CompactdsError):
    """Report a store that cannot be opened, read or written."""

    code = "store_error"


class StoreNotFoundError(StoreError):
    """Report a path that holds no store."""

    code = "store_not_found"


class StoreFormatError(StoreError):
    """Report a store of another format version, or a manifest that is not one."""

    code = "unsupported_format"


class DamagedStoreError(StoreError):
    """Report a file that is missing, truncated, or fails its checksum."""

    code = "damaged_store"


class StoreBusyError(StoreError):
    """Report a store that another process is building."""

    code = "store_busy"


class EncoderError(CompactdsError):
    """Report an encoder that cannot be loaded or used."""

    code = "encoder_error"


class EncoderNotFoundError(EncoderError):
    """Report a model found neither as a path, nor in a package, nor on the hub."""

    code = "encoder_not_found"


class EncoderMismatchError(EncoderError):
    """Refuse to query a store with another encoder than it was built with."""

    code = "encoder_mismatch"


class SearchError(CompactdsError):
    """Refuse a search whose parameters make no sense."""

    code = "invalid_search"


class UnsupportedModeError(SearchError):
    """Refuse a mode of search this version does not have."""

    code = "unsupported_mode"


class VectorError(SearchError):
    """Refuse a vector of the wrong dimension, or one that is zero or not finite."""

    code = "invalid_vector"


class FewQueriesError(SearchError):
    """Refuse to calibrate with so few queries that they say next to nothing."""

    code = "few_queries"


class PassageNotFoundError(CompactdsError):
    """Report a passage id the store does not hold."""

    code = "passage_not_found"
