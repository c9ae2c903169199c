"""Search with filters of all selectivities and shapes: recall@10, time, the planner's regret, and peers.

    python -m benchmarks filtered --vectors acl_anthology.base.f16.npy --corpus acl_anthology.jsonl.gz
    python -m benchmarks filtered --made-up 60000 --dimension 96
    python -m benchmarks filtered --fanns arxiv-for-fanns-medium --sets em r emis none

With --vectors and --corpus, rows are held out as queries, and filters are made from attributes of the rest in
buckets: selectivity (1e-5 to 0.9) × shape (equality, range, set membership, list contains, conjunction,
disjunction, negation) × correlation with the query (its neighbours' values, values drawn at random, values
of rows that are not its neighbours). Each system runs in a process of its own on one core, one query at a
time. All settings are asked all cases once, which gives recall; then, in rounds, buckets in random order, the
systems take turns in random order with their cheapest setting that reaches --recall in that bucket, or the
one with most recall. compactds is asked for that recall and nothing else, and besides, for regret, with each
plan forced on it. Before a case is timed it is asked for --warm-up seconds, as a filter in steady use is:
what compactds keeps for such filters is made then. Systems that take bitmaps get them for nothing, and are
compared with compactds when it has seen a filter before; the others are compared with the time that includes
making its bitmap.

With --made-up, vectors and attributes are made up in crowds, which filters exclude whole (`fanns.made_up`);
all else is as with --vectors.

With --fanns, the files of arxiv-for-fanns are read as published: every setting is asked all queries of a set
in each round, and recall, queries/s on one thread, build time on all cores, peak RSS and sizes are given.
"""

import argparse
import json
import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks.fanns import buckets, published
from benchmarks.fanns.files import SETS
from benchmarks.peers.filtered_systems import SYSTEMS

FIELDS = ("venue", "year", "month", "authors", "has_software", "lang", "words")
PEERS = [name for name in SYSTEMS if name != "compactds"]
QUICK_ROWS = 10_000


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    report, record = published.run(options) if options.fanns else buckets.run(options)
    where = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {date.today().isoformat()}"
    )
    print(f"{where}: {report}", end="")
    for reason in record["failed"]:
        print(f"left out: {reason}")
    if options.json:
        settings = {name: str(value) for name, value in vars(options).items()}
        options.json.write_text(json.dumps({**record, "options": settings}, indent=1, default=str) + "\n")
    if record["failed"]:
        raise SystemExit(1)


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--vectors", type=Path, help=".npy of base vectors of unit length")
    parser.add_argument("--corpus", type=Path, help="their records, .jsonl or .jsonl.gz, in the same order")
    parser.add_argument("--made-up", type=int, metavar="ROWS", help="make up so many, instead of --vectors")
    parser.add_argument("--dimension", type=int, default=384, help="of vectors made up")
    parser.add_argument("--fields", nargs="+", default=list(FIELDS), help="of --corpus, to filter on")
    parser.add_argument("--hold-out", type=int, default=600, help="rows to ask")
    parser.add_argument("--rows", type=int, help="draw only so many base rows")
    parser.add_argument("--per-bucket", type=int, default=5, help="queries in a bucket, each with a filter")
    parser.add_argument("--timed", type=int, default=2, help="those of them that are timed in rounds")
    parser.add_argument("--recall", type=float, default=0.95, help="what peers must reach in a bucket")
    parser.add_argument("--repeats", type=int, default=2, help="timed calls of a case in a round")
    parser.add_argument(
        "--warm-up", type=float, default=0.1, help="seconds for which a case is asked before each round"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fanns", type=Path, help="folder of arxiv-for-fanns, instead of the above")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS, help="queries of --fanns")
    parser.add_argument("--limit", type=int, help="ask only the first queries of each set of --fanns")
    parser.add_argument("--dtype", default="float32", choices=("float16", "float32"), help="of --fanns")
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=[*PEERS, "none"])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS:,} rows, two rounds, no peers")
    parser.add_argument("--recipe", nargs="*", default=[], metavar="KEY=VALUE", help="of the store")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--core", type=int, default=cores[-1], help="where searches run")
    parser.add_argument("--threads", type=int, default=len(cores), help="of a build")
    parser.add_argument("--environments", type=Path, default=Path("bench-out/environments"))
    parser.add_argument("--folder", type=Path, default=Path("bench-out/filtered"), help="where indexes go")
    parser.add_argument("--reuse", action="store_true", help="keep peers' indexes of the same vectors")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args(arguments)
    given = [options.fanns, options.made_up, options.vectors and options.corpus]
    if sum(map(bool, given)) != 1:
        parser.error("give --vectors and --corpus, or --made-up, or --fanns.")
    if options.quick:
        options.rows = min(options.rows or QUICK_ROWS, QUICK_ROWS)
        options.rounds, options.peers = 2, []
    options.peers = [name for name in options.peers if name != "none"]
    options.recipe = dict(pair.split("=", 1) for pair in options.recipe)
    return options


if __name__ == "__main__":
    main()
