"""Know the lists of an IVF index: which holds each row, and what a filter allows in it."""

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.ann.narrowed import Use
from compactds.datastore.bitmaps import Bitmap

COUNTED_EXACTLY_ROWS = 65_536
SAMPLED_ROWS = 65_536
REMEMBERED_FILTERS = 1_024
MOST_KEPT = 8
"""Parameters of searches are kept for so many numbers of lists under each filter."""


@dataclass(frozen=True, slots=True)
class ListCounts:
    """Hold what a filter leaves of each list: about how many rows.

    `share` is that of all rows. `use` tells how the filter is used. The selector holds no more than the
    address of the filter's bits: neither is to be used for longer than the filter is held.
    """

    allowed: NDArray[np.float32]
    share: float
    selector: Any
    use: Use = field(default_factory=Use, repr=False)
    kept: dict[int, Any] = field(default_factory=dict, repr=False)

    def parameters_for(self, lists: int) -> Any:
        """Return the parameters of a search of so many lists under the filter; those of a few are kept."""
        parameters = self.kept.get(lists)
        if parameters is None:
            parameters = faiss.SearchParametersIVF(nprobe=lists, sel=self.selector)
            if len(self.kept) < MOST_KEPT:
                self.kept[lists] = parameters
        return parameters


class ListMap:
    """Know which list holds each row, and how many allowed rows each list holds under a filter.

    Made when an index is first searched under a filter. It takes two bytes a row, four from 65,536 lists on.
    """

    def __init__(self, ivf: Any) -> None:
        lists, rows = int(ivf.nlist), int(ivf.ntotal)
        self.sizes = np.zeros(lists, np.float32)
        self.list_of_row: NDArray[np.unsignedinteger] = np.zeros(
            rows, np.uint16 if lists <= 1 << 16 else np.uint32
        )
        for number in range(lists):
            size = int(ivf.get_list_size(number))
            if size:
                ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)
                self.list_of_row[ids] = number
                self.sizes[number] = size
        drawn = np.random.default_rng(0).choice(rows, min(rows, SAMPLED_ROWS), replace=False)
        self._sample = np.sort(drawn)
        self._sample_lists = self.list_of_row[self._sample]
        self._known: OrderedDict[int, tuple[weakref.ref[NDArray[np.uint8]], ListCounts]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def ram_bytes(self) -> int:
        """Return the bytes of the map."""
        held = self.list_of_row, self._sample, self._sample_lists, self.sizes
        return sum(array.nbytes for array in held)

    def counts(self, allowed: Bitmap) -> ListCounts:
        """Return the allowed rows of each list: counted if they are few, else estimated from a sample.

        Filters are remembered by the identity of their bits, as long as somebody holds those.
        """
        key = id(allowed.bits)
        with self._lock:
            known = self._known.get(key)
            if known is not None and known[0]() is allowed.bits:
                self._known.move_to_end(key)
                return known[1]
        counts = self._described(allowed)
        with self._lock:
            forget = weakref.ref(allowed.bits, lambda _: self._known.pop(key, None))
            self._known[key] = (forget, counts)
            while len(self._known) > REMEMBERED_FILTERS:
                self._known.popitem(last=False)
        return counts

    def _described(self, allowed: Bitmap) -> ListCounts:
        counted = self._counted(allowed)
        share = allowed.count / max(1, len(self.list_of_row))
        # Given as an address, the bits are not kept by the selector, and go with the filter's result.
        selector = faiss.IDSelectorBitmap(allowed.bits.nbytes, faiss.swig_ptr(allowed.bits))
        return ListCounts(counted, share, selector)

    def _counted(self, allowed: Bitmap) -> NDArray[np.float32]:
        """Return the allowed rows of each list."""
        lists = len(self.sizes)
        if allowed.count <= COUNTED_EXACTLY_ROWS:
            met = np.bincount(self.list_of_row[allowed.rows()], minlength=lists)
            return met.astype(np.float32)
        bits = allowed.bits[self._sample >> 3] >> (self._sample & 7).astype(np.uint8)
        met = np.bincount(self._sample_lists[(bits & 1).astype(np.bool_)], minlength=lists)
        scale = len(self.list_of_row) / len(self._sample)
        scaled: NDArray[np.float32] = (met * scale).astype(np.float32)
        return scaled
