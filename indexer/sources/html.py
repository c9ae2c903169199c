"""Take title, text and metadata out of HTML pages."""

import re
from datetime import date

from selectolax.lexbor import LexborHTMLParser, LexborNode

from compactds.indexer.errors import RecordError
from compactds.indexer.sources.decoding import Extracted

_NEVER_TEXT = frozenset(
    {"audio", "button", "canvas", "datalist", "dialog", "head", "iframe", "input", "map", "math", "menu"}
    | {"noscript", "object", "script", "select", "style", "svg", "template", "textarea", "title", "video"}
)
_BESIDE_THE_TEXT = frozenset({"nav", "header", "footer", "aside", "form"})
_INLINE = frozenset(
    {
        "a",
        "abbr",
        "acronym",
        "b",
        "bdi",
        "bdo",
        "big",
        "cite",
        "code",
        "data",
        "del",
        "dfn",
        "em",
        "font",
        "i",
    }
    | {
        "img",
        "ins",
        "kbd",
        "label",
        "mark",
        "meter",
        "output",
        "picture",
        "q",
        "rp",
        "rt",
        "ruby",
        "s",
        "samp",
    }
    | {"slot", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"}
)
_CELLS = frozenset(["td", "th"])
_NAMED_METADATA = ("description", "keywords", "author", "date")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TAG = re.compile(  # elements that have to be closed, and nest
    r"<(/?)(?:a|abbr|address|applet|article|aside|b|big|blockquote|body|button|center|cite|code|del|details"
    r"|dfn|dialog|dir|div|dl|em|fieldset|figcaption|figure|font|footer|form|h[1-6]|header|hgroup|i|ins|kbd"
    r"|label|legend|listing|main|mark|marquee|menu|nav|nobr|object|ol|pre|q|ruby|s|samp|search|section|select"
    r"|small|span|strike|strong|sub|summary|sup|svg|table|template|tt|u|ul|var|xmp)\b",
    re.IGNORECASE,
)
_SPACE = re.compile(r"\s+")
MAX_DEPTH = 4_000


def declared_encoding(data: bytes) -> str:
    """Return the encoding a page names in a meta tag, "" if it names none."""
    match = _CHARSET.search(data[:4096])
    name = match[1].decode("ascii", "replace").lower() if match else ""
    return "cp1252" if name in ("iso-8859-1", "latin1", "us-ascii", "ascii") else name  # as browsers do


def extract_html(html: str, origin: str) -> Extracted:
    """Return the page's title, its main text, and its meta tags description, keywords, author and date.

    Scripts, styles and controls are left out, and so are navigation, headers, footers, asides and forms
    unless nothing else has text. Blocks are separated by blank lines, the cells of a row by bars. Raise
    RecordError for a page nested so deeply that it can only be hostile.
    """
    if _depth(html) > MAX_DEPTH:
        raise RecordError(
            f"elements are nested more than {MAX_DEPTH:,} deep",
            origin=origin,
            remedy="Leave the file out, or pass --skip-invalid.",
        )
    page = LexborHTMLParser(html)
    return Extracted(_main_text(page), _title(page), _metadata(page))


def html_text(fragment: str) -> str:
    """Return the text of a piece of HTML, such as Markdown may hold."""
    return "" if _depth(fragment) > MAX_DEPTH else _main_text(LexborHTMLParser(fragment))


def _depth(html: str) -> int:
    depth = deepest = 0
    for match in _TAG.finditer(html):
        depth = max(0, depth - 1) if match[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest


def _main_text(page: LexborHTMLParser) -> str:
    roots = page.css("main")
    root = roots[0] if len(roots) == 1 else page.body
    if root is None:
        return ""
    return _text(root, _NEVER_TEXT | _BESIDE_THE_TEXT) or (
        _text(page.body, _NEVER_TEXT) if page.body is not None else ""
    )


def _title(page: LexborHTMLParser) -> str:
    for selector in ("head title", "h1"):
        node = page.css_first(selector)
        title = " ".join(node.text().split()) if node is not None else ""
        if title:
            return title
    return ""


def _metadata(page: LexborHTMLParser) -> dict[str, object]:
    found: dict[str, object] = {}
    for node in page.css("meta[name][content]"):
        name = (node.attributes.get("name") or "").strip().lower()
        content = " ".join((node.attributes.get("content") or "").split())
        if name not in _NAMED_METADATA or name in found or not content:
            continue
        if name == "keywords":
            found[name] = [word.strip() for word in content.split(",") if word.strip()]
        elif name == "date":
            found[name] = _day(content)
        else:
            found[name] = content
    return found


def _day(content: str) -> date | str:
    try:
        return date.fromisoformat(content) if _DATE.fullmatch(content) else content
    except ValueError:
        return content


class _Blocks:
    """Gather text into blocks, as a browser breaks it into lines and paragraphs."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._open: list[str] = []
        self._preformatted = 0

    def enter(self, tag: str) -> None:
        """Begin an element."""
        if tag == "br":
            self._open.append("\n")
        elif tag in _CELLS:
            self._open.append(" | " if self._open else "")
        elif tag not in _INLINE:
            self._close()
            self._preformatted += tag == "pre"

    def leave(self, tag: str) -> None:
        """End an element."""
        if tag not in _INLINE and tag not in _CELLS and tag != "br":
            self._close()
            self._preformatted -= tag == "pre"

    def add(self, text: str) -> None:
        """Add text of the element that is open."""
        self._open.append(text if self._preformatted else _SPACE.sub(" ", text))

    def text(self) -> str:
        """Return the blocks so far, separated by blank lines."""
        self._close()
        return "\n\n".join(self._done)

    def _close(self) -> None:
        text = "".join(self._open)
        self._open.clear()
        if self._preformatted:
            block = text.strip("\n")
        else:
            lines = (" ".join(line.split()) for line in text.split("\n"))
            block = "\n".join(line for line in lines if line)
        if block.strip(" |\n"):
            self._done.append(block)


def _text(root: LexborNode, skipped: frozenset[str]) -> str:
    """Walk the tree without recursion, as pages may be nested deeper than Python's stack."""
    blocks = _Blocks()
    waiting: list[tuple[LexborNode, bool]] = [(root, False)]
    while waiting:
        node, is_left = waiting.pop()
        tag = node.tag or ""
        if is_left:
            blocks.leave(tag)
        elif node.is_text_node:
            blocks.add(node.text_content or "")
        elif node.is_element_node and tag not in skipped and "hidden" not in node.attributes:
            blocks.enter(tag)
            waiting.append((node, True))
            waiting.extend((child, False) for child in reversed(list(node.iter(include_text=True))))
    return blocks.text()
