"""The documents a build reads: one input record each, with typed attributes and an origin."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_hexdigest

_COUNTED_AT_ONCE = 1 << 20
_SPACE = re.compile(r"\s")


@dataclass(frozen=True, slots=True)
class Document:
    """Hold one input record.

    `origin` says where it came from, for messages: a file, with a line or row number where there is
    one. `attributes` are flat JSON-like values: None, bool, int, float, str, datetime.date,
    datetime.datetime, or lists of str or int. `attributes_are_text` tells that they are text whose
    types are still to be found, as in csv. `vector` is set only by sources that carry vectors.
    `id_from_content` tells that the source gave no id.
    """

    id: str
    text: str
    title: str = ""
    source: str = ""
    origin: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    vector: NDArray[np.float32] | None = None
    id_from_content: bool = False
    attributes_are_text: bool = False


def spaced_words(text: str) -> int:
    """Return the number of runs of non-space, without holding them all of a very long text."""
    count = start = 0
    while len(text) - start > _COUNTED_AT_ONCE:
        space = _SPACE.search(text, start + _COUNTED_AT_ONCE)
        if space is None:
            break
        count += len(text[start : space.start()].split())
        start = space.end()
    return count + len(text[start:].split())


def content_id(title: str, text: str) -> str:
    """Return an id that depends on nothing but title and text: 32 hexadecimal digits of XXH3-128."""
    return xxh3_128_hexdigest(f"{title}\n{text}".encode("utf-8", "surrogatepass"))
