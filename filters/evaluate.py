"""Which rows a bound where expression allows, computed over Arrow columns."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compactds.filters.errors import WhereError, shown
from compactds.filters.where import (
    And,
    Compare,
    Contains,
    ContainsAll,
    ContainsAny,
    Exists,
    Expression,
    In,
    Not,
    NotIn,
    Operator,
    Or,
    Prefix,
)

Mask = NDArray[np.bool_]


class Columns(Protocol):
    """Give the columns of a table by name."""

    def column(self, name: str) -> pa.Array:
        """Return one contiguous column, one value a row, nulls where a value is missing.

        Types: bool, int64, float64, string, date32, timestamp[us, UTC], list<string>, list<int64>;
        strings may be dictionary-encoded.
        """


_COMPARISONS: dict[Operator, Callable[[Any, Any], Any]] = {
    Operator.EQ: pc.equal,
    Operator.GT: pc.greater,
    Operator.GTE: pc.greater_equal,
    Operator.LT: pc.less,
    Operator.LTE: pc.less_equal,
}


def evaluate(expression: Expression, columns: Columns, rows: int) -> Mask:
    """Return which rows a bound expression allows, shape (rows,).

    A missing value fails every comparison; `$ne`, `$nin` and `$not` are exact complements.
    """
    match expression:
        case And(parts):
            mask = evaluate(parts[0], columns, rows)
            for part in parts[1:]:
                mask &= evaluate(part, columns, rows)
            return mask
        case Or(parts):
            mask = evaluate(parts[0], columns, rows)
            for part in parts[1:]:
                mask |= evaluate(part, columns, rows)
            return mask
        case Not(part):
            return ~evaluate(part, columns, rows)
        case Compare(name, Operator.NE, value):
            return ~_compare(columns.column(name), Operator.EQ, value)
        case Compare(name, operator, value):
            return _compare(columns.column(name), operator, value)
        case In(name, values):
            return _is_in(columns.column(name), values)
        case NotIn(name, values):
            return ~_is_in(columns.column(name), values)
        case Contains(name, value):
            return _any_element(columns.column(name), lambda items: _compare(items, Operator.EQ, value))
        case ContainsAny(name, values):
            return _any_element(columns.column(name), lambda items: _is_in(items, values))
        case ContainsAll(name, values):
            return _all_elements(columns.column(name), values)
        case Prefix(name, prefix):
            return _decoded(columns.column(name), lambda items: _truth(pc.starts_with(items, pattern=prefix)))
        case Exists(name):
            return _decoded(columns.column(name), _present)
    raise WhereError(f"where expression: {shown(expression)} is not a part of one.")


def _truth(result: pa.BooleanArray) -> Mask:
    """Return an Arrow truth value a row as NumPy's, missing as false."""
    if result.null_count:
        result = pc.fill_null(result, False)
    return np.array(result.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _present(items: pa.Array) -> Mask:
    """Return which values are there; NaN is a missing value."""
    return ~_truth(pc.is_null(items, nan_is_null=True))


def _decoded(column: pa.Array, test: Callable[[pa.Array], Mask]) -> Mask:
    """Test a column, or the dictionary of an encoded one and then spread the answers over its rows."""
    if not isinstance(column, pa.DictionaryArray):
        return test(column)
    answers = np.append(test(column.dictionary), False)
    return answers[_codes(column)]


def _codes(column: pa.DictionaryArray) -> NDArray[np.int64]:
    """Return the dictionary position of each row; that of a missing one is the dictionary's length."""
    codes = pc.fill_null(column.indices.cast(pa.int64()), len(column.dictionary))
    return np.asarray(codes.to_numpy(zero_copy_only=False))


def _compare(column: pa.Array, operator: Operator, value: Any) -> Mask:
    def test(items: pa.Array) -> Mask:
        return _truth(_COMPARISONS[operator](items, pa.scalar(value, type=items.type)))

    return _decoded(column, test)


def _is_in(column: pa.Array, values: tuple[Any, ...]) -> Mask:
    def test(items: pa.Array) -> Mask:
        return _truth(pc.is_in(items, value_set=_value_set(values, items.type)))

    return _decoded(column, test)


def _value_set(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    """Return the values as Arrow; zero in both signs, which sets tell apart and comparisons do not."""
    zeros = (0.0, -0.0) if pa.types.is_floating(kind) and 0.0 in values else ()
    return pa.array([*values, *zeros], type=kind)


def _elements(column: pa.ListArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return all elements of a list column, and the offsets (rows + 1) where each row's begin."""
    offsets = np.asarray(column.offsets.cast(pa.int64()).to_numpy())
    items = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    return items, offsets - offsets[0]


def _rows_of(found: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row of each element position, by search when they are few."""
    if found.size < offsets.size // 8:
        return np.searchsorted(offsets, found, side="right") - 1
    return np.repeat(np.arange(offsets.size - 1), np.diff(offsets))[found]


def _any_element(column: pa.ListArray, test: Callable[[pa.Array], Mask]) -> Mask:
    items, offsets = _elements(column)
    mask = np.zeros(len(column), dtype=np.bool_)
    mask[_rows_of(np.flatnonzero(test(items)), offsets)] = True
    return mask & _present(column)


def _all_elements(column: pa.ListArray, values: tuple[Any, ...]) -> Mask:
    """Count the distinct wanted values in each row, in one pass however many are wanted."""
    items, offsets = _elements(column)
    kind = items.type.value_type if isinstance(items, pa.DictionaryArray) else items.type
    positions = _positions(items, _value_set(values, kind))
    found = np.flatnonzero(positions >= 0)
    pairs = np.unique(_rows_of(found, offsets) * len(values) + positions[found])
    counts = np.bincount(pairs // len(values), minlength=len(column))
    complete: Mask = counts == len(values)
    return complete & _present(column)


def _positions(items: pa.Array, wanted: pa.Array) -> NDArray[np.int64]:
    """Return where each element stands among the wanted values, -1 for one that does not."""
    if isinstance(items, pa.DictionaryArray):
        return np.append(_positions(items.dictionary, wanted), -1)[_codes(items)]
    indices = pc.fill_null(pc.index_in(items, value_set=wanted), -1)
    return np.asarray(indices.to_numpy(zero_copy_only=False), dtype=np.int64)
