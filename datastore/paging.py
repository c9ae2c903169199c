"""Bring the pages of chosen rows of a mapped file into memory, many reads under way at once."""

import mmap

import numpy as np
from numpy.typing import NDArray

GROUP_RANGES = 128
"""How many ranges of pages are asked for before those of the group before are looked at.

Two groups fit the queue of a disk: beyond it, the kernel has whoever asks wait, and Python's lock with them.
"""


def read_pages(mapped: mmap.mmap, rows: NDArray[np.int64], row_bytes: int) -> None:
    """Ask the kernel for the pages of `rows`, and map what has come while the rest is on its way.

    Pages are asked for in the order of the file. Looking at a page maps it, which costs about as much as
    asking for it, and would have to be done anyway: so it is done while the disk works. The last pages may
    still be under way on return.
    """
    starts, ends = page_ranges(rows, row_bytes)
    ends = np.minimum(ends, len(mapped))
    content = np.frombuffer(mapped, np.uint8)
    for first in range(0, len(starts), GROUP_RANGES):
        group = slice(first, first + GROUP_RANGES)
        for start, end in zip(starts[group].tolist(), ends[group].tolist(), strict=True):
            mapped.madvise(mmap.MADV_WILLNEED, start, end - start)
        earlier = slice(max(0, first - GROUP_RANGES), first)
        content.take(starts[earlier])
        content.take(ends[earlier] - 1)


def page_ranges(rows: NDArray[np.int64], row_bytes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the ranges of whole pages that hold `rows` begin and end, in bytes.

    Ranges ascend. Rows whose pages are the same, or follow on each other, share one.
    """
    page = mmap.PAGESIZE
    offsets = np.sort(rows) * row_bytes
    starts = offsets // page * page
    ends = -(-(offsets + row_bytes) // page) * page
    apart = starts[1:] > ends[:-1]
    return starts[np.append(True, apart)[: len(rows)]], ends[np.append(apart, True)[: len(rows)]]
