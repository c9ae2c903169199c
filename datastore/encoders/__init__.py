"""Text to vectors, the same way at build and at query time."""

from compactds.datastore.encoders.base import Encoder, EncoderOptions, EncoderSpec, TokenSpans, Vectors
from compactds.datastore.encoders.loading import load_encoder, load_spec

__all__ = ["Encoder", "EncoderOptions", "EncoderSpec", "TokenSpans", "Vectors", "load_encoder", "load_spec"]
