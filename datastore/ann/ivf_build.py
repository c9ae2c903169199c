"""Build an IVF index: turn vectors, find lists, train codes, and fill it block by block."""

from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from compactds.datastore.ann.ivf_shape import COARSE_CODES_FROM_LISTS, CODE_BITS, CodeShape, coarse_quantisers
from compactds.datastore.ann.rotation import balanced_rotation
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.parallel import one_thread

TRAINING_ROWS_PER_LIST = 64
LEAST_TRAINING_ROWS = 1_000
"""So few rows are trained on whole, those that calibrate the index included."""
MOST_TRAINING_ROWS_PER_LIST = 256
"""As many as faiss's k-means takes."""
TRAINING_BYTES = 192 << 20
"""A store whose float32 vectors fit in here trains its index on all of them, but for those that calibrate it
and those over what k-means takes: it finds those best that it was trained on."""
ROTATION_ROWS = 16_384
"""The rotation is fitted to so many rows: more change it little."""
SCALED_ROWS = 16_384
COARSE_OVERSAMPLING = 2.0


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


def _coarse_quantizer(centroids: Any) -> tuple[Any, Any, Any]:
    """Return a quantiser that finds the nearest centroids in a third of the time, and its two parts.

    4-bit codes of the centroids name twice as many as are asked for, half-float copies order them. The
    parts must live as long as the quantiser.
    """
    dimension, vectors = int(centroids.d), centroids.reconstruct_n(0, int(centroids.ntotal))
    codes = faiss.IndexPQFastScan(
        dimension, coarse_quantisers(dimension), CODE_BITS, faiss.METRIC_INNER_PRODUCT
    )
    codes.pq.cp.min_points_per_centroid = 1
    halves = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for part in (codes, halves):
        part.train(vectors)
        part.add(vectors)
    quantizer = faiss.IndexRefine(codes, halves)
    quantizer.k_factor = COARSE_OVERSAMPLING
    return quantizer, codes, halves
