"""Compute vectors in batches of few fixed shapes, so that a text's vector depends on the text alone.

Matrix products round differently for different shapes. Here the shape a text is computed in follows from
its own number of tokens: it is padded to the next of a few lengths, and a batch of that length always has
the same number of rows, filled up if need be. Whatever a text is encoded with, its vector has the same
bytes. Few shapes also keep memory level: the libraries prepare and keep code for each one they meet.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from compactds.datastore.encoders.base import Vectors
from compactds.datastore.errors import EncoderError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_Result = TypeVar("_Result")

SHORTEST_LENGTH = 16
STEPS_PER_OCTAVE = 8
"""Padded lengths go in steps of 16 tokens up to 256, of 32 up to 512, and so on."""

TOKENIZED_AT_ONCE = 256
_MASK, _IDS = "attention_mask", "input_ids"


def padded_length(tokens: int, limit: int | None) -> int:
    """Return the length that a text of so many tokens is padded to, at most `limit`.

    Below the limit there is always at least one token of padding, and at the limit none: libraries
    compute batches without any padding in another way, so none may have it by chance.
    """
    length = SHORTEST_LENGTH
    while length <= tokens:
        octave = 1 << (length.bit_length() - 1)
        length += max(SHORTEST_LENGTH, octave // STEPS_PER_OCTAVE)
    return length if limit is None else min(length, max(tokens, limit))


@dataclass(frozen=True, slots=True)
class BatchShape:
    """Say how many tokens a batch holds, and whether it is always filled up to them.

    Without filling a batch has the least power of two of rows that its texts need, which answers a
    single text soonest.
    """

    tokens: int
    filled: bool

    def rows(self, length: int, texts: int) -> int:
        """Return the rows of a batch of texts padded to `length`, of which `texts` are left to compute."""
        most = max(1, self.tokens // length)
        return most if self.filled else min(most, 1 << max(0, texts - 1).bit_length())


@dataclass(frozen=True, slots=True)
class _Row:
    """Hold what the tokenizer made of one text: its place among the texts, and a row for each column."""

    place: int
    columns: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Say what the model's tokenizer gives for each text, how it is padded, and what all texts share."""

    names: tuple[str, ...]
    padding: tuple[int, ...]
    left: bool
    shared: dict[str, Any]

    def features(self, rows: Sequence[_Row], height: int, length: int) -> dict[str, NDArray[np.int64]]:
        """Return arrays of shape (height, length); rows beyond those given repeat the first."""
        arrays = np.empty((len(self.names), height, length), np.int64)
        arrays[:] = np.array(self.padding)[:, None, None]
        for number in range(height):
            columns = rows[number if number < len(rows) else 0].columns
            tokens = columns.shape[1]
            arrays[:, number, length - tokens if self.left else 0 :][:, :tokens] = columns
        return dict(zip(self.names, arrays, strict=True))


def encode_texts(
    model: "SentenceTransformer",
    texts: Sequence[str],
    prompt: str,
    limit: int | None,
    shape: BatchShape,
    *,
    bfloat16: bool = False,
) -> Vectors:
    """Return what the model makes of each text, shape (len(texts), full dimension), at least one text.

    `limit` is where the model cuts its input. On a CPU filled batches are computed side by side, each by
    one thread. Raises EncoderError for a model that reads no token ids.
    """
    import torch

    layout, by_length = _tokenize(model, texts, prompt, limit)
    device = model.device

    def compute(rows: Sequence[_Row], height: int, length: int) -> tuple[Sequence[_Row], Vectors]:
        arrays = layout.features(rows, height, length)
        features = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        # Weights are cast anew for each batch: kept, they would be held once for every thread.
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=False)
        with torch.inference_mode(), autocast:
            output = model({**layout.shared, **features})["sentence_embedding"]
            return rows, output[: len(rows)].float().cpu().numpy()

    batches = [
        (rows, height, length)
        for length in sorted(by_length, reverse=True)
        for rows, height in _batches(by_length[length], length, shape)
    ]
    side_by_side = shape.filled and device.type == "cpu"
    computed = _side_by_side(compute, batches) if side_by_side else (compute(*batch) for batch in batches)
    vectors: Vectors | None = None
    for rows, found in computed:
        if vectors is None:
            vectors = np.empty((len(texts), found.shape[1]), np.float32)
        vectors[[row.place for row in rows]] = found
    assert vectors is not None
    return vectors


def _side_by_side(compute: Callable[..., _Result], batches: Sequence[tuple[Any, ...]]) -> Iterator[_Result]:
    """Yield what is computed of each batch, in order; every batch is computed by one thread.

    How a matrix product is divided among threads changes its last digits, so that it is not divided.
    """
    import torch

    threads = torch.get_num_threads()
    workers = min(threads, len(batches))
    pool = ThreadPoolExecutor(workers, "encode", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(lambda batch: compute(*batch), batches)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # also what threads to come begin with


def _batches(rows: Sequence[_Row], length: int, shape: BatchShape) -> Iterator[tuple[Sequence[_Row], int]]:
    start = 0
    while start < len(rows):
        height = shape.rows(length, len(rows) - start)
        yield rows[start : start + height], height
        start += height


def _tokenize(
    model: "SentenceTransformer", texts: Sequence[str], prompt: str, limit: int | None
) -> tuple[_Layout, dict[int, list[_Row]]]:
    """Return the rows of all texts by their padded length, without padding, as the model tokenizes them."""
    by_length: dict[int, list[_Row]] = defaultdict(list)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    layout: _Layout | None = None
    for start in range(0, len(order), TOKENIZED_AT_ONCE):
        places = order[start : start + TOKENIZED_AT_ONCE]
        features = model.preprocess([texts[place] for place in places], prompt=prompt or None)
        if layout is None:
            layout = _layout(model, features)
        mask = features[_MASK].numpy().astype(bool)
        columns = np.stack([features[name].numpy().astype(np.int32) for name in layout.names])
        for place, kept, row in zip(places, mask, columns.swapaxes(0, 1), strict=True):
            own = row[:, kept]
            by_length[padded_length(own.shape[1], limit)].append(_Row(place, own))
    assert layout is not None
    return layout, by_length


def _layout(model: "SentenceTransformer", features: dict[str, Any]) -> _Layout:
    if _IDS not in features or _MASK not in features:
        raise EncoderError(
            "the model reads no token ids, so its batches cannot be laid out.",
            value=sorted(features),
            remedy="Use a text model, or serve this one over HTTP: kind openai or tei.",
        )
    shape = features[_IDS].shape
    names = tuple(name for name, value in features.items() if getattr(value, "shape", None) == shape)
    pad_with = {
        _IDS: model.tokenizer.pad_token_id or 0,
        "token_type_ids": getattr(model.tokenizer, "pad_token_type_id", 0),
    }
    return _Layout(
        names=names,
        padding=tuple(pad_with.get(name, 0) for name in names),
        left=model.tokenizer.padding_side == "left",
        shared={name: value for name, value in features.items() if name not in names},
    )
