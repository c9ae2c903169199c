"""Find a document's rows by its id: sorted 64-bit hashes on disk, nothing in memory.

The file is a sorted array of (XXH3-64 of the document id, first row of the document), 16 bytes a
document. Hashes can collide, so a caller compares the id that the row holds.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from compactds.datastore.files import write_array

ENTRY = np.dtype([("key", "<u8"), ("row", "<u8")])
_AT_ONCE = 65_536


def lookup_entries(documents: Iterable[tuple[str, int]]) -> NDArray[np.void]:
    """Return the unsorted entries of (document id, first row) pairs."""
    return np.fromiter(((xxh3_64_intdigest(name.encode()), row) for name, row in documents), dtype=ENTRY)


def sort_lookup(path: Path) -> int:
    """Sort a file of entries; return how many there are."""
    entries = np.fromfile(path, dtype=ENTRY)
    entries.sort(order=["key", "row"])
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("wb") as file:
        write_array(file, entries)
    beside.replace(path)
    return len(entries)


class DocumentLookup:
    """Search a lookup file; opening one raises OSError, or ValueError for one that holds half an entry."""

    def __init__(self, path: Path) -> None:
        empty = path.stat().st_size == 0
        self._entries = np.empty(0, ENTRY) if empty else np.memmap(path, dtype=ENTRY, mode="r")

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._entries)

    def first_rows(self, document_id: str) -> list[int]:
        """Return the first rows of all documents whose id has this id's hash: mostly none or one."""
        try:
            key = np.uint64(xxh3_64_intdigest(document_id.encode()))
        except UnicodeEncodeError:
            return []
        keys = self._entries["key"]
        left, right = np.searchsorted(keys, key, "left"), np.searchsorted(keys, key, "right")
        return [int(row) for row in self._entries["row"][left:right]]

    def knows(self, document_ids: Sequence[str]) -> bool:
        """Tell whether the hash of any of these ids is here: if not, none of the documents is."""
        wanted = np.fromiter((xxh3_64_intdigest(name.encode()) for name in document_ids), np.uint64)
        keys = self._entries["key"]
        places = np.searchsorted(keys, wanted)
        inside = places < len(keys)
        return bool(np.any(keys[places[inside]] == wanted[inside]))

    def all_first_rows(self) -> Iterator[NDArray[np.int64]]:
        """Yield the first rows of all documents, in no particular order, some at a time."""
        for start in range(0, len(self._entries), _AT_ONCE):
            yield self._entries["row"][start : start + _AT_ONCE].astype(np.int64)
