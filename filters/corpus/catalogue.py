"""Every corpus filter by the name recipes call it, and how a recipe's table becomes one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from compactds.filters.corpus.base import CorpusFilter, TextEditor
from compactds.filters.corpus.budget import Budget
from compactds.filters.corpus.c4 import C4Lines, C4Paragraphs, C4Quality
from compactds.filters.corpus.errors import FilterError
from compactds.filters.corpus.fineweb import FinewebQuality
from compactds.filters.corpus.gopher import GopherQuality
from compactds.filters.corpus.gopher_repetition import GopherRepetition
from compactds.filters.corpus.language import Language
from compactds.filters.corpus.learned_quality import LearnedQuality
from compactds.filters.corpus.length import Garbled, Length
from compactds.filters.corpus.options import Option, options_of, read_options
from compactds.filters.corpus.personal_data import PersonalData
from compactds.filters.corpus.quality_model import Encode
from compactds.filters.corpus.selection import Sample, Where
from compactds.filters.errors import nearest, reported, shown

Kind = Literal["filter", "editor", "budget"]
AnyFilter: TypeAlias = CorpusFilter | TextEditor | Budget


@dataclass(frozen=True, slots=True)
class Entry:
    """Describe one filter: what recipes call it, what it does in a sentence, and its options."""

    name: str
    kind: Kind
    about: str
    options: tuple[Option, ...]
    made: type


def _entry(made: type, kind: Kind) -> Entry:
    options = options_of(made)
    name = next(known.default for known in options if known.name == "name")
    return Entry(name, kind, (made.__doc__ or "").splitlines()[0], options, made)


_FILTERS = (
    Length,
    Garbled,
    Language,
    C4Quality,
    C4Paragraphs,
    GopherQuality,
    GopherRepetition,
    FinewebQuality,
    LearnedQuality,
    Sample,
    Where,
)
_EDITORS = (C4Lines, PersonalData)

CATALOGUE: Mapping[str, Entry] = {
    entry.name: entry
    for entry in (
        *(_entry(made, "filter") for made in _FILTERS),
        *(_entry(made, "editor") for made in _EDITORS),
        _entry(Budget, "budget"),
    )
}


def make_filter(
    table: Mapping[str, Any], *, folder: Path = Path(), encode: Encode | None = None
) -> AnyFilter:
    """Return the filter that one table of a recipe names, as `{"filter": "length", "min_words": 50}`.

    Relative paths among its options start at `folder`. `encode` makes the embeddings that a learned
    quality model may want.

    Raises FilterError for an unknown filter or option and for a value of a wrong type or size.
    """
    entry = entry_of(table)
    options = {key: value for key, value in table.items() if key != "filter"}
    read = read_options(entry.made, options, entry.name)
    known: dict[str, Any] = {
        key: folder / value.expanduser() if isinstance(value, Path) else value for key, value in read.items()
    }
    if entry.made is LearnedQuality:
        known["encode"] = encode
    made: AnyFilter = entry.made(**known)
    return made


def entry_of(table: Mapping[str, Any]) -> Entry:
    """Return the catalogue's entry for a recipe's table; raise FilterError if it names none."""
    if not isinstance(table, Mapping) or "filter" not in table:
        raise FilterError(
            f"a filter is a table with the key 'filter', not {shown(table)}.",
            value=reported(table),
            remedy=f"Filters: {', '.join(CATALOGUE)}.",
        )
    name = table["filter"]
    if isinstance(name, str) and name in CATALOGUE:
        return CATALOGUE[name]
    near = nearest(str(name)[:100], CATALOGUE)
    remedy = f"Did you mean {near!r}?" if near else f"Filters: {', '.join(CATALOGUE)}."
    raise FilterError(f"unknown filter {shown(name)}.", value=reported(name), remedy=remedy)
