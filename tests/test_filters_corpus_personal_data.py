"""Personal data is masked where it is, and numbers that are none stay."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactds.filters.corpus.personal_data import (
    KINDS,
    PersonalData,
    is_card_number,
    is_iban,
    is_phone_number,
    parsed_address,
)

EVERYTHING = PersonalData(KINDS)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jane.o'neil+list@mail.example.co.uk, please.", "Write to <email>, please."),
        ("<a@b.org>", "<<email>>"),
        ("Zoë: zoë@exämple.de.", "Zoë: <email>."),
        ("from 81.2.69.142:8080", "from <ip_address>:8080"),
        ("from 2a02:2e0:3fe:1001::80.", "from <ip_address>."),
        ("+44 20 7946 0958", "<phone>"),
        ("+49 (0) 30 901820", "<phone>"),
        ("tel (415) 555-0134, fax 415-555-0135", "tel <phone>, fax <phone>"),
        ("1-415-555-0134", "<phone>"),
        ("030 1234 5678", "<phone>"),
        ("card 4111 1111 1111 1111", "card <card>"),
        ("5500-0000-0000-0004", "<card>"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "IBAN <iban>."),
        ("GB82WEST12345698765432", "<iban>"),
    ],
)
def test_personal_data_is_masked(text, masked):
    assert EVERYTHING.edit(text)[0] == masked


@pytest.mark.parametrize(
    "text",
    [
        "@home and x@y and a@b@c.org",
        "version 1.2.3.4.5, 300.1.1.1, section 2.1.2.3",
        "192.168.1.1 and 10.0.0.1 and 127.0.0.1 and ::1",
        "at 12:30:45, std::vector, a::b, 1:2",
        "ISBN 978-3-16-148410-0",
        "1999-2003, 2020-01-15, 15-01-2020, pages 123-456",
        "3.14159265 and 10 000 000 and 1,234,567.89",
        "4111 1111 1111 1112 and 0000 0000 0000 0000",
        "DE89 3704 0044 0532 0130 01",
        "arXiv 2112.11446, doi 10.1000/182, #4155550134",
    ],
)
def test_other_numbers_stay(text):
    assert EVERYTHING.edit(text) == (text, {})


def test_changes_are_counted_by_kind():
    text, changes = PersonalData().edit("a@b.org, c@d.org or +44 20 7946 0958; card 4111 1111 1111 1111")
    assert text == "<email>, <email> or <phone>; card 4111 1111 1111 1111"
    assert changes == {"email": 2, "phone": 1}


def test_the_mask_and_private_addresses_are_options():
    editor = PersonalData(("ip_address",), mask="[[{kind}]]", private_addresses=True)
    assert editor.edit("192.168.1.1") == ("[[ip_address]]", {"ip_address": 1})
    assert PersonalData(mask="").edit("a@b.org!")[0] == "!"
    assert PersonalData(mask=r"\1").edit("a@b.org!")[0] == r"\1!"


@settings(max_examples=150, deadline=None)
@given(st.text("0123456789 .,:-+()/@abAB_é\n", max_size=80))
def test_masking_twice_is_masking_once(text):
    once, _ = EVERYTHING.edit(text)
    twice, changes = EVERYTHING.edit(once)
    assert twice == once
    assert changes == {}


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000 + "@",
        "a." * 100_000 + "@x.",
        "@".join("a" * 100_000),
        "1 " * 200_000,
        "12-" * 100_000,
        "1" * 300_000,
        "1.1." * 100_000,
        "ab:" * 100_000,
        "DE89 AAAA " * 50_000,
        "x@" + "a-" * 100_000,
        "(1) " * 90_000,
    ],
    ids=range(11),
)
def test_no_text_takes_more_than_linear_time(text):
    assert isinstance(EVERYTHING.edit(text)[0], str)


def test_checks_of_numbers():
    assert is_card_number("378282246310005")
    assert not is_card_number("378282246310006")
    assert not is_card_number("4" * 12)
    assert is_iban("NO93 8601 1117 947")
    assert not is_iban("NO93 8601 1117 948")
    assert not is_iban("NO93 8601")
    assert is_phone_number("+1 415 555 0134")
    assert not is_phone_number("123456")
    assert not is_phone_number("15/01/2020")
    assert parsed_address("1.2.3.4") is not None
    assert parsed_address("1.2.3") is None
