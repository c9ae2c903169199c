"""Evaluation questions are found in text in three modes, against an oracle that compares word by word."""

import random
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactds.filters.corpus.overlap import OverlapError, OverlapIndex, paragraphs
from compactds.filters.corpus.overlap_questions import Question

LONG = Question(
    "A ball is thrown straight up from the roof of a tall building with an initial speed of twenty metres "
    "per second, ignoring the resistance of the air; how long doesn't it touch the ground-level pavement?",
    ("one second", "two seconds", "three seconds", "four seconds"),
    "physics-1",
)
SHORT = Question("Which organ makes insulin?", ("the pancreas", "the liver"), "biology-7")
FILLER = "It was a bright cold day in April and the clocks were striking while people walked home slowly "


def plain_words(text):
    return re.findall(r"[^\W_]+", text.lower())


def plain_runs(text, length):
    words = plain_words(text)
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


def in_filler(text):
    return f"{FILLER * 3}\n{text} {FILLER * 3}"


def removed_marks(text):
    return re.sub(r"[^\w\s]", "", text)


def marks_as_spaces(text):
    return re.sub(r"[^\w\s]", " ", text)


def first_half(text):
    words = text.split()
    return " ".join(words[: (len(words) + 1) // 2])


COPIES = {
    "verbatim": lambda text: text,
    "upper case": str.upper,
    "title case": str.title,
    "marks removed": removed_marks,
    "marks replaced by spaces": marks_as_spaces,
    "other marks": lambda text: text.replace(" ", ", ").replace("'", "’") + "!!!",
    "another layout": lambda text: text.replace(" ", " \n\t"),
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "soft hyphens": lambda text: text.replace("a", "a\u00ad").replace("e", "\u200be"),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("mode", ["ngram", "span"])
@pytest.mark.parametrize("part", [str, first_half], ids=["whole", "half"])
def test_copies_are_found_however_they_are_written(copy, mode, part):
    index = OverlapIndex([SHORT, LONG], mode, words=16 if mode == "span" else None)
    match = index.matches(in_filler(part(copy(LONG.text))))
    assert (match.question, match.id, match.kind) == (1, "physics-1", mode)
    assert match.value >= index.words


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("mode", ["ngram", "span", "jaccard"])
def test_questions_shorter_than_a_run_are_found_whole(copy, mode):
    index = OverlapIndex([LONG, SHORT], mode)
    match = index.matches(in_filler(copy(SHORT.text)))
    assert (match.question, match.kind, match.value) == (1, "whole", 4)
    assert match.shared == "which organ makes insulin"
    assert not index.overlaps(in_filler("Which organ makes bile?"))


def test_a_match_tells_the_longest_run_and_where_it_stands():
    words = LONG.text.split()
    text = " ".join([*words[:14], "platypus", *words[10:29]])
    match = OverlapIndex([LONG]).matches(text)
    assert (match.start, match.end, match.value) == (15, 34, 19)
    assert match.shared == " ".join(plain_words(text)[15:34])


def test_runs_that_go_from_the_question_into_its_options_count():
    end = " ".join(plain_words(LONG.text)[-11:])
    assert OverlapIndex([LONG]).overlaps(f"{end}: one second")
    assert (
        OverlapIndex([LONG]).overlaps(f"pavement one second two seconds three seconds four seconds {end}")
        is False
    )
    assert not OverlapIndex([LONG]).overlaps(f"{end}: (A) one second")


@pytest.mark.parametrize("length", [12, 13])
def test_a_run_needs_all_its_words(length):
    text = " ".join(LONG.text.split()[5 : 5 + length])
    assert OverlapIndex([LONG]).overlaps(f"before {text} after") == (length == 13)


def test_the_span_mode_wants_a_longer_run():
    index = OverlapIndex([LONG], "span")
    words = plain_words(LONG.text)
    assert not index.overlaps(" ".join(words[:31]))
    assert index.matches(" ".join(words[:32])).value == 32


def test_the_jaccard_mode_compares_paragraphs():
    index = OverlapIndex([LONG], "jaccard")
    text = f"{FILLER * 5}\n\n{LONG.text}\n\n{FILLER * 5}"
    match = index.matches(text)
    assert (match.kind, match.value) == ("jaccard", 1.0)
    assert match.shared == " ".join(plain_words(LONG.text))
    assert not index.overlaps(text.replace("\n\n", " "))
    edited = LONG.text.replace("ball", "stone")
    expected = plain_runs(edited, 13), plain_runs(LONG.text, 13)
    value = len(expected[0] & expected[1]) / len(expected[0] | expected[1])
    assert OverlapIndex([LONG], "jaccard", threshold=value).matches(edited).value == value
    assert not OverlapIndex([LONG], "jaccard", threshold=value + 1e-9).overlaps(edited)


def test_the_jaccard_mode_takes_a_text_of_several_paragraphs_as_a_whole_too():
    text = LONG.text + "\n\n" + "\n\n".join(LONG.choices)
    assert OverlapIndex([LONG], "jaccard", threshold=0.95).matches(text).value == 1


def test_questions_of_one_to_three_words_count_only_as_the_whole_text():
    index = OverlapIndex(["Photosynthesis", "Define inertia.", "1 + 1 = 2?", LONG])
    assert index.matches(" INERTIA, define! ") is None
    assert index.matches(" DEFINE — inertia! ").question == 1
    assert index.matches("photosynthesis").value == 1
    assert index.matches("1 1 2").question == 2
    assert not index.overlaps("Photosynthesis makes sugar. Define inertia. 1 + 1 = 2")


def test_questions_too_short_by_themselves_are_found_with_their_options():
    question = Question("Photosynthesis needs", ("light and water", "salt and iron"))
    index = OverlapIndex([question])
    assert index.matches(in_filler("photosynthesis needs: A light and water")) is None
    assert index.matches(in_filler("PHOTOSYNTHESIS NEEDS light and water, salt and iron")).kind == "whole"


def test_stems_of_several_questions_need_an_option_beside_them():
    stem = "Which of the following is true?"
    first = Question(stem, ("Mitochondria have DNA", "Cells are flat"))
    second = Question(stem, ("Iron is a metal", "Gold"))
    index = OverlapIndex([first, second])
    assert not index.overlaps(in_filler(stem))
    assert not index.overlaps(in_filler(f"{stem} Yes."))
    assert index.matches(in_filler(f"{stem} (a) Mitochondria have DNA")).question == 0
    assert index.matches(in_filler(f"{stem} A) Iron is a metal B) Gold")).question == 1
    assert not index.overlaps(in_filler(f"{stem} Gold"))
    assert OverlapIndex([first]).overlaps(in_filler(stem))


def test_a_question_given_twice_is_found_twice():
    index = OverlapIndex([SHORT, SHORT, SHORT.text])
    assert [match.question for match in index.all_matches(SHORT.text)] == [0, 1, 2]


def test_all_matches_are_one_a_question_in_the_order_of_the_text():
    index = OverlapIndex([SHORT, LONG])
    text = in_filler(f"{LONG.text} {FILLER} {SHORT.text} {SHORT.text} {first_half(LONG.text)}")
    found = index.all_matches(text)
    assert [match.question for match in found] == [1, 0]
    assert found[0].value == len(plain_words(LONG.text))
    spans = index.spans(text)
    assert [match.question for match in spans] == [1, 0, 0, 1]
    assert spans == sorted(spans, key=lambda match: match.start)


def test_texts_in_scripts_without_spaces_are_compared_by_character():
    question = "光合作用在植物细胞的哪个部分进行"
    index = OverlapIndex([question, "水的沸点"])
    assert index.matches(f"问题:{question}?答案是叶绿体。").question == 0
    assert index.matches("请问水的沸点是多少").question == 1
    assert not index.overlaps("光合作用在植物细胞的叶绿体进行")


def test_many_texts_are_told_apart_as_one_by_one():
    index = OverlapIndex([LONG, SHORT, "Define inertia"])
    halves = LONG.text.split()
    texts = ["", "Define inertia", FILLER, in_filler(LONG.text), SHORT.text, " ".join(halves[:8])]
    texts += [" ".join(halves[8:16]), "!?", "Which organ", "makes insulin?", f"{FILLER}{SHORT.text}"]
    assert index.overlapping(texts) == [index.overlaps(text) for text in texts]
    assert index.overlapping(texts) == [text in (texts[1], texts[3], texts[4], texts[10]) for text in texts]
    assert index.overlapping([]) == []


VOCABULARY = [*"abcdefgh", "don't", "x-ray", "É", "ﬁ"]
SENTENCES = st.lists(st.sampled_from(VOCABULARY), max_size=40).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(SENTENCES, min_size=1, max_size=6), SENTENCES, st.integers(4, 9))
def test_shared_runs_are_those_of_the_oracle(questions, text, words):
    index = OverlapIndex([*questions, "a question with words of its own"], words=words)
    found = {match.question for match in index.all_matches(text) if match.kind == "ngram"}
    fold = {"É": "é", "ﬁ": "fi"}

    def runs(given, spelled=lambda word: word):
        return plain_runs(" ".join(spelled(fold.get(word, word)) for word in given.split()), words)

    least = {number for number, given in enumerate(questions) if runs(given) & runs(text)}
    joined = [lambda word: word, lambda word: re.sub("[-']", "", word), lambda word: word.replace("'", "")]
    most = {
        number
        for number, given in enumerate(questions)
        if any(runs(given, spelled) & runs(text) for spelled in joined)
    }
    assert least <= found <= most


@settings(max_examples=100, deadline=None)
@given(st.lists(SENTENCES, min_size=1, max_size=4), SENTENCES, st.sampled_from([0.2, 0.5, 0.9]))
def test_similarities_are_those_of_the_oracle(questions, text, threshold):
    questions = [re.sub("[^a-h ]", "z", question) for question in questions]
    text = re.sub("[^a-h ]", "z", text)
    index = OverlapIndex(
        [*questions, "a question with words of its own"], "jaccard", words=4, threshold=threshold
    )
    found = {match.question: match.value for match in index.all_matches(text) if match.kind == "jaccard"}
    expected = {}
    for number, question in enumerate(questions):
        here, theirs = plain_runs(text, 4), plain_runs(question, 4)
        if here & theirs and len(here & theirs) / len(here | theirs) >= threshold:
            expected[number] = len(here & theirs) / len(here | theirs)
    assert found == expected


def test_a_shared_run_is_verified_by_its_words(monkeypatch):
    from compactds.filters.corpus import overlap, overlap_tables

    def colliding(hashes, length, at=None):
        count = max(len(hashes) - length + 1, 0) if at is None else len(at)
        return hashes[:1].repeat(count) * 0

    monkeypatch.setattr(overlap, "gram_hashes", colliding)
    monkeypatch.setattr(overlap_tables, "gram_hashes", colliding)
    for mode in ("ngram", "jaccard"):
        assert OverlapIndex([LONG, SHORT], mode).all_matches(FILLER * 5) == []


def test_a_text_of_many_copies_takes_bounded_work(monkeypatch):
    from compactds.filters.corpus import overlap

    monkeypatch.setattr(overlap, "_PLACES_AT_ONCE", 100)
    index = OverlapIndex([LONG])
    match = index.matches(f"{LONG.text} {FILLER} " * 200)
    assert match.question == 0
    assert len(plain_words(LONG.text)) // 2 <= match.value <= len(plain_words(LONG.text))


def test_answers_are_the_same_in_every_process():
    code = (
        "from compactds.filters.corpus.overlap import OverlapIndex\n"
        f"index = OverlapIndex([{LONG.text!r}, {SHORT.text!r}])\n"
        f"print(index.spans({in_filler(LONG.text + SHORT.text)!r}))"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1] != ""


@pytest.mark.parametrize("text", ["", " ", "?!", "\x00", "\ud800", "a" * 300_000, "word " * 100_000])
@pytest.mark.parametrize("mode", ["ngram", "span", "jaccard"])
def test_odd_texts_match_nothing(text, mode):
    index = OverlapIndex([LONG, SHORT, "tiny one", ""], mode)
    assert index.matches(text) is None
    assert index.spans(text) == []


@pytest.mark.parametrize("questions", [[], ["", "?!"], [Question("", ("", "—"))]])
def test_questions_without_words_are_refused(questions):
    with pytest.raises(OverlapError, match=f"none of the {len(questions)} questions has a word"):
        OverlapIndex(questions)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "fuzzy"}, "the overlap mode 'fuzzy' is not known. Use one of ngram, span, jaccard."),
        ({"words": 3}, "runs of 3 words cannot be compared. Use from 4 to 1000 words."),
        ({"words": 1001}, "runs of 1001 words"),
        ({"words": True}, "runs of True words"),
        ({"words": "13"}, "runs of '13' words"),
        ({"threshold": 0}, "a similarity of 0 is no threshold."),
        ({"threshold": 1.1}, "a similarity of 1.1 is no threshold."),
        ({"threshold": float("nan")}, "a similarity of nan is no threshold."),
        ({"threshold": "0.7"}, "a similarity of '0.7' is no threshold."),
    ],
)
def test_settings_that_mean_nothing_are_refused(given, message):
    with pytest.raises(OverlapError) as refused:
        OverlapIndex([LONG], **given)
    assert str(refused.value).startswith(message)
    assert refused.value.code == "invalid_overlap"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("  \n \n", []),
        ("one", ["one"]),
        ("one\ntwo\n", ["one", "two"]),
        ("one\nstill one\n\n \ntwo\n", ["one\nstill one", "two"]),
        ("\n\none\r\n\r\ntwo", ["one", "two"]),
    ],
)
def test_paragraphs_are_parted_by_blank_lines_else_by_lines(text, found):
    assert [text[start:end].strip() for start, end in paragraphs(text)] == found


def test_random_questions_are_found_wherever_they_are_planted():
    draw = random.Random(5)
    vocabulary = [f"w{number}" for number in range(500)]
    questions = [" ".join(draw.choices(vocabulary, k=draw.randint(4, 60))) for _ in range(300)]
    index = OverlapIndex(questions)
    for number in draw.sample(range(300), 60):
        noise = " ".join(draw.choices(vocabulary, k=400))
        text = f"{noise} {COPIES[draw.choice(list(COPIES))](questions[number])} {noise}"
        assert number in [match.question for match in index.all_matches(text)]
