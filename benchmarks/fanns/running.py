"""Build, open and close the systems that are compared."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from benchmarks import engine
from benchmarks.fanns.rounds import System
from benchmarks.peers.filtered_systems import SYSTEMS
from benchmarks.peers.launch import Peer, PeerError


@contextmanager
def opened(
    names: Sequence[str], options: argparse.Namespace, told: dict[str, Any]
) -> Iterator[tuple[list[System], list[str]]]:
    """Build and open systems over base.npy and queries.npy of the folder; yield them, and who was left out.

    `told` is what adapters are told besides.
    """
    failed: list[str] = []
    with ExitStack() as stack:
        systems = []
        for name in names:
            peer = replace(SYSTEMS[name], options=told)
            try:
                systems.append(open_system(peer, options, stack))
            except PeerError as error:
                failed.append(str(error))
                engine.tell(f"left out: {error}")
        yield systems, failed


def open_system(peer: Peer, options: argparse.Namespace, stack: ExitStack) -> System:
    built = engine.build(peer, options)
    process = stack.enter_context(engine.start(peer, options, [options.core], 1))
    reply = process.tell(
        "open",
        folder=str(options.folder / peer.index_name),
        queries=str(options.folder / "queries.npy"),
        options=engine.peer_options(peer, options),
    )
    settings = reply.pop("settings")
    process.tell("read_cases", path=str(options.folder / "cases.json"))
    return System(peer.name, process, {**built, **reply}, settings)


def close_accounts(systems: Sequence[System]) -> None:
    """Note the most memory each has held while it searched."""
    for system in systems:
        system.costs["search_peak_bytes"] = system.process.tell("peak")["peak_bytes"]
