"""Start each system in a process of its own, with the packages and the cores it is meant to have."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TOKIO_WORKER_THREADS",
    "LANCE_CPU_THREADS",
)
QUIET = {"ANONYMIZED_TELEMETRY": "False", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}

# The root comes last on the path: its folders have names that packages of a peer may have, too.
START = """
import os, sys
os.sched_setaffinity(0, {cores})
sys.path.append({root!r})
from benchmarks.peers.{worker} import main
main({module!r}, {threads})
"""


class PeerError(RuntimeError):
    """Report that a system could not be installed, built, opened or asked."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Name a system: its adapter, the environment it needs if any, what its adapter is told."""

    name: str
    adapter: str
    environment: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    store: str | None = None  # shares the index of another system
    worker: str = "worker"  # the module that answers messages

    @property
    def index_name(self) -> str:
        return self.store or self.name


PEERS = {
    peer.name: peer
    for peer in (
        Peer("compactds", "compactds_store"),
        Peer("compactds-search", "compactds_store", None, {"fetch": True}, "compactds"),
        Peer("hnswlib", "hnswlib_graph"),
        Peer("faiss-hnsw", "faiss_graph"),
        Peer("faiss-ivf", "faiss_lists"),
        Peer("scann", "scann_tree", "scann"),
        Peer("usearch", "usearch_graph", "usearch", {"dtype": "f16"}),
        Peer("usearch-i8", "usearch_graph", "usearch", {"dtype": "i8"}),
        Peer("lancedb", "lancedb_lists", "lancedb"),
        Peer("chroma", "chroma_graph", "chroma"),
    )
}


def python_for(peer: Peer, environments: Path) -> str:
    """Return the Python that has what a peer needs; make its environment if it is not there yet."""
    if peer.environment is None:
        return sys.executable
    wanted = (HERE / f"requirements-{peer.environment}.txt").read_text()
    folder = environments.resolve() / peer.environment
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {' '.join(wanted.split())} into {folder}", file=sys.stderr)
        requirements = str(HERE / f"requirements-{peer.environment}.txt")
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "-r", requirements],
        ):
            ended = subprocess.run(command, stdout=sys.stderr, check=False)
            if ended.returncode:
                raise PeerError(f"{peer.name}: {' '.join(command)} ended with {ended.returncode}")
        done.write_text(wanted)
    return str(python)


class Process:
    """Talk to a worker; `cores` are those it may run on, `threads` how many it is told to use."""

    def __init__(self, peer: Peer, python: str, log: Path, *, cores: Sequence[int], threads: int) -> None:
        self.peer = peer
        self.log = log
        module = f"benchmarks.peers.{peer.adapter}"
        program = START.format(
            cores=set(cores), root=str(ROOT), worker=peer.worker, module=module, threads=threads
        )
        environment = {**os.environ, **QUIET, **dict.fromkeys(THREAD_SETTINGS, str(threads))}
        environment.pop("PYTHONPATH", None)
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [python, "-P", "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )

    def tell(self, do: str, **message: Any) -> dict[str, Any]:
        """Send a message and return the reply; raise PeerError for an error or if the process is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **message}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerError(f"{self.peer.name}: the process ended; see {self.log}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise PeerError(f"{self.peer.name}: {reply['error']}; see {self.log}")
        return reply

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the process end; kill it if it does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
