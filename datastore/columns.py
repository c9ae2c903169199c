"""Attribute columns in memory, in the form in which each kind of condition is a few array operations.

A scalar column holds the rank of every row's value in the smallest unsigned type: 1 byte a row up to
255 distinct values, 2 up to 65,535, else 4. Conditions are runs of ranks, found in one pass.

A list column holds the rows of every element: as packed bits for elements in more than one row of 32,
as row numbers of 4 bytes for all others, whichever is smaller.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compactds.datastore.bitmaps import Bitmap, Mask, Rows, packed_bytes, places_of
from compactds.datastore.columns_values import Codes, Strings, Values, ranked
from compactds.filters.errors import WhereError, shown
from compactds.filters.schema import FieldType
from compactds.filters.where import (
    Compare,
    Contains,
    ContainsAll,
    ContainsAny,
    Exists,
    Expression,
    In,
    NotIn,
    Operator,
    Prefix,
)

ROW_NUMBER_BYTES = 4
"""Row numbers are held as uint32: rows of an element that take more than the packed bits are bits."""

_COUNTED_ONE_BY_ONE = 16
"""Up to so many distinct values, each is counted in a pass of its own: quicker than one over all."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ScalarColumn:
    """Hold one value a row by its rank among the distinct values; a missing one ranks after the last.

    `totals` is how many rows have each rank, the missing ones last.
    """

    values: Values
    codes: NDArray[Any]
    totals: NDArray[Any]

    @property
    def missing(self) -> int:
        """Return how many rows have no value."""
        return int(self.totals[-1])

    @property
    def form(self) -> str:
        """Say in a few words what the column is held as."""
        return f"codes of {self.codes.itemsize} byte{'s' if self.codes.itemsize > 1 else ''}"

    @property
    def nbytes(self) -> int:
        """Return the bytes the column holds."""
        return self.codes.nbytes + self.totals.nbytes + self.values.nbytes

    def allowed(self, condition: Expression) -> Bitmap:
        """Return the rows that one bound condition on this column allows."""
        match condition:
            case Compare(_, Operator.NE, value):
                return ~self._run(self.values.left(value), self.values.right(value))
            case Compare(_, operator, value):
                return self._run(*self._bounds(operator, value))
            case In(_, values):
                return self._any_of(self.values.find(values))
            case NotIn(_, values):
                return ~self._any_of(self.values.find(values))
            case Prefix(_, prefix) if isinstance(self.values, Strings):
                return self._run(*self.values.starting_with(prefix))
            case Exists():
                return self._run(0, len(self.values))
        raise _unknown(condition)

    def counts(self, allowed: Bitmap | None) -> Counts:
        """Return how many allowed rows have each value, shape (distinct values,)."""
        totals, distinct = self.totals[:-1].astype(np.int64), len(self.values)
        if allowed is None:
            return totals
        if distinct <= _COUNTED_ONE_BY_ONE:
            mask = allowed.mask()
            counted = (np.count_nonzero(mask & (self.codes == code)) for code in range(distinct))
            return np.fromiter(counted, np.int64, distinct)
        if allowed.count * 2 <= allowed.length:
            return self._counted(allowed.rows())
        return totals - self._counted((~allowed).rows())

    def _counted(self, rows: Rows) -> Counts:
        return np.bincount(self.codes[rows], minlength=len(self.totals))[:-1]

    def _bounds(self, operator: Operator, value: Any) -> tuple[int, int]:
        match operator:
            case Operator.GT:
                return self.values.right(value), len(self.values)
            case Operator.GTE:
                return self.values.left(value), len(self.values)
            case Operator.LT:
                return 0, self.values.left(value)
            case Operator.LTE:
                return 0, self.values.right(value)
        return self.values.left(value), self.values.right(value)

    def _run(self, start: int, stop: int) -> Bitmap:
        """Return the rows with codes from `start` up to `stop`."""
        rows = len(self.codes)
        if start >= stop:
            return Bitmap.none(rows)
        if start == 0 and stop == len(self.values) and not self.missing:
            return Bitmap.all(rows)
        return Bitmap.from_mask(self._mask_of_run(start, stop))

    def _mask_of_run(self, start: int, stop: int) -> Mask:
        codes, mask = self.codes, np.empty(len(self.codes), np.bool_)
        if stop - start == 1:
            np.equal(codes, start, out=mask)
        elif start == 0:
            np.less(codes, stop, out=mask)
        else:
            np.greater_equal(codes, start, out=mask)
            if stop < len(self.values) or self.missing:
                mask &= codes < stop
        return mask

    def _any_of(self, codes: Codes) -> Bitmap:
        if not len(codes):
            return Bitmap.none(len(self.codes))
        if codes[-1] - codes[0] == len(codes) - 1:
            return self._run(int(codes[0]), int(codes[-1]) + 1)
        wanted = np.zeros(len(self.values) + 1, np.bool_)
        wanted[codes] = True
        return Bitmap.from_mask(gathered(wanted, self.codes))


