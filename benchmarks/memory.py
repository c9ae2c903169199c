"""Compare the memory that building and serving a store were predicted to take with what they take.

    python -m benchmarks memory --vectors a.npy b.npy --rows 100000 500000 --workers 1 2

Base files are stacked. More rows than there are grow from real ones: a row drawn at random, moved by noise
of half its length and scaled back, so that neighbourhoods stay dense where they were. Each store is planned
and built through the command line, in processes of its own; the build keeps what it was predicted to take
and what it took in the manifest, and this prints both. A prediction further off than a tenth is marked, and
the program then ends with 1. Memory is what a process holds for itself and of its libraries, without mapped
files of the store.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 20_000
NOISE = 0.5
MOST_OFF = 0.1
HEADS = (
    "rows",
    "index",
    "workers",
    "to build: predicted, MB",
    "measured",
    "off",
    "to serve: predicted, MB",
    "measured",
    "off",
    "of it the program",
    "growth off",
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=Path, nargs="+", required=True, help=".npy files of base vectors")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000], help="sizes of stores")
    parser.add_argument("--workers", type=int, nargs="+", default=[2], help="processes that read")
    parser.add_argument("--index", default="auto", help="auto, flat, hnsw or ivf")
    parser.add_argument("--folder", type=Path, default=Path("bench-out/memory"), help="where stores go")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {date.today().isoformat()}")
    print("| " + " | ".join(HEADS) + " |")
    print("|" + " --- |" * len(HEADS), flush=True)
    found = []
    for rows in options.rows:
        write_corpus(options.vectors, rows, options.folder)
        for workers in options.workers:
            found.append(measure(options.folder, rows, workers, options.index))
            print(table_row(found[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if any(max(map(abs, row["off"].values())) > MOST_OFF for row in found):
        raise SystemExit(1)


def write_corpus(paths: Sequence[Path], rows: int, folder: Path) -> None:
    """Write so many vectors, and a record for each."""
    base = np.concatenate([np.load(path).astype(np.float16, copy=False) for path in paths])
    grown = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float16, shape=(rows, base.shape[1])
    )
    grown[: len(base)] = base[:rows]
    draw = np.random.default_rng(0)
    for start in range(len(base), rows, BLOCK_ROWS):
        grown[start : start + BLOCK_ROWS] = moved(base, min(BLOCK_ROWS, rows - start), draw)
    grown.flush()
    with (folder / "records.jsonl").open("w", encoding="utf-8") as records:
        for row in range(rows):
            records.write(f'{{"id": "{row}", "text": "{row} light of stars bends near a mass"}}\n')


def moved(base: NDArray[np.float16], count: int, draw: np.random.Generator) -> NDArray[np.float32]:
    """Return rows of `base` drawn at random, each moved by noise of half its length, of length one."""
    rows = base[draw.integers(0, len(base), count)].astype(np.float32)
    noise = draw.standard_normal(rows.shape, dtype=np.float32) * NOISE / np.sqrt(rows.shape[1])
    rows += noise * np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def measure(folder: Path, rows: int, workers: int, kind: str) -> dict[str, Any]:
    """Build a store through the command line, and return what was predicted and measured."""
    out = folder / f"store-{rows}-{workers}"
    shutil.rmtree(out, ignore_errors=True)
    program = [sys.executable, "-c", "from compactds.cli.main import main; main()"]
    inputs = [str(folder / "records.jsonl"), "--vectors", str(folder / "vectors.npy"), "--index", kind]
    flags = ["--workers", str(workers), "--memory", "64GB", "--json"]
    planned = json.loads(finish([*program, "build", *inputs, *flags, "--plan"]))
    finish([*program, "build", *inputs, *flags, "--out", str(out)])
    manifest = json.loads((out / "manifest.json").read_text())
    shutil.rmtree(out)
    measured, predicted = manifest["measured"], planned["memory"]
    own = measured["serving_bytes"] - measured["serving_base_bytes"]
    foretold = manifest["predicted"]["serving_bytes"] - measured["serving_base_bytes"]
    return {
        "rows": rows,
        "workers": workers,
        "index": manifest["segments"][0]["index"]["kind"],
        "planned": {name: predicted[name] for name in ("building_bytes", "serving_bytes")},
        "predicted": manifest["predicted"],
        "measured": measured,
        "off": {name: predicted[name] / measured[name] - 1 for name in ("building_bytes", "serving_bytes")},
        "growth_off": foretold / own - 1,
    }


def finish(arguments: Sequence[str]) -> str:
    return subprocess.run(arguments, stdout=subprocess.PIPE, check=True, text=True).stdout


def table_row(row: dict[str, Any]) -> str:
    """Return the figures of one build as a row of a Markdown table."""
    planned, measured, off = row["planned"], row["measured"], row["off"]
    cells = [f"{row['rows']:,}", row["index"], str(row["workers"])]
    for name in ("building_bytes", "serving_bytes"):
        mark = " (more than a tenth)" if abs(off[name]) > MOST_OFF else ""
        cells += [f"{planned[name] / 1e6:,.0f}", f"{measured[name] / 1e6:,.0f}", f"{off[name]:+.1%}{mark}"]
    cells += [f"{measured['serving_base_bytes'] / 1e6:,.0f}", f"{row['growth_off']:+.1%}"]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
