"""The second stage of a build: one vector for every passage, shard by shard."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compactds.datastore.encoders.base import Encoder, Vectors
from compactds.datastore.vectors import EXACT_DTYPES
from compactds.indexer.errors import BuildError
from compactds.indexer.passages import Passager
from compactds.indexer.progress import Progress
from compactds.indexer.workspace import Workspace

ENCODE_AT_ONCE = 256
"""Passages handed to an encoder together; progress is told after each hand-over."""

UNIT_TOLERANCE = 2e-3
LOST_SHARE = 0.01
"""How much of a vector's length its stored form may be off; rounding to float16 takes 0.0005."""

BAD_VECTORS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class EncodingCount:
    """Count what an encoder could not read whole, and texts for which it gave a zero vector."""

    truncated: int = 0
    zero: int = 0

    def __add__(self, other: "EncodingCount") -> "EncodingCount":
        return EncodingCount(self.truncated + other.truncated, self.zero + other.zero)


def encode_shards(
    workspace: Workspace,
    shards: int,
    encoder: Encoder,
    role: str,
    passager: Passager,
    dtype: str,
    progress: Progress,
) -> EncodingCount:
    """Encode the passages of all shards that have no vectors yet; return the counts of all shards.

    A shard is encoded in an order and in batches that depend on nothing but the shard, so a resumed
    build computes exactly what an uninterrupted one does.
    """
    total = EncodingCount()
    for number in range(shards):
        state = f"encoded-{role}-{number:06d}"
        saved = workspace.read_state(state) if workspace.has_vectors(number, role) else None
        if saved is not None:
            count = EncodingCount(**saved)
            progress.advance(len(workspace.read_shard(number, ["ordinal"])))
        else:
            count = _encode_shard(workspace, number, encoder, role, passager, dtype, progress)
            workspace.write_state(state, {"truncated": count.truncated, "zero": count.zero})
        total += count
    return total


def _encode_shard(
    workspace: Workspace,
    number: int,
    encoder: Encoder,
    role: str,
    passager: Passager,
    dtype: str,
    progress: Progress,
) -> EncodingCount:
    shard = workspace.read_shard(number, ["title", "text"])
    texts = [
        passager.encoded_text(title, text)
        for title, text in zip(
            shard.column("title").to_pylist(), shard.column("text").to_pylist(), strict=True
        )
    ]
    truncated = 0
    if encoder.spec.max_tokens is not None and encoder is not passager.measure:
        truncated = sum(count > encoder.spec.max_tokens for count in encoder.count_tokens(texts))
    vectors = np.empty((len(texts), encoder.spec.dimension), dtype=np.float32)
    # Passages of like length are encoded together, so that little is computed for padding.
    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    for start in range(0, len(order), ENCODE_AT_ONCE):
        places = order[start : start + ENCODE_AT_ONCE]
        vectors[places] = encoder.encode_passages([texts[place] for place in places])
        progress.advance(len(places))
    if not np.isfinite(vectors).all():
        raise BuildError(
            f"encoder {encoder.spec.model!r} gave a vector that is not finite, for passage "
            f"{int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])} of shard {number}.",
            value=encoder.spec.model,
            remedy="Try dtype = 'float32' in the recipe's encoder table, or another model.",
        )
    workspace.write_vectors(number, role, vectors, EXACT_DTYPES[dtype])
    return EncodingCount(truncated, int((~vectors.any(axis=1)).sum()))


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
    Raises BuildError for another shape, for vectors that are zero or not finite, and for ones that `dtype`
    cannot hold; both are counted.
    """
    rows = None if path is None else _open_npy(path, records)
    bad: list[int] = []
    lost: list[int] = []
    dimension, normalized = 0, True
    for number in range(shards):
        ordinals = workspace.read_shard(number, ["ordinal"]).column("ordinal").to_numpy()
        given = workspace.read_vectors(number, "given") if rows is None else rows[ordinals].astype(np.float32)
        if dimension and given.shape[1] != dimension:
            raise BuildError(
                f"vectors of {dimension} and of {given.shape[1]} dimensions.",
                value=given.shape[1],
                remedy="All vectors of a store need one dimension.",
            )
        dimension = given.shape[1]
        lengths = np.linalg.norm(given.astype(np.float64), axis=1)
        bad += ordinals[~np.isfinite(lengths) | (lengths == 0)].tolist()
        normalized &= bool(np.all(np.abs(lengths - 1) < UNIT_TOLERANCE))
        lost += ordinals[_lost(given, lengths, dtype)].tolist()
        if bad or lost:
            continue
        workspace.write_vectors(number, "exact", given, EXACT_DTYPES[dtype])
        progress.advance(len(given))
    if bad:
        raise BuildError(
            f"{len(bad)} vectors are zero or not finite: {_records(bad)}.",
            value=len(bad),
            remedy="Leave these records and vectors out.",
        )
    if lost:
        raise BuildError(
            f"{len(lost)} vectors hold numbers beyond {dtype}, too large or too small: {_records(lost)}.",
            value=len(lost),
            remedy="Set dtype = 'float32' in the recipe's [exact] table, or scale all vectors.",
        )
    return GivenVectors(dimension, normalized)


def _open_npy(path: Path, records: int) -> Vectors:
    try:
        rows: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BuildError(
            f"cannot read vectors from {path}: {error}.", value=str(path), remedy="Give a .npy file."
        ) from error
    if rows.ndim != 2 or rows.dtype.kind != "f" or rows.shape[1] == 0:
        raise BuildError(
            f"{path} holds {rows.dtype} of shape {rows.shape}, expected floats of shape "
            "(records, dimension).",
            value=str(rows.shape),
            remedy="Save a two-dimensional array of float16 or float32.",
        )
    if len(rows) != records:
        raise BuildError(
            f"{path} holds {len(rows):,} vectors, the sources {records:,} records.",
            value=len(rows),
            remedy="Row i of the vectors belongs to record i; give exactly one for each.",
        )
    return rows


def _lost(vectors: Vectors, lengths: NDArray[np.float64], dtype: str) -> NDArray[np.bool_]:
    """Tell which finite vectors other than zero differ from what `dtype` holds by more than LOST_SHARE."""
    with np.errstate(over="ignore", invalid="ignore"):
        stored = vectors.astype(EXACT_DTYPES[dtype]).astype(np.float64)
        errors = np.linalg.norm(stored - vectors, axis=1)
        lost: NDArray[np.bool_] = np.isfinite(lengths) & ~(errors <= LOST_SHARE * lengths)
    return lost


def _records(ordinals: Sequence[int]) -> str:
    shown = ", ".join(str(place + 1) for place in ordinals[:BAD_VECTORS_SHOWN])
    more = len(ordinals) - BAD_VECTORS_SHOWN
    return f"of record {shown} and {more} more" if more > 0 else f"of record {shown}"
