"""Know what a store holds, or left out, that its recipe does not tell of: what was added and deleted."""

from pathlib import Path

from compactds.configs.sizes import counted
from compactds.datastore.manifest import Manifest
from compactds.indexer.errors import GrownStoreError

ADDITIONS = "additions"
"""What a manifest's recipe calls the account of what was added, a record for each time."""

DROPPED = "dropped"
"""What a manifest's recipe calls the passages that were deleted and are on disk no more."""


def check_not_grown(out: Path, manifest: Manifest) -> None:
    """Raise GrownStoreError for a store that a build from its recipe would not give back."""
    lost = growth(manifest)
    if lost:
        raise GrownStoreError(
            f"{out} was changed since it was built, which a new build would undo: {' and '.join(lost)}.",
            value=str(out),
            remedy="Build with --replace to lose that, give --out another folder, or go on with "
            "`compactds add` and `compactds delete`.",
        )


def growth(manifest: Manifest) -> list[str]:
    """Return what was added to a store and deleted from it since it was built, each in a few words."""
    additions = manifest.recipe.get(ADDITIONS, ())
    added = sum(addition["documents"] for addition in additions)
    deleted = manifest.recipe.get(DROPPED, 0)
    deleted += sum(record.passages - record.live_passages for record in manifest.segments)
    told = []
    if additions:
        told.append(counted(added, "document was added", "documents were added"))
    if deleted:
        told.append(counted(deleted, "passage was deleted", "passages were deleted"))
    return told