@dataclass(frozen=True, slots=True)
class ListColumn:
    """Hold the rows of every element: `dense[code]`, else `rows[starts[code]:starts[code + 1]]`.

    `longest` is the most distinct elements in one row, `present` the rows that have a list.
    """

    values: Values
    starts: NDArray[Any]
    rows: NDArray[np.uint32]
    dense: Mapping[int, Bitmap]
    longest: int
    present: Bitmap

    @property
    def form(self) -> str:
        """Say in a few words what the column is held as."""
        return f"rows of each element, {len(self.dense)} as bits"

    @property
    def nbytes(self) -> int:
        """Return the bytes the column holds."""
        bitmaps = sum(bitmap.nbytes for bitmap in (self.present, *self.dense.values()))
        return self.values.nbytes + self.starts.nbytes + self.rows.nbytes + bitmaps

    def allowed(self, condition: Expression) -> Bitmap:
        """Return the rows that one bound condition on this column allows."""
        match condition:
            case Contains(_, value):
                return self._any_of(self.values.find((value,)))
            case ContainsAny(_, values):
                return self._any_of(self.values.find(values))
            case ContainsAll(_, values):
                codes = self.values.find(values)
                missed = len(codes) < len(values) or len(codes) > self.longest
                return Bitmap.none(self.present.length) if missed else self._all_of(codes)
            case Exists():
                return self.present
        raise _unknown(condition)

    def counts(self, allowed: Bitmap | None) -> Counts:
        """Return how many allowed rows have each element, shape (distinct elements,)."""
        if allowed is None:
            ends = self.starts.astype(np.int64)
            counts: Counts = ends[1:] - ends[:-1]
        elif allowed.count * 2 > allowed.length:
            return self.counts(None) - self.counts(~allowed)
        else:
            counts = self._counted(gathered(allowed.mask(), self.rows))
        for code, bitmap in self.dense.items():
            counts[code] = bitmap.count if allowed is None else (bitmap & allowed).count
        return counts

    def counts_of(self, codes: Codes, allowed: Bitmap) -> Counts:
        """Return how many allowed rows have each of these elements, every one of which is in some row."""
        held = np.array([code not in self.dense for code in codes.tolist()], np.bool_)
        counts = np.zeros(len(codes), np.int64)
        starts = self.starts[codes[held]].astype(np.int64)
        sizes = self.starts[codes[held] + 1] - starts
        if len(sizes):
            firsts = np.cumsum(sizes) - sizes
            places = np.arange(sizes.sum()) + np.repeat(starts - firsts, sizes)
            counts[held] = _sums(gathered(allowed.mask(), self.rows[places]), firsts)
        for place in np.flatnonzero(~held).tolist():
            counts[place] = (self.dense[int(codes[place])] & allowed).count
        return counts

    def elements_in(self, allowed: Bitmap) -> tuple[Codes, Counts]:
        """Return the elements of allowed rows in ascending order, and how many of the rows have each.

        What takes longest depends on the hits; `counts` is quicker where many rows are allowed.
        """
        places = places_of(gathered(allowed.mask(), self.rows)).astype(self.starts.dtype)
        of_hits = np.searchsorted(self.starts, places, side="right") - 1
        ends = np.flatnonzero(np.append(of_hits[1:] != of_hits[:-1], True)[: len(of_hits)]) + 1
        codes, counts = of_hits[ends - 1], np.diff(ends, prepend=0)
        if not self.dense:
            return codes, counts
        codes = np.concatenate([codes, np.fromiter(self.dense, np.int64)])
        in_dense = [(bitmap & allowed).count for bitmap in self.dense.values()]
        counts = np.concatenate([counts, np.array(in_dense, np.int64)])
        order = np.argsort(codes)
        return codes[order], counts[order]

    def _counted(self, hits: Mask) -> Counts:
        """Return how many of the row numbers held for each element are hits."""
        counts = np.zeros(len(self.values), np.int64)
        held = self.starts[1:] > self.starts[:-1]
        counts[held] = _sums(hits, self.starts[:-1][held].astype(np.int64))
        return counts

    def _any_of(self, codes: Codes) -> Bitmap:
        sparse, dense = self._found(codes)
        if sparse or not dense:
            rows = np.concatenate(sparse) if sparse else self.rows[:0]
            dense.append(Bitmap.from_rows(rows, self.present.length))
        return reduce(or_, dense)

    def _all_of(self, codes: Codes) -> Bitmap:
        sparse, dense = self._found(codes)
        if sparse:
            rows, *others = sorted(sparse, key=len)
            for other in others:
                rows = rows[_are_in(rows, other)]
            dense.append(Bitmap.from_rows(rows, self.present.length))
        return reduce(and_, dense)

    def _found(self, codes: Codes) -> tuple[list[NDArray[np.uint32]], list[Bitmap]]:
        """Return what there is of each element: row numbers of some, bitmaps of the others."""
        sparse, dense = [], []
        for code in codes.tolist():
            if code in self.dense:
                dense.append(self.dense[code])
            else:
                sparse.append(self.rows[self.starts[code] : self.starts[code + 1]])
        return sparse, dense


