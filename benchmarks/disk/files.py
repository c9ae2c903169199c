"""Files of vectors on a disk, and whether the memory of the machine holds any of them."""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

BLOCK_BYTES = 32 << 20
TRIES = 5


def write_vectors(path: Path, size_bytes: int, dimension: int) -> int:
    """Make sure of a file of random float16 rows larger than `size_bytes`; return how many there are."""
    rows = size_bytes // (2 * dimension) + 1
    if path.exists() and path.stat().st_size == rows * 2 * dimension:
        return rows
    draw = np.random.default_rng(dimension)
    step = max(1, BLOCK_BYTES // (2 * dimension))
    with path.open("wb") as file:
        for start in range(0, rows, step):
            block = draw.random((min(step, rows - start), dimension), np.float32) - 0.5
            file.write(block.astype(np.float16).tobytes())
    return rows


def drop(path: Path) -> int:
    """Have the kernel drop the pages of a file from memory; return how many it keeps all the same.

    Pages that are mapped somewhere stay, and so do all pages of a file system in memory.
    """
    kept = 0
    for _ in range(TRIES):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        kept = resident_pages(path)
        if not kept:
            break
    return kept


def resident_pages(path: Path) -> int:
    """Count the pages of a file that are in memory, as mincore tells."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        told = np.zeros(-(-len(view) // mmap.PAGESIZE), np.uint8)
        address, length = ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(view))
        failed = ctypes.CDLL(None, use_errno=True).mincore(address, length, ctypes.c_void_p(told.ctypes.data))
        del view
        if failed:
            raise OSError(ctypes.get_errno(), "mincore does not tell", str(path))
    return int(np.count_nonzero(told & 1))
