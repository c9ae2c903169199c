"""Tell formats by suffixes, and local paths from names of Hugging Face datasets."""

import re
from pathlib import Path

FORMATS = ("jsonl", "json", "csv", "parquet", "text", "markdown", "html", "pdf", "huggingface")
SUFFIXES = {
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".jsonl.zst": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
    ".ndjson.zst": "jsonl",
    ".json": "json",
    ".json.gz": "json",
    ".json.zst": "json",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".csv.zst": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".tsv.zst": "csv",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
}
DOCUMENT_FORMATS = frozenset({"text", "markdown", "html", "pdf"})  # a file is one document
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def split_suffix(name: str) -> tuple[str, str]:
    """Return (stem, suffix in lower case) of a file name; a known suffix may have two parts."""
    lower = name.lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if lower.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    path = Path(name)
    return path.stem, path.suffix.lower()


def is_hub_name(path: str) -> bool:
    """Tell whether a path is not one of this machine, but looks like a dataset's `owner/name`."""
    return (
        bool(_HUB_NAME.fullmatch(path)) and split_suffix(path)[1] not in SUFFIXES and not Path(path).exists()
    )


def folder_name(path: Path) -> str:
    """Return a folder's own name, also when it is given as `.` or ends in `..`."""
    return path.name if path.name not in ("", "..") else path.resolve().name or "documents"