Column = ScalarColumn | ListColumn


def build_column(kind: FieldType, column: pa.ChunkedArray) -> Column:
    """Build the form of a column that answers conditions; strings may be dictionary-encoded."""
    if kind.is_list:
        return _build_list(kind, column)
    values, codes = ranked(kind, column)
    totals = np.bincount(codes, minlength=len(values) + 1)
    return ScalarColumn(values, _smallest(codes, len(values)), _smallest(totals, totals.max()))


def _build_list(kind: FieldType, column: pa.ChunkedArray) -> ListColumn:
    length = len(column)
    values, codes = ranked(kind.element, _flattened(column))
    rows = np.repeat(np.arange(length, dtype=np.uint64), _sizes(column))
    known = codes < len(values)  # an element can be missing, too
    pairs = np.sort((codes[known].astype(np.uint64) << np.uint64(32)) | rows[known])
    pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]]
    of_row = (pairs & np.uint64(2**32 - 1)).astype(np.uint32)
    of_code = (pairs >> np.uint64(32)).astype(np.int64)
    counted = np.bincount(of_code, minlength=len(values))
    ends = np.cumsum(counted)
    is_dense = counted * ROW_NUMBER_BYTES > packed_bytes(length)
    starts = np.append(0, np.cumsum(np.where(is_dense, 0, counted)))
    return ListColumn(
        values=values,
        starts=_smallest(starts, starts[-1]),
        rows=of_row[~is_dense[of_code]],
        dense={
            code: Bitmap.from_rows(of_row[ends[code] - counted[code] : ends[code]], length)
            for code in np.flatnonzero(is_dense).tolist()
        },
        longest=int(np.bincount(of_row).max(initial=0)),
        present=Bitmap.from_mask(_present(column)),
    )


def _smallest(numbers: NDArray[np.int64], largest: int) -> NDArray[Any]:
    """Return the numbers in the smallest unsigned type that holds the largest."""
    return numbers.astype(np.min_scalar_type(int(largest)))


def _flattened(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([chunk.flatten() for chunk in column.chunks], column.type.value_type)


def _sizes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    sizes = [chunk.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(sizes).astype(np.int64) if sizes else np.empty(0, np.int64)


def _present(column: pa.ChunkedArray) -> Mask:
    return np.asarray(column.is_valid().to_numpy(), dtype=np.bool_)


def gathered(table: Mask, places: NDArray[Any]) -> Mask:
    """Return `table[places]`; places are unsigned and within the table.

    Arrow takes small unsigned places as they are, NumPy makes 8 bytes of each before.
    """
    found = pc.array_take(pa.array(table.view(np.uint8)), pa.array(places), boundscheck=False)
    mask: Mask = found.to_numpy().view(np.bool_)
    return mask


def _sums(hits: Mask, firsts: NDArray[np.int64]) -> Counts:
    """Return how many hits there are from each of these places up to the next one."""
    return np.add.reduceat(hits.view(np.uint8), firsts, dtype=np.int32).astype(np.int64)


def _are_in(rows: NDArray[np.uint32], others: NDArray[np.uint32]) -> Mask:
    """Tell which rows are among others, both ascending."""
    places = np.minimum(np.searchsorted(others, rows), len(others) - 1)
    return np.asarray(others[places] == rows)


def _unknown(condition: Expression) -> WhereError:
    return WhereError(f"where expression: {shown(condition)} is not a condition of its field.")
