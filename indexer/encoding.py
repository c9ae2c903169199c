"""The second stage of a build: one vector for every passage, shard by shard."""

import json
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compactds.configs.sizes import counted
from compactds.datastore.encoders.base import Encoder, Steady, Vectors
from compactds.datastore.vectors import EXACT_DTYPES
from compactds.indexer.embedding_cache import CacheOptions, EmbeddingCache, text_keys
from compactds.indexer.errors import BuildError
from compactds.indexer.passages import Passager
from compactds.indexer.progress import Progress
from compactds.indexer.workspace import Workspace, settled

ENCODE_AT_ONCE = 512
"""Passages handed to an encoder together; progress is told after each hand-over."""

UNIT_TOLERANCE = 2e-3
LOST_SHARE = 0.01
"""How much of a vector's length its stored form may be off; rounding to float16 takes 0.0005."""

BAD_VECTORS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class EncodingCount:
    """Count what an encoder could not read whole, texts with a zero vector, and vectors from the cache."""

    truncated: int = 0
    zero: int = 0
    cached: int = 0


Spread = Callable[[Sequence[int], Progress], Iterator[tuple[EncodingCount, int]]]
"""Has shards encoded by others: yields the count of each, and the bytes its cache dropped, in order."""


def encode_shards(
    workspace: Workspace,
    shards: int,
    encoder: Encoder,
    role: str,
    passager: Passager,
    dtype: str,
    progress: Progress,
    cache: CacheOptions | None = None,
    spread: Spread | None = None,
) -> tuple[EncodingCount, ...]:
    """Encode the passages of all shards that have no vectors yet; return the count of every shard.

    A shard is encoded in an order that depends on nothing but the shard, so a resumed build computes
    exactly what an uninterrupted one does. Vectors that `cache` holds are taken from there, if the encoder
    is a `Steady` one; they are the ones that would be computed. Two shards or more are given to `spread`,
    if there is one.
    """
    counts: dict[int, EncodingCount] = {}
    for number in range(shards):
        saved = saved_count(workspace, number, role)
        if saved is not None:
            counts[number] = saved
            progress.advance(len(workspace.read_shard(number, ["ordinal"])))
    missing = [number for number in range(shards) if number not in counts]
    dropped_bytes = 0
    if spread is not None and len(missing) > 1:
        for number, (count, dropped) in zip(missing, spread(missing, progress), strict=True):
            counts[number] = count
            dropped_bytes += dropped
    else:
        known = open_cache(cache, encoder, dtype)
        for number in missing:
            count = encode_shard(workspace, number, encoder, role, passager, dtype, progress, known)
            save_count(workspace, number, role, count)
            counts[number] = count
        dropped_bytes = 0 if known is None else known.dropped_bytes
    _tell(sum(count.cached for count in counts.values()), dropped_bytes, progress)
    return tuple(counts[number] for number in range(shards))


def saved_count(workspace: Workspace, number: int, role: str) -> EncodingCount | None:
    """Return the count of a shard that is encoded, None if it has yet to be."""
    saved = workspace.read_state(_mark(number, role)) if workspace.has_vectors(number, role) else None
    return None if saved is None else EncodingCount(**saved)


def save_count(workspace: Workspace, number: int, role: str, count: EncodingCount) -> None:
    """Mark a shard as encoded; two processes may do so at once."""
    with settled(workspace.root / f"{_mark(number, role)}.json") as beside:
        beside.write_text(json.dumps(asdict(count)))


def _mark(number: int, role: str) -> str:
    return f"encoded-{role}-{number:06d}"


def encode_shard(
    workspace: Workspace,
    number: int,
    encoder: Encoder,
    role: str,
    passager: Passager,
    dtype: str,
    progress: Progress,
    cache: EmbeddingCache | None = None,
) -> EncodingCount:
    """Encode one shard and save its vectors; take what the cache holds, and put into it what it lacks.

    Raises BuildError for vectors that are not finite, or beyond what `dtype` holds.
    """
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
    cached = 0
    if cache is None:
        vectors = encode_texts(encoder, texts, progress)
    else:
        keys = text_keys(texts)
        vectors, found = cache.find(keys)
        cached = int(found.sum())
        progress.advance(cached)
        missing = np.flatnonzero(~found)
        vectors[missing] = encode_texts(encoder, [texts[place] for place in missing], progress)
    _check_finite(vectors, encoder.spec.model, number, "float32")
    with np.errstate(over="ignore"):
        stored = vectors.astype(EXACT_DTYPES[dtype])
    _check_finite(stored, encoder.spec.model, number, dtype)
    workspace.write_vectors(number, role, stored, EXACT_DTYPES[dtype])
    if cache is not None:
        cache.add(keys[missing], stored[missing])
    return EncodingCount(truncated, int((~stored.any(axis=1)).sum()), cached)


def open_cache(options: CacheOptions | None, encoder: Encoder, dtype: str) -> EmbeddingCache | None:
    """Open the cache for an encoder's vectors; None without options, or if the encoder is not `Steady`."""
    if options is None or not isinstance(encoder, Steady):
        return None
    return EmbeddingCache(options, encoder.spec, encoder.cache_key, dtype)


def encode_texts(encoder: Encoder, texts: Sequence[str], progress: Progress) -> Vectors:
    """Return a vector for each text; those of like length are encoded together, to pad little."""
    vectors = np.empty((len(texts), encoder.spec.dimension), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    for start in range(0, len(order), ENCODE_AT_ONCE):
        places = order[start : start + ENCODE_AT_ONCE]
        vectors[places] = encoder.encode_passages([texts[place] for place in places])
        progress.advance(len(places))
    return vectors


def _check_finite(vectors: NDArray[Any], model: str, shard: int, dtype: str) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        fault = "is not finite" if dtype == "float32" else f"{dtype} cannot hold"
        remedy = "Try dtype = 'float32' in the recipe's [encoder] table, or another model."
        if dtype != "float32":
            remedy = "Set dtype = 'float32' in the recipe's [exact] table."
        raise BuildError(
            f"encoder {model!r} gave a vector that {fault}, for passage {bad[0]} of shard {shard}.",
            value=model,
            remedy=remedy,
        )


def _tell(cached: int, dropped_bytes: int, progress: Progress) -> None:
    if cached:
        progress.note(f"{cached:,} vectors came from the embedding cache.")
    if dropped_bytes:
        progress.note(
            f"The embedding cache is full: {dropped_bytes:,} bytes, used longest ago, were dropped."
        )


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
        if rows is not None:
            _let_go(rows)
        progress.advance(len(given))
    if bad:
        raise BuildError(
            f"{counted(len(bad), 'vector is', 'vectors are')} zero or not finite: {_records(bad)}.",
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


def _let_go(mapped: Vectors) -> None:
    """Have the pages of a mapped file that were read no longer be part of the process."""
    base: object = mapped.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)  # the system keeps them, as long as it has room


def _open_npy(path: Path, records: int) -> Vectors:
    try:
        rows: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
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
