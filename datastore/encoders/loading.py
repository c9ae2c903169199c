"""Load the encoder a recipe asks for, or the one a manifest recorded."""

from pathlib import Path

from compactds.datastore.encoders.base import Encoder, EncoderOptions, EncoderSpec
from compactds.datastore.encoders.locate import locate
from compactds.datastore.encoders.presets import find_preset
from compactds.datastore.encoders.sentence_transformer import Computation, load_sentence_transformer
from compactds.datastore.encoders.settings import check_options, merge_settings, options_of
from compactds.datastore.errors import EncoderMismatchError


def load_encoder(options: EncoderOptions, *, bundle_root: Path | None = None) -> Encoder:
    """Load the encoder that `options` describe.

    Raises EncoderNotFoundError if there is no such model, EncoderError if it cannot be used.
    """
    check_options(options)
    preset = find_preset(options.model)
    folder = locate(options.model, preset)
    computation = Computation(options.batch_size, options.dtype, options.device)
    name = preset.model if preset else options.model
    return load_sentence_transformer(folder, name, merge_settings(options, preset), computation)


def load_spec(spec: EncoderSpec, *, store_root: Path | None = None) -> Encoder:
    """Load the encoder a manifest recorded.

    Raises EncoderMismatchError with both fingerprints if what is found gives other vectors.
    """
    encoder = load_encoder(options_of(spec), bundle_root=store_root)
    if encoder.spec.fingerprint != spec.fingerprint:
        raise EncoderMismatchError(
            f"the encoder {spec.model} that was found is not the one the store was built with: its "
            f"fingerprint is {encoder.spec.fingerprint}, the store has {spec.fingerprint}.",
            value=encoder.spec.fingerprint,
            remedy="Install the model the store was built with, or build the store again.",
        )
    return encoder
