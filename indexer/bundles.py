"""Encoders that travel inside the store, because no package or hub has them: static models."""

from collections.abc import Sequence
from pathlib import Path

from compactds.datastore.encoders import Encoder, EncoderOptions, EncoderSpec, load_encoder
from compactds.datastore.files import FileRecord
from compactds.indexer.workspace import Workspace


def load_build_encoder(workspace: Workspace, role: str, options: EncoderOptions) -> Encoder:
    """Load the encoder of a role."""
    return load_encoder(options)


def bundle(spec: EncoderSpec) -> EncoderSpec:
    return spec


def publish_bundles(workspace: Workspace, out: Path, specs: Sequence[EncoderSpec]) -> dict[str, FileRecord]:
    return {}
