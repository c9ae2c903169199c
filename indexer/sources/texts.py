"""Read files that are one document each: text, Markdown, HTML and PDF."""

from collections.abc import Iterator
from typing import Any

from compactds.indexer.errors import RecordError
from compactds.indexer.sources.decoding import Extracted, decode, is_binary, is_garbled
from compactds.indexer.sources.formats import folder_name, split_suffix
from compactds.indexer.sources.lines import unreadable
from compactds.indexer.sources.options import RAW_LIMIT, InputFile, Notices, Record, Reject

MAX_DOCUMENT_BYTES = 256 << 20
_OWN_KEYS = frozenset({"id", "text", "document_id"})  # keys a file may not set for itself


class DocumentFiles:
    """Read files of one source, and count those without text and those whose encoding had to be guessed."""

    def __init__(self, reject: Reject, pass_over: Reject, notices: Notices) -> None:
        """Take what to do with a broken file, and with an empty one among others."""
        self._reject = reject
        self._pass_over = pass_over
        self._notices = notices

    def read(self, file: InputFile) -> Iterator[Record]:
        """Yield the record of a file: its id, title, text, and attributes.

        The id is the file's path below its folder, after the folder's name; attributes are `path` (below
        the folder), `folders` (each folder above it, outermost first), `format`, and what the file says
        of itself. All of them are the same for a copy of the folder elsewhere.
        """
        try:
            data = self._bytes(file)
            extracted = self._extract(data, file)
        except RecordError as error:
            self._reject(error, "")
            return
        if file.in_folder and not extracted.text.strip():
            self._notices.add(Notices(empty=1, first_empty=str(file.path)))
            self._pass_over(RecordError("no text in the file", origin=str(file.path)), "")
            return
        raw = extracted.text[:RAW_LIMIT].encode("utf-8", "replace")
        yield Record(str(file.path), _values(file, extracted), raw)

    def _bytes(self, file: InputFile) -> bytes:
        if file.size_bytes > MAX_DOCUMENT_BYTES:
            raise RecordError(
                f"{file.size_bytes:,} bytes in one document; at most {MAX_DOCUMENT_BYTES:,} are read",
                origin=str(file.path),
                value=file.size_bytes,
                remedy="Split it into several files, or make it JSON lines with a record for each part.",
            )
        try:
            return file.path.read_bytes()
        except OSError as error:
            raise unreadable(file.path, error) from None

    def _extract(self, data: bytes, file: InputFile) -> Extracted:
        if file.format == "pdf":
            from compactds.indexer.sources.pdf import extract_pdf

            return extract_pdf(data, str(file.path))
        if is_binary(data):
            raise _not_text("binary data, not text", file)
        if file.format == "html":
            from compactds.indexer.sources.html import declared_encoding, extract_html

            return extract_html(self._decoded(data, file, declared_encoding(data)), str(file.path))
        text = self._decoded(data, file)
        if file.format == "markdown":
            from compactds.indexer.sources.markdown import extract_markdown

            return extract_markdown(text)
        return Extracted(text)

    def _decoded(self, data: bytes, file: InputFile, declared: str = "") -> str:
        text, certain = decode(data, declared)
        if is_garbled(text):
            raise _not_text("binary data, or text in an encoding that the file does not name", file)
        if not certain:
            self._notices.add(Notices(guessed=1, first_guessed=str(file.path)))
        return text


def _not_text(reason: str, file: InputFile) -> RecordError:
    return RecordError(
        reason,
        origin=str(file.path),
        remedy="Give the file the suffix of its format, save it as UTF-8 text, or leave such files "
        "out with --skip-invalid.",
    )


def _values(file: InputFile, extracted: Extracted) -> dict[str, Any]:
    *folders, name = file.name.split("/")
    identifier = file.name
    if file.in_folder:
        root = file.path.parents[len(folders)]
        identifier = f"{folder_name(root)}/{file.name}"
    return {
        **{key: value for key, value in extracted.attributes.items() if key not in _OWN_KEYS},
        "id": identifier,
        "text": extracted.text,
        "title": extracted.title or split_suffix(name)[0],
        "path": file.name,
        "folders": ["/".join(folders[: depth + 1]) for depth in range(len(folders))],
        "format": file.format,
    }
