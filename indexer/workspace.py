"""The folder a build works in: its lock, its key, its shards, and what a later run can pick up."""

import fcntl
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compactds.datastore.encoders.base import Vectors
from compactds.datastore.errors import StoreBusyError
from compactds.datastore.files import sync_folder, write_atomic
from compactds.datastore.manifest import MANIFEST_NAME
from compactds.datastore.segment import SEGMENTS_FOLDER
from compactds.indexer.errors import BuildError

WORK_FOLDER = ".build"
LOCK_FILE = ".build.lock"
KEY_FILE = "key.json"
ENCODERS_FOLDER = "encoders"
READING_FOLDER = "reading"
SIFTING_FOLDER = "sifting"

# What depends on nothing but the sources and what may enter: kept when only later settings change.
_DOCUMENT_STAGES = frozenset(
    {"commits.json", READING_FOLDER, "documents", "filtering"}
    | {SIFTING_FOLDER, "kept", "removed", "deduplicating"}
)


@dataclass(frozen=True, slots=True)
class ShardSizes:
    """Say when a shard is full: by what it holds, or by the characters of its text.

    Only a document that is longer than `characters` by itself makes a larger shard. Documents are split
    together until they have `task_characters`.
    """

    documents: int = 2_048
    passages: int = 2_048
    characters: int = 8_000_000
    task_characters: int = 4_000_000


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make the folder `out` and keep other builds and changes out; raise StoreBusyError if one is in it.

    The lock ends with the process that holds it, however that ends. A folder that holds other things
    than a store is refused. What was made here is removed in the end if nothing but the lock is in it.
    """
    try:
        made = [folder for folder in (out, *out.parents) if not folder.exists()]
        out.mkdir(parents=True, exist_ok=True)
        strange = _strange_files(out)
        if strange:
            raise BuildError(
                f"{out} holds other files ({strange[0]!r}) and no datastore.",
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
            held = os.path.samestat(os.fstat(lock.fileno()), (out / LOCK_FILE).stat())
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:  # or whoever held it has just removed it
            raise StoreBusyError(
                f"another build or change of {out} is under way.",
                value=str(out),
                remedy="Wait for it to end, then run this command again.",
            )
        try:
            yield
        finally:
            if made:
                _remove_unused(out, made)


def _remove_unused(out: Path, made: Sequence[Path]) -> None:
    """Remove the folders that were made for a store if there is nothing in them but the lock."""
    with suppress(OSError):
        if [path.name for path in out.iterdir()] == [LOCK_FILE]:
            (out / LOCK_FILE).unlink()
            for folder in made:
                folder.rmdir()


def _strange_files(out: Path) -> list[str]:
    """Return what a folder without a manifest holds that no earlier build can have left there."""
    names = {path.name for path in out.iterdir()}
    if MANIFEST_NAME in names:
        return []
    left = {WORK_FOLDER, LOCK_FILE, f".{MANIFEST_NAME}.tmp"}
    if LOCK_FILE in names:  # a build was here before, and was stopped while it published
        left |= {SEGMENTS_FOLDER, ENCODERS_FOLDER}
    return sorted(names - left)


@contextmanager
def noting_work(root: Path, holds_work: Callable[[], bool]) -> Iterator[None]:
    """Add to whatever ends this early a note of `root`, if that holds work to go on with by then."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):  # what has ended it is the thing to tell
            if holds_work():
                error.add_note(
                    f"What is done is kept in {root}; the same command goes on from there. "
                    "With other input or options it may start over."
                )
        raise


