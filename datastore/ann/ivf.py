"""The IVF index of faiss: a rotation, lists of neighbours, and a 4-bit product-quantised code a row.

A code tells how a row differs from the centroid of its list.

A row costs half a byte a sub-quantiser and its eight-byte id. The codes only propose candidates; the
vectors on disk decide.
"""

import math
import threading
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.ann.base import NO_ROW, Bounds, Rows, Scores
from compactds.datastore.ann.ivf_filtered import Walk
from compactds.datastore.ann.list_map import ListCounts, ListMap
from compactds.datastore.ann.reach import Reach
from compactds.datastore.ann.rotation import balanced_rotation
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.parallel import one_thread

TRAINING_ROWS_PER_LIST = 64
LEAST_TRAINING_ROWS_PER_LIST = 39
MOST_TRAINING_ROWS_PER_LIST = 256
"""As many as faiss's k-means takes."""
TRAINING_BYTES = 192 << 20
"""A store whose float32 vectors fit in here trains its index on all of them, but for those that calibrate it
and those over what k-means takes: it finds those best that it was trained on."""
LISTS_PER_ROOT = 1.4
ROTATION_ROWS = 16_384
"""The rotation is fitted to so many rows: more change it little."""
SCALED_ROWS = 16_384
CODE_BITS = 4
CODE_WORDS = 16
ID_BYTES = 8
BLOCK_ROWS = 32
"""A list's codes are kept in blocks of so many rows, the last one filled up."""
COARSE_CODES_FROM_LISTS = 256
"""From so many lists on, the nearest are found by codes of the centroids first, then by the centroids."""
COARSE_OVERSAMPLING = 2.0
COARSE_DIMENSIONS_PER_CODE = 4
NEAR_LISTS = 8
"""How many of a query's nearest lists tell what a filter leaves around it."""
ENOUGH_SHARE = 0.7
"""A filter that leaves so much leaves enough wherever a query is."""
SPARSE = 0.1
"""Where a filter leaves less than this part of what it leaves on average, a walk finds the rest."""
FILTERED_POWER = -0.35
"""Where a filter leaves a share s of the rows around a query, the same recall takes about s ** -0.35 times
as many lists: measured at shares of 0.1 to 0.9."""
CANDIDATES_POWER = 0.5
"""Where a filter has n times as many lists searched, n ** 0.5 times as many candidates are scored: what is
left of a crowd lies close together."""
MICROSECONDS_PER_CODE_BYTE = 1.5e-4
MICROSECONDS_PER_SEARCH = 20.0


@dataclass(frozen=True, slots=True)
class CodeShape:
    """Hold the shape of the codes: sub-quantisers of four bits, over a rotated vector's dimensions."""

    quantisers: int
    rotated: int

    @property
    def bytes(self) -> int:
        """Return the bytes of one code."""
        return (self.quantisers * CODE_BITS + 7) // 8


