"""The folder a build works in: its lock, its key, its shards, and what a later run can pick up."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from compactds.datastore.encoders.base import Vectors
from compactds.datastore.errors import StoreBusyError
from compactds.datastore.files import write_atomic
from compactds.datastore.manifest import MANIFEST_NAME
from compactds.indexer.errors import BuildError

WORK_FOLDER = ".build"
LOCK_FILE = ".build.lock"


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make the folder `out` and keep other builds out of it; raise StoreBusyError if one is in it.

    The lock ends with the process that holds it, however that ends. A folder that holds other things
    than a store is refused.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        strange = [p.name for p in out.iterdir() if p.name not in (WORK_FOLDER, LOCK_FILE)]
        if strange and not (out / MANIFEST_NAME).exists() and set(strange) - {"segments", "encoders"}:
            raise BuildError(
                f"{out} holds other files ({strange[0]}) and no datastore.",
                value=str(out),
                remedy="Give --out a new folder, an empty one, or an existing datastore.",
            )
        lock = (out / LOCK_FILE).open("w")
    except OSError as error:
        raise BuildError(
            f"cannot write to {out}: {error.strerror}.", value=str(out), remedy="Give --out another folder."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreBusyError(
                f"another build is writing to {out}.",
                value=str(out),
                remedy="Wait for it to end, or give --out another folder.",
            ) from None
        yield


def build_key(facts: Mapping[str, Any]) -> str:
    """Return a digest of everything that decides what a build makes."""
    canonical = json.dumps(facts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


class Workspace:
    """Keep the finished shards of a build, and say which those are.

    Every file is written beside its place and renamed into it, so that what has its name is whole.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shards = root / "shards"
        self.segment = root / "segment"

    @classmethod
    def open(cls, out: Path, key: str) -> tuple["Workspace", bool]:
        """Return the workspace of the build with this key, and whether it holds work to go on with.

        The work of a build with another key is removed.
        """
        workspace = cls(out / WORK_FOLDER)
        resumed = workspace.read_state("key") == {"key": key}
        if not resumed:
            shutil.rmtree(workspace.root, ignore_errors=True)
            workspace.shards.mkdir(parents=True)
            workspace.write_state("key", {"key": key})
        return workspace, resumed

    @classmethod
    def discard(cls, out: Path, key: str) -> None:
        """Remove what a build with this key left behind when it was stopped after publishing."""
        workspace = cls(out / WORK_FOLDER)
        if workspace.read_state("key") == {"key": key}:
            workspace.clear()

    def read_state(self, name: str) -> Any:
        """Return what `write_state` saved under `name`, or None."""
        try:
            return json.loads((self.root / f"{name}.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def write_state(self, name: str, state: Any) -> None:
        """Save JSON data under `name`, in one step."""
        write_atomic(self.root / f"{name}.json", json.dumps(state, ensure_ascii=True).encode())

    def write_shard(self, number: int, table: pa.Table) -> None:
        """Save the passages of a shard."""
        beside = self._beside(self._shard(number))
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_file(str(beside), table.schema, options=options) as writer:
            writer.write_table(table)
        _settle(beside, self._shard(number))

    def read_shard(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the passages of a shard: all columns, or the named ones without reading the others."""
        with pa.memory_map(str(self._shard(number))) as file:
            if columns is None:
                return pa.ipc.open_file(file).read_all()
            names = pa.ipc.open_file(file).schema.names
            fields = sorted(names.index(column) for column in columns)
            options = pa.ipc.IpcReadOptions(included_fields=fields)
            return pa.ipc.open_file(file, options=options).read_all()

    def write_vectors(self, number: int, role: str, vectors: Vectors, dtype: str) -> None:
        """Save a shard's vectors for a role: "given", "exact" or "ann"."""
        path = self._vectors(number, role)
        beside = self._beside(path)
        with beside.open("wb") as file:
            np.save(file, vectors.astype(dtype), allow_pickle=False)
        _settle(beside, path)

    def has_vectors(self, number: int, role: str) -> bool:
        """Tell whether a shard's vectors are saved."""
        return self._vectors(number, role).exists()

    def read_vectors(self, number: int, role: str) -> Vectors:
        """Return a shard's vectors as float32, shape (rows, dimension)."""
        vectors: Vectors = np.load(self._vectors(number, role), allow_pickle=False).astype(np.float32)
        return vectors

    def clear(self) -> None:
        """Remove the workspace: the build is published."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _shard(self, number: int) -> Path:
        return self.shards / f"{number:06d}.arrow"

    def _vectors(self, number: int, role: str) -> Path:
        return self.shards / f"{number:06d}.{role}.npy"

    def _beside(self, path: Path) -> Path:
        return path.with_name(f".{path.name}.tmp")


def _settle(beside: Path, path: Path) -> None:
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)
