"""Measure building a datastore from a corpus, and check that an interrupted build ends the same.

    python -m benchmarks.builds --corpus openstax.jsonl.gz --encoders static minilm [--interrupt]

Each build runs in a process of its own, through the command line. With --interrupt each is built a second
time: interrupted with Ctrl-C about halfway through encoding, run again, and compared with
the first store byte for byte, timings aside.
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
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

SHARE_ENCODED = re.compile(rb"encoding.*\((\d+)%\)")
INTERRUPT_FROM_PERCENT = 30  # a fast build tells its progress only a few times


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
    rows = [
        measure(options.corpus, encoder, options.stores, options.interrupt) for encoder in options.encoders
    ]
    print(
        f"{options.corpus.name}, {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, {date.today().isoformat()}"
    )
    print(to_table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(corpus: Path, encoder: str, stores: Path, interrupt: bool) -> dict[str, Any]:
    """Build once, and a second time with an interruption if wanted; return the figures."""
    straight = stores / f"{corpus.name.split('.')[0]}-{encoder}"
    shutil.rmtree(straight, ignore_errors=True)
    result = finish(command(corpus, encoder, straight))
    row = {"encoder": encoder, "passages_per_second": result["passages"] / result["seconds"], **result}
    if interrupt:
        broken = straight.with_name(f"{straight.name}-interrupted")
        shutil.rmtree(broken, ignore_errors=True)
        row["interrupted_at"] = stop_halfway(command(corpus, encoder, broken))
        again = finish(command(corpus, encoder, broken))
        row["resumed"] = again["resumed"]
        row["seconds_after_resuming"] = again["seconds"]
        row["same_store"] = content(straight) == content(broken)
        shutil.rmtree(broken)
    return row


def command(corpus: Path, encoder: str, out: Path) -> list[str]:
    """Return the command line of a build."""
    program = [sys.executable, "-c", "from compactds.cli.main import main; main()"]
    return [*program, "build", str(corpus), "--encoder", encoder, "--out", str(out), "--json"]


def finish(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a build to its end and return what it reports."""
    done = subprocess.run(arguments, stdout=subprocess.PIPE, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def stop_halfway(arguments: Sequence[str]) -> str:
    """Run a build, send it Ctrl-C about halfway through encoding, and return its last words."""
    with subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=_heed_interrupts
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            share = SHARE_ENCODED.search(line)
            if share and int(share[1]) >= INTERRUPT_FROM_PERCENT:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read().decode().strip().splitlines()
    if process.returncode != 130:
        raise RuntimeError(f"the build ended with {process.returncode} before it was interrupted")
    return f"{line.decode().strip()} | {rest[-1] if rest else ''}"


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


def to_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    heads = (
        "encoder",
        "passages",
        "seconds",
        "passages/s",
        "peak RAM, MiB",
        "disk, bytes a passage",
        "index",
    )
    lines = [
        "| " + " | ".join((*heads, "same after an interruption")) + " |",
        "|" + " --- |" * (len(heads) + 1),
    ]
    for row in rows:
        cells = (
            row["encoder"],
            f"{row['passages']:,}",
            f"{row['seconds']:,.0f}",
            f"{row['passages_per_second']:,.1f}",
            f"{row['peak_rss_bytes'] / 2**20:,.0f}",
            f"{row['bytes_per_passage']:,.0f}",
            row["index"],
            {None: "not tried", True: "yes", False: "NO"}[row.get("same_store")],
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"took {time.perf_counter() - started:,.0f} s", file=sys.stderr)
