"""Run filters of all selectivities, shapes and correlations on given vectors and attributes."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import engine
from benchmarks.fanns import tables
from benchmarks.fanns.cases import UNFILTERED, Bucket, Problem, make_problem
from benchmarks.fanns.made_up import made_up
from benchmarks.fanns.rounds import Measured, System, ask_once, take_rounds, time_filters
from benchmarks.fanns.running import close_accounts, opened
from benchmarks.peers.filtered_where import read_lines
from numpy.typing import NDArray

UNFILTERED_QUERIES = 200


def run(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the report, and all figures."""
    engine.tell("making filters")
    problem = read_problem(options)
    np.save(options.folder / "base.npy", problem.base)
    np.save(options.folder / "queries.npy", problem.queries)
    cases = [{"query": case.query, "where": case.where} for case in problem.cases]
    (options.folder / "cases.json").write_text(json.dumps(cases))
    recall: float = options.recall

    def chosen(system: System, bucket: Bucket) -> Sequence[Measured]:
        if system.name != tables.OURS:
            best = system.best(bucket, recall)
            return [best] if best else []
        first, *others = system.measured[bucket]
        if bucket == UNFILTERED:
            return [first, *(one for one in others if "plan" not in one.setting)]
        enough = min(recall, first.recall)
        return [first, *(one for one in others if tables.ran_as_forced(one) and one.recall >= enough)]

    told = {"attributes": str((options.folder / "attributes.jsonl").resolve())}
    with opened([tables.OURS, *options.peers], options, told) as (systems, failed):
        for system in systems:
            engine.tell(f"{system.name}: asking all cases")
            ask_once(system, problem)
            time_filters(system, problem, 5)
        take_rounds(
            systems,
            problem,
            chosen,
            rounds=options.rounds,
            repeats=options.repeats,
            warm_up=options.warm_up,
            timed=options.timed,
            tell=engine.tell,
        )
        close_accounts(systems)
    title = (
        f"{len(problem.base):,} vectors of {problem.base.shape[1]} dimensions, {len(problem.cases):,} "
        f"queries, k = 10, recall asked for {recall:g}"
    )
    return report(title, problem, systems, recall), record(title, problem, systems, failed)


def read_problem(options: argparse.Namespace) -> Problem:
    """Read vectors and attributes, hold queries out, and make filters; write the base rows' attributes."""
    vectors, records = read_rows(options)
    order = np.random.default_rng(options.seed).permutation(len(vectors))
    if options.hold_out >= len(order) or options.hold_out < 1:
        raise SystemExit(f"--hold-out is {options.hold_out:,}, expected 1 to {len(order) - 1:,}.")
    held, kept = np.sort(order[: options.hold_out]), order[options.hold_out :]
    kept = np.sort(kept[: options.rows] if options.rows else kept)
    records = [records[row] for row in kept]
    write_attributes(records, options.folder / "attributes.jsonl")
    return make_problem(
        vectors[kept],
        vectors[held].astype(np.float32),
        records,
        per_bucket=options.per_bucket,
        unfiltered=UNFILTERED_QUERIES,
        seed=options.seed,
    )


def read_rows(options: argparse.Namespace) -> tuple[NDArray[np.float16], list[dict[str, Any]]]:
    """Return all vectors, and as many records of attributes: those given, or made up."""
    if options.made_up:
        return made_up(options.made_up, options.dimension, options.seed)
    vectors = np.load(options.vectors).astype(np.float16, copy=False)
    records = [{name: found.get(name) for name in options.fields} for found in read_lines(options.corpus)]
    if len(records) != len(vectors):
        raise SystemExit(f"{options.corpus} has {len(records):,} records, expected {len(vectors):,}.")
    return vectors, records


def write_attributes(records: Sequence[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8") as out:
        for attributes in records:
            out.write(json.dumps(attributes) + "\n")


def report(title: str, problem: Problem, systems: Sequence[System], recall: float) -> str:
    """Return all tables."""
    ours = next((system for system in systems if system.name == tables.OURS), None)
    if ours is None:
        return title + "\n"
    others = [system for system in systems if system is not ours]
    parts = [title, "", tables.summary(ours, recall)]
    for name in ("selectivity", "shape", "correlation"):
        parts += [f"By {name}:", "", tables.grouped(ours, recall, name)]
    parts += ["Share of a query's 100 nearest rows that are allowed:", "", tables.near_shares(problem)]
    parts += ["Where most is lost:", "", tables.worst_buckets(ours, recall)]
    if others:
        parts += ["Beside others:", "", tables.peers(ours, others, recall)]
        parts += [
            f"Median p50 ms of buckets that reach {recall:g}, and how many do:",
            "",
            tables.peers_by_selectivity(ours, others, recall),
        ]
        parts += ["Where another is ahead:", "", tables.behind(ours, others, recall)]
    parts += ["What it costs:", "", tables.costs(systems)]
    return "\n".join(parts)


def record(title: str, problem: Problem, systems: Sequence[System], failed: Sequence[str]) -> dict[str, Any]:
    """Return all figures as JSON data."""
    return {
        "title": title,
        "failed": failed,
        "cases": [asdict(case) for case in problem.cases],
        "systems": [
            {
                "name": system.name,
                "costs": system.costs,
                "buckets": [
                    {
                        **asdict(bucket),
                        "filter_ms": system.filter_ms.get(bucket),
                        "settings": [
                            {
                                **{name: value for name, value in asdict(one).items() if name != "seconds"},
                                "recall": one.recall,
                                "p50_ms": one.p50_ms if one.seconds else None,
                                "p99_ms": one.p99_ms if one.seconds else None,
                                "queries_per_second": one.queries_per_second if one.rates else None,
                            }
                            for one in settings
                        ],
                    }
                    for bucket, settings in system.measured.items()
                ],
            }
            for system in systems
        ],
    }