@dataclass(frozen=True, slots=True)
class IvfIndex:
    """Search the lists nearest to a query; effort is how many lists."""

    transform: Any
    ivf: Any
    whole: Any
    rows: int
    lists: int
    shape: CodeShape
    reach: Reach | None = None
    list_maps: list[ListMap] = field(default_factory=list, repr=False)
    map_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    exact: bool = False
    filters: bool = True

    @property
    def efforts(self) -> tuple[int, ...]:
        """Return powers of the fourth root of two, from two up to all lists."""
        return _efforts(self.lists)

    @property
    def ram_bytes(self) -> int:
        """Return the size of everything the index holds: codes with their padding, ids, centroids."""
        sizes = (int(self.ivf.get_list_size(number)) for number in range(self.lists))
        blocks = sum(-(-size // BLOCK_ROWS) for size in sizes)
        fixed = fixed_ram_bytes(int(self.transform.d_in), self.lists, self.shape)
        return blocks * BLOCK_ROWS * self.shape.bytes + self.rows * ID_BYTES + fixed

    def cost_us(self, effort: int) -> float:
        """Return about how many microseconds a search of this effort takes: a model, not a measurement."""
        return MICROSECONDS_PER_SEARCH + self.worth(effort) * self.shape.bytes * MICROSECONDS_PER_CODE_BYTE

    def search(
        self,
        queries: Vectors,
        count: int,
        *,
        effort: int,
        allowed: Bitmap | None = None,
        bounds: Bounds | None = None,
    ) -> tuple[Scores, Rows]:
        """Return the `count` best allowed rows of the nearest lists, for every query.

        Without a filter, these are `effort` lists. With one, lists are walked until no more better rows are
        to be expected in others than `bounds` let a search miss, or else until the allowed rows in them are
        worth as much as those of `effort` lists are without (see `ivf_filtered`).
        """
        rotated = self._rotated(queries)
        found = min(count, max(1, self.rows))
        if allowed is None:
            scores, rows = self._search_open(rotated, found, effort)
        else:
            scores, rows = self._search_filtered(rotated, found, effort, allowed, bounds or Bounds())
        if found == count:
            return scores, rows
        missing = ((0, 0), (0, count - found))
        return (
            np.pad(scores, missing, constant_values=-np.inf),
            np.pad(rows, missing, constant_values=NO_ROW),
        )

    def _search_open(self, rotated: Vectors, count: int, effort: int) -> tuple[Scores, Rows]:
        scores = np.empty((len(rotated), count), np.float32)
        rows = np.empty((len(rotated), count), np.int64)
        # The plain call of the wrapped library: its Python wrapper costs a tenth of such a search.
        self.ivf.search_c(
            len(rotated),
            faiss.swig_ptr(rotated),
            count,
            faiss.swig_ptr(scores),
            faiss.swig_ptr(rows),
            _unfiltered(min(max(1, effort), self.lists)),
        )
        return scores, rows

    def _search_filtered(
        self, rotated: Vectors, count: int, effort: int, allowed: Bitmap, bounds: Bounds
    ) -> tuple[Scores, Rows]:
        scores = np.full((len(rotated), count), -np.inf, np.float32)
        rows = np.full((len(rotated), count), NO_ROW, np.int64)
        known = self.list_map()
        counts = known.counts(allowed)
        walk = Walk(self, self.reach, known, counts, self.worth(effort), bounds)
        for place, query in enumerate(rotated):
            walk.search(query, scores[place], rows[place])
        return scores, rows

    def effort_under(self, query: Vectors, effort: int, counts: ListCounts) -> int | None:
        """Return how many lists are searched under a filter, for one query, in place of `effort` lists.

        None if the filter leaves next to nothing in the lists nearest to the query.
        """
        density = counts.share
        if not counts.even and density < ENOUGH_SHARE:
            near = min(NEAR_LISTS, self.lists)
            rotated = self._rotated(query[np.newaxis])
            scores, lists = np.empty((1, near), np.float32), np.empty((1, near), np.int64)
            pointers = faiss.swig_ptr(rotated), near, faiss.swig_ptr(scores), faiss.swig_ptr(lists)
            self.ivf.quantizer.search_c(1, *pointers)
            held = self.list_map().sizes[lists].sum()
            left = counts.allowed[lists].sum()
            if left <= SPARSE * counts.share * held:
                return None
            density = min(1.0, float(left / held))
        return self.effort_at(density, effort)

    def effort_at(self, share: float, effort: int) -> int:
        """Return how many lists to search where a filter leaves a share of the rows, one of the efforts."""
        efforts = _efforts(self.lists)
        wanted = effort * share**FILTERED_POWER
        above = min(bisect_left(efforts, wanted), len(efforts) - 1)
        below = max(above - 1, 0)
        nearest = efforts[below if efforts[above] * efforts[below] > wanted * wanted else above]
        return max(nearest, min(effort, self.lists))

    def scan_lists(
        self, rotated: Vectors, lists: Rows, closeness: Scores, parameters: Any, scores: Scores, rows: Rows
    ) -> None:
        """Search lists for one query, into `scores` and `rows`; sets the parameters' list count.

        `closeness` holds the scores of the lists' centroids.
        """
        parameters.nprobe = len(lists)
        arrays = [np.ascontiguousarray(lists), np.ascontiguousarray(closeness), scores, rows]
        pointers = [faiss.swig_ptr(array) for array in arrays]
        self.ivf.search_preassigned_c(1, faiss.swig_ptr(rotated), len(rows), *pointers, False, parameters)

    def thresholds(self, queries: Vectors, count: int) -> list[tuple[Scores, Rows]]:
        """Return the scores of every query's `count` best rows, best first, and the lists they are in."""
        scores, rows = self.search(queries, count, effort=self.lists)
        numbers = self.list_map().list_of_row
        return [
            (found[theirs != NO_ROW], numbers[theirs[theirs != NO_ROW]])
            for found, theirs in zip(scores, rows, strict=True)
        ]

    def centroid_scores(self, queries: Vectors) -> list[Scores]:
        """Return the score of every list's centroid for every query."""
        return [self.list_map().closeness(rotated) for rotated in self._rotated(queries)]

    def list_sizes(self) -> NDArray[np.float32]:
        """Return how many rows each list holds."""
        return self.list_map().sizes

    def _rotated(self, queries: Vectors) -> Vectors:
        queries = np.ascontiguousarray(queries, np.float32)
        rotated = np.empty((len(queries), self.shape.rotated), np.float32)
        self.transform.apply_noalloc(len(queries), faiss.swig_ptr(queries), faiss.swig_ptr(rotated))
        return rotated

    def worth(self, effort: int) -> float:
        """Return how many rows a search of this effort meets without a filter."""
        return min(effort, self.lists) * self.rows / self.lists

    def list_map(self) -> ListMap:
        """Return which list holds each row; found out once, at the first search under a filter."""
        with self.map_lock:
            if not self.list_maps:
                self.list_maps.append(ListMap(self.ivf))
            return self.list_maps[0]


def code_shape(dimension: int, code_bytes: int) -> CodeShape:
    """Return the shape of codes of `code_bytes` for vectors of `dimension`.

    Every sub-quantiser takes equally many dimensions, so that the rotation may drop the few least
    important dimensions that do not divide evenly.
    """
    quantisers = max(2, min(2 * code_bytes, dimension))
    return CodeShape(quantisers, quantisers * max(1, dimension // quantisers))


def list_count(rows: int) -> int:
    """Return the number of lists for `rows` vectors: 1.4 times the square root, fewer where rows are few.

    Finding the nearest lists then costs half of what scanning them does. With 1 or 2 times the root, searches
    of 123,000 vectors took as long or a tenth longer at the same recall.
    """
    most = max(1, rows // LEAST_TRAINING_ROWS_PER_LIST)
    return min(most, max(1, round(LISTS_PER_ROOT * math.sqrt(rows))))


def fixed_ram_bytes(dimension: int, lists: int, shape: CodeShape) -> int:
    """Return what an IVF index holds whatever the rows: rotation, centroids, codebooks, list headers."""
    rotation: int = 4 * dimension * shape.rotated
    codebooks = 4 * shape.rotated * CODE_WORDS
    if lists < COARSE_CODES_FROM_LISTS:
        return rotation + codebooks + lists * (4 * shape.rotated + 48)
    coarse = _coarse_shape(shape.rotated)
    centroids = lists * (2 * shape.rotated + coarse // 2)
    return rotation + codebooks + centroids + lists * 48 + 4 * shape.rotated * CODE_WORDS


def ivf_ram_bytes(rows: int, dimension: int, lists: int, shape: CodeShape) -> int:
    """Return what an IVF index of `rows` is expected to hold: half a block of padding a list."""
    padded = rows + lists * BLOCK_ROWS // 2
    return padded * shape.bytes + rows * ID_BYTES + fixed_ram_bytes(dimension, lists, shape)


def training_rows(rows: int, dimension: int, lists: int) -> int:
    """Return how many rows an index of `rows` is trained on."""
    wanted = max(TRAINING_BYTES // (4 * dimension), TRAINING_ROWS_PER_LIST * lists)
    return min(rows, wanted, MOST_TRAINING_ROWS_PER_LIST * lists)


def build_ivf(
    path: Path, blocks: Iterator[Vectors], *, sample: Vectors, lists: int, shape: CodeShape
) -> dict[str, int]:
    """Train on `sample`, add all vectors in `blocks` in order, write the index; return its parameters.

    Training takes one thread, as its outcome would depend on how many there are; adding takes all.
    """
    factory = f"IVF{lists},PQ{shape.quantisers}x4fs"
    own = faiss.index_factory(shape.rotated, factory, faiss.METRIC_INNER_PRODUCT)
    ivf = faiss.downcast_index(own)
    ivf.by_residual = True
    for training in (ivf.cp, ivf.pq.cp):
        training.min_points_per_centroid = 1  # `list_count` has seen to it; faiss would write to stderr
    with one_thread():
        rotation = balanced_rotation(_some(sample, ROTATION_ROWS), *astuple(shape))
        index = faiss.IndexPreTransform(rotation, ivf)
        turned = rotation.apply(sample)
        _place_centroids(ivf, turned)
        ivf.train(turned)
    del turned
    index.is_trained = True
    for block in blocks:
        index.add(block)
    exact_centroids = ivf.quantizer
    if lists >= COARSE_CODES_FROM_LISTS:
        with one_thread():
            coarse = _coarse_quantizer(faiss.downcast_index(exact_centroids))
        ivf.quantizer = coarse[0]
    faiss.write_index(index, str(path))
    ivf.quantizer = exact_centroids
    return {"lists": lists, "code_bytes": shape.bytes, "rotated_dimension": shape.rotated}


def _place_centroids(ivf: Any, sample: Vectors) -> None:
    """Find the centroids of an index's lists: directions, all of the length that leaves codes least to tell.

    Rows join the list whose direction they score highest with, which centroids as long as the means of their
    rows would do less well; how long all are together changes nothing in that.
    """
    lists, flat = int(ivf.nlist), faiss.downcast_index(ivf.quantizer)
    clustering = faiss.Clustering(int(ivf.d), lists, ivf.cp)
    clustering.train(sample, flat)
    directions = faiss.vector_to_array(clustering.centroids).reshape(lists, -1)
    scores, _ = flat.search(_some(sample, SCALED_ROWS), 1)
    flat.reset()
    flat.add(np.ascontiguousarray(directions * np.float32(scores.mean(dtype=np.float64))))


def _some(sample: Vectors, most: int) -> Vectors:
    """Return at most so many of the rows of a sample, drawn at random, in order."""
    if len(sample) <= most:
        return sample
    return sample[np.sort(np.random.default_rng(0).choice(len(sample), most, replace=False))]


def open_ivf(path: Path, *, reach: Reach | None = None) -> IvfIndex:
    """Read an IVF index into memory; raise RuntimeError for a file that is not one.

    Without its `reach`, searches under a filter go as far as their effort says.
    """
    whole = faiss.read_index(str(path))
    transform = faiss.downcast_VectorTransform(whole.chain.at(0))
    ivf = faiss.downcast_index(faiss.extract_index_ivf(whole))
    return IvfIndex(
        transform=transform,
        ivf=ivf,
        whole=whole,
        rows=int(ivf.ntotal),
        lists=int(ivf.nlist),
        shape=CodeShape(int(ivf.pq.M), int(transform.d_out)),
        reach=reach,
    )


@lru_cache(maxsize=64)
def _efforts(lists: int) -> tuple[int, ...]:
    steps = {min(lists, round(2 ** (step / 4))) for step in range(4, 4 * lists.bit_length() + 1)}
    return tuple(sorted(steps))


@lru_cache(maxsize=1024)
def _unfiltered(probes: int) -> Any:
    """Return search parameters that no search changes: making them costs as much as a fast search saves."""
    return faiss.SearchParametersIVF(nprobe=probes)


def _coarse_shape(rotated: int) -> int:
    """Return the sub-quantisers of the centroids' own codes: an even number that divides `rotated`."""
    wanted = max(2, rotated // COARSE_DIMENSIONS_PER_CODE)
    return next((m for m in range(wanted, rotated + 1) if rotated % m == 0 and m % 2 == 0), rotated)


def _coarse_quantizer(centroids: Any) -> tuple[Any, Any, Any]:
    """Return a quantiser that finds the nearest centroids in a third of the time, and its two parts.

    4-bit codes of the centroids name twice as many as are asked for, half-float copies order them. The
    parts must live as long as the quantiser.
    """
    dimension, vectors = int(centroids.d), centroids.reconstruct_n(0, int(centroids.ntotal))
    codes = faiss.IndexPQFastScan(dimension, _coarse_shape(dimension), CODE_BITS, faiss.METRIC_INNER_PRODUCT)
    codes.pq.cp.min_points_per_centroid = 1
    halves = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for part in (codes, halves):
        part.train(vectors)
        part.add(vectors)
    quantizer = faiss.IndexRefine(codes, halves)
    quantizer.k_factor = COARSE_OVERSAMPLING
    return quantizer, codes, halves
