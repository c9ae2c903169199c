"""Encode shards on the workers of another engine; each process loads the encoder once.

A worker computes as the process that builds would: that process decides the number format, and a model that
is not the same is an error. Finished shards are marked where that process marks its own, so either goes on
where the other stopped. Vectors are looked up in, and added to, the cache folder of the worker's machine,
under the worker's own key.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from compactds.datastore.encoders import Encoder, EncoderOptions, EncoderSpec
from compactds.datastore.encoders.computation import wants_bfloat16
from compactds.datastore.errors import EncoderMismatchError
from compactds.indexer.bundles import load_build_encoder
from compactds.indexer.cutting import Tokenizer, token_measure
from compactds.indexer.embedding_cache import CacheOptions
from compactds.indexer.encoding import (
    EncodingCount,
    Spread,
    encode_shard,
    open_cache,
    save_count,
    saved_count,
)
from compactds.indexer.execution import Executor, Report
from compactds.indexer.passages import PassageOptions, Passager
from compactds.indexer.pipeline import write_tokenizers
from compactds.indexer.progress import LoggedProgress, Progress
from compactds.indexer.workspace import ENCODERS_FOLDER, Workspace


@dataclass(frozen=True, slots=True)
class EncodeContext:
    """Say where the build works, how its encoder is loaded, and what is encoded with it.

    `options` leave nothing to a worker's machine to decide, and `loaded_as` is the role whose folder carries
    a static model. `tokenizers` are those of all encoders that passages keep inside; that of this encoder is
    number `place`.
    """

    root: Path
    role: str
    loaded_as: str
    options: EncoderOptions
    passages: PassageOptions
    tokenizers: tuple[Tokenizer, ...]
    place: int
    dtype: str
    cache: CacheOptions | None

    @property
    def spec(self) -> EncoderSpec:
        """Return what the process that builds knows of the encoder."""
        return self.tokenizers[self.place].spec


def spread_encoding(
    executor: Executor,
    workspace: Workspace,
    encoders: Mapping[str, Encoder],
    role: str,
    loaded_as: str,
    options: EncoderOptions,
    passages: PassageOptions,
    dtype: str,
    cache: CacheOptions | None,
) -> Spread | None:
    """Return what has the shards of a role encoded by the executor's workers; None if they cannot be.

    They can if the encoder computes on a CPU, and all encoders that passages keep inside give their
    tokenizers away. An endpoint is as near to this process as to any, and a GPU is this machine's own.
    """
    reached = Workspace(workspace.root.absolute())
    kept = reached.root / ENCODERS_FOLDER / loaded_as
    decided = _decided(options, encoders[role].spec, kept)
    tokenizers = None if decided is None else write_tokenizers(reached, list(encoders.values()))
    if decided is None or tokenizers is None:
        return None
    place = list(encoders).index(role)
    context = EncodeContext(reached.root, role, loaded_as, decided, passages, tokenizers, place, dtype, cache)

    def encode(numbers: Sequence[int], progress: Progress) -> Iterator[tuple[EncodingCount, int]]:
        for result in executor.map(encode_task, context, numbers, progress.advance):
            yield EncodingCount(**result["count"]), result["dropped_bytes"]

    return encode


def encode_task(context: EncodeContext, number: int, report: Report) -> dict[str, Any]:
    """Encode the shard of this number and mark it; return its count, and the bytes that the cache dropped.

    A shard that has its mark was done by a worker that was lost before it could say so. Raises what
    `encode_shard` raises, and EncoderMismatchError if another model is found than the build's.
    """
    workspace = Workspace(context.root)
    count = saved_count(workspace, number, context.role)
    if count is not None:
        report(len(workspace.read_shard(number, ["ordinal"])))
        return {"count": asdict(count), "dropped_bytes": 0}
    encoder, passager = _loaded(context)
    cache = open_cache(context.cache, encoder, context.dtype)
    count = encode_shard(
        workspace, number, encoder, context.role, passager, context.dtype, _Reported(report), cache
    )
    save_count(workspace, number, context.role, count)
    return {"count": asdict(count), "dropped_bytes": 0 if cache is None else cache.dropped_bytes}


class _Reported(LoggedProgress):
    """Tell the process that builds how many passages are done."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def advance(self, amount: int) -> None:
        self._report(amount)


@lru_cache(maxsize=1)
def _loaded(context: EncodeContext) -> tuple[Encoder, Passager]:
    """Load the encoder, once a process."""
    encoder = load_build_encoder(Workspace(context.root), context.loaded_as, context.options, context.cache)
    expected = context.spec
    if encoder.spec.fingerprint != expected.fingerprint:
        raise EncoderMismatchError(
            f"a worker finds another model as {expected.model!r} than this machine: its fingerprint is "
            f"{encoder.spec.fingerprint[:12]}, here it is {expected.fingerprint[:12]}.",
            value=encoder.spec.fingerprint,
            remedy="Give all machines of the cluster the same model and libraries.",
        )
    measures = [
        encoder if place == context.place else token_measure(tokenizer)
        for place, tokenizer in enumerate(context.tokenizers)
    ]
    return encoder, Passager(context.passages, measures)


def _decided(options: EncoderOptions, spec: EncoderSpec, kept: Path) -> EncoderOptions | None:
    """Return options that give the same vectors on any machine's CPU; None if they are not for others.

    A static model is, if the build's folder carries it.
    """
    if spec.kind == "static":
        return options if kept.exists() else None
    if spec.kind != "sentence-transformers":
        return None
    device = options.device
    if device == "auto":
        from sentence_transformers.util import get_device_name

        device = get_device_name()
    if device != "cpu":
        return None
    return replace(
        options, device=device, dtype="bfloat16" if wants_bfloat16(options.dtype, device) else "float32"
    )
