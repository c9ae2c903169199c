"""Statistics of a text agree with what plain Python counts, for any Unicode and any length."""

import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compactds.filters.corpus import characters, repetition
from compactds.filters.corpus.text_statistics import TextStatistics, statistics_of

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=300)
HASH_OF_THE = 10375451222921519936
HASH_OF_KETTLE = 17901889389931625095
FEW_WORDS = st.lists(st.sampled_from(["a", "b", "cc", "Ĳ"]), max_size=80)


def words_of(text):
    words = TextStatistics(text).words
    return [text[start : start + length] for start, length in zip(words.starts, words.lengths, strict=True)]


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT)
@example("")
@example(" \t\n")
@example("\ud800 \udfff\x00")
@example("a\x1cb\x85c\u2028d\u3000e\u00a0f")
def test_words_are_those_of_split(text):
    assert words_of(text) == text.split()


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT)
@example("Ⅷ ² ½ 〇 ª")
def test_letters_are_those_of_isalpha_in_each_word(text):
    expected = [any(map(str.isalpha, word)) for word in text.split()]
    assert TextStatistics(text).words_with(characters.LETTER).tolist() == expected


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT, st.integers(0, 3))
def test_equal_words_and_only_they_have_equal_hashes_wherever_they_stand(text, shift):
    moved = "x" * shift + " " + text
    hashes = TextStatistics(moved).word_hashes.tolist()
    words = moved.split()
    assert len(set(hashes)) == len(set(words))
    assert dict(zip(words, hashes, strict=True)) == {
        word: TextStatistics(word).word_hashes[0] for word in set(words)
    }


def test_a_hash_is_the_same_in_every_process():
    assert TextStatistics("the kettle").word_hashes.tolist() == [HASH_OF_THE, HASH_OF_KETTLE]


@pytest.mark.parametrize("word", ["ab", "ħé", "𝒳y"])
def test_a_text_of_many_chunks_has_the_words_of_the_whole(word, monkeypatch):
    monkeypatch.setattr(characters, "CHUNK_CHARACTERS", 64)
    text = " ".join(f"{word}{number}" for number in range(200))
    assert words_of(text) == text.split()
    statistics = TextStatistics(text)
    assert len(set(statistics.word_hashes.tolist())) == 200
    assert statistics.words_with(characters.LETTER).all()


def test_a_word_longer_than_a_chunk_counts_as_several(monkeypatch):
    monkeypatch.setattr(characters, "CHUNK_CHARACTERS", 10)
    assert words_of("x" * 25 + " y") == ["x" * 10, "x" * 10, "x" * 5, "y"]
    assert TextStatistics("x" * 25 + " y").word_hashes.shape == (4,)


def test_lines_and_paragraphs_are_stripped_and_not_blank():
    text = "  One.\r\nTwo. \r\n\r\n \t\r\nThree.\n\n\n"
    assert TextStatistics(text).lines == ["One.", "Two.", "Three."]
    assert TextStatistics(text).paragraphs == ["One.\nTwo.", "Three."]
    assert TextStatistics("").lines == TextStatistics("").paragraphs == []


def test_the_last_text_of_a_thread_is_measured_once():
    text = "some text"
    assert statistics_of(text) is statistics_of(text)
    assert statistics_of(text) is not statistics_of("".join(["some", " text"]))
    mine, others = statistics_of(text), []
    thread = threading.Thread(target=lambda: others.append(statistics_of(text)))
    thread.start()
    thread.join()
    assert others[0] is not mine


def top_by_counting(words, n):
    grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    counts = {gram: grams.count(gram) for gram in grams}
    most = max(counts.values(), default=0)
    return (
        max((most * len(gram) for gram, count in counts.items() if count == most), default=0)
        if most > 1
        else 0
    )


def repeated_by_reading(words, n):
    seen, total, place = set(), 0, 0
    while place <= len(words) - n:
        gram = tuple(words[place : place + n])
        if gram in seen:
            total += sum(map(len, gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    return total


@settings(max_examples=200, deadline=None)
@given(FEW_WORDS, st.integers(1, 6), st.floats(0, 60))
def test_the_top_ngram_is_the_one_that_counting_finds(words, n, enough):
    statistics = TextStatistics(" ".join(words))
    ngrams = repetition.ngram_hashes(statistics.word_hashes, n)
    found = repetition.top_ngram_characters(ngrams, statistics.words.lengths, n, enough)
    expected = top_by_counting(words, n)
    assert found == expected or (found == 0 and expected <= enough)


@settings(max_examples=300, deadline=None)
@given(FEW_WORDS, st.integers(1, 6))
def test_repeated_ngrams_are_those_that_reading_finds(words, n):
    statistics = TextStatistics(" ".join(words))
    lengths = statistics.words.lengths
    ngrams = repetition.ngram_hashes(statistics.word_hashes, n)
    assert len(ngrams) == max(len(words) - n + 1, 0)
    places, groups = repetition.repeats(ngrams)
    spans = repetition.spans_of(lengths, n)
    found = repetition.repeated_characters(places, groups, spans, n)
    assert found == repeated_by_reading(words, n)
    most = repetition.covered_characters(places, groups, lengths, n)
    assert all(repeated_by_reading(words, longer) <= most for longer in range(n, n + 4))


def test_ngrams_tell_the_order_and_the_borders_of_words():
    def hashes(text):
        return repetition.ngram_hashes(TextStatistics(text).word_hashes, 2)[0]

    assert len({int(hashes(text)) for text in ("a b", "b a", "ab c", "a bc", "a b2")}) == 5


def test_longer_ngrams_can_go_on_from_shorter_ones():
    words = TextStatistics("a b c a b c d").word_hashes
    short = repetition.ngram_hashes(words, 3)
    assert np.array_equal(repetition.ngram_hashes(words, 5, (3, short)), repetition.ngram_hashes(words, 5))


def test_repeated_pieces_are_counted_with_their_characters():
    assert repetition.repeated_pieces(["ab", "c", "ab", "ab"]) == (2, 4)
    assert repetition.repeated_pieces([]) == (0, 0)
