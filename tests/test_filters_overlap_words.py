"""What a word is when texts are compared, against a plain reading of the rule, and how words are hashed."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactds.filters.corpus import overlap_words
from compactds.filters.corpus.overlap_words import PIECE, gram_hashes, normalized, word_hashes, words_of

ALONE = st.characters(
    codec="utf-8", exclude_categories=["Cs"], max_codepoint=0x24F, exclude_characters="\u00ad"
) | st.sampled_from("’‘“”–—…•€™½ﬁﬀ≤×πΣς𝑥𝟘Ⅳ№\u2003\u2028")
ANYTHING = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def plainly(text):
    """Split a text into words by the rule as it is written down, one character at a time."""
    text = "".join(character for character in text if not overlap_words._INVISIBLE.match(character))
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = overlap_words._WITHOUT_SPACES.sub(r" \1 ", text)
    return [word.encode() for word in re.findall(r"[^\W_]+", text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("... — !?", ""),
        ("Newton's 2nd law: F = m*a.", "newton s 2nd law f m a"),
        ("Newton’s 2ND LAW, f=m·a", "newton s 2nd law f m a"),
        ("snake_case and under_score", "snake case and under score"),
        ("Straße STRASSE", "strasse strasse"),
        ("ﬁne ½ ①", "fine 1 2 1"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("photo\u00adsynthesis zero\u200bwidth\ufeff", "photosynthesis zerowidth"),
        ("cafe\u0301 CAFÉ", "café café"),
        ("光合作用は何ですか", "光 合 作 用 は 何 で す か"),
        ("Фотосинтез — это?", "фотосинтез это"),
        ("x^2 + 3.14", "x 2 3 14"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("null\x00byte\x1bescape\ttab", "null byte escape tab"),
    ],
)
def test_words_ignore_case_punctuation_and_spelling_of_characters(text, words):
    assert b" ".join(words_of(text)).decode() == words


@settings(max_examples=200, deadline=None)
@given(ANYTHING)
def test_words_are_those_of_the_rule_in_any_script(text):
    assert words_of(text) == plainly(text)


@settings(max_examples=200, deadline=None)
@given(st.text(ALONE | st.characters(max_codepoint=127), max_size=20))
def test_the_short_way_for_few_foreign_characters_changes_nothing(text):
    padded = "plain words come first, so that few characters are foreign " * (1 + len(text) // 4)
    assert words_of(padded + text) == plainly(padded) + plainly(text)
    assert len(padded) > 8 * sum(not character.isascii() for character in text)


@settings(max_examples=100, deadline=None)
@given(ANYTHING)
def test_there_is_a_hash_for_each_word(text):
    assert len(word_hashes(normalized(text))) == len(words_of(text))


def test_a_hash_depends_on_nothing_but_the_word():
    assert word_hashes(b"gravity").tolist() == [15341845662093106893]
    assert word_hashes(b"of  gravity ").tolist()[1] == word_hashes(b"gravity").tolist()[0]
    assert not len(word_hashes(b""))
    assert not len(word_hashes(b"   "))


def test_different_words_have_different_hashes():
    words = sorted({f"{stem}{number}" for stem in ("a", "ab", "ba", "zz" * 200) for number in range(5000)})
    hashes = word_hashes(" ".join(words).encode())
    assert len(np.unique(hashes)) == len(words)


@pytest.mark.parametrize("filler", ["word ", "wordéß ", "x" * 70 + " "])
def test_long_texts_are_hashed_in_pieces_that_do_not_show(filler):
    text = filler * (3 * PIECE // len(filler))
    hashes = word_hashes(normalized(text))
    assert len(hashes) == len(text.split())
    assert len(np.unique(hashes)) == 1


@pytest.mark.parametrize("length", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
@pytest.mark.parametrize("before", [0, 1, 1000])
def test_a_word_longer_than_a_piece_is_one_word_wherever_it_stands(length, before):
    giant = b"x" * length
    hashes = word_hashes(b"short " * before + giant + b" after")
    assert len(hashes) == before + 2
    assert hashes[before] == word_hashes(giant)[0]
    assert hashes[-1] == word_hashes(b"after")[0]


def test_runs_of_words_are_hashed_alike_wherever_they_begin():
    hashes = word_hashes(b"a b c d e a b c d")
    runs = gram_hashes(hashes, 3)
    assert len(runs) == 7
    assert runs[:2].tolist() == runs[5:].tolist()
    assert len(np.unique(runs)) == 5
    assert gram_hashes(hashes, 3, np.array([5, 1])).tolist() == [runs[5], runs[1]]
    assert gram_hashes(hashes, 2)[0] != gram_hashes(word_hashes(b"b a"), 2)[0]


def test_texts_shorter_than_a_run_have_none():
    assert not len(gram_hashes(word_hashes(b"a b"), 3))


def test_piled_up_marks_take_no_quadratic_time():
    pile = "a" + "\u0316\u0301" * 300_000 + " b"
    assert words_of(pile)[-1] == b"b"  # putting these marks in order would take hours
