"""Personal data in texts, replaced by what kind of data it was.

Each kind is found by a pattern and, where numbers of the kind carry a check, confirmed by it. What is masked
is no longer there to be found, so masking a masked text changes nothing.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from compactds.filters.corpus.options import option

Kind = Literal["email", "ip_address", "phone", "card", "iban"]
KINDS: tuple[Kind, ...] = ("email", "iban", "card", "ip_address", "phone")


@dataclass(frozen=True, slots=True)
class PersonalData:
    """Mask e-mail and IP addresses, telephone numbers and, if wanted, card and bank account numbers."""

    kinds: tuple[Kind, ...] = option(
        ("email", "ip_address", "phone"), about="What to mask: email, ip_address, phone, card, iban."
    )
    mask: str = option("<{kind}>", about="What stands instead; {kind} is the kind of data.")
    private_addresses: bool = option(False, about="Mask addresses of private and reserved networks too.")
    name: str = option("personal_data", about="What the ledger calls the editor.")

    def edit(self, text: str) -> tuple[str, Mapping[str, int]]:
        """Return the text with personal data masked, and how many of each kind there were."""
        changes: dict[str, int] = {}
        for kind in KINDS:
            if kind in self.kinds and _SIGNS[kind](text):
                text = self._masked(text, kind, changes)
        return text, changes

    def _masked(self, text: str, kind: Kind, changes: dict[str, int]) -> str:
        mask = self.mask.replace("{kind}", kind)

        def replaced(found: re.Match[str]) -> str:
            if not self._confirmed(kind, found[0]):
                return found[0]
            changes[kind] = changes.get(kind, 0) + 1
            return mask

        return _PATTERNS[kind].sub(replaced, text)

    def _confirmed(self, kind: Kind, found: str) -> bool:
        match kind:
            case "ip_address":
                address = parsed_address(found)
                return (
                    address is not None
                    and len(found) > len("2.1.2.3")  # a number of a section far more often than an address
                    and (self.private_addresses or address.is_global)
                )
            case "card":
                return is_card_number(found)
            case "iban":
                return is_iban(found)
            case "phone":
                return is_phone_number(found)
            case _:
                return True


_PATTERNS: dict[Kind, re.Pattern[str]] = {
    "email": re.compile(
        r"(?<![\w.+%@-])[\w+%'-]{1,64}(?:\.[\w+%'-]{1,64}){0,9}@"
        r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w@])"
    ),
    "iban": re.compile(r"(?<![\w])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![\w])", re.ASCII),
    "card": re.compile(r"(?<![\w.,/-])(?<![A-Z]{2}\d\d )\d(?:[ -]?\d){11,18}(?![\w/-]|[.,]\d)", re.ASCII),
    "ip_address": re.compile(
        r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?![\w:]))",
        re.ASCII,
    ),
    "phone": re.compile(
        r"(?<![\w.,:/#=+-])(?:"
        r"(?:\+|(?<!\d[ -])00)[1-9]\d{0,2}(?:[ .-]?\(0\))?(?:[ ./-]?\(?\d{1,5}\)?){2,7}"  # international
        r"|(?:1[ .-])?\(\d{3}\) ?\d{3}[ .-]\d{4}"  # (415) 555-0134
        r"|(?:1[ .-])?\d{3}([.-])\d{3}\1\d{4}"  # 415-555-0134
        r"|(?<!\d[ -])0\d{1,4}[ /-]\d{2,4}(?:[ -]?\d{2,4}){1,3}"  # national: 030 1234 567
        r")(?![\w/-]|[.,]\d)",
        re.ASCII,
    ),
}

_SIGNS: dict[Kind, Callable[[str], object]] = {
    "email": lambda text: "@" in text,
    "iban": re.compile(r"[A-Z]{2}\d\d", re.ASCII).search,
    "card": re.compile(r"\d[ -]?\d{2}[ -]?\d{2}", re.ASCII).search,
    "ip_address": re.compile(r"\d\.\d{1,3}\.|:[0-9a-fA-F]{0,4}:", re.ASCII).search,
    "phone": re.compile(r"\d{2}[ ()./-]|\+\d|\d{4}", re.ASCII).search,
}


def parsed_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address that a text is, None if it is none."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def is_card_number(text: str) -> bool:
    """Tell whether a number has 13 to 19 digits, not all the same, of which the last is Luhn's check."""
    digits = [int(character) for character in text if character.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1 or digits[0] == 0:
        return False
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (doubled + sum(digits[-1::-2])) % 10 == 0


def is_iban(text: str) -> bool:
    """Tell whether a text has an IBAN's length and its check digits (ISO 13616, remainder 1 of 97)."""
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


def is_phone_number(text: str) -> bool:
    """Tell whether a number has the digits of a telephone number, 7 to 15, and is not a date."""
    digits = sum(character.isdigit() for character in text)
    return 7 <= digits <= 15 and not _DATE.fullmatch(text)


_DATE = re.compile(r"\d{1,2}[-/ ]\d{1,2}[-/ ]\d{4}|\d{4}[-/ ]\d{1,2}[-/ ]\d{1,2}")
