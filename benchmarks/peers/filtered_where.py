"""Read attributes and answer where expressions over them with NumPy alone; write them in other languages.

Systems without attributes of their own get their bitmaps from here, and so do the exact answers. A where
expression is the JSON that compactds reads, of which this knows equality, $ne, $gt, $gte, $lt, $lte, $in,
$nin, $contains, $contains_any, $and, $or and $not. A missing value fails every comparison; $ne, $nin and $not
are exact complements.
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Where = dict[str, Any]
Mask = NDArray[np.bool_]

NEGATED = {"$eq": "$ne", "$ne": "$eq", "$in": "$nin", "$nin": "$in"}
REVERSED = {"$gt": "$lte", "$gte": "$lt", "$lt": "$gte", "$lte": "$gt"}
SYMBOLS = {"$eq": "=", "$ne": "<>", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a .jsonl or .jsonl.gz file."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open("rb") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def read_attributes(path: str | Path, rows: int) -> list[dict[str, Any]]:
    """Return the attributes of the first `rows` rows."""
    return list(islice(read_lines(Path(path)), rows))


@dataclass(frozen=True, slots=True)
class Scalars:
    """Hold a column with one value a row: distinct values in order, and each row's number of its, or -1."""

    values: list[Any]
    codes: NDArray[np.int32]

    @property
    def has_missing(self) -> bool:
        return bool((self.codes < 0).any())


@dataclass(frozen=True, slots=True)
class Lists:
    """Hold a column of lists: distinct elements in order, and all (element, row) pairs by element."""

    values: list[Any]
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]

    def rows_of(self, code: int) -> NDArray[np.int32]:
        return self.rows[self.starts[code] : self.starts[code + 1]]


class Columns:
    """Hold attributes by column."""

    def __init__(self, records: Sequence[dict[str, Any]]) -> None:
        self.rows = len(records)
        names = dict.fromkeys(name for record in records for name in record)
        self.columns = {name: column([record.get(name) for record in records]) for name in names}
        self._codes = {
            name: {value: code for code, value in enumerate(held.values)}
            for name, held in self.columns.items()
        }

    def __getitem__(self, name: str) -> Scalars | Lists:
        return self.columns[name]

    def mask(self, where: Where) -> Mask:
        """Return which rows a where expression allows."""
        return reduce(np.logical_and, [self._part(name, value) for name, value in where.items()])

    def _part(self, name: str, value: Any) -> Mask:
        if name == "$and":
            return reduce(np.logical_and, map(self.mask, value))
        if name == "$or":
            return reduce(np.logical_or, map(self.mask, value))
        if name == "$not":
            return ~self.mask(value)
        operators = value if isinstance(value, dict) else {"$eq": value}
        return reduce(np.logical_and, [self._test(name, *pair) for pair in operators.items()])

    def _test(self, name: str, operator: str, value: Any) -> Mask:
        held, codes = self.columns[name], self._codes[name]
        if isinstance(held, Lists):
            mask = np.zeros(self.rows, np.bool_)
            for element in {"$contains": [value], "$contains_any": value}[operator]:
                if element in codes:
                    mask[held.rows_of(codes[element])] = True
            return mask
        if operator in ("$ne", "$nin"):
            return ~self._test(name, NEGATED[operator], value)
        if operator in ("$eq", "$in"):
            wanted = np.zeros(len(held.values) + 1, np.bool_)  # the last is for missing ones: code -1
            wanted[[codes[one] for one in ([value] if operator == "$eq" else value) if one in codes]] = True
            return wanted[held.codes]
        compare = {"$gt": np.greater, "$gte": np.greater_equal, "$lt": np.less, "$lte": np.less_equal}
        wanted = np.append(compare[operator](np.asarray(held.values), value), False)
        return wanted[held.codes]


