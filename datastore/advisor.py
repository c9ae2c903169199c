"""Measure what kinds of codes cost and give on a sample of somebody's own vectors, to choose one by.

Every list is scanned, so that a code alone decides what is found: a store, which scans few lists, finds
less. And a sample has fewer near misses than all of the vectors, so that codes do better on it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from tokenize import TokenError
from typing import Any

import faiss
import numpy as np
from numpy.lib.format import MAGIC_PREFIX, open_memmap
from numpy.typing import NDArray

from compactds.datastore.ann.base import Rows
from compactds.datastore.ann.choose import code_sizes
from compactds.datastore.ann.ivf import open_ivf
from compactds.datastore.ann.ivf_build import build_ivf, training_rows
from compactds.datastore.ann.ivf_shape import ID_BYTES, code_shape, list_count
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.errors import VectorError
from compactds.datastore.parallel import alone, share_out

SAMPLE_ROWS = 50_000
SAMPLE_BYTES = 256 << 20
"""A sample holds at most so many rows, and so many bytes of float32 numbers."""
QUERIES = 500
LEAST_ROWS = 1_000
K = 10
RERANKED = (100, 200)
MOST_CANDIDATES = 1_000
"""How many candidates are looked at to tell how many of them a recall takes."""
RECALLS = (0.9, 0.95, 0.99)
TIMED_ROUNDS = 5
TIMED_QUERIES = 64
SEED = 0
RABITQ_QUERY_BITS = 8
OTHER_CODES = {
    "RaBitQ 1 bit, random rotation": "RR{dimension},IVF{lists},RaBitQ",
    "RaBitQ 2 bits, random rotation": "RR{dimension},IVF{lists},RaBitQ2",
    "RaBitQ 4 bits, random rotation": "RR{dimension},IVF{lists},RaBitQ4",
    "scalar 4 bits": "IVF{lists},SQ4",
    "scalar 8 bits": "IVF{lists},SQ8",
    "float16, as it is": "IVF{lists},SQfp16",
}
"""Codes that stores do not have, as faiss's factory names them."""

Search = Callable[[Vectors, int], Rows]


@dataclass(frozen=True, slots=True)
class CodeMeasure:
    """Hold what one kind of code costs and gives.

    `code_bytes` is the code of a vector, `ram_bytes` that with its eight-byte row number. `recall` is
    recall@10 of the code alone, `reranked` that after the exact scores of so many candidates. `candidates`
    is how many it takes for a recall, None where 1,000 are too few. `queries_per_second` is the rate of one
    thread that scans the whole sample, `train_s` the processor time of training and encoding.
    """

    name: str
    code_bytes: float
    ram_bytes: float
    recall: float
    reranked: dict[int, float]
    candidates: dict[float, int | None]
    queries_per_second: float
    train_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Hold vectors (n, d), queries (q, d) that are not among them, and each query's ten nearest rows."""

    vectors: Vectors
    queries: Vectors
    truth: Rows


def open_vectors(path: Path) -> NDArray[np.floating]:
    """Map the vectors of a .npy file, floats of shape (n, d); raise VectorError for another file."""
    vectors = _map_npy(path)
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise VectorError(
            f"{path} holds {vectors.dtype} of shape {vectors.shape}, expected floats of shape "
            "(n, dimension).",
            value=str(vectors.shape),
            remedy="Save a two-dimensional array of float16 or float32.",
        )
    if not vectors.size:
        raise VectorError(f"{path} holds no vectors.", value=str(path), remedy="Give at least one.")
    return vectors


def _map_npy(path: Path) -> NDArray[Any]:
    """Map the array of a .npy file; raise VectorError for another file."""
    why = "it is no .npy file"
    remedy = "Give a two-dimensional array of float16 or float32, as numpy.save writes it to a .npy file."
    try:
        with path.open("rb") as file:
            begins = file.read(len(MAGIC_PREFIX))
        if begins == MAGIC_PREFIX:
            return open_memmap(path, mode="r")
    except OSError as error:
        why, remedy = error.strerror or str(error), "Give the path of a .npy file that can be read."
    except (ValueError, OverflowError, SyntaxError, TokenError):
        why = "the .npy file is damaged or cut short, or holds objects in place of numbers"
    raise VectorError(
        f"cannot read vectors from {path}: {why}.",
        value=str(path),
        remedy=remedy,
    )


