"""Ways to read many rows of a file from disk, as fast as each goes."""

import ctypes
import mmap
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Way = Callable[[Rows], None]

POOLS = 8, 16, 32, 64
BLOCKS = 512, 4096
"""To how many bytes reads past the page cache may have to be aligned."""
IO_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""Numbers of io_setup, io_destroy, io_getevents and io_submit."""
REQUEST = np.dtype(
    [
        ("data", "<u8"),
        ("key", "<u4"),
        ("flags", "<u4"),
        ("operation", "<u2"),
        ("priority", "<i2"),
        ("descriptor", "<u4"),
        ("buffer", "<u8"),
        ("length", "<u8"),
        ("offset", "<i8"),
        ("reserved", "<u8"),
        ("event", "<u8"),
    ]
)


class Reads:
    """Read rows of one file into one buffer, a slot each, in the order of the file.

    `ways` are what this machine can do; `left_out` says of the others why it cannot.
    """

    def __init__(self, path: Path, row_bytes: int, most_rows: int, pools: Sequence[int] = POOLS) -> None:
        self._path = path
        self._row_bytes = row_bytes
        self._slot = -(-(row_bytes + 2 * BLOCKS[-1]) // BLOCKS[-1]) * BLOCKS[-1]
        self._memory = mmap.mmap(-1, most_rows * self._slot)
        self._buffer: Bytes = np.frombuffer(self._memory, np.uint8).reshape(most_rows, self._slot)
        self._buffer[:, :: mmap.PAGESIZE] = 1  # the kernel gives pages when they are written
        self._view = memoryview(self._memory)
        self._file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)
        self._pools = {count: ThreadPoolExecutor(count) for count in (1, *pools)}
        self._starts: Rows = np.empty(0, np.int64)
        self._offsets: Rows = self._starts
        self.ways: dict[str, Way] = {
            "pread, one after another": lambda rows: self._pooled(1, self._file, rows, 1),
            "fadvise WILLNEED, then pread": self._advised,
            "madvise WILLNEED, then copied": self._mapped,
        }
        self.left_out: dict[str, str] = {}
        self._direct: int | None = None
        for count in pools:
            self.ways[f"pread, {count} threads"] = self._pool_way(count, self._file, 1)
        try:
            block = self._open_direct()
        except OSError as error:
            self.left_out["O_DIRECT"] = str(error)
            return
        for count in pools:
            self.ways[f"O_DIRECT pread, {count} threads"] = self._pool_way(count, self._direct or 0, block)
        try:
            self._queue = Queue(most_rows)
        except OSError as error:
            self.left_out["O_DIRECT io_submit"] = str(error)
        else:
            self.ways["O_DIRECT io_submit, all at once"] = lambda rows: self._submitted(rows, block)

    def found(self) -> Bytes:
        """Return what the last way read: the bytes of the rows, in the order of the file."""
        skews = (self._offsets - self._starts).tolist()
        return np.stack([self._buffer[i, skew : skew + self._row_bytes] for i, skew in enumerate(skews)])

    def close(self) -> None:
        """Close files, and end threads."""
        for pool in self._pools.values():
            pool.shutdown()
        for descriptor in (self._file, self._direct):
            if descriptor is not None:
                os.close(descriptor)
        if hasattr(self, "_queue"):
            self._queue.close()

    def _open_direct(self) -> int:
        """Open the file past the page cache; return to how many bytes reads have to be aligned."""
        self._direct = os.open(self._path, os.O_RDONLY | os.O_DIRECT)
        for block in BLOCKS:
            try:
                os.preadv(self._direct, [self._view[:block]], block)
            except OSError as error:
                refused = error
            else:
                return block
        raise refused

    def _spans(self, rows: Rows, block: int) -> Rows:
        """Choose what to read for `rows`, aligned to `block`; return lengths."""
        self._offsets = np.sort(rows) * self._row_bytes
        self._starts = self._offsets // block * block
        return -(-(self._offsets + self._row_bytes) // block) * block - self._starts

    def _pool_way(self, count: int, descriptor: int, block: int) -> Way:
        return lambda rows: self._pooled(count, descriptor, rows, block)

    def _pooled(self, count: int, descriptor: int, rows: Rows, block: int) -> None:
        """Read with `count` threads, each a run of rows."""
        lengths = self._spans(rows, block).tolist()
        starts, slot, view = self._starts.tolist(), self._slot, self._view
        share = -(-len(starts) // count)

        def read(first: int) -> None:
            for number in range(first, min(first + share, len(starts))):
                here = number * slot
                os.preadv(descriptor, [view[here : here + lengths[number]]], starts[number])

        list(self._pools[count].map(read, range(0, len(starts), share)))

    def _advised(self, rows: Rows) -> None:
        """Ask for all rows, then read them one by one."""
        self._spans(rows, 1)
        for start in self._starts.tolist():
            os.posix_fadvise(self._file, start, self._row_bytes, os.POSIX_FADV_WILLNEED)
        for number, start in enumerate(self._starts.tolist()):
            here = number * self._slot
            os.preadv(self._file, [self._view[here : here + self._row_bytes]], start)

    def _mapped(self, rows: Rows) -> None:
        """Ask for all rows of a map, then copy them."""
        self._spans(rows, 1)
        with mmap.mmap(self._file, 0, access=mmap.ACCESS_READ) as mapped:
            mapped.madvise(mmap.MADV_RANDOM)
            for start in self._starts.tolist():
                before = start % mmap.PAGESIZE
                mapped.madvise(mmap.MADV_WILLNEED, start - before, before + self._row_bytes)
            view = np.frombuffer(mapped, np.uint8).reshape(-1, self._row_bytes)
            self._buffer[: len(rows), : self._row_bytes] = view[self._starts // self._row_bytes]
            del view

    def _submitted(self, rows: Rows, block: int) -> None:
        """Hand the kernel all reads in one call."""
        lengths = self._spans(rows, block)
        buffers = self._buffer.ctypes.data + self._slot * np.arange(len(rows))
        self._queue.read(self._direct or 0, self._starts, lengths, buffers)


class Queue:
    """Read through the kernel's asynchronous calls, which queue without threads past the page cache."""

    def __init__(self, most: int) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        if platform.machine() not in IO_CALLS:
            raise OSError(f"the numbers of its calls on {platform.machine()} are not known here")
        setup, self._destroy, self._events, self._submit = IO_CALLS[platform.machine()]
        self._context = ctypes.c_ulong(0)
        self._call(setup, ctypes.c_long(most), ctypes.byref(self._context))
        self._requests = np.zeros(most, REQUEST)
        self._pointers = self._requests.ctypes.data + REQUEST.itemsize * np.arange(most, dtype=np.uint64)
        self._done = np.zeros((most, 4), np.int64)

    def read(self, descriptor: int, offsets: Rows, lengths: Rows, buffers: Rows) -> None:
        """Read all of these, and wait until the last is there."""
        count = len(offsets)
        requests = self._requests[:count]
        requests["descriptor"], requests["offset"] = descriptor, offsets
        requests["length"], requests["buffer"] = lengths, buffers
        sent = 0
        while sent < count:
            pointers = ctypes.c_void_p(self._pointers[sent:].ctypes.data)
            sent += self._call(self._submit, self._context, ctypes.c_long(count - sent), pointers)
        done = 0
        while done < count:
            left = ctypes.c_long(count - done)
            events = ctypes.c_void_p(self._done[done:].ctypes.data)
            done += self._call(self._events, self._context, left, left, events, None)
        if (failed := self._done[:count, 2].min()) < 0:
            raise OSError(int(-failed), "a read failed")

    def close(self) -> None:
        """Give the queue back."""
        self._call(self._destroy, self._context)

    def _call(self, number: int, *arguments: object) -> int:
        given = self._library.syscall(ctypes.c_long(number), *arguments)
        if given < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return int(given)
