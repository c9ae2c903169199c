"""Take plain text, title and front matter out of Markdown."""

from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from compactds.indexer.sources.decoding import Extracted
from compactds.indexer.sources.front_matter import front_matter
from compactds.indexer.sources.html import html_text

_MAX_NESTING = 100  # deeper quotes and lists can only be hostile, and parsing them recurses
_MAX_BRACKETS = 5_000  # a paragraph of more is kept as it is: each may open a link, and looks for its end


def extract_markdown(source: str) -> Extracted:
    """Return what a Markdown file says without its markup.

    The title is the front matter's, else the first heading, which stays in the text. Paragraphs, list
    items and rows of tables are separated by blank lines, the cells of a row by bars. Code is kept; of
    links and images only their words are. What the front matter holds besides becomes attributes.
    """
    settings, body = front_matter(source)
    parser = MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING}).enable("table")
    blocks: list[str] = []
    title = ""
    references: dict[str, Any] = {}
    tokens = parser.disable("inline").parse(body, references)
    for token in tokens:
        if token.type == "inline":
            token.children = _children(parser, token.content, references)
    row: list[str] | None = None
    for before, token in zip([None, *tokens], tokens, strict=False):
        match token.type:
            case "inline" if row is not None:
                row.append(_words(token))
            case "inline":
                words = _words(token)
                blocks.append(words)
                if not title and before is not None and before.type == "heading_open":
                    title = " ".join(words.split())
            case "fence" | "code_block":
                blocks.append(token.content.strip("\n"))
            case "html_block":
                blocks.append(html_text(token.content))
            case "tr_open":
                row = []
            case "tr_close":
                blocks.append(" | ".join(row or []))
                row = None
    given = settings.pop("title", None)
    text = "\n\n".join(block for block in blocks if block.strip())
    return Extracted(text, str(given) if given not in (None, "") else title, settings)


def _children(parser: MarkdownIt, content: str, references: dict[str, Any]) -> list[Token] | None:
    """Return the pieces of a paragraph, None if it is kept as it is."""
    if content.count("[") > _MAX_BRACKETS:
        return None
    children: list[Token] = []
    parser.inline.parse(content, parser, references, children)
    return children


def _words(inline: Token) -> str:
    if inline.children is None:
        return inline.content.strip()
    return "".join(_piece(child) for child in inline.children).strip()


def _piece(token: Token) -> str:
    match token.type:
        case "text" | "text_special" | "code_inline":
            return token.content
        case "softbreak" | "hardbreak":
            return "\n"
        case "image":
            return _words(token)
        case _:
            return ""