def sample_rows(rows: int, dimension: int, *, most: int = SAMPLE_ROWS + QUERIES) -> Rows:
    """Return the rows of a set of vectors that are measured, queries included, in order."""
    most = min(rows, most, max(LEAST_ROWS, SAMPLE_BYTES // (4 * dimension)))
    return np.sort(np.random.default_rng(SEED).choice(rows, most, replace=False))


def split_sample(vectors: Vectors) -> Sample:
    """Take queries out of sampled vectors, shape (n, d), and find their true neighbours among the others.

    Raises VectorError for fewer than 1,000 vectors, for ones that are zero or not finite, and for ones of a
    length whose square float32 does not hold.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) < LEAST_ROWS:
        raise VectorError(
            f"vectors of shape {vectors.shape} are too few to measure codes on.",
            value=list(vectors.shape),
            remedy=f"Give at least {LEAST_ROWS:,} vectors; below that no code is needed.",
        )
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if len(bad):
        none = bad[~np.isfinite(vectors[bad]).all(axis=1) | ~vectors[bad].any(axis=1)]
        of = f"of {len(vectors):,} sampled vectors"
        if len(none):
            raise VectorError(
                f"{len(none):,} {of} {'is' if len(none) == 1 else 'are'} zero or not finite.",
                value=len(none),
                remedy="Leave them out; a build does with --skip-invalid.",
            )
        raise VectorError(
            f"{len(bad):,} {of} {'is' if len(bad) == 1 else 'are'} too long or too short for float32 to hold "
            "the square of the length.",
            value=len(bad),
            remedy="Scale all vectors.",
        )
    order = np.random.default_rng(SEED).permutation(len(vectors))
    count = min(QUERIES, len(vectors) // 10)
    queries, base = vectors[np.sort(order[:count])], vectors[np.sort(order[count:])]
    _, truth = faiss.knn(queries, base, K, faiss.METRIC_INNER_PRODUCT)
    return Sample(base, queries, truth)


def measured_sizes(dimension: int) -> list[int]:
    """Return the code sizes that are measured, in bytes: what a build chooses from, and a finer one."""
    return sorted({max(1, dimension // 6), *code_sizes(dimension)}, reverse=True)


def count_codes(dimension: int) -> int:
    """Return how many kinds of codes `measure_codes` measures for vectors of `dimension`."""
    return len(measured_sizes(dimension)) + len(OTHER_CODES)


def measure_codes(sample: Sample) -> Iterator[CodeMeasure]:
    """Yield what each kind of code costs and gives: those of stores, largest first, then others.

    In memory are the sample, and one index of it at a time.
    """
    for size in measured_sizes(sample.vectors.shape[1]):
        yield measure_store_code(sample, size)
    for name, factory in OTHER_CODES.items():
        yield _measure(name, sample, partial(_build_other, sample.vectors, factory))


def measure_store_code(sample: Sample, code_bytes: int) -> CodeMeasure:
    """Return what the codes of `code_bytes` cost and give that a store's IVF index holds."""
    shape = code_shape(sample.vectors.shape[1], code_bytes)
    name = f"PQ 4 bits x {shape.quantisers}, balanced rotation"
    return _measure(name, sample, partial(_build_store_index, sample.vectors, code_bytes))


def _build_store_index(vectors: Vectors, code_bytes: int) -> tuple[float, Search]:
    shape, lists = code_shape(vectors.shape[1], code_bytes), list_count(len(vectors))
    with TemporaryDirectory(prefix="compactds-") as folder:
        path = Path(folder) / "index"
        build_ivf(
            path,
            iter([vectors]),
            sample=_training_sample(vectors, lists),
            lists=lists,
            shape=shape,
        )
        index = open_ivf(path)
    return shape.bytes, lambda queries, count: index.search(queries, count, effort=lists)[1]


def _build_other(vectors: Vectors, factory: str) -> tuple[float, Search]:
    lists = list_count(len(vectors))
    factory = factory.format(dimension=vectors.shape[1], lists=lists)
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    ivf = faiss.downcast_index(faiss.extract_index_ivf(index))
    ivf.cp.min_points_per_centroid = 1  # `list_count` has seen to it
    index.train(_training_sample(vectors, lists))
    index.add(vectors)
    ivf.nprobe = lists
    if isinstance(ivf, faiss.IndexIVFRaBitQ):
        ivf.qb = RABITQ_QUERY_BITS

    def search(queries: Vectors, count: int) -> Rows:
        rows: Rows = index.search(queries, count)[1]
        return rows

    return float(ivf.code_size), search


def _training_sample(vectors: Vectors, lists: int) -> Vectors:
    rows, dimension = vectors.shape
    count = training_rows(rows, dimension, lists)
    return vectors[np.sort(np.random.default_rng(SEED).choice(len(vectors), count, replace=False))]


def _measure(name: str, sample: Sample, build: Callable[[], tuple[float, Search]]) -> CodeMeasure:
    before = time.process_time()
    code_bytes, search = build()
    train_s = time.process_time() - before
    count = min(MOST_CANDIDATES, len(sample.vectors))
    found = np.concatenate(share_out(lambda part: [search(sample.queries[part], count)], len(sample.queries)))
    return CodeMeasure(
        name=name,
        code_bytes=code_bytes,
        ram_bytes=code_bytes + ID_BYTES,
        recall=_recall(found[:, :K], sample.truth),
        reranked={number: _recall(found[:, :number], sample.truth) for number in RERANKED},
        candidates=_candidates_for(found, sample.truth),
        queries_per_second=_rate(search, sample.queries[:TIMED_QUERIES]),
        train_s=round(train_s, 2),
    )


def _recall(found: Rows, truth: Rows) -> float:
    shared = (truth[:, :, np.newaxis] == found[:, np.newaxis, :]).any(axis=2)
    return round(float(shared.mean()), 4)


def _candidates_for(found: Rows, truth: Rows) -> dict[float, int | None]:
    """Return how many of the candidates found it takes to hold each share of the true neighbours."""
    hits = np.stack(
        [np.isin(rows, wanted, assume_unique=True) for rows, wanted in zip(found, truth, strict=True)]
    )
    recalls = hits.sum(axis=0).cumsum() / truth.size
    enough = {recall: int(np.searchsorted(recalls, recall)) + 1 for recall in RECALLS}
    return {recall: count if count <= len(recalls) else None for recall, count in enough.items()}


def _rate(search: Search, queries: Vectors) -> float:
    """Return the queries a second of one thread: its processor time in the quickest of some rounds."""

    def timed(_: slice) -> list[float]:
        spent = []
        for _round in range(TIMED_ROUNDS):
            start = time.thread_time()
            search(queries, RERANKED[0])
            spent.append(time.thread_time() - start)
        return spent

    return round(len(queries) / max(1e-9, min(alone(timed, slice(0, 1)))), 1)
