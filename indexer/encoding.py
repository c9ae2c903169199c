"""The second stage of a build: one vector for every passage, shard by shard."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compactds.datastore.encoders.base import Encoder, Steady, Vectors
from compactds.datastore.vectors import EXACT_DTYPES
from compactds.indexer.embedding_cache import CacheOptions, EmbeddingCache, text_keys
from compactds.indexer.errors import BuildError
from compactds.indexer.passages import Passager
from compactds.indexer.progress import Progress
from compactds.indexer.workspace import Workspace, settled

ENCODE_AT_ONCE = 512
"""Passages handed to an encoder together; progress is told after each hand-over."""


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
