"""Check a store completely: every checksum, every file's own structure, and that they fit together."""

from pathlib import Path

from compactds.datastore.deletions import deletion_damage
from compactds.datastore.errors import StoreError, StoreNotFoundError
from compactds.datastore.files import find_damage
from compactds.datastore.manifest import Manifest, SegmentRecord, read_manifest
from compactds.datastore.passages import ROWS_PER_BATCH
from compactds.datastore.segment import SEGMENTS_FOLDER, open_segment

VERIFY_ATTEMPTS = 3


def verify(path: str | Path) -> list[str]:
    """Return one sentence per problem of the store at `path`; an empty list means it is whole.

    Every file is read once. A store that a build replaces meanwhile is checked again. Raises
    StoreNotFoundError where there is no store; a store of another format, or with a damaged manifest, is
    one problem.
    """
    root = Path(path)
    for _ in range(VERIFY_ATTEMPTS):
        try:
            manifest = read_manifest(root)
            problems = _check(root, manifest)
            if read_manifest(root) == manifest:
                return problems
        except StoreNotFoundError:
            raise
        except StoreError as error:
            return [str(error)]
    return [f"{root} was replaced {VERIFY_ATTEMPTS} times while it was checked: wait for builds to end."]


def _check(root: Path, manifest: Manifest) -> list[str]:
    problems = find_damage(root, manifest.encoder_files, deep=True)
    for record in manifest.segments:
        damage = find_damage(root / SEGMENTS_FOLDER / record.name, record.files, deep=True)
        if record.deletions is not None:
            damage += deletion_damage(root, record.deletions)
        problems += damage or _check_structure(root, manifest, record)
    return problems


def _check_structure(root: Path, manifest: Manifest, record: SegmentRecord) -> list[str]:
    """Return what is wrong with a segment whose files are as they were written."""
    try:
        segment = open_segment(root, manifest, record)
    except StoreError as error:
        return [str(error)]
    try:
        problems = [
            f"{segment.path}: column {field!r} does not have {record.passages} rows."
            for field in manifest.schema
            if len(segment.attributes.column(field)) != record.passages
        ]
        for row in (*range(0, record.passages, ROWS_PER_BATCH), record.passages - 1):
            segment.passages.fetch([row])
    except StoreError as error:
        return [f"{segment.path}: {error}"]
    finally:
        segment.close()
    return problems
