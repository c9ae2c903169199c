"""Turn the bytes of text files into text, and tell binary data from text."""

import codecs
import unicodedata
from dataclasses import dataclass, field
from typing import Any

_BINARY_STARTS = (
    b"%PDF-",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"PAR1",
    b"\x7fELF",
    b"BZh",
    b"\xfd7zXZ",
    b"SQLite format 3",
)
_MARKS = (  # UTF-32 before UTF-16: their little-endian marks begin alike
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKED_AT_BYTES = 1 << 16
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1b\v")) + b"\x7f"
_MAX_CONTROL_SHARE = 0.05
_PLAIN_CONTROLS = frozenset("\t\n\r\f\x1b\v\x85")
_GARBAGE = frozenset({"Cc", "Cn", "Cs", "So"})  # controls, what Unicode does not have, halves, U+FFFD


@dataclass(frozen=True, slots=True)
class Extracted:
    """Hold what a file says: its text, its title if it has one, and what it tells about itself."""

    text: str
    title: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


def is_binary(data: bytes) -> bool:
    """Tell whether data is not text in any encoding known here."""
    if any(data.startswith(mark) for mark, _ in _MARKS):
        return False
    head = data[:_LOOKED_AT_BYTES]
    if head.startswith(_BINARY_STARTS) or b"\x00" in head:
        return True
    return len(head) - len(head.translate(None, _CONTROLS)) > _MAX_CONTROL_SHARE * len(head)


def is_garbled(text: str) -> bool:
    """Tell whether what was decoded is no text: it was binary data, or in another encoding than it says.

    More than a twentieth of its beginning is then controls, U+FFFD or what Unicode does not have. Characters
    for private use count where there are such as well; alone, they are somebody's own.
    """
    head = text[:_LOOKED_AT_BYTES]
    odd = {one: _kind(one) for one in set(head) if one == "\ufffd" or not one.isprintable()}
    if not _GARBAGE & set(odd.values()):
        return False
    wrong = {one for one, kind in odd.items() if kind in _GARBAGE or kind == "Co"}
    return sum(one in wrong for one in head) > _MAX_CONTROL_SHARE * len(head)


def _kind(character: str) -> str:
    """Return the category of a character, that of a space for controls that plain text has."""
    return "Zs" if character in _PLAIN_CONTROLS else unicodedata.category(character)


def decode(data: bytes, declared: str = "") -> tuple[str, bool]:
    """Return the text with plain line ends, and whether its encoding was known for certain.

    A byte order mark decides, then UTF-8 if it fits, then the encoding the file declares, then
    Windows-1252 with U+FFFD for what that does not have.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _plain_lines(data.decode(encoding, "replace")), True
    # Seven-bit encodings with escapes, such as ISO-2022-JP, pass as UTF-8.
    encodings = [declared, "utf-8"] if declared and b"\x1b" in data else ["utf-8", declared]
    for encoding in encodings:
        if not encoding:
            continue
        try:
            return _plain_lines(data.decode(encoding)), True
        except (LookupError, UnicodeError):
            continue
    return _plain_lines(data.decode("cp1252", "replace")), False


def _plain_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
