"""Put lists of what a build left out into the folder of its segment."""

from pathlib import Path

from compactds.indexer.filtering import CONTAMINATED_FILE
from compactds.indexer.reading import REJECTS_FILE
from compactds.indexer.removals import REMOVED_FILE, gather_removed, join_files, removed_files
from compactds.indexer.workspace import READING_FOLDER, SIFTING_FOLDER, Workspace


def write_lists(workspace: Workspace, folder: Path) -> list[str]:
    """Write what was rejected, removed and contaminated to files in a folder; return the names of those."""
    rejects = [
        path
        for name in (READING_FOLDER, SIFTING_FOLDER)
        for path in sorted((workspace.root / name).glob("*.rejects.jsonl"))
    ]
    contaminated = sorted(workspace.removed.glob("contaminated-*.jsonl"))
    made = {
        REJECTS_FILE: join_files(rejects, folder / REJECTS_FILE),
        REMOVED_FILE: gather_removed(removed_files(workspace), folder / REMOVED_FILE),
        CONTAMINATED_FILE: join_files(contaminated, folder / CONTAMINATED_FILE),
    }
    return [name for name, there in made.items() if there]