def column(cells: Sequence[Any]) -> Scalars | Lists:
    """Return a column of scalars or of lists; None is a missing value."""
    if any(isinstance(cell, list) for cell in cells):
        values = sorted({element for cell in cells for element in cell or ()})
        codes = {value: code for code, value in enumerate(values)}
        pairs = [(codes[element], row) for row, cell in enumerate(cells) for element in set(cell or ())]
        held = np.asarray(pairs, np.int64).reshape(-1, 2)
        held = held[np.lexsort((held[:, 1], held[:, 0]))]
        starts = np.searchsorted(held[:, 0], np.arange(len(values) + 1))
        return Lists(values, starts, held[:, 1].astype(np.int32))
    values = sorted({cell for cell in cells if cell is not None})
    codes = {value: code for code, value in enumerate(values)} | {None: -1}
    return Scalars(values, np.asarray([codes[cell] for cell in cells], np.int32))


def simple(where: Where, negate: bool = False) -> Where:
    """Return a where expression without $not, whose every part is one field with one operator.

    {"$not": {"$contains": x}} of a field is what is left of a negation that has no exact opposite.
    """
    parts = [part for name, value in where.items() for part in simple_parts(name, value, negate)]
    return parts[0] if len(parts) == 1 else {"$or" if negate else "$and": parts}


def simple_parts(name: str, value: Any, negate: bool) -> list[Where]:
    if name == "$not":
        return [simple(value, not negate)]
    if name in ("$and", "$or"):
        group = {"$and": "$or", "$or": "$and"}[name] if negate else name
        return [{group: [simple(part, negate) for part in value]}]
    found: list[Where] = []
    for operator, operand in (value if isinstance(value, dict) else {"$eq": value}).items():
        if operator == "$contains_any" and len(operand) == 1:
            found += simple_parts(name, {"$contains": operand[0]}, negate)
        elif not negate:
            found.append({name: {operator: operand}})
        elif operator in NEGATED:
            found.append({name: {NEGATED[operator]: operand}})
        else:
            found.append({name: {"$not": {operator: operand}}})
    return found


def to_sql(where: Where, contains: str, contains_any: str, missing: frozenset[str] = frozenset()) -> str:
    """Return an SQL condition; `missing` are the fields that are missing in some rows."""

    def written(part: Where) -> str:
        ((name, value),) = part.items()
        if name in ("$and", "$or"):
            return "(" + f" {name[1:].upper()} ".join(map(written, value)) + ")"
        ((operator, operand),) = value.items()
        if operator == "$not":
            condition = f"NOT ({written({name: operand})})"
            return f"({condition} OR {name} IS NULL)" if name in missing else condition
        if operator == "$contains":
            return f"{contains}({name}, {literal(operand)})"
        if operator == "$contains_any":
            return f"{contains_any}({name}, [{', '.join(map(literal, operand))}])"
        if operator in ("$in", "$nin"):
            condition = (
                f"{name} {'IN' if operator == '$in' else 'NOT IN'} ({', '.join(map(literal, operand))})"
            )
        else:
            condition = f"{name} {SYMBOLS[operator]} {literal(operand)}"
        absent = name in missing and operator in ("$ne", "$nin")
        return f"({condition} OR {name} IS NULL)" if absent else condition

    return written(simple(where))


def literal(value: Any) -> str:
    """Return a value as SQL has it."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def to_chroma(where: Where) -> Where:
    """Return what Chroma takes: no $not, no $contains_any.

    A negated range loses rows without a value.
    """

    def written(part: Where) -> Where:
        ((name, value),) = part.items()
        if name in ("$and", "$or"):
            return {name: [written(each) for each in value]}
        ((operator, operand),) = value.items()
        negate = operator == "$not"
        if negate:
            ((operator, operand),) = operand.items()
        if operator == "$contains_any":
            one = "$not_contains" if negate else "$contains"
            return {"$and" if negate else "$or": [{name: {one: element}} for element in operand]}
        if not negate:
            return part
        return {name: {"$not_contains" if operator == "$contains" else REVERSED[operator]: operand}}

    return written(simple(where))
