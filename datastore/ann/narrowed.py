"""Copies of an IVF index's lists that hold only what a filter allows, for filters in steady use.

Under a filter, faiss looks at all rows of a list and passes over most of them, at several times the cost of a
row scanned without. A filter that is asked for again and again therefore gets lists of its own: the same
centroids, codes and order, without the rows that it leaves out. Searched with the same effort they give the
same candidates, in less time.

The lists are copied a few at a time, after searches under the filter, so that no search waits for all of
them, and a filter that is not asked for again costs little.
"""

import os
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.ann.ivf_shape import BLOCK_ROWS, CODE_BITS, ID_BYTES

STEADY_SEARCHES = 8
"""A filter is in steady use once it was asked for so often."""
MOST_SHARE = 0.6
"""The lists of a filter that leaves more are not copied: they would be little shorter."""
NEVER = -(1 << 62)
"""How often a filter counts as asked for whose lists cannot be copied."""
COPYING_WORK = 600
"""So much work goes into copying lists after a search, counted in rows copied, which take a third of a
microsecond each; one list at least."""
LIST_WORK, ROWS_LOOKED_AT = 45, 64
"""A list costs as much as so many rows copied, and so many rows looked at cost as much as one."""
IDLE_SEARCHES = 1_000
"""A filter's lists make room for those of another once so many searches were under other filters."""
SHARE_OF_INDEX = 0.25
"""All copies together take at most this part of what the index takes."""
LEAST_LIMIT_BYTES, LEAST_LIMIT_TIMES = 16 << 20, 4
"""They may always take so many bytes, unless the index is smaller than that by so many times."""
LIST_BYTES = 64
LEAST_ALLOCATED_BYTES = 256

HALF = BLOCK_ROWS // 2
LANES = np.array([0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15])
"""The order in which faiss lays out the rows of half a block: byte b of a sub-quantiser holds row LANES[b] in
its lower four bits, and the row half a block further in its upper four."""
PLACES = np.argsort(LANES)

Codes = NDArray[np.uint8]


def limit_bytes(index_bytes: int) -> int:
    """Return the most that the copies of an index of so many bytes take together."""
    return max(int(SHARE_OF_INDEX * index_bytes), min(LEAST_LIMIT_BYTES, LEAST_LIMIT_TIMES * index_bytes))


def allocated_bytes(code_bytes: int) -> int:
    """Return what faiss allocates for a list's codes: a power of two."""
    return max(LEAST_ALLOCATED_BYTES, 1 << (code_bytes - 1).bit_length())


def copy_bytes(allowed: NDArray[np.float32], code_bytes: int) -> int:
    """Return what lists with so many allowed rows each take; faiss rounds up to powers of two."""
    codes = np.ceil(allowed / BLOCK_ROWS) * BLOCK_ROWS * code_bytes
    held = codes > 0
    rounded = 2 ** np.ceil(np.log2(np.maximum(codes[held], LEAST_ALLOCATED_BYTES)))
    return int(rounded.sum() + ID_BYTES * allowed.sum() + LIST_BYTES * len(allowed))


