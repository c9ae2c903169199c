"""Turn vectors so that every sub-quantiser of their codes has about equally much to tell.

The principal axes of the vectors are dealt out to the sub-quantisers, the widest first, each to the one that
has the least so far: the variances in every group come to have about the same product, which is what product
quantisation wants of vectors that are spread normally (Ge, He, Ke and Sun, "Optimized Product Quantization",
2013, the parametric solution). It takes no rounds of fitting to the codes.
"""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.encoders.base import Vectors

LEAST_VARIANCE = 1e-9
"""Directions with less than this share of the widest one's variance count as having so much."""


def balanced_rotation(sample: Vectors, quantisers: int, rotated: int) -> Any:
    """Return a faiss transform of vectors like those of `sample`, shape (n, d), to `rotated` dimensions.

    `rotated` is a multiple of `quantisers`, each of which gets as many dimensions in a row. The narrowest
    directions are left out, and inner products keep but for what those hold; where `rotated` is more than d,
    dimensions without anything are added.
    """
    dimension = sample.shape[1]
    axes, variances = _principal_axes(sample)
    if rotated > dimension:
        axes = np.pad(axes, ((0, rotated - dimension), (0, 0)))
        variances = np.pad(variances, (0, rotated - dimension))
    order = _dealt_out(variances[:rotated], quantisers)
    transform = faiss.LinearTransform(dimension, rotated, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(axes[order]).ravel(), transform.A)
    transform.is_trained = True
    transform.is_orthonormal = rotated <= dimension
    return transform


def _principal_axes(sample: Vectors) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return d orthonormal axes, shape (d, d), widest first, and the variances along them."""
    rows, dimension = sample.shape
    if rows < 2 * dimension:  # not enough to span them all: the rest is seen to by a little in each direction
        little = np.float32(np.sqrt(LEAST_VARIANCE * max(float(sample.var(axis=0).sum()), LEAST_VARIANCE)))
        sample = np.concatenate((sample, little * np.eye(dimension, dtype=np.float32)))
    principal = faiss.PCAMatrix(dimension, dimension)
    principal.train(np.ascontiguousarray(sample))
    axes = faiss.vector_to_array(principal.PCAMat).reshape(-1, dimension)
    return axes, faiss.vector_to_array(principal.eigenvalues)


def _dealt_out(variances: NDArray[np.float32], quantisers: int) -> NDArray[np.int64]:
    """Return the numbers of the axes, group after group, for variances in descending order."""
    least = max(float(variances[0]) * LEAST_VARIANCE, float(np.finfo(np.float32).tiny))
    # Counted from the narrowest, so that every axis adds to its group: the first go to groups of their own.
    told = np.log(np.maximum(variances, least)) - np.log(max(float(variances[-1]), least)) + 1.0
    size = len(variances) // quantisers
    groups: list[list[int]] = [[] for _ in range(quantisers)]
    sums = np.zeros(quantisers)
    for axis, amount in enumerate(told):
        group = int(sums.argmin())
        groups[group].append(axis)
        sums[group] += amount
        if len(groups[group]) == size:
            sums[group] = np.inf
    return np.array(groups, dtype=np.int64).ravel()
