"""Publish what was written beside a store: one replacement of the manifest makes it the store."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from compactds.datastore.deletions import remove_deletions
from compactds.datastore.files import sync_folder
from compactds.datastore.manifest import SEGMENT_NAME, Manifest, SegmentRecord, write_manifest
from compactds.datastore.segment import SEGMENTS_FOLDER


def publish(root: Path, folder: Path | None, manifest: Manifest, *, replaces: Manifest | None) -> Manifest:
    """Make `manifest` the store's manifest; a segment in `folder` is moved into the store and is its last.

    That segment's digest gets a number before it, one more than those of the replaced store. What the
    replaced manifest named and the new one does not is removed last: until the manifest is replaced, readers
    see the old store. What neither names, something left that was stopped right here; it is removed first.
    """
    segments = root / SEGMENTS_FOLDER
    segments.mkdir(exist_ok=True)
    live = () if replaces is None else replaces.segments
    new = manifest.segments if folder is None else manifest.segments[:-1]
    _remove_unnamed(root, [*live, *new])
    if folder is not None:
        record = manifest.segments[-1]
        number = max((int(old.name.split("-")[0]) for old in live), default=0) + 1
        record = replace(record, name=f"{number}-{record.name}")
        folder.rename(segments / record.name)
        sync_folder(segments)
        manifest = replace(manifest, segments=(*new, record))
    write_manifest(root, manifest)
    _remove_unnamed(root, manifest.segments, ignore_errors=True)
    return manifest


def _remove_unnamed(root: Path, named: Iterable[SegmentRecord], *, ignore_errors: bool = False) -> None:
    """Remove segments and lists of deleted rows that are not named; what no build wrote there stays."""
    records = list(named)
    names = {record.name for record in records}
    for path in (root / SEGMENTS_FOLDER).iterdir():
        if path.name not in names and SEGMENT_NAME.fullmatch(path.name) and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=ignore_errors)
    remove_deletions(root, {record.deletions.file for record in records if record.deletions is not None})
