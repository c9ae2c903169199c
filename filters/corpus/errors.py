"""The errors of corpus filters; CompactdsError draws the rest of the tree.

CompactdsError
└── FilterError           a corpus filter that cannot be made or used
    ├── UncomparableError     a document that has a value of another type than a condition wants
    └── QualityModelError     a learned quality model that cannot be trained, read or trusted
"""

from compactds.filters.errors import CompactdsError


class FilterError(CompactdsError):
    """Refuse a filter's options, or report what it lacks to work."""

    code = "invalid_filter"


class UncomparableError(FilterError):
    """Refuse a document whose value is of another type than a condition compares it with."""

    code = "uncomparable_document"


class QualityModelError(FilterError):
    """Refuse a learned quality model that cannot be trained, read or trusted."""

    code = "invalid_quality_model"
