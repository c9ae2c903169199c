import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from compactds.datastore.encoders.tokens import TokenCounter
from compactds.indexer.errors import BuildError
from compactds.indexer.sentences import count_words, sentences
from compactds.indexer.splitting import PassageLimits, split


def bytes_as_tokens(texts):
    """A tokenizer with one token a character that isn't white space."""
    return [
        np.array([(i, i + 1) for i, c in enumerate(text) if not c.isspace()], np.int64).reshape(-1, 2)
        for text in texts
    ]


def fours_as_tokens(texts):
    """A tokenizer whose tokens are up to four characters of a word, so that a cut in a word may add one."""
    return [
        np.array([m.span() for m in re.finditer(r"\S{1,4}", text)], np.int64).reshape(-1, 2) for text in texts
    ]


def first_word_costs_more(texts):
    """A tokenizer that needs two more tokens for the first word of a text than for the same word later."""
    spans = [[m.span() for m in re.finditer(r"\S+", text)] for text in texts]
    return [np.array(found[:1] * 2 + found, np.int64).reshape(-1, 2) for found in spans]


def wordpiece(pre_tokenizer=None, **special):
    """A tokenizer like BERT's of single characters and a few words, as an encoder gives it away."""
    characters = [chr(code) for code in range(33, 127)]
    known = ["[UNK]", "word", "end", "##s", *characters, *(f"##{character}" for character in characters)]
    tokenizer = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(known)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken("[MASK]", **special)])
    return TokenCounter.from_json(tokenizer.to_str(), "")


BERT = wordpiece()


def pieces(text, limits, tokens=None):
    return [text[span.start : span.end] for span in split(text, limits, tokens)]


def squeezed(text):
    return "".join(text.split())


def found_sentences(text):
    return [text[s.start : s.end] for s in sentences(text)]


class TestSentences:
    def test_end_at_full_stops_questions_and_exclamations(self):
        assert found_sentences("One. Two? Three! Four…  Five") == ["One.", "Two?", "Three!", "Four…", "Five"]

    def test_keep_closing_quotes_and_brackets(self):
        assert found_sentences('He said "no." (It was so.) Then') == ['He said "no."', "(It was so.)", "Then"]

    @pytest.mark.parametrize(
        "text",
        [
            "Dr. Smith and Mrs. Jones met.",
            "See e.g. Darwin, i.e. the book.",
            "J. S. Bach wrote it.",
            "As in Fig. 3 and No. 5.",
            "It is 3.14 or so.",
            "Visit example.com now.",
            "Yahoo! is a name.",
            "on Dec. 24 it snowed.",
        ],
    )
    def test_do_not_end_after_abbreviations_initials_or_inside_numbers(self, text):
        assert found_sentences(text) == [text]

    def test_end_after_a_word_that_is_an_abbreviation_only_before_a_number(self):
        assert found_sentences("The answer is no. He left.") == ["The answer is no.", "He left."]

    def test_end_after_the_pronoun_i_and_a_lone_dot(self):
        assert found_sentences("so do I. You too") == ["so do I.", "You too"]
        assert found_sentences("a . B") == ["a .", "B"]

    def test_end_at_blank_lines_and_before_list_items(self):
        assert found_sentences("Heading\n \nText goes\non here\n- one\n- two\n2. three") == [
            "Heading",
            "Text goes\non here",
            "- one",
            "- two",
            "2. three",
        ]

    def test_end_at_a_blank_line_even_after_an_abbreviation(self):
        assert found_sentences("By Dr.\n\nnext") == ["By Dr.", "next"]

    def test_end_at_the_marks_of_other_scripts(self):
        assert found_sentences("漢字です。「はい！」次") == ["漢字です。", "「はい！」", "次"]
        assert found_sentences("यह है। वह है।") == ["यह है।", "वह है।"]

    def test_headings_are_short_paragraphs_without_a_full_stop(self):
        found = list(sentences("The Sun\n\nIt shines.\n\nWhy?\n\nlast words"))
        assert [s.is_heading for s in found] == [True, False, False, False]

    def test_words_are_counted_in_scripts_without_spaces(self):
        assert count_words("two words") == 2
        assert count_words("naïve café") == 2
        assert count_words("漢字 and かな") == 5
        assert count_words("สวัสดี") == 2


