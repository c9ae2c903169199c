"""Ready-made vectors: a file of them, or a field of the records, checked and put beside their passages."""

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compactds.configs.sizes import counted
from compactds.datastore.advisor import open_vectors
from compactds.datastore.encoders.base import EncoderSpec, Vectors
from compactds.datastore.errors import VectorError
from compactds.datastore.vectors import EXACT_DTYPES
from compactds.indexer.errors import BuildError
from compactds.indexer.progress import Progress
from compactds.indexer.workspace import Workspace

UNIT_TOLERANCE = 2e-3
LOST_SHARE = 0.01
"""How much of a vector's length its stored form may be off; rounding to float16 takes 0.0005."""

BAD_VECTORS_SHOWN = 3
NONE = "zero or not finite"


@dataclass(frozen=True, slots=True)
class GivenVectors:
    """Hold what ready-made vectors turned out to be."""

    dimension: int
    normalized: bool


def take_given_vectors(
    workspace: Workspace, shards: int, records: int, path: Path | None, dtype: str, progress: Progress
) -> GivenVectors:
    """Put ready-made vectors beside the shards of their passages, as they are.

    They come from `path`, an .npy file of shape (records, dimension), or from the source itself.
    Raises BuildError for another shape, for vectors that are zero or not finite, and for ones that float32 or
    `dtype` cannot hold; all are counted.
    """
    rows = None if path is None else open_given_vectors(path, records)
    bad: list[int] = []
    beyond: list[int] = []
    lost: list[int] = []
    dimension, normalized = 0, True
    for number in range(shards):
        ordinals = workspace.read_shard(number, ["ordinal"]).column("ordinal").to_numpy()
        raw = workspace.read_vectors(number, "given") if rows is None else rows[ordinals]
        given = _as_float32(raw)
        if dimension and given.shape[1] != dimension:
            raise BuildError(
                f"vectors of {dimension} and of {given.shape[1]} dimensions.",
                value=given.shape[1],
                remedy="All vectors of a store need one dimension.",
            )
        dimension = given.shape[1]
        lengths = np.linalg.norm(given.astype(np.float64), axis=1)
        without = _without_direction(lengths)
        bad += ordinals[without & _are_none(raw)].tolist()
        beyond += ordinals[without & ~_are_none(raw)].tolist()
        normalized &= bool(np.all(np.abs(lengths - 1) < UNIT_TOLERANCE))
        lost += ordinals[_lost(given, lengths, dtype)].tolist()
        if bad or beyond or lost:
            continue
        workspace.write_vectors(number, "exact", given, EXACT_DTYPES[dtype])
        if rows is not None:
            let_go(rows)
        progress.advance(len(given))
    _refuse(bad, beyond, lost, dtype)
    return GivenVectors(dimension, normalized)


def refuse_unusable(found: Mapping[int, str]) -> None:
    """Raise BuildError for what `unusable_rows` found in a sample of vectors, if it found any."""
    none = [row for row, fault in found.items() if NONE in fault]
    beyond = [row for row, fault in found.items() if NONE not in fault]
    _refuse(none, beyond, (), "float32", "sampled ")


def _refuse(
    bad: Sequence[int], beyond: Sequence[int], lost: Sequence[int], dtype: str, sampled: str = ""
) -> None:
    """Raise BuildError for vectors that are none, that float32 cannot hold, or that `dtype` cannot."""
    if bad:
        raise BuildError(
            f"{counted(len(bad), f'{sampled}vector is', f'{sampled}vectors are')} {NONE}: {_records(bad)}.",
            value=len(bad),
            remedy="Correct them, or pass --skip-invalid to leave these records and vectors out.",
        )
    for refused, kind, remedy in (
        (beyond, "float32", "Scale all vectors, or pass --skip-invalid to leave these out."),
        (lost, dtype, "Set dtype = 'float32' in the recipe's [exact] table, or scale all vectors."),
    ):
        if refused:
            raise BuildError(
                f"{counted(len(refused), f'{sampled}vector holds', f'{sampled}vectors hold')} "
                f"numbers beyond {kind}, too large or too small: {_records(refused)}.",
                value=len(refused),
                remedy=remedy,
            )


