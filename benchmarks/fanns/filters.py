"""Make filters of a wanted selectivity and shape from real attributes, near a query, far from it, or neither.

Every row has a weight, which says how near it is to the query. "positive" filters take the values whose rows
weigh most, those of the query's nearest neighbours; "negative" ones take those whose rows weigh least;
for "none" values are drawn at random.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.peers.filtered_where import Columns, Lists, Mask, Scalars, Where
from numpy.typing import NDArray

SELECTIVITIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 0.2, 0.5, 0.9)
SIGNS = {"positive": 1.0, "none": 0.0, "negative": -1.0}
MOST_VALUES = 1_000
ATTEMPTS = 30
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Window:
    """Say how many rows a filter should allow, and how many it may."""

    target: float
    least: int
    most: int

    @classmethod
    def of(cls, selectivity: float, rows: int) -> "Window":
        """Allow a part of the wanted selectivity more or less, of what is left out as of what is allowed."""
        slack = min(0.6 * selectivity, 0.5 * (1 - selectivity))
        target = max(1.0, rows * selectivity)
        least = math.ceil(rows * (selectivity - 0.6 * slack))
        return cls(target, max(1, least), max(1, math.floor(rows * (selectivity + slack))))

    def scaled(self, factor: float) -> "Window":
        """Return the window of a part that, with others, makes up this one; it is wide."""
        target = max(1.0, self.target * factor)
        return Window(target, max(1, round(0.7 * target)), max(1, round(1.4 * target)))

    def holds(self, count: int) -> bool:
        return self.least <= count <= self.most


@dataclass(frozen=True, slots=True)
class Maker:
    """Make filters for one query; `weights` (n) are those of rows, `sign` the correlation."""

    columns: Columns
    weights: Floats
    sign: float
    draw: np.random.Generator

    def make(self, shape: str, selectivity: float) -> Where | None:
        """Return a filter, or None if the attributes have none of this shape and selectivity."""
        window = Window.of(selectivity, self.columns.rows)
        makers: dict[str, Callable[[Window], Where | None]] = {
            "equality": self.equality,
            "range": self.range,
            "membership": self.membership,
            "contains": self.contains,
            "conjunction": self.conjunction,
            "disjunction": self.disjunction,
            "negation": self.negation,
        }
        where = makers[shape](window)
        return where if where and window.holds(self.count(where)) else None

    def count(self, where: Where) -> int:
        return int(self.mask(where).sum())

    def mask(self, where: Where) -> Mask:
        return self.columns.mask(where)

    def fields(self, kind: type[Scalars] | type[Lists]) -> list[str]:
        """Return the names of fields of a kind, in random order."""
        names = [name for name, held in self.columns.columns.items() if isinstance(held, kind)]
        return [names[place] for place in self.draw.permutation(len(names))]

    def counted(self, name: str) -> tuple[NDArray[np.int64], Floats]:
        """Return how many rows each value of a field has, and a score: the higher, the more wanted."""
        held = self.columns[name]
        size = len(held.values)
        if isinstance(held, Lists):
            counts = np.diff(held.starts)
            codes, weights = np.repeat(np.arange(size), counts), self.weights[held.rows]
        else:
            present = held.codes >= 0
            codes, weights = held.codes[present], self.weights[present]
            counts = np.bincount(codes, minlength=size)
        total = np.bincount(codes, weights=weights, minlength=size)
        return counts, self.scored(total / np.maximum(counts, 1))

    def scored(self, mean_weights: Floats) -> Floats:
        """Return mean weights times the sign, ties and uncorrelated ones in random order."""
        return self.sign * mean_weights + (1.0 if self.sign == 0 else 1e-9) * self.draw.random(
            len(mean_weights)
        )

    def equality(self, window: Window) -> Where | None:
        """Return a comparison of a scalar field with one value."""
        best: tuple[float, Where] | None = None
        for name in self.fields(Scalars):
            counts, scores = self.counted(name)
            able = np.flatnonzero((counts >= window.least) & (counts <= window.most))
            if len(able):
                code = able[np.argmax(scores[able])]
                found = (float(scores[code]), {name: self.columns[name].values[code]})
                best = found if best is None or found[0] > best[0] else best
        return best[1] if best else None

    def range(self, window: Window) -> Where | None:
        """Return a range of numbers."""
        best: tuple[float, Where] | None = None
        for name in self.fields(Scalars):
            held = self.columns[name]
            if isinstance(held, Scalars) and not isinstance(held.values[0], bool | str):
                found = self.range_of(name, held, window)
                best = found if best is None or (found and found[0] > best[0]) else best
        return best[1] if best else None

    def range_of(self, name: str, held: Scalars, window: Window) -> tuple[float, Where] | None:
        """Return the best range of one field, with its score: from each value on as far as is wanted."""
        present = held.codes >= 0
        counts = np.bincount(held.codes[present], minlength=len(held.values))
        weights = np.bincount(held.codes[present], self.weights[present], minlength=len(held.values))
        sums, weighed = np.append(0, np.cumsum(counts)), np.append(0, np.cumsum(weights))
        first = np.arange(len(held.values))
        last = np.searchsorted(sums, sums[:-1] + window.target)
        last = np.clip(last, first + 1, len(held.values))
        shorter = np.maximum(last - 1, first + 1)
        middle = (sums[shorter] + sums[last]) / 2 - sums[first]
        last = np.where(middle > window.target, shorter, last)
        sizes = sums[last] - sums[first]
        able = np.flatnonzero((sizes >= window.least) & (sizes <= window.most))
        if not len(able):
            return None
        scores = self.scored((weighed[last] - weighed[first])[able] / sizes[able])
        place = able[np.argmax(scores)]
        limits = {"$gte": held.values[first[place]], "$lte": held.values[last[place] - 1]}
        return float(scores.max()), {name: limits}

    def membership(self, window: Window, outside: bool = False) -> Where | None:
        """Return a set of values of a field of strings; with `outside`, the set of all values not wanted."""
        for name in self.fields(Scalars):
            held = self.columns[name]
            assert isinstance(held, Scalars)
            if not isinstance(held.values[0], str) or len(held.values) < 3:
                continue
            counts, scores = self.counted(name)
            missing = self.columns.rows - int(counts.sum()) if outside else 0
            chosen = chosen_values(counts, scores, window, missing)
            if chosen is None:
                continue
            if outside:
                chosen = sorted(set(range(len(counts))) - set(chosen))
            return {name: {"$nin" if outside else "$in": [held.values[code] for code in chosen]}}
        return None

    def contains(self, window: Window) -> Where | None:
        """Return a condition on the elements of a list: one, or any of several."""
        for name in self.fields(Lists):
            held = self.columns[name]
            assert isinstance(held, Lists)
            counts, scores = self.counted(name)
            able = np.flatnonzero((counts >= window.least) & (counts <= window.most))
            if len(able):
                return {name: {"$contains": held.values[able[np.argmax(scores[able])]]}}
            able = np.flatnonzero(
                (counts <= window.most) & (counts >= min(window.target * 3 / MOST_VALUES, counts.max()))
            )
            mask, size, chosen = np.zeros(self.columns.rows, np.bool_), 0, []
            for code in able[np.argsort(-scores[able], kind="stable")][:MOST_VALUES]:
                rows = held.rows_of(int(code))
                new = len(rows) - int(mask[rows].sum())
                if size + new > window.most:
                    continue
                mask[rows] = True
                size += new
                chosen.append(int(code))
                if size >= window.target:
                    break
            if window.holds(size):
                return {name: {"$contains_any": [held.values[code] for code in chosen]}}
        return None

    def clause(self, window: Window) -> Where | None:
        """Return a condition on one field."""
        makers = (self.equality, self.range, self.membership, self.contains)
        return makers[self.draw.integers(len(makers))](window)

    def conjunction(self, window: Window) -> Where | None:
        """Return two or three conditions on different fields that hold together."""
        share = window.target / self.columns.rows
        for _ in range(ATTEMPTS):
            exponent, boost = self.draw.uniform(0.2, 0.8), 1.0
            for _ in range(3):
                sizes = (share * boost) ** exponent, (share * boost) ** (1 - exponent)
                parts = [self.clause(Window.of(min(size, 0.98), self.columns.rows)) for size in sizes]
                if None in parts or {*parts[0]} == {*parts[1]}:  # type: ignore[misc]
                    break
                where = {**parts[0], **parts[1]}  # type: ignore[dict-item]
                count = self.count(where)
                if window.holds(count):
                    return self.with_third(where, window)
                boost = min(boost * window.target / max(count, 0.3), 0.95 / share)
        return None

    def with_third(self, where: Where, window: Window) -> Where:
        """Return a conjunction with one more condition if that leaves it as selective as it should be."""
        for name in self.fields(Scalars):
            held = self.columns[name]
            if name not in where and len(held.values) <= 5:
                counts, _ = self.counted(name)
                longer = {**where, name: held.values[int(np.argmax(counts))]}
                if window.holds(self.count(longer)):
                    return longer
        return where

    def disjunction(self, window: Window) -> Where | None:
        """Return two conditions of which one must hold."""
        for _ in range(ATTEMPTS):
            part = self.draw.uniform(0.3, 0.7)
            parts = [self.clause(window.scaled(part)), self.clause(window.scaled(1 - part))]
            if None not in parts and parts[0] != parts[1]:
                where = {"$or": parts}
                if window.holds(self.count(where)):
                    return where
        return None

    def negation(self, window: Window) -> Where | None:
        """Return the complement of a set of values, of a range, or of a condition on a list."""
        rest = self.columns.rows
        opposite = Maker(self.columns, self.weights, -self.sign, self.draw)
        outside = Window(rest - window.target, rest - window.most, rest - window.least)

        def ways() -> Iterator[Where | None]:
            yield self.membership(window, outside=True)
            yield negated(opposite.range(outside))
            yield negated(opposite.contains(outside))

        found = [where for where in ways() if where and window.holds(self.count(where))]
        return found[self.draw.integers(len(found))] if found else None


def negated(where: Where | None) -> Where | None:
    return {"$not": where} if where else None


def chosen_values(
    counts: NDArray[np.int64], scores: Floats, window: Window, already: int = 0
) -> list[int] | None:
    """Return values that together have as many rows as wanted, the best scored first; two at least."""
    size, chosen = already, []
    for code in np.argsort(-scores, kind="stable"):
        if counts[code] and size + counts[code] <= window.most:
            size += int(counts[code])
            chosen.append(int(code))
            if (size >= window.target and len(chosen) > 1) or len(chosen) == MOST_VALUES:
                break
    return sorted(chosen) if window.holds(size) and len(chosen) > 1 else None


SHAPES = ("equality", "range", "membership", "contains", "conjunction", "disjunction", "negation")