class TestPassages:
    def test_text_without_content_gives_none(self):
        assert split("", PassageLimits()) == []
        assert split(" \n\t ", PassageLimits(), None) == []
        assert split(" \n", PassageLimits(max_tokens=5), bytes_as_tokens) == []

    def test_short_text_is_one_passage_without_the_space_around_it(self):
        (span,) = split("  Hello there. \n", PassageLimits())
        assert (span.start, span.end, span.tokens) == (2, 14, None)

    def test_are_filled_with_whole_sentences(self):
        text = "One two three. Four five six. Seven eight nine. Ten eleven twelve."
        assert pieces(text, PassageLimits(words=7, min_words=0)) == [
            "One two three. Four five six.",
            "Seven eight nine. Ten eleven twelve.",
        ]

    def test_a_short_tail_is_joined_when_it_fits_the_limit(self):
        text = "One two three.\n\nFour five six."
        assert pieces(text, PassageLimits(words=6, min_words=4)) == [text]

    def test_a_short_tail_that_does_not_fit_shares_with_its_neighbour(self):
        text = "A b c d. E f g h. I j k l. Last."
        assert pieces(text, PassageLimits(words=12, min_words=3)) == ["A b c d. E f g h.", "I j k l. Last."]

    def test_a_short_tail_stays_when_no_other_cut_helps(self):
        text = "A b c d e f. Last."
        assert pieces(text, PassageLimits(words=6, min_words=3)) == ["A b c d e f.", "Last."]

    def test_do_not_end_on_a_heading(self):
        text = "A b c d e f.\n\nNew part\n\nG h i j k l."
        assert pieces(text, PassageLimits(words=9, min_words=2)) == [
            "A b c d e f.",
            "New part\n\nG h i j k l.",
        ]

    def test_end_where_a_sentence_ends_before_one_that_fits_no_passage(self):
        text = "A b c. " + " ".join(f"W{n}" for n in range(12)) + "."
        assert pieces(text, PassageLimits(words=8, min_words=2))[0] == "A b c."

    def test_long_sentences_are_cut_at_lines_then_clauses_then_words(self):
        assert pieces("a b c\nd e f", PassageLimits(words=4, min_words=0)) == ["a b c", "d e f"]
        assert pieces("a b, c d e f, g h", PassageLimits(words=4, min_words=0)) == ["a b,", "c d e f,", "g h"]
        assert pieces("a b c d e f", PassageLimits(words=4, min_words=0)) == ["a b c d", "e f"]

    def test_words_too_long_are_cut_inside_but_not_between_letter_and_accent(self):
        text = "e\u0301" * 100
        found = pieces(text, PassageLimits(words=1, min_words=0))
        assert "".join(found) == text
        assert all(len(piece) <= 12 and piece[0] == "e" for piece in found)

    def test_accents_without_a_letter_do_not_stop_the_cutting(self):
        text = "\u0301" * 100
        assert "".join(pieces(text, PassageLimits(words=1))) == text

    @pytest.mark.parametrize("text", ["漢" * 5000, "漢字です。" * 1000, "สวัสดี" * 1000, "x" * 5000])
    def test_text_without_spaces_is_split_by_characters(self, text):
        found = pieces(text, PassageLimits(words=100))
        assert "".join(found) == text
        assert len(found) > 1
        assert all(count_words(piece) <= 100 and len(piece) <= 1200 for piece in found)

    def test_chinese_passages_end_at_sentence_ends(self):
        found = pieces("漢字です。" * 100, PassageLimits(words=33, min_words=0))
        assert {piece[-1] for piece in found} == {"。"}

    def test_a_long_document_of_nothing_but_words_is_split(self):
        text = "word " * 200_000
        found = split(text, PassageLimits())
        assert len(found) == -(-200_000 // 256)

    @pytest.mark.parametrize("text", [".", ". ", ".)", '."', ",", "\n ", "(\n", "_", "?!…"])
    def test_text_of_nothing_but_marks_is_split_in_linear_time(self, text):
        text = text * 200_000  # quadratic time would exceed the test's time limit
        assert squeezed("".join(pieces(text, PassageLimits()))) == squeezed(text)


class TestTokens:
    def test_limit_passages_and_are_reported(self):
        text = "Aaa bbb. Ccc ddd. Eee fff."
        found = split(text, PassageLimits(max_tokens=14, min_words=0), bytes_as_tokens)
        assert [(text[s.start : s.end], s.tokens) for s in found] == [
            ("Aaa bbb. Ccc ddd.", 14),
            ("Eee fff.", 7),
        ]

    def test_are_not_counted_without_a_limit(self):
        assert split("Aaa.", PassageLimits(), bytes_as_tokens)[0].tokens is None

    def test_a_single_word_above_the_limit_is_cut(self):
        found = split("x" * 50, PassageLimits(max_tokens=7), bytes_as_tokens)
        assert sum(s.end - s.start for s in found) == 50
        assert all(s.tokens <= 7 for s in found)

    def test_that_only_a_passage_on_its_own_needs_are_counted_too(self):
        text = "A b c d e f. " * 20
        found = split(text, PassageLimits(words=50, max_tokens=13, min_words=0), first_word_costs_more)
        assert all(s.tokens <= 13 for s in found)
        assert squeezed("".join(text[s.start : s.end] for s in found)) == squeezed(text)

    def test_a_sentence_that_needs_too_many_on_its_own_is_cut_between_words(self):
        text = "X y. A b c d e f"
        found = split(text, PassageLimits(max_tokens=6, min_words=0), first_word_costs_more)
        assert [(text[s.start : s.end], s.tokens) for s in found] == [("X y.", 4), ("A b c", 5), ("d e f", 5)]

    def test_one_character_may_exceed_a_limit_that_nothing_can_keep(self):
        assert [s.tokens for s in split("a b", PassageLimits(max_tokens=1), first_word_costs_more)] == [3, 3]

    def test_the_tokenizer_gets_small_batches_of_short_texts(self):
        seen = []

        def tokens(texts):
            seen.append([len(text) for text in texts])
            return bytes_as_tokens(texts)

        split("Some words here. " * 40_000, PassageLimits(max_tokens=100), tokens)
        assert max(map(len, seen)) <= 256
        assert max(map(max, seen)) <= 2_048


class TestTokensThatEndAtSpaces:
    def test_are_those_of_tokenizers_like_that_of_bert(self):
        assert BERT.tokens_end_at_spaces
        assert wordpiece(lstrip=True).tokens_end_at_spaces

    def test_are_promised_for_no_other(self):
        assert not wordpiece(pre_tokenizers.ByteLevel()).tokens_end_at_spaces
        assert not wordpiece(rstrip=True).tokens_end_at_spaces

    def test_are_counted_once(self):
        tokenised = []

        def tokens(texts):
            tokenised.extend(texts)
            return BERT.offsets(texts)

        text = "Some words are here. " * 400
        found = split(text, PassageLimits(max_tokens=100), tokens, tokens_end_at_spaces=True)
        assert sum(map(len, tokenised)) <= len(text)
        assert found == split(text, PassageLimits(max_tokens=100), BERT.offsets)

    def test_are_counted_again_for_passages_that_end_elsewhere(self):
        text = "w" * 3000 + " " + "Some words are here. " * 400
        limits = PassageLimits(max_tokens=100)
        assert split(text, limits, BERT.offsets, tokens_end_at_spaces=True) == split(
            text, limits, BERT.offsets
        )


@pytest.mark.parametrize("values", [{"words": 0}, {"max_tokens": 0}, {"max_tokens": -3}])
def test_a_limit_below_one_is_refused(values):
    with pytest.raises(BuildError, match=re.escape(f"= {next(iter(values.values()))}")):
        PassageLimits(**values)


mixed_text = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            ["Dr. ", "end. ", "\n\n", "word ", "漢字。", "สวัส", "a, ", "x" * 40, "e\u0301", "- "]
        ),
    ),
    max_size=60,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(
    mixed_text,
    st.integers(1, 20),
    st.integers(0, 10),
    st.sampled_from([None, bytes_as_tokens, fours_as_tokens]),
    st.integers(1, 30),
)
def test_any_text_is_covered_once_in_order_within_the_limits(text, words, min_words, tokens, max_tokens):
    limits = PassageLimits(words, max_tokens if tokens else None, min_words)
    spans = split(text, limits, tokens)
    assert squeezed("".join(text[s.start : s.end] for s in spans)) == squeezed(text)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    for span in spans:
        piece = text[span.start : span.end]
        assert piece == piece.strip()
        assert piece
        assert count_words(piece) <= words
        assert len(piece) <= max(1, limits.characters)
        if tokens:
            assert span.tokens == len(tokens([piece])[0])
            assert span.tokens <= max_tokens


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            mixed_text,
            st.sampled_from(
                [" \u0301b", "[MASK] ", "[MASK]", "\x85", "\u2028", "\x1c", "\xa0", "ﷺ", "½ ", "\x00"]
            ),
        ),
        max_size=12,
    ).map("".join),
    st.integers(1, 20),
    st.integers(1, 30),
)
def test_tokens_counted_once_give_the_passages_of_tokens_counted_twice(text, words, max_tokens):
    limits = PassageLimits(words, max_tokens, 4)
    assert split(text, limits, BERT.offsets, tokens_end_at_spaces=True) == split(text, limits, BERT.offsets)
