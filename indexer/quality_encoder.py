"""The embeddings that a learned quality model takes: a static encoder, kept in the model's folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from compactds.datastore.encoders import Encoder, EncoderOptions, Vectors, load_encoder
from compactds.datastore.encoders.static import StaticEncoder
from compactds.datastore.errors import EncoderError
from compactds.filters.corpus.errors import QualityModelError
from compactds.filters.corpus.quality_model import load_quality_model

FOLDER = "encoder"
READ_CHARACTERS = 5_000  # as many as the model's other features look at
_OPTIONS = EncoderOptions(model="static")
_DIGITS = 16


class QualityEncoder:
    """Turn texts into what a quality model was trained with; the encoder is loaded when first wanted."""

    def __init__(self, folder: Path | None = None, encoder: Encoder | None = None) -> None:
        self._folder = folder
        self._encoder = encoder

    @classmethod
    def load_static(cls, encoder: Encoder | None = None) -> "QualityEncoder":
        """Return one with the default static encoder, which is distilled for it, or with the one given."""
        return cls(encoder=encoder or load_encoder(_OPTIONS))

    @property
    def name(self) -> str:
        """Return what the model calls the encoder: its model's name and the beginning of its fingerprint."""
        return _name(self._loaded())

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row a text, of its beginning, shape (len(texts), dimension)."""
        cut = [text[:READ_CHARACTERS].encode("utf-8", "replace").decode() for text in texts]
        return self._loaded().encode_passages(cut)

    def save(self, folder: Path) -> None:
        """Keep the encoder in the folder of a model, in place of one that is there."""
        encoder = self._loaded()
        if not isinstance(encoder, StaticEncoder):
            raise EncoderError(
                f"{encoder.spec.model} cannot be kept in a folder.",
                value=encoder.spec.kind,
                remedy="Use a static encoder.",
            )
        beside = folder / f".{FOLDER}.new"
        shutil.rmtree(beside, ignore_errors=True)
        encoder.save(beside)
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        beside.rename(folder / FOLDER)

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            assert self._folder is not None
            self._encoder = _kept(self._folder)
        return self._encoder


def _kept(folder: Path) -> Encoder:
    """Return the encoder in a model's folder; raise QualityModelError if it is not what the model wants."""
    wanted = load_quality_model(folder).encoder
    if not (folder / FOLDER).is_dir():
        raise QualityModelError(
            f"the quality model at {folder} was trained with embeddings of {wanted!r}, and holds no encoder.",
            value=wanted,
            remedy="Train it with compactds train-filter --encoder static, or without embeddings.",
        )
    encoder = load_encoder(_OPTIONS, bundle_root=folder / FOLDER)
    if (found := _name(encoder)) != wanted:
        raise QualityModelError(
            f"the encoder in {folder} is {found!r}; the quality model was trained with {wanted!r}.",
            value=found,
            remedy="Train the model again.",
        )
    return encoder


def _name(encoder: Encoder) -> str:
    return f"{encoder.spec.model} {encoder.spec.fingerprint[:_DIGITS]}"
