"""Measure building a datastore from a corpus, and check that an interrupted build ends the same.

    python -m benchmarks builds --corpus openstax.jsonl.gz --encoders static minilm [--interrupt]

Each build runs in a process of its own, through the command line. With --interrupt each is built a second
time: interrupted with Ctrl-C about halfway through encoding, run again, and compared with the first store
byte for byte, timings aside. A build too quick to be interrupted is said to be so.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

SHARE_ENCODED = re.compile(rb"encoding.*\((\d+)%\)")
INTERRUPT_FROM_PERCENT = 30  # a fast build tells its progress only a few times
INTERRUPTED = 130
HEADS = (
    "encoder",
    "passages",
    "seconds",
    "passages/s",
    "peak RAM, MiB",
    "disk, bytes a passage",
    "index",
    "same after an interruption",
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="what to build from")
    parser.add_argument("--encoders", nargs="+", default=["static", "minilm"])
    parser.add_argument("--interrupt", action="store_true", help="build a second time, interrupted halfway")
    parser.add_argument("--stores", type=Path, default=Path("bench-out"), help="where the stores go")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    print(
        f"{options.corpus.name}, {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, {date.today().isoformat()}"
    )
    print("| " + " | ".join(HEADS) + " |")
    print("|" + " --- |" * len(HEADS), flush=True)
    rows = []
    for encoder in options.encoders:
        rows.append(measure(options.corpus, encoder, options.stores, options.interrupt))
        print(table_row(rows[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(corpus: Path, encoder: str, stores: Path, interrupt: bool) -> dict[str, Any]:
    """Build once, and a second time with an interruption if wanted; return the figures."""
    straight = store_path(corpus, encoder, stores)
    shutil.rmtree(straight, ignore_errors=True)
    result = finish(command(corpus, encoder, straight))
    row = {"encoder": encoder, "passages_per_second": result["passages"] / result["seconds"], **result}
    if interrupt:
        broken = straight.with_name(f"{straight.name}-interrupted")
        shutil.rmtree(broken, ignore_errors=True)
        row["interrupted_percent"] = stop_halfway(command(corpus, encoder, broken))
        if row["interrupted_percent"] is not None:
            again = finish(command(corpus, encoder, broken))
            row["resumed"] = again["resumed"]
            row["seconds_after_resuming"] = again["seconds"]
            row["same_store"] = content(straight) == content(broken)
        shutil.rmtree(broken)
    return row


def store_path(corpus: Path, encoder: str, stores: Path) -> Path:
    """Return where a build's store goes."""
    return stores / f"{corpus.name.split('.')[0]}-{Path(encoder).name}"


def command(corpus: Path, encoder: str, out: Path) -> list[str]:
    """Return the command line of a build."""
    program = [sys.executable, "-c", "from compactds.cli.main import main; main()"]
    return [*program, "build", str(corpus), "--encoder", encoder, "--out", str(out), "--json"]


def finish(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a build to its end and return what it reports."""
    done = subprocess.run(arguments, stdout=subprocess.PIPE, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def stop_halfway(arguments: Sequence[str]) -> int | None:
    """Run a build and send it Ctrl-C about halfway through encoding.

    Returns the percentage of encoding that was done, None if the build ended before it was interrupted.
    """
    percent = None
    with subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=_heed_interrupts
    ) as process:
        assert process.stderr is not None
        line = b""
        for line in process.stderr:
            share = SHARE_ENCODED.search(line)
            if share and int(share[1]) >= INTERRUPT_FROM_PERCENT:
                percent = int(share[1])
                process.send_signal(signal.SIGINT)
                break
        last = (line + process.stderr.read()).decode().strip().splitlines()[-1:]
    if process.returncode == INTERRUPTED:
        return percent
    if process.returncode == 0:
        return None
    raise RuntimeError(f"the build ended with {process.returncode}: {''.join(last)}")


def _heed_interrupts() -> None:
    """Undo what a shell does to programs it starts in the background: they ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def content(store: Path) -> dict[str, Any]:
    """Return the digests of everything in a store but what tells the time."""
    manifest = json.loads((store / "manifest.json").read_text())
    (segment,) = manifest["segments"]
    del segment["files"]["ledger.json"]
    calibration = [(point["effort"], point["recall"]) for point in segment["calibration"]]
    return {
        "files": segment["files"],
        "name": segment["name"],
        "calibration": calibration,
        "encoders": [manifest["encoder"], manifest["exact_encoder"], manifest["encoder_files"]],
        "schema": manifest["schema"],
    }


def table_row(row: dict[str, Any]) -> str:
    """Return the figures of one build as a row of a Markdown table."""
    percent = row.get("interrupted_percent", -1)
    if percent is None:
        resumed = "not interrupted"
    elif "same_store" in row:
        resumed = f"{'yes' if row['same_store'] else 'NO'}, at {percent} %"
    else:
        resumed = "not tried"
    cells = (
        row["encoder"],
        f"{row['passages']:,}",
        f"{row['seconds']:,.0f}",
        f"{row['passages_per_second']:,.1f}",
        f"{row['peak_rss_bytes'] / 2**20:,.0f}",
        f"{row['bytes_per_passage']:,.0f}",
        row["index"],
        resumed,
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
