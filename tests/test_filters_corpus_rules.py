"""The rules of C4, Gopher and FineWeb: what each drops, with which value, and that none fails on any text."""

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compactds.filters.corpus.base import Drop
from compactds.filters.corpus.c4 import C4Lines, C4Paragraphs, C4Quality
from compactds.filters.corpus.catalogue import CATALOGUE, make_filter
from compactds.filters.corpus.fineweb import FinewebQuality
from compactds.filters.corpus.gopher import STOP_WORDS, GopherQuality
from compactds.filters.corpus.gopher_repetition import DUPLICATE_NGRAMS, TOP_NGRAMS, GopherRepetition
from compactds.filters.corpus.length import Garbled, Length

RULES = (
    "length",
    "garbled",
    "c4_quality",
    "c4_paragraphs",
    "gopher_quality",
    "gopher_repetition",
    "fineweb_quality",
)
EDITORS = ("c4_lines", "personal_data")
PROSE = (
    "The kettle had boiled twice before anyone noticed that the window was open. "
    "Rain had come in and wet the letters on the table, and nobody wanted to say whose fault it was. "
    "My aunt put the letters on a line over the stove to dry. They smelled of smoke for years afterwards. "
    "When I read them now I think of the rain, of the stove, and of the silence we kept. "
    "It was a good house to be a child in, with many stairs and a cellar full of apples."
)


@dataclass
class Page:
    text: str
    id: str = "page"
    title: str = ""
    source: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


def reason(rule, text):
    drop = rule.judge(Page(text))
    return drop and drop.reason


@pytest.mark.parametrize("name", [name for name in RULES if name != "c4_paragraphs"])
def test_prose_is_kept_by_every_rule_with_its_defaults(name):
    assert make_filter({"filter": name}).judge(Page(PROSE)) is None


@pytest.mark.parametrize("name", [*RULES, *EDITORS])
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=()), max_size=200))
@example(text="")
@example(text="\n\n \t")
@example(text="\ud800\udfff")
@example(text="\x00\x01\x1b" * 20)
@example(text="\u202e" * 50 + "\U0010ffff")
@example(text="." * 100)
@example(text="- \n" * 30)
def test_no_text_breaks_a_rule(name, text):
    made = make_filter({"filter": name})
    first = run(made, text)
    assert run(made, text) == run(make_filter({"filter": name}), "".join(text)) == first


def run(made, text):
    return made.judge(Page(text)) if hasattr(made, "judge") else made.edit(text)


@pytest.mark.parametrize("name", [*RULES, *EDITORS])
@pytest.mark.parametrize(
    "text",
    ["word " * 300_000, "x" * 1_500_000, "line\n" * 200_000, "a b c d e f g h i j " * 60_000],
    ids=["words", "one word", "lines", "ten words"],
)
def test_a_huge_document_is_judged(name, text):
    outcome = run(make_filter({"filter": name}), text)
    assert outcome is None or isinstance(outcome, Drop | tuple)


@pytest.mark.parametrize("name", EDITORS)
def test_an_edited_text_is_edited_no_further(name):
    text = "Menu\nRead me [1] at a@b.example or call +1 415 555 0134.\nUse cookies here now."
    once, changes = make_filter({"filter": name}).edit(text)
    assert changes
    assert make_filter({"filter": name}).edit(once) == (once, {})


# length and garbled


def test_length_counts_words_and_characters():
    assert Length(min_words=3).judge(Page("one two")) == Drop("length", "too_few_words", 2, 3)
    assert Length(max_words=1).judge(Page("one two")) == Drop("length", "too_many_words", 2, 1)
    assert Length(max_characters=3).judge(Page("four")) == Drop("length", "too_many_characters", 4, 3)
    assert Length().judge(Page("")) == Drop("length", "too_few_characters", 0, 1)
    assert Length(min_words=2, max_words=2).judge(Page("one two")) is None


