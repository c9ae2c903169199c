"""Find evaluation questions in a corpus, and count those that are there, against a plain count.

    python -m benchmarks decontamination --corpus openstax.jsonl.gz --questions mmlu/test

The plain count takes lower-cased runs of ASCII letters and digits as words, and calls a question (with its
options, in order) contaminated if it shares 13 words in a row with a document. For each mode the first
table says how many of these are found, what else is, how many documents and paragraphs that concerns, and
the speed in MB of text per second of processor time, one thread, and the time that a thousand passages
of 256 words take together, as after a search.

Then --planted questions of at least 4 words (seed 11), and of these those that share no run with the corpus,
are planted into a document each, one copy at a random place between words: verbatim, in upper case, with
all punctuation deleted, with punctuation and a comma after every third word, the first half alone (of
questions of at least 26 words). The second table says how many are found, by the question's number; short
ones are found whole. Openings that several questions with different options have in common ("Which of the
following is true?") say nothing by themselves and are planted with their options. Copies stand inside
paragraphs, so the mode "jaccard", which compares paragraphs, is made to find only the short ones.
"""

import argparse
import gzip
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from compactds.filters.corpus.decontamination import contaminated
from compactds.filters.corpus.overlap import Mode, OverlapIndex
from compactds.filters.corpus.overlap_files import read_question_files
from compactds.filters.corpus.overlap_questions import Question
from compactds.filters.corpus.overlap_words import words_of

MODES: tuple[Mode, ...] = ("ngram", "span", "jaccard")
RUN, HALF = 13, 26
PASSAGE_WORDS, PASSAGES = 256, 1000


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus", type=Path, required=True, help="JSON lines, may be gzipped, with a text in each record"
    )
    parser.add_argument("--questions", type=Path, required=True, help="a file or folder of questions")
    parser.add_argument("--planted", type=int, default=500)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    texts = list(read_texts(options.corpus))
    questions = read_question_files(options.questions)
    expected = plain_count(texts, questions)
    print(
        f"{len(questions)} questions, {len(texts)} documents; the plain count has {len(expected)} questions"
    )
    print(
        "\n| mode | of these found | others, by run | whole | documents | paragraphs | MB/s "
        "| ms for 1,000 passages |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = [searched(mode, texts, questions, expected) for mode in MODES]
    planted = plant(texts, questions, expected, options.planted)
    print("\n| planted | copies | " + " | ".join(MODES) + " |\n| --- | --- | --- | --- | --- |")
    found = found_again(questions, planted)
    if options.json:
        options.json.write_text(
            json.dumps({"plain": len(expected), "modes": rows, "planted": found}, indent=2)
        )


def read_texts(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def plain_runs(text: str) -> set[str]:
    words = re.findall("[a-z0-9]+", text.lower())
    return {" ".join(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}


def plain_count(texts: Sequence[str], questions: Sequence[Question]) -> set[int]:
    by_run: dict[str, list[int]] = {}
    for number, question in enumerate(questions):
        for run in plain_runs(" ".join((question.text, *question.choices))):
            by_run.setdefault(run, []).append(number)
    return {number for text in texts for run in plain_runs(text) & by_run.keys() for number in by_run[run]}


def searched(mode: Mode, texts: list[str], questions: list[Question], expected: set[int]) -> dict:
    index = OverlapIndex(questions, mode)
    started = time.process_time()
    matches = [index.all_matches(text) for text in texts]
    seconds = time.process_time() - started
    by_run = {match.question for found in matches for match in found if match.kind != "whole"}
    whole = {match.question for found in matches for match in found if match.kind == "whole"}
    removed = sum(len(contaminated(index, text)) for text, found in zip(texts, matches, strict=True) if found)
    row = {
        "mode": mode,
        "found": len(by_run & expected),
        "others": len(by_run - expected),
        "whole": len(whole),
        "documents": sum(map(bool, matches)),
        "paragraphs": removed,
        "mb_per_s": sum(len(text.encode()) for text in texts) / 1e6 / seconds,
        "ms_per_thousand_passages": passages_ms(index, texts),
    }
    print(
        f"| {mode} | {row['found']} of {len(expected)} | {row['others']} | {row['whole']} "
        f"| {row['documents']} | {removed} | {row['mb_per_s']:.1f} | {row['ms_per_thousand_passages']:.0f} |"
    )
    return row


def passages_ms(index: OverlapIndex, texts: list[str]) -> float:
    """Return the milliseconds it takes to compare a thousand passages of 256 words."""
    passages: list[str] = []
    for text in texts:
        words = text.split()
        starts = range(0, len(words), PASSAGE_WORDS)
        passages.extend(" ".join(words[start : start + PASSAGE_WORDS]) for start in starts)
        if len(passages) >= PASSAGES:
            break
    started = time.process_time()
    index.overlapping(passages[:PASSAGES])
    return (time.process_time() - started) * 1000


def plant(
    texts: list[str], questions: list[Question], expected: set[int], count: int
) -> dict[str, list[tuple[int, str]]]:
    """Return, for each kind of copy, questions' numbers and the documents that they are planted in."""
    draw = random.Random(11)
    clean = [number for number in range(len(questions)) if number not in expected]
    chosen = draw.sample(clean, min(count, len(clean)))
    shared = Counter(tuple(words_of(question.text)) for question in questions)
    planted: dict[str, list[tuple[int, str]]] = {kind: [] for kind in COPIES}
    for number in chosen:
        question = questions[number]
        words = words_of(question.text)
        if len(words) < 4 or sum(map(len, words)) < 12:
            continue
        quoted = question.text
        if shared[tuple(words)] > 1:
            quoted = " ".join((question.text, *question.choices))
        for kind, copy in COPIES.items():
            if kind == "first half" and len(question.text.split()) < HALF:
                continue
            around = draw.choice(texts).split(" ")
            place = draw.randrange(len(around) + 1)
            planted[kind].append((number, " ".join([*around[:place], copy(quoted), *around[place:]])))
    return planted


def with_commas(text: str) -> str:
    words = re.sub(r"[^\w\s]", ";", text).split()
    return " ".join(word + "," * (place % 3 == 2) for place, word in enumerate(words)) + "!"


def first_half(text: str) -> str:
    words = text.split()
    return " ".join(words[: (len(words) + 1) // 2])


COPIES: dict[str, Callable[[str], str]] = {
    "verbatim": str,
    "upper case": str.upper,
    "punctuation deleted": lambda text: re.sub(r"[^\w\s]", "", text),
    "other punctuation": with_commas,
    "first half": first_half,
}


def found_again(questions: list[Question], planted: dict[str, list[tuple[int, str]]]) -> dict:
    found: dict[str, dict[str, int]] = {kind: {"copies": len(texts)} for kind, texts in planted.items()}
    for mode in MODES:
        index = OverlapIndex(questions, mode)
        for kind, texts in planted.items():
            found[kind][mode] = sum(
                number in {match.question for match in index.all_matches(text)} for number, text in texts
            )
    for kind, counts in found.items():
        print(f"| {kind} | " + " | ".join(str(count) for count in counts.values()) + " |")
    return found
