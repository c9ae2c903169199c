"""The account of a build: what came in, what each filter removed and why, what came out, and the time."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("compactds", "faiss-cpu", "hnswlib", "numpy", "pyarrow", "sentence-transformers", "torch")
DUPLICATES = "duplicates"
DUPLICATE_PASSAGES = "duplicate_passages"
DECONTAMINATION = "decontamination"
NOTHING_LEFT = "nothing_left"
"""The reason of a document that an editor of text emptied."""


@dataclass(slots=True)
class SourceLine:
    """Count what one source gave: what was read, what was left out, and what is in the store."""

    name: str
    documents: int = 0
    words: int = 0
    rejected: int = 0
    removed: int = 0
    removed_words: int = 0
    duplicates: int = 0
    contaminated: int = 0
    documents_out: int = 0
    words_out: int = 0
    passages: int = 0
    duplicate_passages: int = 0
    truncated: int = 0
    cached: int = 0


class Ledger:
    """Gather the counts of all stages."""

    def __init__(self, sources: Iterable[str]) -> None:
        self.sources = [SourceLine(name) for name in sources]
        self.seconds: dict[str, float] = {}
        self._removed: dict[tuple[int, str, str], list[int]] = {}
        self._removed_passages: dict[tuple[int, str, str], list[int]] = {}
        self._edited: dict[tuple[int, str, str], list[int]] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what a block takes to the seconds of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def read(self, result: Mapping[str, Any]) -> None:
        """Take the result of a task that read documents."""
        line = self.sources[result["source"]]
        line.documents += result["documents"]
        line.words += result["words"]
        line.rejected += result["rejected"]

    def reject(self, result: Mapping[str, Any]) -> None:
        """Take the documents of a task that turned out not to be usable after they were read."""
        line = self.sources[result["source"]]
        rejected = result.get("rejected", 0)
        line.documents -= rejected
        line.words -= result.get("rejected_words", 0)
        line.rejected += rejected

    def remove(self, result: Mapping[str, Any]) -> None:
        """Take what a task removed and edited."""
        line = self.sources[result["source"]]
        for name, reason, documents, words in result["removed"]:
            count = self._removed.setdefault((result["source"], name, reason), [0, 0])
            count[0] += documents
            count[1] += words
            line.removed += documents
            line.removed_words += words
            line.duplicates += documents if name in (DUPLICATES, DUPLICATE_PASSAGES) else 0
            whole = name == DECONTAMINATION and reason != NOTHING_LEFT  # of the others, edits tell
            line.contaminated += documents if whole else 0
        line.contaminated += result.get("contaminated", 0)
        for name, kind, documents, places in result.get("edits", ()):
            count = self._edited.setdefault((result["source"], name, kind), [0, 0])
            count[0] += documents
            count[1] += places

    def cut(self, result: Mapping[str, Any]) -> None:
        """Take the result of a task that split documents into passages."""
        self.remove(result)
        line = self.sources[result["source"]]
        line.documents_out += result["documents"]
        line.words_out += result["words"]
        line.passages += sum(result["passages"])

    def drop_passages(self, result: Mapping[str, Any]) -> None:
        """Take the result of a task that left passages out which it had split before."""
        self.remove(result)
        line = self.sources[result["source"]]
        line.documents_out -= sum(documents for _, _, documents, _ in result["removed"])
        for name, reason, passages, words in result["removed_passages"]:
            count = self._removed_passages.setdefault((result["source"], name, reason), [0, 0])
            count[0] += passages
            count[1] += words
            line.duplicate_passages += passages
            line.passages -= passages
            line.words_out -= words

    def encode(self, sources: Sequence[int], truncated: Sequence[int], cached: Sequence[int]) -> None:
        """Take of every shard the source it is of, and how many texts were cut and vectors kept before."""
        for source, cut, kept in zip(sources, truncated, cached, strict=True):
            self.sources[source].truncated += cut
            self.sources[source].cached += kept

    def removed(self) -> list[dict[str, Any]]:
        """Return what was removed: a record for each source, filter and reason, in order of sources."""
        return self._records(self._removed, ("filter", "reason", "documents", "words"))

    def _records(
        self, counts: Mapping[tuple[int, str, str], Sequence[int]], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        in_order = sorted(counts.items(), key=lambda item: item[0][0])
        return [
            {
                "source": self.sources[source].name,
                **dict(zip(names, (name, kind, *numbers), strict=True)),
            }
            for (source, name, kind), numbers in in_order
        ]

    def blame(self) -> str:
        """Return how many documents each filter removed, the greediest first."""
        totals: dict[str, int] = {}
        for (_, name, reason), (documents, _) in self._removed.items():
            totals[f"{name} ({reason})"] = totals.get(f"{name} ({reason})", 0) + documents
        largest_first = sorted(totals.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} removed {documents:,}" for name, documents in largest_first)

    def to_json(self) -> dict[str, Any]:
        """Return the account as it is kept in the store."""
        return {
            "sources": [asdict(line) for line in self.sources],
            "removed": self.removed(),
            "removed_passages": self._records(
                self._removed_passages, ("filter", "reason", "passages", "words")
            ),
            "edited": self._records(self._edited, ("filter", "kind", "documents", "places")),
            "passages": sum(line.passages for line in self.sources),
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
        }


def merged(ledgers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the ledgers of several segments as one: lists joined, numbers and seconds added up."""
    whole: dict[str, Any] = {}
    for ledger in ledgers:
        for name, value in ledger.items():
            known = whole.get(name)
            if isinstance(value, list):
                whole[name] = [*(known or ()), *value]
            elif name == "seconds":
                stages = {**(known or {}), **value}
                whole[name] = {
                    stage: round((known or {}).get(stage, 0) + value.get(stage, 0), 3) for stage in stages
                }
            elif type(value) is int:
                whole[name] = value + (known or 0)
            else:
                whole[name] = value
    return whole


def software() -> dict[str, str]:
    """Return the versions of what a store's content may depend on."""
    return {name: installed_version(name) for name in PACKAGES} | {"python": sys.version.split()[0]}


def installed_version(package: str) -> str:
    """Return a package's version, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
