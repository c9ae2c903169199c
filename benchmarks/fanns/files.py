"""Read the files of arxiv-for-fanns as they are published.

database_vectors.fvecs, query_vectors.fvecs     each vector after its dimension, little-endian
database_attributes.jsonl                       one object a row
em_query_attributes.jsonl                       {"label": 3}: number_of_sub_categories is it
r_query_attributes.jsonl                        {"range_start": …, "range_end": …}: update_date, inclusive
emis_query_attributes.jsonl                     {"label": "math"}: main_categories has it
ground_truth[_em|_r|_emis].ivecs                up to 100 nearest rows a query, fewer if fewer are allowed
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmarks.peers.filtered_where import Where, read_lines
from numpy.typing import NDArray

SETS = ("none", "em", "r", "emis")
BLOCK_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Hold one kind of filter: where for each query, and the rows to be found, nearest first."""

    name: str
    wheres: list[Where | None]
    truth: list[NDArray[np.int32]]


def map_fvecs(path: Path) -> NDArray[np.float32]:
    """Return the vectors of an .fvecs file, shape (n, d), mapped."""
    words = np.memmap(path, np.dtype("<i4"), "r")
    dimension = int(words[0])
    if dimension < 1 or len(words) % (dimension + 1):
        raise SystemExit(f"{path} is no .fvecs file: {4 * len(words):,} bytes, dimension {dimension}.")
    rows = words.reshape(-1, dimension + 1)
    if (rows[:, 0] != dimension).any():
        raise SystemExit(f"{path} holds vectors of different dimensions.")
    vectors: NDArray[np.float32] = rows[:, 1:].view(np.dtype("<f4"))
    return vectors


def save_npy(vectors: NDArray[np.float32], path: Path, dtype: str) -> None:
    """Write vectors as .npy, block by block."""
    out = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), vectors.shape)
    for start in range(0, len(vectors), BLOCK_ROWS):
        out[start : start + BLOCK_ROWS] = vectors[start : start + BLOCK_ROWS]
    out.flush()


def read_ivecs(path: Path, limit: int | None = None) -> list[NDArray[np.int32]]:
    """Return the rows of an .ivecs file, which differ in length; places filled up with -1 are left out."""
    words = np.fromfile(path, np.dtype("<i4"))
    found: list[NDArray[np.int32]] = []
    place = 0
    while place < len(words) and (limit is None or len(found) < limit):
        length = int(words[place])
        row = words[place + 1 : place + 1 + length]
        if length < 0 or len(row) < length:
            raise SystemExit(f"{path} is no .ivecs file: row {len(found)} has length {length}.")
        found.append(row[row >= 0])
        place += 1 + length
    return found


def read_set(folder: Path, name: str, limit: int | None = None) -> QuerySet:
    """Return one set of queries: "em", "r", "emis", or "none" for those without filters."""
    suffix = "" if name == "none" else f"_{name}"
    truth = read_ivecs(folder / f"ground_truth{suffix}.ivecs", limit)
    if name == "none":
        return QuerySet(name, [None] * len(truth), truth)
    path = folder / f"{name}_query_attributes.jsonl"
    wheres = [where_of(name, wanted) for _, wanted in zip(truth, read_lines(path), strict=False)]
    if len(wheres) < len(truth):
        raise SystemExit(f"{path} has {len(wheres):,} lines, expected {len(truth):,}.")
    return QuerySet(name, list(wheres), truth)


def where_of(name: str, wanted: Where) -> Where:
    """Return the where expression of one line of query attributes."""
    if name == "em":
        return {"number_of_sub_categories": wanted["label"]}
    if name == "r":
        return {"update_date": {"$gte": wanted["range_start"], "$lte": wanted["range_end"]}}
    return {"main_categories": {"$contains": wanted["label"]}}
