"""Refuse to change a store that cannot be searched."""

from pathlib import Path

from compactds.datastore.deletions import deletion_damage
from compactds.datastore.errors import DamagedStoreError
from compactds.datastore.files import find_damage
from compactds.datastore.manifest import Manifest
from compactds.datastore.segment import SEGMENTS_FOLDER, checked_whole


def check_undamaged(root: Path, manifest: Manifest) -> None:
    """Raise DamagedStoreError for a file that opening the store would refuse.

    Sizes are compared and checksums as opening does; nothing is kept open. Encoders are left out: they are
    checked when they are loaded.
    """
    for record in manifest.segments:
        path = root / SEGMENTS_FOLDER / record.name
        problems = find_damage(path, record.files, deep=False, whole=checked_whole(record))
        if record.deletions is not None:
            problems += deletion_damage(root, record.deletions)
        if problems:
            raise DamagedStoreError(
                problems[0],
                value=str(path),
                remedy="Restore the store from a copy, or build it again; nothing was changed.",
            )
