"""The manifest: what a store is, and the only file of it that is ever replaced."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compactds.datastore.deletions import DELETION_NAME, DeletionRecord
from compactds.datastore.encoders.base import EncoderSpec
from compactds.datastore.errors import DamagedStoreError, StoreError, StoreFormatError, StoreNotFoundError
from compactds.datastore.files import FileRecord, write_atomic
from compactds.filters.errors import CompactdsError
from compactds.filters.schema import Schema

FORMAT = 1
MANIFEST_NAME = "manifest.json"
HELD_OUT = "passages of the store"
SEGMENT_NAME = re.compile(r"[0-9]+-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """Hold what a segment's ANN index is: its kind, its file and the parameters it was built with.

    `ram_bytes` is what it holds in memory when open; `reason` says why this kind was chosen.
    """

    kind: str
    file: str
    parameters: Mapping[str, Any]
    ram_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class CalibrationPoint:
    """Hold one measured point: an effort with K candidates, its recall@10 and its cost a query.

    `recall` was measured on passages of the store; `promised` is what a query never seen may rely on.
    """

    effort: int
    candidates: int
    recall: float
    promised: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """Hold the memory that a store takes, as it was predicted or measured.

    `serving_bytes` is the memory of a process that has opened the store and searched without a filter,
    `serving_base_bytes` of it what such a process takes without a store. `building_bytes` is the most that
    the build's processes took together, 0 if it was not predicted. Mapped files are not counted.
    """

    serving_bytes: int
    serving_base_bytes: int
    building_bytes: int


@dataclass(frozen=True, slots=True)
class SearchCosts:
    """Hold what the steps of a search cost on the machine that measured them, in microseconds.

    `row_us` is scoring one row exactly, `code_us` scanning one row of the index, `query_us` and `filtered_us`
    what an open and a filtered search of the index take before they scan. The defaults are those of a
    384-dimensional store on a server of 2024.
    """

    row_us: float = 0.2
    code_us: float = 0.006
    query_us: float = 30.0
    filtered_us: float = 60.0


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """Hold what the manifest knows of one segment: its counts, files, index and calibration.

    `passages` and `documents` are what its files hold; `deletions` tells which of them are deleted.
    `calibrated_on` says what queries the calibration was measured with.
    """

    name: str
    passages: int
    documents: int
    exact_dtype: str
    index: IndexRecord
    files: Mapping[str, FileRecord]
    calibration: tuple[CalibrationPoint, ...] = ()
    costs: SearchCosts = SearchCosts()
    deletions: DeletionRecord | None = None
    calibrated_on: str = HELD_OUT

    @property
    def live_passages(self) -> int:
        """Return the number of passages that are not deleted."""
        return self.passages - (self.deletions.passages if self.deletions else 0)

    @property
    def live_documents(self) -> int:
        """Return the number of documents that are not deleted."""
        return self.documents - (self.deletions.documents if self.deletions else 0)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Describe a store completely; encoders, schema and segments say how to search it.

    `created` is an ISO 8601 time in UTC. `encoder` proposes candidates, `exact_encoder` decides; they
    are equal in a store with one encoder. `predicted` and `measured` are the memory it takes, where a
    build kept account of that.
    """

    name: str
    created: str
    software: str
    encoder: EncoderSpec
    exact_encoder: EncoderSpec
    schema: Schema
    segments: tuple[SegmentRecord, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    encoder_files: Mapping[str, FileRecord] = field(default_factory=dict)
    format: int = FORMAT
    predicted: MemoryRecord | None = None
    measured: MemoryRecord | None = None

    @property
    def passages(self) -> int:
        """Return the number of passages in all segments, without deleted ones."""
        return sum(segment.live_passages for segment in self.segments)

    @property
    def documents(self) -> int:
        """Return the number of documents in all segments, without deleted ones."""
        return sum(segment.live_documents for segment in self.segments)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON data, without its checksum."""
        data = {name: getattr(self, name) for name in ("format", "name", "created", "software", "recipe")}
        return data | {
            "encoder": self.encoder.to_json(),
            "exact_encoder": self.exact_encoder.to_json(),
            "schema": self.schema.to_json(),
            "segments": [asdict(segment) for segment in self.segments],
            "encoder_files": {name: asdict(record) for name, record in self.encoder_files.items()},
            "counts": {"documents": self.documents, "passages": self.passages},
            "predicted": None if self.predicted is None else asdict(self.predicted),
            "measured": None if self.measured is None else asdict(self.measured),
        }


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Publish a manifest: from here on, readers that open `root` see what it names."""
    data = manifest.to_json()
    data["checksum"] = _checksum(data)
    write_atomic(
        root / MANIFEST_NAME,
        json.dumps(data, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n",
    )


def read_manifest(root: Path) -> Manifest:
    """Read and check the manifest of the store at `root`.

    Raises StoreNotFoundError where there is none, StoreError for one that cannot be read,
    StoreFormatError for another format version, and DamagedStoreError for one that fails its checksum or
    names files outside the store.
    """
    path = root / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a path with a null character
        if "\0" not in str(root) and (root / ".build").is_dir():
            raise StoreNotFoundError(
                f"no datastore at {root} yet: a build into it runs, was interrupted or failed.",
                value=str(root),
                remedy="Wait for it to end, or run the same `compactds build` command again to go on.",
            ) from None
        raise StoreNotFoundError(
            f"no datastore at {root}: {_why_none(root)}.",
            value=str(root),
            remedy="Give the folder that `compactds build … --out` wrote.",
        ) from None
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read: {error.strerror}.",
            value=str(path),
            remedy="Check that it is a file you may read.",
        ) from error
    try:
        data = json.loads(content)
        version = data["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(path, "is not a manifest") from None
    if version != FORMAT:
        raise StoreFormatError(
            f"{path} has format {version!r}; this version of compactds reads format {FORMAT}.",
            value=version,
            remedy="Install a version of compactds that reads it, or build the store again.",
        )
    try:
        if data.pop("checksum", None) != _checksum(data):
            raise _damaged(path, "fails its checksum")
        return _parse(data)
    except DamagedStoreError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, CompactdsError) as error:
        raise _damaged(path, f"lacks what format {FORMAT} needs ({error})") from None


def _why_none(root: Path) -> str:
    if root.is_dir():
        return f"it holds no {MANIFEST_NAME}"
    return "it is a file" if root.is_file() else "there is no such folder"


def _parse(data: Mapping[str, Any]) -> Manifest:
    return Manifest(
        name=data["name"],
        created=data["created"],
        software=data["software"],
        encoder=EncoderSpec.from_json(data["encoder"]),
        exact_encoder=EncoderSpec.from_json(data["exact_encoder"]),
        schema=Schema.from_json(data["schema"]),
        segments=tuple(_parse_segment(segment) for segment in data["segments"]),
        recipe=data["recipe"],
        encoder_files=_parse_files(data["encoder_files"]),
        predicted=_parse_memory(data["predicted"]),
        measured=_parse_memory(data["measured"]),
    )


def _parse_memory(data: Mapping[str, Any] | None) -> MemoryRecord | None:
    return None if data is None else MemoryRecord(**data)


def _parse_segment(data: Mapping[str, Any]) -> SegmentRecord:
    fields = dict(data)
    fields["index"] = IndexRecord(**data["index"])
    fields["files"] = _parse_files(data["files"])
    for name in (data["name"], data["index"]["file"], *data["files"]):
        _check_name(name)
        if "/" in name:
            raise ValueError(f"{name!r} is not a plain name")
    if SEGMENT_NAME.fullmatch(data["name"]) is None:
        raise ValueError(f"{data['name']!r} is not the name of a segment")
    for count in ("passages", "documents"):
        if type(data[count]) is not int or data[count] < 1:
            raise ValueError(f"{count} is {data[count]!r}")
    fields["costs"] = SearchCosts(**data["costs"])
    fields["calibration"] = tuple(CalibrationPoint(**point) for point in data["calibration"])
    if data.get("deletions") is not None:
        fields["deletions"] = _parse_deletions(data["deletions"], data)
    return SegmentRecord(**fields)


def _parse_deletions(data: Mapping[str, Any], segment: Mapping[str, Any]) -> DeletionRecord:
    if DELETION_NAME.fullmatch(data["file"]) is None:
        raise ValueError(f"{data['file']!r} is not the name of a list of deleted rows")
    for count in ("passages", "documents"):
        if type(data[count]) is not int or not 1 <= data[count] <= segment[count]:
            raise ValueError(f"{count} deleted are {data[count]!r}")
    return DeletionRecord(**{**data, "record": FileRecord(**data["record"])})


def _parse_files(data: Mapping[str, Any]) -> dict[str, FileRecord]:
    for name in data:
        _check_name(name)
    return {name: FileRecord(**record) for name, record in data.items()}


def _check_name(name: Any) -> None:
    """Raise ValueError for the name of a file that is not below the folder it belongs to."""
    parts = name.split("/")
    if not parts or any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
        raise ValueError(f"{name!r} leads out of the store")


def _checksum(data: Mapping[str, Any]) -> str:
    canonical = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _damaged(path: Path, what: str) -> DamagedStoreError:
    return DamagedStoreError(
        f"{path} {what}.", value=str(path), remedy="Restore it from a copy, or build the store again."
    )