def test_garbled_measures_the_share_of_what_is_no_text():
    assert Garbled().judge(Page("a\x00" * 5)) == Drop("garbled", "garbled", 0.5, 0.01)
    assert reason(Garbled(), b"\x89PNG\r\n\x1a\n\x00\xff\xfe".decode("latin-1") + "\x07" * 9) == "garbled"
    assert reason(Garbled(), "caf\ufffd " * 9) == "garbled"
    assert reason(Garbled(), "\ud83d " * 9) == "garbled"


@pytest.mark.parametrize(
    "text",
    [PROSE, "Ещё один день.\r\n\tДа.", "窓が開いていた。", "क्षत्रिय", "👩‍👩‍👧 ok", "\ufeffa\u200bb" * 3],
)
def test_text_of_any_script_is_not_garbled(text):
    assert Garbled().judge(Page(text)) is None


def test_garbled_counts_what_unicode_says():
    odd = [chr(code) for code in range(0x3000) if unicodedata.category(chr(code)) in ("Cc", "Cn")]
    kept = [character for character in odd if Garbled(max_share=0.99).judge(Page(character)) is None]
    assert kept == list("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85")


# Gopher


def test_gopher_defaults_are_the_published_ones():
    rule = GopherQuality()
    assert (rule.min_words, rule.max_words, rule.min_mean_word_length, rule.max_mean_word_length) == (
        50,
        100_000,
        3,
        10,
    )
    assert (rule.max_symbols_per_word, rule.max_bullet_lines, rule.max_ellipsis_lines) == (0.1, 0.9, 0.3)
    assert (rule.min_words_with_letters, rule.min_stop_words) == (0.8, 2)
    assert STOP_WORDS == ("the", "be", "to", "of", "and", "that", "have", "with")
    assert TOP_NGRAMS == ((2, 0.20), (3, 0.18), (4, 0.16))
    assert DUPLICATE_NGRAMS == ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    repetition = GopherRepetition()
    assert (repetition.max_duplicate_lines, repetition.max_duplicate_paragraphs) == (0.3, 0.3)
    assert (repetition.max_duplicate_line_characters, repetition.max_duplicate_paragraph_characters) == (
        0.2,
        0.2,
    )


@pytest.mark.parametrize(
    ("text", "expected", "value"),
    [
        ("word " * 49 + "… — !", "too_few_words", 49),
        ("of the be to a I " * 20, "words_too_short", 11 / 6),
        ("of the incomprehensibilities internationalisation " * 20, "words_too_long", 46 / 4),
        (PROSE + " #tag" * 20, "too_many_hashes", None),
        (PROSE + " so ... on…" * 10, "too_many_ellipses", None),
        (
            "\n\n".join(f"- the item {n} of the shopping list" for n in range(30)),
            "too_many_bullet_lines",
            1.0,
        ),
        (
            "\n".join(
                f"the end of the long line with number {n} of these comes in a moment ..." for n in range(30)
            ),
            "too_many_ellipsis_lines",
            1.0,
        ),
        (PROSE + " 123 45 --- 6" * 20, "too_few_words_with_letters", None),
        ("Der Kessel hatte schon zweimal gekocht, bevor jemand etwas merkte. " * 10, "too_few_stop_words", 0),
    ],
)
def test_gopher_quality_names_the_rule_and_the_value(text, expected, value):
    drop = GopherQuality().judge(Page(text))
    assert drop is not None
    assert drop.reason == expected
    if value is not None:
        assert drop.value == pytest.approx(value)
    assert isinstance(drop.limit, int | float)


def test_gopher_quality_drops_too_many_words():
    assert reason(GopherQuality(max_words=60), PROSE) == "too_many_words"


def test_stop_words_count_in_any_case_and_each_once():
    rule = GopherQuality(min_words=0, min_stop_words=2)
    assert reason(rule, "The cat and dog") is None
    assert rule.judge(Page("the cat, The dog")) == Drop("gopher_quality", "too_few_stop_words", 1, 2)