def build_key(facts: Mapping[str, Any]) -> str:
    """Return a digest of everything that decides what a build makes."""
    canonical = json.dumps(facts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def settled(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; what is there at the end becomes `path` in one step.

    Its name is used by nobody else, so that two processes that do the same work do not meet.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def write_table(path: Path, table: pa.Table) -> None:
    """Save a table as an Arrow file in one step."""
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with settled(path) as beside, pa.ipc.new_file(str(beside), table.schema, options=options) as writer:
        writer.write_table(table)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a table `write_table` saved: all columns, or the named ones without reading the others."""
    with pa.memory_map(str(path)) as file:
        if columns is None:
            return pa.ipc.open_file(file).read_all()
        names = pa.ipc.open_file(file).schema.names
        fields = sorted(names.index(column) for column in columns)
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        return pa.ipc.open_file(file, options=options).read_all()


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """Save an array as an .npy file in one step.

    `numpy.save` writes to files through a stream of its own, and loses a small array on a full disk.
    """
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    with settled(path) as beside, beside.open("wb") as file:
        file.write(content.getbuffer())


class Workspace:
    """Keep the finished shards of a build, and say which those are.

    Every file is written beside its place and renamed into it, so that what has its name is whole.
    Documents are in `documents` as they were read and in `kept` after the filters; `removed` tells what
    was left out; passages are in `shards`, with their vectors.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.documents = root / "documents"
        self.kept = root / "kept"
        self.removed = root / "removed"
        self.shards = root / "shards"
        self.segment = root / "segment"

    @classmethod
    def open(cls, out: Path, key: str, documents_key: str) -> tuple["Workspace", bool]:
        """Return the workspace of the build with this key, and whether it holds work to go on with.

        Of a build with another key, the documents are kept if they came about in the same way, by
        `documents_key`; all else is removed.
        """
        workspace = cls(out / WORK_FOLDER)
        saved = workspace.read_state("key") or {}
        if saved.get("documents") != documents_key:
            workspace.clear()
        elif saved.get("key") != key:
            workspace.write_state("key", {"documents": documents_key})
            for path in workspace.root.iterdir():
                if path.name not in _DOCUMENT_STAGES | {KEY_FILE}:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        for folder in (workspace.documents, workspace.kept, workspace.removed, workspace.shards):
            folder.mkdir(parents=True, exist_ok=True)
        workspace.write_state("key", {"key": key, "documents": documents_key})
        return workspace, saved.get("documents") == documents_key

    @classmethod
    def discard(cls, out: Path, key: str) -> None:
        """Remove what a build with this key left behind when it was stopped after publishing.

        What has no key any more is the rest of a workspace that was being removed.
        """
        workspace = cls(out / WORK_FOLDER)
        if (workspace.read_state("key") or {"key": key}).get("key") == key:
            workspace.clear()

    def holds_work(self, documents_key: str) -> bool:
        """Tell whether a build with this key of its documents has read some to go on with."""
        same = (self.read_state("key") or {}).get("documents") == documents_key
        return same and any((self.root / READING_FOLDER).glob("*.json"))

    def read_state(self, name: str) -> Any:
        """Return what `write_state` saved under `name`, or None."""
        try:
            return json.loads((self.root / f"{name}.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def write_state(self, name: str, state: Any) -> None:
        """Save JSON data under `name`, in one step."""
        write_atomic(self.root / f"{name}.json", json.dumps(state, ensure_ascii=True).encode())

    def adopt_shard(self, number: int, path: Path) -> None:
        """Make a file that holds passages, and that of its given vectors, the shard of this number."""
        for source, target in (
            (path.with_suffix(".given.npy"), self._vectors(number, "given")),
            (path, self._shard(number)),
        ):
            if source.exists():
                source.replace(target)

    def read_shard(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the passages of a shard: all columns, or the named ones without reading the others."""
        return read_table(self._shard(number), columns)

    def write_vectors(self, number: int, role: str, vectors: Vectors, dtype: str) -> None:
        """Save a shard's vectors for a role: "given", "exact" or "ann"."""
        write_npy(self._vectors(number, role), vectors.astype(dtype))

    def has_vectors(self, number: int, role: str) -> bool:
        """Tell whether a shard's vectors are saved."""
        return self._vectors(number, role).exists()

    def read_vectors(self, number: int, role: str) -> Vectors:
        """Return a shard's vectors as float32, shape (rows, dimension)."""
        vectors: Vectors = np.load(self._vectors(number, role), allow_pickle=False).astype(np.float32)
        return vectors

    def clear(self) -> None:
        """Remove the workspace: the build is published.

        The key goes first, so that what is left if this is interrupted is not taken for work to go on with.
        """
        (self.root / KEY_FILE).unlink(missing_ok=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def _shard(self, number: int) -> Path:
        return self.shards / f"{number:06d}.arrow"

    def _vectors(self, number: int, role: str) -> Path:
        return self.shards / f"{number:06d}.{role}.npy"
