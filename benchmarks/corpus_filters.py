"""Compare corpus filters with datatrove's: the same rules on the same text, MB/s a core, and the verdicts.

    python -m benchmarks corpus_filters --corpus corpus.jsonl.gz [--documents 1000] [--json out.json]

Rules are C4's, Gopher's two families and FineWeb's, each with its published thresholds and each alone, and
then all four, as a recipe runs them. MB/s is UTF-8 per second of processor time, in one process. `same` is
the share of documents that both keep or both drop; the last columns count those that only one of them drops.
The remaining filters follow, without a counterpart. datatrove runs in an environment of its own, which is
made under --environments if it is not there.
"""

import argparse
import gzip
import itertools
import json
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compactds.filters.corpus.catalogue import make_filter

DATATROVE = ("datatrove[io]==0.10.1", "spacy>=3.8,<4", "nltk>=3.9", "regex")
COMPARED = ("c4_quality", "gopher_quality", "gopher_repetition", "fineweb_quality")
ALL = "all four"
ALONE = ("garbled", "language", "c4_lines", "personal_data")
HEADS = (
    "rules",
    "compactds, MB/s",
    "datatrove, MB/s",
    "times",
    "same",
    "only compactds drops",
    "only datatrove drops",
)

# Runs where datatrove is installed and nothing of ours is; what it prints is read by `datatrove_outcomes`.
PROGRAM = """
import gzip, itertools, json, sys, time
from loguru import logger
logger.remove()
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter)
path, count = sys.argv[1], int(sys.argv[2])
opener = gzip.open if path.endswith(".gz") else open
with opener(path, "rt", encoding="utf-8") as lines:
    texts = [json.loads(line)["text"] for line in itertools.islice(lines, count)]
filters = {
    "c4_quality": C4QualityFilter(), "gopher_quality": GopherQualityFilter(),
    "gopher_repetition": GopherRepetitionFilter(), "fineweb_quality": FineWebQualityFilter()}
def run(judges):
    for judge in judges:
        judge.filter(Document(text="Once, so that the word splitter is loaded.", id=""))
    documents = [[Document(text=text, id=str(number)) for _ in judges] for number, text in enumerate(texts)]
    started = time.process_time()
    verdicts = [[judge.filter(copy) for judge, copy in zip(judges, copies)] for copies in documents]
    seconds = time.process_time() - started
    reasons = [next((one[1] for one in each if one is not True), None) for each in verdicts]
    return {"seconds": seconds, "reasons": reasons}
outcomes = {name: run([judge]) for name, judge in filters.items()}
outcomes["all four"] = run(list(filters.values()))  # words that one filter has split are used by the next
print(json.dumps(outcomes))
"""


@dataclass
class Page:
    text: str
    id: str = ""
    title: str = ""
    source: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus", type=Path, required=True, help="JSON lines, may be gzipped, with a text in each"
    )
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--environments", type=Path, default=Path("bench-out") / "environments")
    parser.add_argument("--without-datatrove", action="store_true", help="measure only what is ours")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    texts = read_texts(options.corpus, options.documents)
    megabytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / 1e6
    ours = our_outcomes(texts)
    theirs: dict[str, Any] = {}
    if not options.without_datatrove:
        python = environment(options.environments / "datatrove", DATATROVE)
        theirs = datatrove_outcomes(python, options.corpus, options.documents)
    rows = [row(name, megabytes, ours[name], theirs.get(name)) for name in ours]
    print(f"{options.corpus.name}: {len(texts):,} documents, {megabytes:.1f} MB")
    print("| " + " | ".join(HEADS) + " |")
    print("|" + " --- |" * len(HEADS))
    for each in rows:
        print(table_row(each))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def read_texts(path: Path, documents: int) -> list[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in itertools.islice(lines, documents)]


def our_outcomes(texts: Sequence[str]) -> dict[str, Any]:
    """Return processor seconds and reasons of every filter, and of the four compared ones in a row."""
    outcomes = {name: measure((name,), texts) for name in COMPARED}
    outcomes[ALL] = measure(COMPARED, texts)
    return outcomes | {name: measure((name,), texts) for name in ALONE}


def measure(names: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """Run filters over every document, each on all of them, and return the first reason for each."""
    made = [make_filter({"filter": name}) for name in names]
    for one in made:
        outcome(one, Page("Once, so that tables and models are loaded."))
    pages = [Page(text) for text in texts]
    started = time.process_time()
    found = [[outcome(one, page) for one in made] for page in pages]
    seconds = time.process_time() - started
    return {"seconds": seconds, "reasons": [next(filter(None, reasons), None) for reasons in found]}


def outcome(made: Any, page: Page) -> str | None:
    if hasattr(made, "edit"):
        return "edited" if made.edit(page.text)[1] else None
    drop = made.judge(page)
    return drop.reason if drop else None


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """Return the Python of an environment with these packages, which is made if it is not there."""
    python = folder / "bin" / "python"
    finished = folder / "installed.txt"
    wanted = "\n".join(packages)
    if not finished.exists() or finished.read_text() != wanted:
        print(f"installing {', '.join(packages)} under {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        finished.write_text(wanted)
    return python


def datatrove_outcomes(python: Path, corpus: Path, documents: int) -> dict[str, Any]:
    """Run datatrove's filters over the same documents, in a process of its own."""
    run = subprocess.run(
        [python, "-c", PROGRAM, str(corpus), str(documents)], stdout=subprocess.PIPE, check=True, text=True
    )
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def row(name: str, megabytes: float, ours: dict[str, Any], theirs: dict[str, Any] | None) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "rules": name,
        "documents": len(ours["reasons"]),
        "dropped": sum(reason is not None for reason in ours["reasons"]),
        "mb_per_s": megabytes / max(ours["seconds"], 1e-9),
    }
    if theirs:
        pairs = [
            (mine is not None, other is not None)
            for mine, other in zip(ours["reasons"], theirs["reasons"], strict=True)
        ]
        figures |= {
            "datatrove_mb_per_s": megabytes / max(theirs["seconds"], 1e-9),
            "same": sum(mine == other for mine, other in pairs) / max(len(pairs), 1),
            "only_compactds": sum(mine and not other for mine, other in pairs),
            "only_datatrove": sum(other and not mine for mine, other in pairs),
        }
    return figures


def table_row(figures: dict[str, Any]) -> str:
    cells = [figures["rules"], f"{figures['mb_per_s']:,.1f}"]
    if "same" in figures:
        cells += [
            f"{figures['datatrove_mb_per_s']:,.2f}",
            f"{figures['mb_per_s'] / figures['datatrove_mb_per_s']:,.0f}",
            f"{figures['same']:.1%}",
            str(figures["only_compactds"]),
            str(figures["only_datatrove"]),
        ]
    else:
        cells += ["", "", "", "", ""]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
