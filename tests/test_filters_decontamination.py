"""What overlaps with evaluation questions is taken out of documents, and each removal is accounted for."""

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactds.filters.corpus.base import Drop
from compactds.filters.corpus.decontamination import (
    ContaminatedDocuments,
    ContaminatedParagraphs,
    contaminated,
    removal_record,
    without,
)
from compactds.filters.corpus.overlap import OverlapIndex
from compactds.filters.corpus.overlap_questions import Question

LONG = Question(
    "In the course of a long evening the members of the club agreed to climb which of the seven mountains?",
    ("the highest of the seven mountains", "the nearest one of them", "none of them at all"),
    "club-3",
)
SHORT = Question("Who founded the climbing club?", id="club-4")
BEFORE = "The club was founded in the year of the flood, by people of the village."
AFTER = "It has never had more members than chairs, and it has few chairs."


@dataclass(frozen=True)
class Document:
    text: str
    id: str = "doc"
    title: str = ""
    source: str = ""
    attributes: dict = field(default_factory=dict)


@pytest.fixture(params=["ngram", "span", "jaccard"])
def index(request):
    return OverlapIndex([SHORT, LONG, "Define club"], request.param, words=13)


def test_a_clean_document_stays_as_it_is(index):
    text = f"  {BEFORE}\n\n\n{AFTER}\n"
    assert contaminated(index, text) == []
    assert ContaminatedParagraphs(index).edit(text) == (text, {})
    assert ContaminatedDocuments(index).judge(Document(text)) is None


@pytest.mark.parametrize("gap", ["\n\n", "\n", "\n \n\n", "\r\n\r\n"])
def test_only_the_paragraphs_with_a_question_go(index, gap):
    text = gap.join([BEFORE, LONG.text.upper(), AFTER, SHORT.text, "define CLUB!", BEFORE])
    edited, counts = ContaminatedParagraphs(index).edit(text)
    assert edited == gap.join([BEFORE, AFTER, BEFORE])
    run = {"ngram": "ngram", "span": "span", "jaccard": "jaccard"}[index.mode]
    assert counts == {run: 1, "whole": 2}
    removals = contaminated(index, text)
    assert [removal.paragraph for removal in removals] == [1, 3, 4]
    assert [text[removal.start : removal.end] for removal in removals] == [r.text for r in removals]
    assert [removal.match.question for removal in removals] == [1, 0, 2]


def test_a_paragraph_that_goes_on_like_a_question_by_chance_stays():
    text = f"{BEFORE}\n\n{LONG.text}\n\n{LONG.choices[0].split()[0]} members of the club"
    removals = contaminated(OverlapIndex([LONG]), text)
    assert [(removal.paragraph, removal.match.value) for removal in removals] == [(1, 20 + 1)]


def test_a_run_over_several_paragraphs_that_none_of_them_holds_removes_them_all():
    index = OverlapIndex([LONG])
    words = LONG.text.split()
    text = "\n\n".join([BEFORE, " ".join(words[:9]), "—", " ".join(words[9:]), AFTER])
    removals = contaminated(index, text)
    assert [removal.paragraph for removal in removals] == [1, 2, 3]
    assert without(text, removals) == f"{BEFORE}\n\n{AFTER}"


def test_what_comes_together_by_a_removal_is_compared_again():
    index = OverlapIndex([LONG, SHORT])
    words = LONG.text.split()
    text = "\n\n".join([BEFORE, " ".join(words[:9]), SHORT.text, " ".join(words[9:]), AFTER])
    edited, counts = ContaminatedParagraphs(index).edit(text)
    assert edited == f"{BEFORE}\n\n{AFTER}"
    assert counts == {"whole": 1, "ngram": 2}


def test_a_document_of_nothing_but_questions_becomes_empty(index):
    text = f"{LONG.text}\n\n{SHORT.text}"
    assert ContaminatedParagraphs(index).edit(text)[0] == ""


def test_the_strongest_match_of_a_paragraph_is_told():
    index = OverlapIndex([SHORT, LONG])
    (removal,) = contaminated(index, f"{SHORT.text} {LONG.text}")
    assert removal.match.id == "club-3"


def test_a_document_is_dropped_with_the_question_it_overlaps_with(index):
    text = f"{BEFORE}\n\n{LONG.text}\n\n{AFTER}"
    limit = {"ngram": 13.0, "span": 13.0, "jaccard": 0.7}[index.mode]
    reason = f"overlaps_question_{index.mode}"
    assert ContaminatedDocuments(index).judge(Document(text)) == Drop(
        "decontamination", reason, "club-3", limit
    )
    whole = ContaminatedDocuments(index).judge(Document(f"{BEFORE} {SHORT.text}"))
    assert (whole.reason, whole.value) == ("overlaps_question_whole", "club-4")
    unnamed = ContaminatedDocuments(OverlapIndex([SHORT.text])).judge(Document(SHORT.text))
    assert unnamed.value == "0"


def test_the_report_names_paragraph_and_question():
    index = OverlapIndex([SHORT, LONG.text])
    text = f"{BEFORE}\n\nSo: {LONG.text.replace('mountains', 'hills')}"
    (removal,) = contaminated(index, text)
    record = removal_record(removal, index, "doc-9")
    assert json.loads(json.dumps(record)) == {
        "document_id": "doc-9",
        "paragraph": 1,
        "text": "So: " + LONG.text.replace("mountains", "hills"),
        "question_id": "1",
        "question": LONG.text,
        "kind": "ngram",
        "value": 19,
        "shared": " ".join(LONG.text.lower().split()[:-1]),
    }


PIECES = st.sampled_from(
    [BEFORE, AFTER, SHORT.text, LONG.text, LONG.text[:60], LONG.text[60:], "---", "define club"]
)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(PIECES, st.sampled_from(["\n\n", "\n", " ", "\n \n"])), max_size=8),
    st.sampled_from(["ngram", "jaccard"]),
)
def test_what_is_left_overlaps_with_no_question(pieces, mode):
    index = OverlapIndex([SHORT, LONG, "Define club"], mode)
    text = "".join(piece + gap for piece, gap in pieces)
    edited, counts = ContaminatedParagraphs(index).edit(text)
    assert not index.overlaps(edited)
    assert (edited == text) == (not counts)


def test_a_document_of_many_contaminated_paragraphs_takes_linear_work():
    index = OverlapIndex([LONG, SHORT])
    text = f"{LONG.text}\n\n{BEFORE}\n\n" * 3000
    assert len(contaminated(index, text)) == 3000
