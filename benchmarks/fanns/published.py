"""Run arxiv-for-fanns as published: recall and queries/s on one thread, build time, peak RSS, index size."""

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from benchmarks import engine
from benchmarks.fanns import tables
from benchmarks.fanns.files import QuerySet, map_fvecs, read_set, save_npy
from benchmarks.fanns.rounds import System
from benchmarks.fanns.running import close_accounts, opened
from benchmarks.peers.tables import curves, setting_text, table
from benchmarks.peers.worker import K

Point = dict[str, Any]


def run(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the report, and all figures."""
    folder = options.fanns
    base, queries = map_fvecs(folder / "database_vectors.fvecs"), map_fvecs(folder / "query_vectors.fvecs")
    sets = [read_set(folder, name, options.limit) for name in options.sets]
    asked = max(len(one.truth) for one in sets)
    if asked > len(queries):
        raise SystemExit(f"{folder} has {len(queries):,} queries, and exact answers to {asked:,}.")
    save_npy(base, options.folder / "base.npy", options.dtype)
    np.save(options.folder / "queries.npy", queries[:asked])
    cases = [{"query": number, "where": where} for one in sets for number, where in enumerate(one.wheres)]
    (options.folder / "cases.json").write_text(json.dumps(cases))
    told = {"attributes": str((folder / "database_attributes.jsonl").resolve()), "curve": True}
    title = f"{len(base):,} vectors of {base.shape[1]} dimensions, {asked:,} queries a set, k = {K}"
    measured: dict[str, dict[str, list[Point]]] = {}
    with opened([tables.OURS, *options.peers], options, told) as (systems, failed):
        first = 0
        for one in sets:
            numbers = range(first, first + len(one.truth))
            measured[one.name] = ask_set(systems, one, numbers, options)
            first += len(one.truth)
        close_accounts(systems)
    report = [title, "", tables.costs(systems)]
    for name, of_systems in measured.items():
        rows = [{"name": system, "settings": points} for system, points in of_systems.items()]
        report += [f"Filters {name}:", "", curves(rows), points_table(of_systems)]
    record = {"title": title, "sets": measured, "costs": {one.name: one.costs for one in systems}}
    return "\n".join(report), {**record, "failed": failed}


def ask_set(
    systems: Sequence[System], asked: QuerySet, numbers: range, options: argparse.Namespace
) -> dict[str, list[Point]]:
    """Ask every setting all queries of a set in each round, in random order; return recall and rates."""
    points: dict[str, list[Point]] = {
        system.name: [{"setting": setting, "rates": [], "seconds": []} for setting in system.settings]
        for system in systems
    }
    turns = [(system, point) for system in systems for point in points[system.name]]
    for round_number in range(options.rounds):
        engine.tell(f"filters {asked.name}, round {round_number + 1} of {options.rounds}")
        draw = random.Random(round_number)
        for system, point in draw.sample(turns, len(turns)):
            order = draw.sample(numbers, len(numbers))
            reply = system.process.tell(
                "ask_cases", setting=point["setting"], numbers=order, repeats=1, warm_up=None, answers=True
            )
            seconds = [taken for case in reply["seconds"] for taken in case]
            point["rates"].append(len(order) / max(sum(seconds), 1e-9))
            point["seconds"] += seconds
            recalls = [
                share(asked.truth[number - numbers.start], rows)
                for number, rows in zip(order, reply["rows"], strict=True)
            ]
            point["recall"] = statistics.fmean(recalls)
            point["failed"] = len(reply["failed"])
    for _, point in turns:
        milliseconds = 1000 * np.asarray(point.pop("seconds") or [np.nan])
        point["p50_ms"], point["p99_ms"] = np.percentile(milliseconds, (50, 99)).tolist()
        point["queries_per_second"] = statistics.median(point["rates"])
    return points


def share(truth: Sequence[int], found: Sequence[int]) -> float:
    """Return which part of the nearest rows was found; 1 if there are none."""
    wanted = {int(row) for row in truth[:K]}
    return len(wanted & set(found[:K])) / len(wanted) if wanted else 1.0


def points_table(measured: dict[str, list[Point]]) -> str:
    rows = [
        (
            name,
            setting_text(point["setting"]),
            f"{point['recall']:.4f}",
            f"{point['queries_per_second']:,.0f}",
            f"{point['p50_ms']:.3f}",
            f"{point['p99_ms']:.3f}",
        )
        for name, points in measured.items()
        for point in points
    ]
    return table(("system", "setting", "recall@10", "queries/s", "p50 ms", "p99 ms"), rows)
