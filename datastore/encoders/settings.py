"""Merge what a recipe asks of an encoder with what its preset knows."""

from dataclasses import dataclass

import numpy as np

from compactds.datastore.encoders.base import EncoderOptions, EncoderSpec, Vectors
from compactds.datastore.encoders.presets import Preset
from compactds.datastore.errors import EncoderError

KINDS = ("auto", "sentence-transformers", "static", "openai", "tei", "vectors")
DTYPES = ("auto", "float32", "bfloat16")
_SMALLEST_NORM = 1e-12


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold how a model is used; None leaves a choice to the model's own files."""

    query_prompt: str | None = None
    passage_prompt: str | None = None
    pooling: str | None = None
    normalize: bool | None = None
    dimension: int | None = None
    max_tokens: int | None = None
    bidirectional: bool = False


def merge_settings(options: EncoderOptions, preset: Preset | None) -> Settings:
    """Return the settings of a recipe: its own words first, then the preset's."""
    if preset is None:
        return Settings(
            query_prompt=options.query_prompt,
            passage_prompt=options.passage_prompt,
            pooling=options.pooling,
            normalize=options.normalize,
            dimension=options.dimension,
            max_tokens=options.max_tokens,
        )
    if options.dimension is not None:
        _check_matryoshka(options.dimension, preset)
    return Settings(
        query_prompt=preset.query_prompt if options.query_prompt is None else options.query_prompt,
        passage_prompt=preset.passage_prompt if options.passage_prompt is None else options.passage_prompt,
        pooling=options.pooling or preset.pooling,
        normalize=preset.normalize if options.normalize is None else options.normalize,
        dimension=options.dimension or preset.dimension,
        max_tokens=options.max_tokens or preset.max_tokens,
        bidirectional=preset.bidirectional,
    )


def options_of(spec: EncoderSpec) -> EncoderOptions:
    """Return the options that load what a manifest recorded."""
    return EncoderOptions(
        model=spec.model,
        kind=spec.kind,
        query_prompt=spec.query_prompt,
        passage_prompt=spec.passage_prompt,
        pooling=spec.pooling,
        normalize=spec.normalized,
        dimension=spec.dimension,
        max_tokens=spec.max_tokens,
        url=spec.url,
        api_key_env=spec.api_key_env,
    )


def check_options(options: EncoderOptions) -> None:
    """Raise EncoderError naming the first option whose value cannot be right."""
    if not options.model and options.kind != "vectors":
        raise EncoderError("the encoder has no model.", value=options.model, remedy="Name one, e.g. minilm.")
    _check_choice("kind", options.kind, KINDS)
    _check_choice("dtype", options.dtype, DTYPES)
    for name in ("dimension", "max_tokens", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise EncoderError(f"{name} = {value} makes no sense.", value=value, remedy="Give 1 or more.")


def cut_and_normalize(vectors: Vectors, dimension: int, *, normalize: bool) -> Vectors:
    """Return the first `dimension` columns, each row scaled to length one if asked.

    A row of zeros stays one. Raises EncoderError if a value is not finite.
    """
    vectors = vectors[:, :dimension]
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise EncoderError(
            f"the encoder gave a vector with values that are not finite for text {row}.",
            value=row,
            remedy="Try dtype = 'float32'; if that does not help, the weights are damaged.",
        )
    if normalize:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.maximum(norms, _SMALLEST_NORM)
    return np.ascontiguousarray(vectors, np.float32)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise EncoderError(
            f"{name} = {value!r} is unknown.", value=value, remedy=f"Use one of {', '.join(choices)}."
        )


def _check_matryoshka(dimension: int, preset: Preset) -> None:
    """Raise EncoderError for a dimension the model was not trained to be cut to."""
    smallest = preset.matryoshka[0] if preset.matryoshka else preset.dimension
    if preset.any_dimension:
        allowed, choices = smallest <= dimension <= preset.dimension, f"{smallest} to {preset.dimension}"
    else:
        dimensions = sorted({*preset.matryoshka, preset.dimension})
        allowed, choices = dimension in dimensions, ", ".join(map(str, dimensions))
    if not allowed:
        raise EncoderError(
            f"{preset.model} cannot be cut to dimension {dimension}.",
            value=dimension,
            remedy=f"It has {choices}.",
        )
