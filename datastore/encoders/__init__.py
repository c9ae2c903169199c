"""Text to vectors, the same way at build and at query time."""

from compactds.datastore.encoders.base import (
    Encoder,
    EncoderKind,
    EncoderOptions,
    EncoderSpec,
    Steady,
    TokenSpans,
    Vectors,
)
from compactds.datastore.encoders.loading import load_encoder, load_spec
from compactds.datastore.encoders.presets import PRESETS, Preset, find_preset
from compactds.datastore.encoders.vectors import vectors_spec

__all__ = [
    "PRESETS",
    "Encoder",
    "EncoderKind",
    "EncoderOptions",
    "EncoderSpec",
    "Preset",
    "Steady",
    "TokenSpans",
    "Vectors",
    "find_preset",
    "load_encoder",
    "load_spec",
    "vectors_spec",
]
