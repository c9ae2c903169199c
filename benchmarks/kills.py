"""Kill builds at random moments, resume them, and check that each ends in the same store.

    python -m benchmarks kills --times 30
    python -m benchmarks kills --times 30 --corpus openstax.jsonl.gz --encoder static

Each time a build of a new store runs in a process of its own, through the command line with two workers,
until SIGKILL meets it at a moment drawn evenly from the time a whole build works; then it is run again to
its end. A manifest that is there right after the kill has to be that of a whole store.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.builds import content

DEMO = Path(__file__).parent.parent / "configs" / "demo" / "corpus.jsonl"
LOOK_EVERY_S = 0.005


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=30, help="how many builds are killed")
    parser.add_argument("--corpus", type=Path, default=DEMO, help="what to build from")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="compactds-kills-") as folder:
        found = measure(options, Path(folder))
    print(
        f"{found['killed']} of {found['times']} builds killed, {found['same']} ended in the same store, "
        f"{found['partial']} times a reader would have seen half of one"
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if found["same"] != found["times"] or found["partial"]:
        sys.exit(1)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build once, then kill and resume as often as wanted; return the counts."""
    recipe = write_recipe(options.corpus, options.encoder, folder)
    command = [sys.executable, "-c", "from compactds.cli.main import main; main()", "build", str(recipe)]
    command += ["--workers", "2", "--out"]
    straight = folder / "straight"
    began, ended = run_and_kill([*command, str(straight)], straight, None)
    expected, works_s = content(straight), ended - began
    draw = random.Random(options.seed)
    found: dict[str, Any] = {"times": options.times, "killed": 0, "same": 0, "partial": 0, "works_s": works_s}
    for _ in range(options.times):
        out = folder / "store"
        run_and_kill([*command, str(out)], out, draw.uniform(0, works_s))
        found["killed"] += not (out / "manifest.json").exists() or (out / ".build").exists()
        if (out / "manifest.json").exists():
            found["partial"] += content(out) != expected
        run_and_kill([*command, str(out)], out, None)
        found["same"] += content(out) == expected and not (out / ".build").exists()
        shutil.rmtree(out)
    return found


def write_recipe(corpus: Path, encoder: str, folder: Path) -> Path:
    """Write a recipe that uses every stage; return its path."""
    path = folder / "recipe.toml"
    path.write_text(
        f'[[sources]]\npath = "{corpus.absolute()}"\n[[filters]]\nfilter = "length"\nmin_words = 5\n'
        f'[duplicates]\nlevel = "both"\n[encoder]\nmodel = "{encoder}"\n'
    )
    return path


def run_and_kill(command: Sequence[str], out: Path, after_s: float | None) -> tuple[float, float]:
    """Run a build; kill it so long after it began to work, if it has not ended. Return when it worked."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
    ) as process:
        while process.poll() is None and not (out / ".build").exists():
            time.sleep(LOOK_EVERY_S)
        began = time.monotonic()
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    if after_s is None and process.returncode != 0:
        raise RuntimeError(f"a build that was not killed ended with {process.returncode}")
    return began, time.monotonic()


if __name__ == "__main__":
    main()
