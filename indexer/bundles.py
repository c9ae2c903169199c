"""Encoders that travel inside the store, because no package or hub has them: static models."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from compactds.datastore.encoders import Encoder, EncoderOptions, EncoderSpec, load_encoder
from compactds.datastore.encoders.static import StaticEncoder
from compactds.datastore.files import FileRecord, record_file, sync_file, sync_folder
from compactds.datastore.manifest import Manifest
from compactds.indexer.embedding_cache import CacheOptions
from compactds.indexer.remembered_encoders import load_remembered
from compactds.indexer.workspace import ENCODERS_FOLDER, Workspace

FINGERPRINT_DIGITS = 16


def load_build_encoder(
    workspace: Workspace, role: str, options: EncoderOptions, cache: CacheOptions | None = None
) -> Encoder:
    """Load the encoder of a role; a static one is kept in the workspace, to be the same after a resume.

    What the cache's folder remembers of the encoder saves loading or distilling its model.
    """
    kept = workspace.root / ENCODERS_FOLDER / role
    if cache is None or kept.exists():
        encoder = load_encoder(options, bundle_root=kept if kept.exists() else None)
    else:
        encoder = load_remembered(options, cache.folder)
    if isinstance(encoder, StaticEncoder) and not kept.exists():
        beside = kept.with_name(f".{role}.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        encoder.save(beside)
        beside.rename(kept)
    return encoder


def bundled(spec: EncoderSpec) -> EncoderSpec:
    """Return the spec as the manifest records it: with the folder that carries its model, if one does."""
    if spec.kind != "static":
        return spec
    return replace(spec, bundled=f"{ENCODERS_FOLDER}/{spec.fingerprint[:FINGERPRINT_DIGITS]}")


def publish_bundles(workspace: Workspace, out: Path, specs: Sequence[EncoderSpec]) -> dict[str, FileRecord]:
    """Move kept models into the store; return the record of every file, by its path in the store.

    A model whose folder is there already is the same by its fingerprint, and stays if it is whole: if it
    has the files of the one that was kept.
    """
    for spec, role in zip(specs, ("ann", "exact"), strict=True):
        kept = workspace.root / ENCODERS_FOLDER / role
        if spec.bundled is None or not kept.exists():
            continue
        target = out / spec.bundled
        target.parent.mkdir(exist_ok=True)
        if target.exists() and _digests(target) != _digests(kept):
            shutil.rmtree(target)
        if not target.exists():
            for path in sorted(kept.rglob("*")):
                sync_file(path)
            kept.rename(target)
            sync_folder(target.parent)
    folders = {out / spec.bundled for spec in specs if spec.bundled is not None}
    return {
        path.relative_to(out).as_posix(): record_file(path)
        for folder in sorted(folders)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def remove_old_bundles(out: Path, manifest: Manifest) -> None:
    """Remove the models that the store's manifest does not name any more."""
    named = {Path(name).parts[1] for name in manifest.encoder_files}
    for folder in (out / ENCODERS_FOLDER).glob("*"):
        if folder.is_dir() and folder.name not in named and re.fullmatch("[0-9a-f]{16}", folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): record_file(path).sha256
        for path in folder.rglob("*")
        if path.is_file()
    }
