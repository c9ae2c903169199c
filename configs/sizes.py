"""Amounts as people write them: of memory and disk, "512MB", and of things, "1 document"."""

import re

from compactds.configs.errors import InvalidValueError

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]{0,3})\s*", re.ASCII)


def parse_bytes(text: str) -> int:
    """Return the number of bytes a size like "512MB", "1.5 GiB" or "4096" stands for.

    MB and GB count in thousands, MiB and GiB in 1,024s; case does not matter. Raises
    InvalidValueError for anything else, and for a size under one byte.
    """
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    size = int(float(match[1]) * unit) if match and unit else 0
    if size < 1:
        raise InvalidValueError(
            f"{text!r} is not a size.", value=text, remedy="Write a number and a unit, such as 512MB or 2GiB."
        )
    return size


def format_bytes(size: float) -> str:
    """Return a size in the largest unit of 1,000 that keeps it at one or more: "1.5 GB"."""
    if abs(size) < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if abs(size) < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with what is counted: "1 document", "2,000 documents"; `many` is `one` and an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
