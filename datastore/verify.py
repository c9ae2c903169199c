"""Check a store completely: every checksum, every file's own structure, and that they fit together."""

from pathlib import Path

from compactds.datastore.errors import DamagedStoreError, StoreFormatError
from compactds.datastore.files import find_damage
from compactds.datastore.manifest import read_manifest
from compactds.datastore.passages import ROWS_PER_BATCH
from compactds.datastore.segment import SEGMENTS_FOLDER, open_segment


def verify(path: str | Path) -> list[str]:
    """Return one sentence per problem of the store at `path`; an empty list means it is whole.

    Every file is read once. Raises StoreNotFoundError where there is no store; a store of another
    format, or with a damaged manifest, is one problem.
    """
    root = Path(path)
    try:
        manifest = read_manifest(root)
    except (DamagedStoreError, StoreFormatError) as error:
        return [str(error)]
    problems = find_damage(root, manifest.encoder_files, deep=True)
    for record in manifest.segments:
        damage = find_damage(root / SEGMENTS_FOLDER / record.name, record.files, deep=True)
        problems += damage
        if not damage:
            problems += _check_structure(root, record.name)
    return problems


def _check_structure(root: Path, name: str) -> list[str]:
    """Return what is wrong with a segment whose files are as they were written."""
    manifest = read_manifest(root)
    record = next(segment for segment in manifest.segments if segment.name == name)
    try:
        segment = open_segment(root, manifest, record)
    except DamagedStoreError as error:
        return [str(error)]
    try:
        problems = [
            f"{segment.path}: column {field!r} does not have {record.passages} rows."
            for field in manifest.schema
            if len(segment.attributes.column(field)) != record.passages
        ]
        for row in (*range(0, record.passages, ROWS_PER_BATCH), record.passages - 1):
            segment.passages.fetch([row])
    except (DamagedStoreError, IndexError) as error:
        return [f"{segment.path}: {error}"]
    finally:
        segment.close()
    return problems
