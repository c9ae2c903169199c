"""Compare the engine with its peers: recall@10 against exact search, queries/s, latency, memory, disk.

    python -m benchmarks engine --vectors a.npy b.npy --queries q.npy --hold-out 0 1000 \\
        --peers hnswlib scann lancedb chroma faiss-hnsw faiss-ivf usearch --recall 0.95 0.99 --json out.json

Vectors have unit length and are searched by inner product, k = 10. Base files are stacked; --hold-out takes
rows out of each as queries (one number for all files, or one for each). Every system builds with --threads
cores, then answers in a process of its own that may run on one core, one query at a time from Python; where
a peer needs packages of its own, an environment is made for it under --environments. All settings of a
system are asked all queries once, which gives their recall; then, in rounds, each setting of each system
has its turn for --visit seconds, in another random order every round, so that noise of the machine hits all
alike. Queries/s are the median of rounds. Memory is given three ways: computed from the structure, the
growth of a fresh process's own memory, and of its mapped pages (which the system may take back).
"""

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import tables
from benchmarks.peers.launch import PEERS, Peer, PeerError, Process, python_for
from benchmarks.peers.vectors import Problem, read_problem

ALWAYS_BUILT = "compactds"
TIMES = 16
"""How often all queries are asked in a visit of batches, or one beside it, if there is time."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    problem = read_problem(
        options.vectors,
        options.queries,
        options.hold_out,
        rows=options.rows,
        queries=options.limit,
    )
    np.save(options.folder / "base.npy", problem.base)
    np.save(options.folder / "queries.npy", problem.queries)
    title = (
        f"{len(problem.base):,} vectors of {problem.base.shape[1]} dimensions, {len(problem.queries):,} "
        f"queries, k = 10; {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{date.today().isoformat()}"
    )
    names = list(dict.fromkeys(["compactds", *options.peers]))
    systems, failed = run([PEERS[name] for name in names], problem, options)
    report = [title, ""]
    for recall in options.recall:
        report += [f"One query at a time, recall@10 of at least {recall:g}:", ""]
        report += [tables.at_recall(systems, recall)]
    report += ["Seconds, and bytes a vector:", "", tables.costs(systems)]
    if any(system["batches"] for system in systems):
        report += [f"Queries/s in batches of {options.batch} on two threads:", "", tables.batches(systems)]
    report += ["Every setting that is the fastest at its recall:", "", tables.curves(systems)]
    if given := tables.asked(systems):
        report += ["Recall asked for, recall given:", "", given]
    print("\n".join(report), end="")
    for reason in failed:
        print(f"left out: {reason}")
    if options.json:
        record = {"title": title, "systems": systems, "failed": failed, "options": vars(options)}
        options.json.write_text(json.dumps(record, indent=1, default=str) + "\n")
    if failed:
        raise SystemExit(1)


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--vectors", type=Path, nargs="+", required=True, help=".npy files of base vectors")
    parser.add_argument("--queries", type=Path, nargs="*", default=[], help=".npy files of queries")
    parser.add_argument("--hold-out", type=int, nargs="+", default=[500], help="rows of each file to ask")
    parser.add_argument("--rows", type=int, help="draw only so many base rows")
    parser.add_argument("--limit", type=int, help="draw only so many queries")
    parser.add_argument(
        "--peers", nargs="*", default=["hnswlib"], choices=list(PEERS), help="besides compactds"
    )
    parser.add_argument("--recall", type=float, nargs="+", default=[0.95, 0.99])
    parser.add_argument("--recipe", nargs="*", default=[], metavar="KEY=VALUE", help="of the store")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--visit", type=float, default=0.5, help="seconds a setting has in a round")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=15, help="visits of batches, each beside one without")
    parser.add_argument("--core", type=int, default=cores[-1], help="where searches run")
    parser.add_argument("--threads", type=int, default=len(cores), help="of a build")
    parser.add_argument("--environments", type=Path, default=Path("bench-out/environments"))
    parser.add_argument("--folder", type=Path, default=Path("bench-out/engine"), help="where indexes go")
    parser.add_argument("--reuse", action="store_true", help="keep peers' indexes of the same vectors")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args(arguments)
    if len(options.hold_out) not in (1, len(options.vectors)):
        parser.error(f"--hold-out takes one number, or {len(options.vectors)}, one for each file of vectors")
    options.recipe = dict(pair.split("=", 1) for pair in options.recipe)
    return options


def run(
    peers: Sequence[Peer], problem: Problem, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[str]]:
    """Build, open and time all systems; return what was measured, and why any were left out."""
    failed: list[str] = []
    systems: list[dict[str, Any]] = []
    with ExitStack() as stack:
        running: list[tuple[dict[str, Any], Process]] = []
        for peer in peers:
            try:
                system = build(peer, options)
                process = stack.enter_context(start(peer, options, [options.core], 1))
                open_system(system, process, problem, options)
            except PeerError as error:
                failed.append(str(error))
                tell(f"left out: {error}")
            else:
                systems.append(system)
                running.append((system, process))
        take_rounds(running, problem, options)
        for system, process in running:
            system["batches"] = compare_batches(PEERS[system["name"]], system, process, problem, options)
    return systems, failed


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def peer_options(peer: Peer, options: argparse.Namespace) -> dict[str, Any]:
    return {**peer.options, "recipe": options.recipe} if peer.index_name == ALWAYS_BUILT else peer.options


def start(peer: Peer, options: argparse.Namespace, cores: Sequence[int], threads: int) -> Process:
    log = options.folder / f"{peer.name}.log"
    return Process(peer, python_for(peer, options.environments), log, cores=cores, threads=threads)


def build(peer: Peer, options: argparse.Namespace) -> dict[str, Any]:
    """Build a system's index, in a process that ends afterwards; return what that cost.

    An index of the same vectors is kept where that is asked for; compactds is always built anew, because
    its code may have changed. Two systems that share an index share its build.
    """
    folder = options.folder / peer.index_name
    done = folder / "built.json"
    settings = peer_options(peer, options)
    base = options.folder / "base.npy"
    key = {"bytes": base.stat().st_size, "digest": digest(base), "threads": options.threads}
    if done.exists():
        record = json.loads(done.read_text())
        kept = options.reuse and peer.index_name != ALWAYS_BUILT
        if record["key"] == key and (kept or peer.store):
            return {"name": peer.name, "rows": record["rows"], **record["built"]}
    tell(f"{peer.name}: building")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (options.folder / f"{peer.name}.log").unlink(missing_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    with start(peer, options, cores, options.threads) as process:
        built = process.tell("build", vectors=str(base), folder=str(folder), options=settings)
    rows = len(np.load(base, mmap_mode="r"))
    done.write_text(json.dumps({"key": key, "rows": rows, "built": built}))
    return {"name": peer.name, "rows": rows, **built}


def digest(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_system(
    system: dict[str, Any], process: Process, problem: Problem, options: argparse.Namespace
) -> None:
    """Open an index, ask each of its settings all queries once, and note recall and memory."""
    peer = PEERS[system["name"]]
    tell(f"{peer.name}: asking every query")
    opened = process.tell(
        "open",
        folder=str(options.folder / peer.index_name),
        queries=str(options.folder / "queries.npy"),
        options=peer_options(peer, options),
    )
    settings = opened.pop("settings")
    system |= opened
    system["opened"] = process.tell("memory")
    everything = list(range(len(problem.queries)))
    system["settings"] = []
    for setting in settings:
        reply = process.tell("ask", setting=setting, order=everything, batch=1, seconds=None, answers=True)
        recall = round(problem.recall(everything, reply["rows"]), 5)
        system["settings"].append({"setting": setting, "recall": recall, "rates": [], "seconds": []})
    system["searched"] = process.tell("memory")


def take_rounds(
    running: Sequence[tuple[dict[str, Any], Process]], problem: Problem, options: argparse.Namespace
) -> None:
    """Give every setting of every system its turn in each round; note rates and latencies."""
    turns = [(measured, process) for system, process in running for measured in system["settings"]]
    for number in range(options.rounds):
        tell(f"round {number + 1} of {options.rounds}: {len(turns)} settings")
        draw = random.Random(number)
        draw.shuffle(turns)
        order = draw.sample(range(len(problem.queries)), len(problem.queries))
        for measured, process in turns:
            reply = ask(process, measured["setting"], order, 1, options.visit)
            measured["rates"].append(rate(reply))
            measured["seconds"] += reply["seconds"]
    for measured, _ in turns:
        milliseconds = 1000 * np.asarray(measured.pop("seconds"))
        measured["queries_per_second"] = statistics.median(measured["rates"])
        measured["p50_ms"], measured["p99_ms"] = np.percentile(milliseconds, (50, 99)).tolist()


def ask(
    process: Process, setting: dict[str, Any], order: Sequence[int], batch: int, seconds: float
) -> dict[str, Any]:
    return process.tell("ask", setting=setting, order=order, batch=batch, seconds=seconds, answers=False)


def rate(reply: dict[str, Any]) -> float:
    return reply["asked"] / sum(reply["seconds"])


def compare_batches(
    peer: Peer, system: dict[str, Any], alone: Process, problem: Problem, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Ask in batches on two threads, in turn with one at a time, at the cheapest setting for each recall.

    The speed of a machine that others use too changes within seconds, and of its two cores not alike: only
    visits that follow each other are compared. In a visit, all queries are asked `TIMES` times, as far as its
    time goes: a few batches would take most of theirs to find caches and cores cold.
    """
    chosen = [tables.cheapest(system["settings"], recall) for recall in options.recall]
    settings = list({str(best["setting"]): best["setting"] for best in chosen if best}.values())
    cores = sorted({*sorted(os.sched_getaffinity(0))[-2:], options.core})[-2:]
    found: list[dict[str, Any]] = []
    with start(peer, options, cores, 2) as both:
        both.tell(
            "open",
            folder=str(options.folder / peer.index_name),
            queries=str(options.folder / "queries.npy"),
            options=peer_options(peer, options),
        )
        for setting in settings:
            pairs: list[tuple[float, float]] = []
            for number in range(options.pairs):
                draw = random.Random(number)
                orders = (
                    draw.sample(range(len(problem.queries)), len(problem.queries)) for _ in range(TIMES)
                )
                order = list(chain.from_iterable(orders))
                reply = ask(both, setting, order, options.batch, options.visit)
                if "cannot_batch" in reply:
                    return []
                pairs.append((rate(ask(alone, setting, order, 1, options.visit)), rate(reply)))
            found.append({"setting": setting, "pairs": pairs})
    return found


if __name__ == "__main__":
    main()