def test_every_gopher_rule_can_be_switched_off():
    off = dict.fromkeys(
        (
            known.name
            for known in CATALOGUE["gopher_quality"].options
            if known.name not in ("stop_words", "name")
        ),
        False,
    )
    assert make_filter({"filter": "gopher_quality", **off}).judge(Page("#")) is None
    assert make_filter({"filter": "gopher_quality", **off}).judge(Page("")) is None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(["the", "of", "x", "1", "#", "...", "—", "\n", "- a", "\n\n", "Ä", "longest…"]),
        max_size=40,
    )
)
def test_gopher_quality_agrees_with_counting_words(parts):
    text = " ".join(parts)
    rule = GopherQuality(min_words=3, max_words=20, min_mean_word_length=None)
    assert reason(rule, text) == counted(rule, text)


def counted(rule, text):
    words = text.split()
    solid = [word for word in words if any(unicodedata.category(c)[0] in "LNM" for c in word)]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(solid) < rule.min_words:
        return "too_few_words"
    if len(solid) > rule.max_words:
        return "too_many_words"
    checks = [
        ("words_too_long", sum(map(len, solid)) / len(solid) > 10),
        ("too_many_hashes", text.count("#") / len(words) > 0.1),
        ("too_many_ellipses", len(re.findall(r"\.\.\.|…", text)) / len(words) > 0.1),
        ("too_many_bullet_lines", sum(line[0] in "•‣◦▪–-*" for line in lines) / len(lines) > 0.9),
        ("too_many_ellipsis_lines", sum(line.endswith(("...", "…")) for line in lines) / len(lines) > 0.3),
        ("too_few_words_with_letters", sum(any(map(str.isalpha, word)) for word in words) / len(words) < 0.8),
        ("too_few_stop_words", len({word for word in words if word in STOP_WORDS}) < 2),
    ]
    return next((name for name, broken in checks if broken), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\n".join(["A paragraph of its own."] * 2 + ["Another."]), "duplicate_paragraphs"),
        ("\n\n".join(["long " * 20, "a", "b", "c", "d", "long " * 20]), "duplicate_paragraph_characters"),
        ("\n".join(["Same line.", "Same line.", "Other."]), "duplicate_lines"),
        ("\n".join(["long " * 20, "a", "b", "c", "d", "long " * 20]), "duplicate_line_characters"),
        ("go on " + " ".join(f"go on x{n}" for n in range(9)), "top_2_gram"),
        (" ".join(f"one two three four five six {n}" for n in range(3)), None),
    ],
)
def test_gopher_repetition_names_the_rule(text, expected):
    found = reason(GopherRepetition(), text)
    assert found == expected or (expected is None and found is not None)


def test_a_long_phrase_that_returns_is_a_duplicate_ngram():
    phrase = "every visitor must sign the book before entering the museum on Sundays"
    other = " ".join(f"w{n}" for n in range(40))
    drop = GopherRepetition(top_ngrams=()).judge(Page(f"{phrase} {other} {phrase}"))
    assert drop is not None
    assert drop.reason == "duplicate_5_grams"
    assert drop.value == pytest.approx(len("".join(phrase.split()[:10])) / len(f"{phrase} {other} {phrase}"))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd", "e"]), max_size=60), st.floats(0, 0.5))
def test_duplicate_ngrams_agree_with_reading(words, limit):
    text = " ".join(words)
    limits = tuple((n, limit) for n in (3, 4, 6))
    rule = GopherRepetition(None, None, None, None, (), limits)
    shares = [read_repeated(words, n) / len(text) if text else 0 for n, _ in limits]
    expected = next(
        (f"duplicate_{n}_grams" for (n, _), share in zip(limits, shares, strict=True) if share > limit), None
    )
    assert reason(rule, text) == expected


def read_repeated(words, n):
    seen, total, place = set(), 0, 0
    while place <= len(words) - n:
        gram = tuple(words[place : place + n])
        total += sum(map(len, gram)) if gram in seen else 0
        place += n if gram in seen else 1
        seen.add(gram)
    return total


def test_a_short_text_without_repeats_is_no_repetition():
    assert reason(GopherRepetition(), "Rents rose faster than wages") is None
    assert reason(GopherRepetition(), "") is None


def test_ngram_rules_may_stand_in_any_order():
    text = PROSE + " " + PROSE
    backward = GopherRepetition(
        duplicate_ngrams=tuple(reversed(DUPLICATE_NGRAMS)), top_ngrams=tuple(reversed(TOP_NGRAMS))
    )
    assert backward.judge(Page(text)) == GopherRepetition().judge(Page(text)) is not None


