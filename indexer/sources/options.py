"""What a source is told and what it reports: options, input files, and rejected records."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compactds.configs.sizes import counted
from compactds.indexer.errors import RecordError
from compactds.indexer.sources.formats import folder_name, is_hub_name, split_suffix

FIELDS = ("id", "text", "title", "source", "vector")
RAW_LIMIT = 10_000  # characters of a broken record that a rejection keeps

SKIP_REMEDY = "Correct it, or pass --skip-invalid to leave such records out."


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Say where documents come from and how their records are read.

    `path` is a file, a folder, or a Hugging Face dataset (`hf:owner/name`, or `owner/name` where no
    such local path exists). `format` is "auto" or one of formats.FORMATS. `name` is the source of documents
    that name none (default: the file's or folder's name). `fields` maps our names (FIELDS) to record
    keys, with dots for nested ones. `attributes` names those to keep, None keeps all; a name also
    keeps what is nested under it. `allow_empty_text` is for records whose vectors come separately.
    `config`, `files`, `split` and `revision` choose within a Hugging Face dataset. `ids` says what an id
    is: the "record"'s own, that with its "file" before it, or made of the "content". A record without an
    id has one made of its content.
    """

    path: str
    format: str = "auto"
    name: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    attributes: tuple[str, ...] | None = None
    skip_invalid: bool = False
    max_documents: int | None = None
    allow_empty_text: bool = False
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    ids: str = "record"
    files: str | None = None

    @property
    def is_hub_dataset(self) -> bool:
        """Tell whether this is a Hugging Face dataset rather than a file or folder."""
        if self.format == "huggingface" or self.path.startswith("hf:"):
            return True
        return self.format == "auto" and is_hub_name(self.path)

    @property
    def is_hub_by_looks(self) -> bool:
        """Tell whether this is taken for a Hugging Face dataset because there is no such file or folder."""
        return self.is_hub_dataset and self.format == "auto" and not self.path.startswith("hf:")

    @property
    def no_such_path(self) -> str:
        """Return a sentence about a path that is read as a dataset for want of a folder, "" for others."""
        return f"There is no file or folder {self.path!r} here. " if self.is_hub_by_looks else ""

    @property
    def source_name(self) -> str:
        """Return the source of documents that name none: `name`, else the path's without suffix."""
        if self.name:
            return self.name
        if self.is_hub_dataset:
            return self.path.removeprefix("hf:")
        path = Path(self.path)
        return folder_name(path) if path.is_dir() else split_suffix(path.name)[0]


@dataclass(frozen=True, slots=True)
class InputFile:
    """Name one file to read: where it is, its path within the source, its format, size and time.

    `name` is the path below the source's folder with forward slashes, or the file's name when the
    source is that file; `in_folder` tells which.
    """

    path: Path
    name: str
    format: str
    size_bytes: int
    mtime_ns: int
    in_folder: bool


@dataclass(frozen=True, slots=True)
class Rejection:
    """Hold one record that was left out: its place, why, and up to RAW_LIMIT characters of it."""

    origin: str
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class Record:
    """Hold one record as a reader found it; `raw` is its text in the file where there is one."""

    origin: str
    values: Mapping[str, Any]
    raw: bytes | None = None


@dataclass(slots=True)
class Notices:
    """Count files that were read or passed over in a way worth telling, and name the first of each kind.

    `text_key` is a record's key, other than "text", that text was taken from without being told to.
    """

    guessed: int = 0
    first_guessed: str = ""
    empty: int = 0
    first_empty: str = ""
    text_key: str = ""
    first_text_key: str = ""

    def add(self, other: "Notices") -> None:
        """Add what another reader noticed after this one."""
        self.guessed += other.guessed
        self.empty += other.empty
        self.first_guessed = self.first_guessed or other.first_guessed
        self.first_empty = self.first_empty or other.first_empty
        self.text_key = self.text_key or other.text_key
        self.first_text_key = self.first_text_key or other.first_text_key

    def sentences(self) -> list[str]:
        """Return one sentence for each kind that occurred."""
        told = []
        if self.guessed:
            files = counted(self.guessed, "file")
            told.append(
                f"Read {files} as Windows-1252, being neither UTF-8 nor what they declare "
                f"(first: {self.first_guessed})."
            )
        if self.empty:
            files = counted(self.empty, "file")
            told.append(f"Passed over {files} without text (first: {self.first_empty}).")
        if self.text_key:
            told.append(
                f"Text is taken from {self.text_key!r} where a record has no 'text' (first: "
                f"{self.first_text_key}); to take another key, name it in a recipe's `fields`."
            )
        return told


# Takes a broken record and its raw text: raises the error, or notes it so that reading goes on.
Reject = Callable[[RecordError, str], None]
