"""Choose the kind of ANN index for a corpus and a memory budget."""

from dataclasses import dataclass
from typing import Literal

from compactds.datastore.ann.hnsw import hnsw_ram_bytes
from compactds.datastore.ann.ivf import code_shape, ivf_ram_bytes, list_count
from compactds.datastore.errors import SearchError

IndexKind = Literal["flat", "hnsw", "ivf"]

FLAT_BELOW_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """Hold a choice: the kind, its predicted memory when open, and the reason in one sentence."""

    kind: IndexKind
    ram_bytes: int
    lists: int
    reason: str


class BudgetError(SearchError):
    """Report a memory budget that no kind of index fits in; the message says the least that would."""

    code = "memory_budget"


def choose_index(
    rows: int, dimension: int, *, memory_bytes: int, kind: IndexKind | Literal["auto"] = "auto"
) -> IndexPlan:
    """Choose flat under 50,000 rows, above that HNSW if it fits the budget, and IVF if it does not.

    A `kind` other than "auto" is taken as given. Raises BudgetError if the choice does not fit.
    """
    quantisers, _ = code_shape(dimension)
    lists = list_count(rows)
    sizes: dict[IndexKind, int] = {
        "flat": 4 * rows * dimension,
        "hnsw": hnsw_ram_bytes(rows, dimension),
        "ivf": ivf_ram_bytes(rows, dimension, lists, quantisers // 2),
    }
    chosen: IndexKind
    if kind != "auto":
        chosen, reason = kind, "the recipe asks for it"
    elif rows < FLAT_BELOW_ROWS and sizes["flat"] <= memory_bytes:
        chosen, reason = "flat", f"{rows:,} passages are fewer than {FLAT_BELOW_ROWS:,}"
    elif rows >= FLAT_BELOW_ROWS and sizes["hnsw"] <= memory_bytes:
        chosen, reason = "hnsw", f"graph and full vectors fit the memory budget of {memory_bytes:,} bytes"
    else:
        chosen, reason = "ivf", f"full vectors do not fit the memory budget of {memory_bytes:,} bytes"
    if sizes[chosen] > memory_bytes:
        raise BudgetError(
            f"an index of kind {chosen!r} over {rows:,} passages needs {sizes[chosen]:,} bytes of memory, "
            f"the budget is {memory_bytes:,}.",
            value=memory_bytes,
            remedy=f"Give at least {min(sizes.values()):,} bytes (kind 'ivf' needs the least).",
        )
    return IndexPlan(chosen, sizes[chosen], lists if chosen == "ivf" else 0, reason)