def unpacked(blocks: Codes, places: NDArray[np.integer]) -> Codes:
    """Return the codes, shape (n, quantisers) with one number each, of the rows at some places of a list."""
    quantisers = blocks.shape[1]
    if not len(places):
        return np.empty((0, quantisers), np.uint8)
    lanes = places % BLOCK_ROWS
    pairs: Codes = blocks[places // BLOCK_ROWS, :, PLACES[lanes % HALF]]
    shifts = (CODE_BITS * (lanes // HALF)).astype(np.uint8)
    return pairs >> shifts[:, np.newaxis] & np.uint8(15)


def packed(codes: Codes) -> Codes:
    """Return codes as faiss keeps those of a list, shape (blocks, quantisers, 16), zeros after the last."""
    count, quantisers = codes.shape
    blocks = -(-count // BLOCK_ROWS)
    filled = np.zeros((blocks * BLOCK_ROWS, quantisers), np.uint8)
    filled[:count] = codes
    halves = filled.reshape(blocks, 2, HALF, quantisers)[:, :, LANES]
    pairs = halves[:, 0] | halves[:, 1] << CODE_BITS
    return np.ascontiguousarray(pairs.transpose(0, 2, 1))


def blocks_of(ivf: Any, number: int) -> Codes:
    """Return a view of the codes of one list of an index, shape (blocks, quantisers, 16)."""
    blocks = -(-int(ivf.get_list_size(number)) // BLOCK_ROWS)
    quantisers = int(ivf.M2)
    codes: Codes = faiss.rev_swig_ptr(ivf.invlists.get_codes(number), blocks * quantisers * HALF)
    return codes.reshape(blocks, quantisers, HALF)


def layout_is_known(ivf: Any) -> bool:
    """Tell whether this version of faiss lays out the codes of an index as they are read here."""
    number = next((one for one in range(int(ivf.nlist)) if ivf.get_list_size(one)), None)
    if number is None or int(ivf.bbs) != BLOCK_ROWS:
        return False
    block = blocks_of(ivf, number)[:1].copy()
    rows = np.empty((BLOCK_ROWS, int(ivf.code_size)), np.uint8)
    ivf.get_CodePacker().unpack_all(faiss.swig_ptr(block), faiss.swig_ptr(rows))
    numbers = unpacked(block, np.arange(BLOCK_ROWS))
    pairs = numbers[:, ::2] | numbers[:, 1::2] << CODE_BITS
    return bool((pairs == rows).all() and (packed(numbers) == block).all())


class NarrowedIndex:
    """An IVF index with the rows only that a filter allows; whole once `copy` said so."""

    def __init__(self, ivf: Any) -> None:
        shape = int(ivf.d), int(ivf.nlist), int(ivf.M), CODE_BITS, ivf.metric_type, BLOCK_ROWS
        self.index = faiss.IndexIVFPQFastScan(ivf.quantizer, *shape)
        self.index.by_residual = ivf.by_residual
        self.index.pq = ivf.pq
        self.index.implem = ivf.implem
        self.index.is_trained = True
        self.ram_bytes = LIST_BYTES * int(ivf.nlist)
        self._ivf = ivf
        self._next = 0

    def copy(self, bits: NDArray[np.uint8], work: float) -> bool:
        """Copy lists for about so much work, one at least; tell whether all are copied."""
        while self._next < int(self._ivf.nlist):
            work -= self._copy_list(self._next, bits)
            self._next += 1
            if work <= 0:
                break
        return self._next == int(self._ivf.nlist)

    def _copy_list(self, number: int, bits: NDArray[np.uint8]) -> float:
        """Copy what is allowed of a list; return how much work it was."""
        size = int(self._ivf.get_list_size(number))
        if not size:
            return 1
        ids = faiss.rev_swig_ptr(self._ivf.invlists.get_ids(number), size)
        places = np.flatnonzero(bits[ids >> 3] >> (ids & 7).astype(np.uint8) & 1)
        if not len(places):
            return LIST_WORK / 2 + size / ROWS_LOOKED_AT
        rows, codes = ids[places], packed(unpacked(blocks_of(self._ivf, number), places))
        added = len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(codes)
        self.index.invlists.add_entries(number, *added)
        self.index.ntotal += len(rows)
        self.ram_bytes += allocated_bytes(codes.nbytes) + rows.nbytes
        return LIST_WORK + size / ROWS_LOOKED_AT + len(rows)


@dataclass(slots=True, weakref_slot=True, eq=False)
class Use:
    """Hold how a filter is used: how often, when last, the lists being copied for it, and those copied.

    `narrowed` is an index of faiss.
    """

    searches: int = 0
    last: int = 0
    copying: NarrowedIndex | None = None
    copy_bytes: int = 0
    narrowed: Any = field(default=None, repr=False)


class NarrowedIndexes:
    """Copy the lists of an index for filters in steady use, within `limit_bytes`; for any threads."""

    def __init__(self, ivf: Any, limit_bytes: int) -> None:
        self._ivf = ivf
        self._limit = limit_bytes if layout_is_known(ivf) else 0
        self._held: weakref.WeakSet[Use] = weakref.WeakSet()
        self._searches = 0
        self._lock, self._process = threading.Lock(), os.getpid()

    @property
    def ram_bytes(self) -> int:
        """Return the bytes of all copies, those under way included."""
        with self._own_lock():
            return sum(use.copy_bytes for use in self._held)

    def searched(self, use: Use, bits: NDArray[np.uint8], allowed: NDArray[np.float32]) -> None:
        """Note a search under a filter that leaves so many rows of each list; copy some if it is time to."""
        self._searches += 1
        use.searches += 1
        use.last = self._searches
        if use.narrowed is not None or use.searches < STEADY_SEARCHES:
            return
        lock = self._own_lock()
        if not lock.acquire(blocking=False):
            return  # another thread is copying
        try:
            if use.narrowed is None and (use.copying is not None or self._make_room(use, allowed)):
                self._go_on(use, bits)
        finally:
            lock.release()

    def _own_lock(self) -> threading.Lock:
        """Return this process's lock: after a fork, a thread that is not there may hold the former one."""
        if self._process != os.getpid():
            self._lock, self._process = threading.Lock(), os.getpid()
        return self._lock

    def _go_on(self, use: Use, bits: NDArray[np.uint8]) -> None:
        try:
            if use.copying is None:
                use.copying = NarrowedIndex(self._ivf)
            whole = use.copying.copy(bits, COPYING_WORK)
            use.copy_bytes = max(use.copy_bytes, use.copying.ram_bytes)
            if sum(one.copy_bytes for one in self._held) > self._limit:  # more than was estimated
                self._let_go(use, never=True)
            elif whole:
                use.narrowed, use.copying = use.copying.index, None
        except (MemoryError, RuntimeError):  # searches do without
            self._let_go(use, never=True)

    def _make_room(self, use: Use, allowed: NDArray[np.float32]) -> bool:
        """Let go of lists that were not used for long if need be; tell whether those of `use` find room."""
        wanted = copy_bytes(allowed, int(self._ivf.M2) // 2)
        if wanted > self._limit or allowed.sum() > MOST_SHARE * int(self._ivf.ntotal):
            use.searches = NEVER
            return False
        held = sorted(self._held, key=lambda one: one.last)
        left = self._limit - sum(one.copy_bytes for one in held)
        idle = [one for one in held if self._searches - one.last > IDLE_SEARCHES]
        if wanted > left + sum(one.copy_bytes for one in idle):
            use.searches = 0  # it asks again later
            return False
        for one in idle:
            if wanted <= left:
                break
            left += one.copy_bytes
            self._let_go(one)
        use.copy_bytes = wanted
        self._held.add(use)
        return True

    def _let_go(self, use: Use, *, never: bool = False) -> None:
        self._held.discard(use)
        use.copying, use.narrowed, use.copy_bytes, use.searches = None, None, 0, NEVER if never else 0
