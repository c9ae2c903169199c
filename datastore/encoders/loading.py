"""Load the encoder a recipe asks for, or the one a manifest recorded."""

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from compactds.datastore.encoders.base import Encoder, EncoderOptions, EncoderSpec
from compactds.datastore.encoders.computation import Computation
from compactds.datastore.encoders.endpoint import EndpointEncoder, open_endpoint, same_probe
from compactds.datastore.encoders.locate import locate
from compactds.datastore.encoders.presets import find_preset
from compactds.datastore.encoders.sentence_transformer import (
    SentenceTransformerEncoder,
    load_sentence_transformer,
)
from compactds.datastore.encoders.settings import Settings, check_options, merge_settings, options_of
from compactds.datastore.encoders.static import (
    DEFAULT_DIMENSION,
    StaticEncoder,
    distill,
    is_static,
    open_static,
)
from compactds.datastore.encoders.vectors import VectorsEncoder, vectors_spec
from compactds.datastore.errors import EncoderError, EncoderMismatchError

_STATIC = "static"
_DEFAULT_BASE = "minilm"


def load_encoder(options: EncoderOptions, *, bundle_root: Path | None = None) -> Encoder:
    """Load the encoder that `options` describe.

    `bundle_root` is a folder that `StaticEncoder.save` wrote for these options before; it is opened
    instead of looking for the model. Raises EncoderNotFoundError if there is no such model, and
    EncoderError if it cannot be used.
    """
    check_options(options)
    if options.kind == "vectors":
        return _vectors(options)
    if options.kind in ("openai", "tei") or options.url is not None:
        return _endpoint(options)
    if options.kind == _STATIC or options.model == _STATIC or options.model.startswith(f"{_STATIC}:"):
        return _static(options, bundle_root)
    preset = find_preset(options.model)
    folder = locate(options.model, preset, bundle_root)
    name = preset.model if preset else options.model
    if is_static(folder):
        if options.kind != "auto":
            raise EncoderError(
                f"{options.model} is a static model, not one for kind {options.kind!r}.",
                value=options.kind,
                remedy="Leave kind out, or set it to 'static'.",
            )
        return open_static(folder, name, merge_settings(options, preset))
    return _sentence_transformer(folder, name, options)


@dataclass(frozen=True, slots=True)
class FoundModel:
    """Say where the model that options describe was found, and whether a static one is distilled from it."""

    folder: Path
    name: str
    distilled: bool


def find_model(options: EncoderOptions) -> FoundModel | None:
    """Find the transformer that options need, without loading it; None if they need none.

    Raises what `load_encoder` raises for options that make no sense and for models it cannot find.
    """
    check_options(options)
    if options.kind in ("vectors", "openai", "tei") or options.url is not None:
        return None
    wants_static = options.kind == _STATIC or options.model == _STATIC
    wants_static |= options.model.startswith(f"{_STATIC}:")
    model = options.model
    if wants_static:
        model = model.removeprefix(_STATIC).removeprefix(":") or _DEFAULT_BASE
    preset = find_preset(model)
    folder = locate(model, preset)
    return None if is_static(folder) else FoundModel(folder, preset.model if preset else model, wants_static)


def load_spec(spec: EncoderSpec, *, store_root: Path | None = None) -> Encoder:
    """Load the encoder a manifest recorded; `store_root` is the store's folder, for bundled models.

    Raises EncoderMismatchError with both fingerprints if what is found gives other vectors, and what
    `load_encoder` raises.
    """
    if spec.kind == "vectors":
        return VectorsEncoder(spec)
    bundle = _bundle_folder(spec, store_root)
    encoder = load_encoder(options_of(spec), bundle_root=bundle)
    found = encoder.spec
    if found.fingerprint != spec.fingerprint:
        raise EncoderMismatchError(
            f"the model found as {spec.model!r} is not the one the store was built with: its fingerprint is "
            f"{found.fingerprint}, the store has {spec.fingerprint}.",
            value=found.fingerprint,
            remedy="Install the model the store was built with, or build the store again.",
        )
    if spec.probe is not None and not same_probe(spec.probe, found.probe or ()):
        raise EncoderMismatchError(
            f"the endpoint {spec.url} serves another model than the store was built with: its vector of a "
            f"known sentence differs. Both are called {spec.model!r} (fingerprint {spec.fingerprint}).",
            value=spec.url,
            remedy="Serve the model the store was built with, or build the store again.",
        )
    return encoder


def _vectors(options: EncoderOptions) -> VectorsEncoder:
    if options.dimension is None:
        raise EncoderError(
            "ready-made vectors need a dimension.", value=options.dimension, remedy="Set dimension."
        )
    return VectorsEncoder(vectors_spec(options.dimension, normalized=options.normalize is not False))


def _endpoint(options: EncoderOptions) -> EndpointEncoder:
    if options.kind not in ("auto", "openai", "tei"):
        raise EncoderError(
            f"kind {options.kind!r} takes no url.", value=options.url, remedy="Use kind 'openai' or 'tei'."
        )
    if options.url is None:
        raise EncoderError(f"kind {options.kind!r} needs a url.", value=options.kind, remedy="Set url.")
    protocol: Literal["openai", "tei"] = "openai"
    if options.kind == "tei" or (options.kind == "auto" and options.url.rstrip("/").endswith("/embed")):
        protocol = "tei"
    preset = find_preset(options.model)
    settings = merge_settings(options, preset)
    # The server knows its own limit and pooling; of the preset, the prompts and the scaling are ours.
    settings = replace(settings, dimension=options.dimension, max_tokens=options.max_tokens, pooling=None)
    return open_endpoint(
        protocol,
        options.url,
        options.model,
        settings,
        api_key_env=options.api_key_env,
        batch_size=options.batch_size,
    )


def _static(options: EncoderOptions, bundle: Path | None) -> StaticEncoder:
    """Open a static model, or distil one from the transformer that is named."""
    base = options.model.removeprefix(_STATIC).removeprefix(":") or _DEFAULT_BASE
    settings = Settings(
        query_prompt=options.query_prompt,
        passage_prompt=options.passage_prompt,
        pooling=options.pooling,
        normalize=options.normalize,
        dimension=options.dimension,
        max_tokens=options.max_tokens,
    )
    preset = find_preset(base)
    name = f"{_STATIC}:{preset.model if preset else base}"
    if bundle is not None:
        return open_static(bundle, name, settings)
    folder = locate(base, preset)
    if is_static(folder):
        return open_static(folder, name, settings)
    return distill(folder, name, options.dimension or DEFAULT_DIMENSION, settings)


def _sentence_transformer(folder: Path, name: str, options: EncoderOptions) -> SentenceTransformerEncoder:
    settings = merge_settings(options, find_preset(options.model))
    computation = Computation(options.batch_size, options.dtype, options.device)
    return load_sentence_transformer(folder, name, settings, computation)


def _bundle_folder(spec: EncoderSpec, store_root: Path | None) -> Path | None:
    """Return where a store carries the model; raise EncoderError if that is outside the store."""
    if spec.bundled is None or store_root is None:
        return None
    path = PurePosixPath(spec.bundled)
    if path.is_absolute() or ".." in path.parts:
        raise EncoderError(
            f"the manifest says that the model lies in {spec.bundled!r}, outside the store.",
            value=spec.bundled,
            remedy="Get the store again from where it came.",
        )
    return store_root / path