# FineWeb


@pytest.mark.parametrize(
    ("text", "expected", "value"),
    [
        ("", "empty", 0),
        ("\n".join(f"a menu entry of the long site number {n}" for n in range(10)), "too_few_ended_lines", 0),
        ("\n".join(f"Go {n}." for n in range(10)), "too_many_short_lines", 1),
        ("A line of more than thirty characters.\n" * 2, "duplicate_line_characters", 0.5),
        (
            "\n".join(f"Supercalifragilisticexpialidocious{n}." for n in range(10)),
            "too_many_line_breaks",
            0.9,
        ),
    ],
)
def test_fineweb_quality_names_the_rule_and_the_value(text, expected, value):
    drop = FinewebQuality().judge(Page(text))
    assert drop is not None
    assert (drop.reason, drop.value) == (expected, pytest.approx(value))


def test_lines_end_as_sentences_do_in_many_scripts_and_before_carriage_returns():
    for line in (
        "A sentence that ends here and is long enough. \r\n",
        "これは十分に長い文であり、ここでこの行が終わることになっています。\n",
    ):
        assert reason(FinewebQuality(max_line_breaks_per_word=None), line) is None


def test_every_fineweb_rule_can_be_switched_off():
    text = "menu\nmenu\nmenu"
    assert reason(FinewebQuality(None, None, 30, None, None), text) is None
    assert reason(FinewebQuality(None, 1.0, 30, None, 10.0), text) is None


# C4


def test_c4_drops_code_dummy_text_and_pages_of_few_sentences():
    assert C4Quality().judge(Page(PROSE + " {}")) == Drop("c4_quality", "curly_bracket", 1, 0)
    assert reason(C4Quality(), PROSE + " Lorem Ipsum") == "lorem_ipsum"
    assert C4Quality().judge(Page("One sentence here. Two of them!")) == Drop(
        "c4_quality", "too_few_sentences", 2, 5
    )
    assert reason(C4Quality(min_sentences=None), "menu") is None
    assert reason(C4Quality(curly_brackets=False, lorem_ipsum=False), PROSE + " {} lorem ipsum.") is None


LINES = {
    "A line without an end": "not_ended",
    "A line that trails off...": "not_ended",
    "Two words.": "too_few_words",
    "Please turn on JavaScript here.": "javascript",
    "This site uses cookies for all.": "policy",
    "x" * 1001 + " is one word.": "overlong_word",
}


@pytest.mark.parametrize(("line", "fault"), LINES.items())
def test_c4_leaves_out_lines_that_are_no_prose(line, fault):
    text = f"This is the first line.\n{line}\n\nIt goes on after it."
    assert C4Lines().edit(text) == ("This is the first line.\n\nIt goes on after it.", {fault: 1})
    assert C4Quality(min_sentences=3).judge(Page(text)) == Drop("c4_quality", "too_few_sentences", 2, 3)


def test_c4_takes_out_marks_of_citations():
    text = "It was so [12] and so.[3]\n[edit]\nNothing here to take out."
    assert C4Lines().edit(text) == (
        "It was so  and so.\n\nNothing here to take out.",
        {"citation": 3},
    )
    assert C4Lines(citations=False, ended_lines=False, min_words_per_line=0).edit(text) == (text, {})


def test_c4_quality_judges_a_page_as_c4_lines_leaves_it():
    page = "\n".join([PROSE, *LINES])
    left, _ = C4Lines().edit(page)
    assert left == PROSE
    for least in range(1, 9):
        assert reason(C4Quality(min_sentences=least), page) == reason(C4Quality(min_sentences=least), left)


def test_c4_paragraphs_wants_three_long_lines():
    line = "x" * 200
    assert C4Paragraphs().judge(Page("\n".join([line, "short", line]))) == Drop(
        "c4_paragraphs", "too_few_paragraphs", 2, 3
    )
    assert C4Paragraphs().judge(Page("\n".join([line] * 3))) is None