def unusable_rows(vectors: Vectors, rows: NDArray[np.int64]) -> dict[int, str]:
    """Return what is wrong with those rows of a mapped file that hold unusable vectors.

    Vectors become float32, where numbers too large are infinite and ones too small are zero.
    """
    raw = vectors[rows]
    without = _without_direction(np.linalg.norm(_as_float32(raw).astype(np.float64), axis=1))
    let_go(vectors)
    reasons = np.where(_are_none(raw[without]), f"is {NONE}", "holds numbers beyond float32")
    return dict(zip(rows[without].tolist(), reasons.tolist(), strict=True))


def _as_float32(vectors: Vectors) -> Vectors:
    with np.errstate(over="ignore", under="ignore"):
        return vectors.astype(np.float32)


def _are_none(vectors: Vectors) -> NDArray[np.bool_]:
    """Tell which vectors hold what is not finite, or nothing but zeros, as they are in the file."""
    return np.asarray(~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1), np.bool_)


def _without_direction(lengths: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which vectors of such lengths are zero or not finite."""
    without: NDArray[np.bool_] = ~np.isfinite(lengths) | (lengths == 0)
    return without


def let_go(mapped: Vectors) -> None:
    """Have the pages of a mapped file that were read no longer be part of the process."""
    base: object = mapped.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)  # the system keeps them, as long as it has room


def open_given_vectors(path: Path, records: int | None = None) -> Vectors:
    """Map a file of vectors, one for each of `records`, if it is known how many those are.

    Raises BuildError for another file.
    """
    try:
        rows: Vectors = open_vectors(path)
    except VectorError as error:
        raise BuildError(error.message, value=error.value, remedy=error.remedy) from error
    if records is not None and len(rows) != records:
        raise BuildError(
            f"{path} holds {len(rows):,} vectors, the sources {records:,} records.",
            value=len(rows),
            remedy="Row i of the vectors belongs to record i; give exactly one for each.",
        )
    return rows


def given_dimension(path: Path | None) -> int | None:
    """Return the dimension of a file of vectors, None for no file; raise BuildError for another file."""
    return None if path is None else int(open_given_vectors(path).shape[1])


def check_dimension(dimension: int, spec: EncoderSpec) -> None:
    """Raise BuildError for vectors that are not of the encoder's dimension."""
    if spec.dimension != dimension:
        raise BuildError(
            f"the vectors have {dimension} dimensions, those of {spec.model!r} have {spec.dimension}.",
            value=dimension,
            remedy="Name the encoder that made the vectors, or none.",
        )


def _lost(vectors: Vectors, lengths: NDArray[np.float64], dtype: str) -> NDArray[np.bool_]:
    """Tell which finite vectors other than zero differ from what `dtype` holds by more than LOST_SHARE."""
    with np.errstate(over="ignore", invalid="ignore"):
        stored = vectors.astype(EXACT_DTYPES[dtype]).astype(np.float64)
        errors = np.linalg.norm(stored - vectors, axis=1)
        lost: NDArray[np.bool_] = np.isfinite(lengths) & ~(errors <= LOST_SHARE * lengths)
    return lost


def _records(ordinals: Sequence[int]) -> str:
    """Name the first few records, as their places among all are told elsewhere: from 1."""
    shown = ", ".join(str(place + 1) for place in ordinals[:BAD_VECTORS_SHOWN])
    more = len(ordinals) - BAD_VECTORS_SHOWN
    rest = f" and {more:,} more" if more > 0 else ""
    return f"of record{'s' if len(ordinals) > 1 else ''} {shown}{rest}, counted from 1"
