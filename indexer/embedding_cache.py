"""Keep vectors from one build to the next, so that a rebuild encodes only the texts that are new."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compactds.datastore.encoders.base import EncoderSpec, Vectors
from compactds.datastore.encoders.endpoint import same_probe
from compactds.datastore.encoders.fingerprint import json_sha256
from compactds.datastore.vectors import EXACT_DTYPES
from compactds.indexer.embedding_segments import (
    KEY_BYTES,
    SUFFIX,
    Keys,
    VectorSegment,
    write_beside,
    write_segment,
)

_log = logging.getLogger(__name__)

DEFAULT_LIMIT_BYTES = 4 << 30
MERGED_BYTES = 32 << 20
"""Small segments are merged into ones of about this size, in so much memory."""

SMALL_SEGMENTS = 32
"""So many small segments are kept before they are merged."""

_OLD_S = 3600.0
_ABOUT = "about.json"


def default_cache_folder() -> Path:
    """Return the folder of caches: compactds in $XDG_CACHE_HOME, or in ~/.cache."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "compactds"


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """Say where vectors are kept, and how many bytes of them; the ones used longest ago go first."""

    folder: Path
    limit_bytes: int = DEFAULT_LIMIT_BYTES


def text_keys(texts: Sequence[str]) -> Keys:
    """Return the keys of texts, shape (n, 2): 128 bits of BLAKE2b, which nobody can make collide."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest() for text in texts)
    return np.frombuffer(digests, "<u8").reshape(len(texts), 2).astype(np.uint64)


class EmbeddingCache:
    """Find and add the passage vectors of one encoder, rounded as they are stored.

    The encoder must give a text the same vector whatever it is encoded with, so that what is found here
    equals to the last bit what would have been computed. Each addition is a file of its own, put in place
    in one step, so any number of processes may share a folder and be killed at any time. No trouble with
    the folder stops a build: it is logged, and vectors are computed instead.
    """

    def __init__(self, options: CacheOptions, spec: EncoderSpec, cache_key: str, dtype: str) -> None:
        self._options = options
        self._spec = spec
        self._dtype = EXACT_DTYPES[dtype]
        key = {"encoder": cache_key, "role": "passage", "dtype": self._dtype}
        self._folder = options.folder / "vectors" / json_sha256(key)[: 2 * KEY_BYTES]
        self._segments: dict[str, VectorSegment] = {}
        self._bad: set[str] = set()
        self._usable = True
        self.dropped_bytes = 0
        """How many bytes of vectors were removed, to keep to the limit."""
        with self._no_trouble():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder.parent.chmod(0o700)
            self._check_probe(spec)

    def find(self, keys: Keys) -> tuple[Vectors, NDArray[np.bool_]]:
        """Return float32 vectors, shape (n, dimension), and which of the keys they were found for."""
        vectors = np.zeros((len(keys), self._spec.dimension), np.float32)
        found = np.zeros(len(keys), np.bool_)
        if self._usable:
            with self._no_trouble():
                self._refresh()
                for segment in self._segments.values():
                    with suppress(FileNotFoundError):  # merged into another by now, or dropped
                        _take(segment, keys, vectors, found)
        return vectors, found

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Keep vectors, shape (n, dimension), for the next time; those used longest ago make room."""
        if not len(keys) or not self._usable:
            return
        with self._no_trouble():
            write_segment(self._folder, keys, vectors.astype(self._dtype))
            self._refresh()
            self._merge_small()
            self._keep_to_limit()

    @contextmanager
    def _no_trouble(self) -> Iterator[None]:
        """Give the cache up for this build, and say so, if the folder or the disk fails."""
        try:
            yield
        except OSError as error:
            self._usable = False
            _log.warning("the embedding cache %s is not used: %s", self._options.folder, error)

    def _refresh(self) -> None:
        """Open the segments that came since the last look, and forget those that went."""
        names = {entry.name for entry in os.scandir(self._folder) if entry.name.endswith(SUFFIX)}
        for name in self._segments.keys() - names:
            del self._segments[name]
        for name in names - self._segments.keys() - self._bad:
            with suppress(FileNotFoundError):
                segment = VectorSegment.open(self._folder / name, self._spec.dimension, self._dtype)
                if segment is None:
                    self._bad.add(name)
                else:
                    self._segments[name] = segment

    def _small(self) -> list[VectorSegment]:
        return [segment for segment in self._segments.values() if segment.size_bytes < MERGED_BYTES // 2]

    def _merge_small(self) -> None:
        """Merge small segments if there are many; one process does so at a time."""
        if len(self._small()) <= SMALL_SEGMENTS:
            return
        with (self._folder / ".merging").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._refresh()  # another process may have merged them just now
            small = self._small()
            while len(small) > 1:
                taken, size = 0, 0
                while taken < len(small) and (taken < 2 or size + small[taken].size_bytes <= MERGED_BYTES):
                    size += small[taken].size_bytes
                    taken += 1
                self._merge(small[:taken])
                small = small[taken:]
        self._refresh()

    def _merge(self, segments: Sequence[VectorSegment]) -> None:
        """Write one segment of what is good in several, then remove them."""
        read = []
        for segment in segments:
            with suppress(FileNotFoundError):  # dropped by another process
                read.append(segment.read_all())
        rows = sum(len(keys) for keys, _ in read)
        if rows:
            keys, vectors = (np.concatenate(parts) for parts in zip(*read, strict=True))
            write_segment(self._folder, keys, vectors)
        for segment in segments:
            segment.path.unlink(missing_ok=True)

    def _keep_to_limit(self) -> None:
        """Remove the segments, of all encoders, that were used longest ago until the rest fits."""
        files = sorted(_files(self._options.folder))
        total = sum(size for _, size, _ in files)
        for used, size, path in files:
            leftover = path.suffix == ".tmp" and used < time.time() - _OLD_S
            if total > self._options.limit_bytes or leftover:
                path.unlink(missing_ok=True)
                total -= size
                self.dropped_bytes += 0 if leftover else size

    def _check_probe(self, spec: EncoderSpec) -> None:
        """Empty the folder if its vectors come from another model behind the same endpoint's address."""
        about = self._folder / _ABOUT
        try:
            known: Any = json.loads(about.read_bytes()).get("probe")
        except (FileNotFoundError, ValueError, AttributeError):
            known = None
        if spec.probe is not None and not (isinstance(known, list) and same_probe(known, spec.probe)):
            shutil.rmtree(self._folder)
            self._folder.mkdir(mode=0o700)
            known = None
        if known is None:
            facts = {"model": spec.model, "dtype": self._dtype, "dimension": spec.dimension}
            write_beside(about, json.dumps(facts | {"probe": spec.to_json()["probe"]}).encode())


def _take(segment: VectorSegment, keys: Keys, vectors: Vectors, found: NDArray[np.bool_]) -> None:
    """Fill in the vectors a segment holds of those not found so far."""
    places = np.flatnonzero(~found)
    rows = segment.locate(keys[places])
    places, rows = places[rows >= 0], rows[rows >= 0]
    if not len(places):
        return
    read, good = segment.read(rows)
    if not good.all():
        _log.warning("%s: %d vectors are damaged and computed again", segment.path, int((~good).sum()))
    vectors[places[good]] = read[good]
    found[places[good]] = True
    os.utime(segment.path)


def _files(root: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield when each file of vectors was used last, its bytes, and where it is."""
    for path in (root / "vectors").glob("*/*"):
        if path.suffix in (SUFFIX, ".tmp"):
            with suppress(FileNotFoundError):
                status = path.stat()
                yield status.st_mtime, status.st_size, path
