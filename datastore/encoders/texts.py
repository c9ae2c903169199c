"""Check what is handed to an encoder before a library sees it."""

from collections.abc import Sequence

from compactds.datastore.errors import EncoderError


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return the texts as a list; raise EncoderError naming the first that cannot be encoded.

    A lone string is refused, because its characters would be taken for texts. So is text with lone
    surrogates, which no tokenizer can read.
    """
    if isinstance(texts, str | bytes):
        raise EncoderError(
            "an encoder takes a list of texts, not a single one.",
            value=texts[:80],
            remedy="Wrap the text in a list.",
        )
    checked = list(texts)
    for position, text in enumerate(checked):
        if not isinstance(text, str):
            raise EncoderError(
                f"text {position} is of type {type(text).__name__}, not str.",
                value=repr(text)[:80],
                remedy="Encode strings only.",
            )
        if not text.isascii():
            _check_surrogates(text, position)
    return checked


def _check_surrogates(text: str, position: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EncoderError(
            f"text {position} holds the lone surrogate U+{ord(text[error.start]):04X} "
            f"at character {error.start}.",
            value=repr(text[error.start]),
            remedy="Decode the source with the right encoding, or replace such characters.",
        ) from None
