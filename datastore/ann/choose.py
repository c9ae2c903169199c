"""Choose the kind of ANN index, and the size of its codes, for a corpus and a memory budget."""

from dataclasses import dataclass
from typing import Literal

from compactds.datastore.ann.hnsw import hnsw_ram_bytes
from compactds.datastore.ann.ivf_shape import (
    LEAST_TRAINING_ROWS_PER_LIST,
    CodeShape,
    code_shape,
    ivf_ram_bytes,
    list_count,
)
from compactds.datastore.errors import SearchError

IndexKind = Literal["flat", "hnsw", "ivf"]

FLAT_BELOW_ROWS = 10_000
DIMENSIONS_PER_BYTE = (9.6, 12, 16, 24, 32)
"""How many dimensions share a byte of code, finest first: 40, 32, 24, 16 and 12 bytes of 384 dimensions."""


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """Hold a choice: the kind, its predicted memory when open, and the reason in one sentence.

    `lists` and `code_bytes` are 0 for kinds that have none.
    """

    kind: IndexKind
    ram_bytes: int
    lists: int
    reason: str
    code_bytes: int = 0

    def shape(self, dimension: int) -> CodeShape:
        """Return the shape of the codes for vectors of `dimension`."""
        return code_shape(dimension, self.code_bytes)


class BudgetError(SearchError):
    """Report a memory budget that no kind of index fits in; the message says the least that would."""

    code = "memory_budget"


def choose_index(
    rows: int,
    dimension: int,
    *,
    memory_bytes: int,
    kind: IndexKind | Literal["auto"] = "auto",
    code_bytes: int | None = None,
) -> IndexPlan:
    """Choose flat under 10,000 rows and IVF above, with the finest codes that fit the memory.

    A `kind` other than "auto", and `code_bytes`, are taken as given; HNSW is used only if asked for. Raises
    BudgetError if nothing fits.
    """
    flat_bytes, hnsw_bytes = 4 * rows * dimension, hnsw_ram_bytes(rows, dimension)
    asked = kind == "ivf"
    codes = [_ivf_plan(rows, dimension, size, asked=asked) for size in code_sizes(dimension, code_bytes)]
    fitting = [plan for plan in codes if plan.ram_bytes <= memory_bytes]
    smallest = min(codes, key=lambda plan: plan.ram_bytes)
    if kind == "flat" or (kind == "auto" and rows < FLAT_BELOW_ROWS and flat_bytes <= memory_bytes):
        fewer = f"{rows:,} passage{'s are' if rows != 1 else ' is'} fewer than {FLAT_BELOW_ROWS:,}"
        plan = IndexPlan("flat", flat_bytes, 0, fewer if kind == "auto" else "the recipe asks for it")
    elif kind == "hnsw":
        plan = IndexPlan("hnsw", hnsw_bytes, 0, "the recipe asks for it")
    elif rows < LEAST_TRAINING_ROWS_PER_LIST:
        plan = IndexPlan("flat", flat_bytes, 0, f"{rows:,} passages are too few to train codes on")
    else:
        plan = fitting[0] if fitting else smallest
    if plan.ram_bytes > memory_bytes:
        if kind == "auto" and flat_bytes < plan.ram_bytes:
            plan = IndexPlan("flat", flat_bytes, 0, "nothing takes less")
        raise _too_small(plan, rows, memory_bytes, of_all=kind == "auto")
    return plan


def _too_small(plan: IndexPlan, rows: int, memory_bytes: int, *, of_all: bool) -> BudgetError:
    """Return the error for the plan that takes least, of its own kind or `of_all`."""
    least = _at_least(plan.ram_bytes)
    message = (
        f"no index over {rows:,} passages fits the memory budget of {memory_bytes:,} bytes: the smallest, "
        f"of kind {plan.kind!r}, needs {least}."
        if of_all
        else f"an index of kind {plan.kind!r} over {rows:,} passages needs {least} of memory, the budget is "
        f"{memory_bytes:,} bytes."
    )
    or_another = "" if of_all else ", or leave the choice of the kind to --index auto"
    return BudgetError(
        message,
        value=memory_bytes,
        remedy=f"Give at least {least}, with --memory or as memory under [index] in a recipe{or_another}.",
    )


def _at_least(size: int) -> str:
    """Return a size as --memory takes it, rounded up, so that it is enough."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            tenths = -(-size * 10 // factor)
            return f"{tenths // 10}.{tenths % 10}{unit}"
    return f"{size}B"


def code_sizes(dimension: int, code_bytes: int | None = None) -> list[int]:
    """Return the code sizes to choose from for vectors of `dimension`, in bytes, largest first."""
    if code_bytes is not None:
        return [code_bytes]
    return sorted({max(1, round(dimension / per_byte)) for per_byte in DIMENSIONS_PER_BYTE}, reverse=True)


def _ivf_plan(rows: int, dimension: int, code_bytes: int, *, asked: bool) -> IndexPlan:
    lists = list_count(rows)
    shape = code_shape(dimension, code_bytes)
    ram_bytes = ivf_ram_bytes(rows, dimension, lists, shape)
    few = f"{rows:,} vectors as they are take more than the memory budget"
    many = f"scoring all of {rows:,} passages for every query is slow"
    why = "the recipe asks for it" if asked else few if rows < FLAT_BELOW_ROWS else many
    reason = f"{why}, and of the codes to choose from, those of {shape.bytes} bytes are the finest that fit"
    return IndexPlan("ivf", ram_bytes, lists, reason, shape.bytes)
