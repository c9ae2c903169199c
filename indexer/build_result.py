"""Say what a build made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compactds.configs.sizes import counted
from compactds.datastore.manifest import Manifest
from compactds.datastore.memory import peak_resident_bytes


@dataclass(frozen=True, slots=True)
class ReplacedStore:
    """Say what store a build took the place of."""

    name: str
    documents: int
    passages: int

    def __str__(self) -> str:
        held = f"{counted(self.passages, 'passage')} of {counted(self.documents, 'document')}"
        return f"{self.name!r}, {held}"


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Say what a build made, and what it took.

    `resumed` tells that it went on from an earlier run, `unchanged` that the store was up to date and
    nothing was done. `removed` counts documents that filters left out, `duplicates` and `contaminated` among
    them. `truncated` counts passages an encoder could not read whole, `cached` vectors that came from the
    embedding cache. `duplicate_passages` counts those left out for repeating another. `seconds` include
    `loading_s`, what it took to load encoders. `replaced` is the store that was there before. `takes_text`
    tells whether the store can be asked with text: one of ready-made vectors without an encoder cannot.
    """

    path: Path
    documents: int
    passages: int
    seconds: float
    resumed: bool
    unchanged: bool
    rejected: int
    duplicates: int
    truncated: int
    index: str
    peak_rss_bytes: int
    bytes_per_passage: float
    removed: int = 0
    contaminated: int = 0
    loading_s: float = 0.0
    cached: int = 0
    duplicate_passages: int = 0
    replaced: ReplacedStore | None = None
    takes_text: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what a run ended with: the published manifest, and the account of the segment it made.

    `resumed` tells that it went on from an earlier run, `unchanged` that there was nothing to do. `replaced`
    is the manifest that was there before.
    """

    manifest: Manifest
    account: Mapping[str, Any]
    resumed: bool
    unchanged: bool
    replaced: Manifest | None = None

    def total(self, name: str) -> int:
        """Return a count of the account, added up over all sources."""
        return sum(source[name] for source in self.account.get("sources", ()))


def build_result(out: Path, outcome: Outcome, seconds: float) -> BuildResult:
    """Return what a build that took so many seconds, and ended so, made in the folder `out`."""
    manifest, account = outcome.manifest, outcome.account
    disk = sum(record.bytes for segment in manifest.segments for record in segment.files.values())
    return BuildResult(
        path=out,
        documents=manifest.documents,
        passages=manifest.passages,
        seconds=seconds,
        resumed=outcome.resumed,
        unchanged=outcome.unchanged,
        rejected=outcome.total("rejected"),
        duplicates=outcome.total("duplicates"),
        truncated=account.get("truncated", 0),
        index=manifest.segments[0].index.kind if manifest.segments else "none",
        peak_rss_bytes=peak_resident_bytes(),
        bytes_per_passage=disk / max(1, manifest.passages),
        removed=outcome.total("removed"),
        contaminated=outcome.total("contaminated"),
        loading_s=account.get("seconds", {}).get("load encoders", 0.0),
        cached=account.get("cached", 0),
        duplicate_passages=outcome.total("duplicate_passages"),
        replaced=None if outcome.replaced is None else replaced_store(outcome.replaced),
        takes_text=manifest.encoder.kind != "vectors",
    )


def replaced_store(manifest: Manifest) -> ReplacedStore:
    """Return what is said of a store that another takes the place of."""
    return ReplacedStore(manifest.name, manifest.documents, manifest.passages)
