"""Take text and metadata out of PDF files."""

import io
import logging
import re
from datetime import datetime
from typing import Any

from pypdf import PdfReader

from compactds.indexer.errors import RecordError
from compactds.indexer.sources.decoding import Extracted

_HYPHENATED = re.compile(r"(?<=[^\W\d_])-\n(?=[^\W\d_])")
_SPACES = re.compile(r"[ \t]+\n")


def extract_pdf(data: bytes, origin: str) -> Extracted:
    """Return the text of the pages, separated by blank lines, and title, author, date and page count.

    Words broken at the end of a line are put together again. Raise RecordError for a file that is
    damaged, needs a password, or has no text in it.
    """
    _hush()
    try:
        reader = PdfReader(io.BytesIO(data))
        _unlock(reader, origin)
        text = "\n\n".join(filter(None, (_page_text(page.extract_text()) for page in reader.pages)))
        pages = len(reader.pages)
    except RecordError:
        raise
    # A damaged file makes pypdf raise nearly anything: its own errors, KeyError, RecursionError, zlib.error.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise _refused(f"damaged or unreadable PDF: {reason}", origin, "Restore or repair it.") from error
    if not text:
        raise _refused(
            f"a PDF of {pages} pages without text",
            origin,
            "If its pages are scanned, run text recognition first.",
        )
    title, attributes = _metadata(reader)
    return Extracted(text, title, {**attributes, "pages": pages})


def _hush() -> None:
    """Keep what pypdf remarks on damaged files from standard error, where it would name none of them."""
    log = logging.getLogger("pypdf")
    if log.level == logging.NOTSET:
        log.setLevel(logging.CRITICAL)


def _unlock(reader: PdfReader, origin: str) -> None:
    if reader.is_encrypted and not reader.decrypt(""):
        raise _refused("it is encrypted", origin, "Save it without a password.")


def _page_text(text: str) -> str:
    return _HYPHENATED.sub("", _SPACES.sub("\n", text)).strip()


def _metadata(reader: PdfReader) -> tuple[str, dict[str, Any]]:
    title, author, created = (_told(reader, name) for name in ("title", "author", "creation_date"))
    attributes: dict[str, Any] = {}
    if isinstance(author, str) and author.strip():
        attributes["author"] = " ".join(author.split())
    if isinstance(created, datetime):
        attributes["date"] = created.date()
    return title if isinstance(title, str) else "", attributes


def _told(reader: PdfReader, name: str) -> Any:
    """Return what the file tells of itself under a name, None if that is damaged: its text still counts."""
    try:
        return getattr(reader.metadata, name, None)
    except Exception:  # noqa: BLE001 - pypdf raises nearly anything on damaged files
        return None


def _refused(reason: str, origin: str, remedy: str) -> RecordError:
    return RecordError(reason, origin=origin, remedy=f"{remedy} Or pass --skip-invalid to leave it out.")
