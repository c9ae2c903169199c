"""What tests of builds share: progress that stops one, and all that a store holds but the time."""

import json
from pathlib import Path

from compactds.indexer.progress import LoggedProgress


class StopAfter(LoggedProgress):
    """Interrupt the build after a number of steps, as Ctrl-C would."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.notes: list[str] = []

    def stage(self, name, total):
        self._step()

    def advance(self, amount):
        self._step()

    def note(self, message):
        self.notes.append(message)

    def _step(self) -> None:
        self.steps -= 1
        if self.steps == 0:
            raise KeyboardInterrupt


class StopAt(LoggedProgress):
    """Interrupt at a stage, as Ctrl-C would."""

    def __init__(self, stage: str) -> None:
        self.name = stage

    def stage(self, name, total):
        if name == self.name:
            raise KeyboardInterrupt


def content(store: Path) -> dict[str, bytes]:
    """Return all of a store but what tells the time."""
    files = {}
    for path in sorted(store.rglob("*")):
        if path.is_file() and path.name not in ("ledger.json", "manifest.json", ".build.lock"):
            files[str(path.relative_to(store))] = path.read_bytes()
    manifest = json.loads((store / "manifest.json").read_text())
    for segment in manifest["segments"]:
        del segment["files"]["ledger.json"]
        del segment["costs"]
        segment["calibration"] = [point | {"milliseconds": 0} for point in segment["calibration"]]
    del manifest["created"], manifest["checksum"], manifest["recipe"]["key"], manifest["measured"]
    files["manifest"] = json.dumps(manifest).encode()
    return files
