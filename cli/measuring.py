"""Measure in processes of their own what serving takes: the program alone, and with a store open.

Importing, loading and searching leave memory behind in the process that does them. A fresh one has only
what a server has.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compactds.datastore.encoders.base import Encoder, EncoderSpec
    from compactds.datastore.manifest import Manifest

TIMEOUT_S = 600
SEARCHED_ROWS = 64
_IMPORTS = ("cli.serve", "server.run", "datastore", "datastore.search")
_CHILD = "import sys; from compactds.cli.measuring import child; child(sys.argv[1:])"

_kept: "list[Encoder]" = []
"""The encoders that the measuring process has loaded: a server keeps them, too."""


@dataclass(frozen=True, slots=True)
class ServingMemory:
    """Hold what a serving process holds: with nothing but its program and encoders, and with a store."""

    base_bytes: int
    bytes: int


def serving_memory(
    store: Path | None = None, encoders: Sequence[Mapping[str, Any]] = ()
) -> ServingMemory | None:
    """Return what serving a store takes, or a server without one; None where it cannot be measured.

    Without a store, `encoders` are those to load, as the options of each.
    """
    from compactds.datastore.memory import can_measure

    if not can_measure():
        return None
    arguments = ["", json.dumps(list(encoders))] if store is None else [str(store)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, *arguments], stdout=subprocess.PIPE, check=True, timeout=TIMEOUT_S
        )
        return ServingMemory(**json.loads(done.stdout))
    except (OSError, ValueError, TypeError, subprocess.SubprocessError):
        return None


def child(arguments: Sequence[str]) -> None:
    """Print what this process holds before and after it opens the store named, and has searched it."""
    from compactds.datastore.memory import held_bytes

    for name in _IMPORTS:
        import_module(f"compactds.{name}")
    manifest = _warmed_up(Path(arguments[0])) if arguments[0] else None
    if manifest is None:
        _load(json.loads(arguments[1]))
    base = held_bytes()
    opened = None if manifest is None else _search(Path(arguments[0]), manifest)
    print(json.dumps({"base_bytes": base, "bytes": held_bytes()}))
    del opened  # until here, what is open is held


def _load(encoders: Sequence[Mapping[str, Any]]) -> None:
    from compactds.datastore.encoders import EncoderOptions, load_encoder

    for options in encoders:
        _kept.append(load_encoder(EncoderOptions(**options)))
        _kept[-1].encode_queries(["light"])


def _warmed_up(store: Path) -> "Manifest":
    """Load the store's encoders and encode a query with each, but for those of another machine."""
    from compactds.datastore.encoders import load_spec
    from compactds.datastore.manifest import read_manifest

    manifest = read_manifest(store)
    specs: dict[str, EncoderSpec] = {
        spec.fingerprint: spec for spec in (manifest.encoder, manifest.exact_encoder)
    }
    for spec in specs.values():
        if spec.kind in ("sentence-transformers", "static"):
            _kept.append(load_spec(spec, store_root=store))
            _kept[-1].encode_queries(["light"])
    return manifest


def _search(store: Path, manifest: "Manifest") -> Any:
    """Open a store, ask it for the neighbours of some of its own rows, one at a time, and return it."""
    import numpy as np

    from compactds.datastore.search import rescore
    from compactds.datastore.segment import open_segments

    segments = open_segments(store.absolute(), manifest)
    draw = np.random.default_rng(0)
    for segment in segments:
        rows = draw.integers(0, segment.rows, SEARCHED_ROWS)
        deciding = segment.vectors.gather(rows)
        proposing = deciding
        if manifest.encoder.fingerprint != manifest.exact_encoder.fingerprint:
            proposing = draw.standard_normal((len(rows), manifest.encoder.dimension), np.float32)
        for point in segment.record.calibration[-1:]:
            for query, exact in zip(proposing, deciding, strict=True):
                _, found = segment.index.search(query[np.newaxis], point.candidates, effort=point.effort)
                rescore(segment.vectors, exact, found[0], 10)
    return segments
