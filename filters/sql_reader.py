"""Read an SQL condition with sqlglot and keep only what a where expression can say.

Text passes three gates: its size; its tokens, where comments, further statements and calls of
unknown functions end; and its syntax tree, of which known nodes are translated and all others
refused. Parentheses are resolved from the inside out, so that nesting costs no recursion.
"""

from itertools import groupby, pairwise

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ErrorLevel, ParseError, SqlglotError
from sqlglot.tokens import Token, TokenType

from compactds.filters.errors import shown
from compactds.filters.limits import MAX_TEXT_BYTES, check_depth
from compactds.filters.sql_nodes import FUNCTIONS, OPAQUE, REMEDY, refusal, translate
from compactds.filters.where import Expression

_OPERATORS = {
    TokenType.EQ,
    TokenType.NEQ,
    TokenType.GT,
    TokenType.GTE,
    TokenType.LT,
    TokenType.LTE,
    TokenType.DASH,
    TokenType.COMMA,
    TokenType.L_BRACKET,
}
_BEFORE_GROUP = _OPERATORS | {
    TokenType.AND,
    TokenType.OR,
    TokenType.NOT,
    TokenType.BETWEEN,
    TokenType.LIKE,
}
_NEVER_TOGETHER = {  # the parser reads these as if one of the two were not there
    (TokenType.NOT, TokenType.IS),
    (TokenType.COMMA, TokenType.COMMA),
    (TokenType.COMMA, TokenType.R_PAREN),
    (TokenType.COMMA, TokenType.R_BRACKET),
    (TokenType.L_PAREN, TokenType.COMMA),
    (TokenType.L_BRACKET, TokenType.COMMA),
}
_RECURSIVE = {TokenType.NOT, TokenType.DASH}
"""Signs that the parser nests, one in the other, however many stand in a row."""
_NOT_WORDS = _OPERATORS | {
    TokenType.L_PAREN,
    TokenType.R_PAREN,
    TokenType.R_BRACKET,
    TokenType.DOT,
    TokenType.STRING,
    TokenType.NUMBER,
    TokenType.IDENTIFIER,
}


def read_condition(text: str) -> Expression:
    """Read an SQL condition; raise WhereError for text that is not one."""
    tokens = _tokens(text)
    if not tokens:
        raise refusal("empty text", text, "Leave the condition out to allow all rows.")
    return _Reader(text).read(tokens)


def _tokens(text: str) -> list[Token]:
    """Return the tokens of a condition; refuse those that no condition has."""
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise refusal("text with a lone surrogate", text, "Write valid Unicode.") from None
    if size_bytes > MAX_TEXT_BYTES:
        raise refusal(
            f"{size_bytes:,} bytes, the limit is {MAX_TEXT_BYTES:,}", text, "Use JSON for long lists."
        )
    try:
        tokens: list[Token] = Dialect.get_or_raise("duckdb").tokenize(text)
    except SqlglotError:
        raise refusal("text with an unfinished quote or unknown character", text, REMEDY) from None
    for token in tokens:
        if token.comments:
            raise refusal("a comment", token.comments[0], "Leave comments out.")
        if token.token_type is TokenType.SEMICOLON:
            raise refusal("several statements", ";", "Write one condition, without semicolons.")
        if not _is_known(token):
            raise refusal(f"{shown(token.text)} at {_place(token)}", token.text, REMEDY)
    for token, following in pairwise(tokens):
        if (token.token_type, following.token_type) in _NEVER_TOGETHER:
            what = f"{shown(following.text)} after {shown(token.text)} at {_place(following)}"
            raise refusal(what, following.text, REMEDY)
    return tokens


def _is_known(token: Token) -> bool:
    """Tell whether a token is a word, a literal, or one of the few signs that conditions need."""
    if token.token_type is TokenType.STRING:
        return True
    text: str = token.text
    if token.token_type in _NOT_WORDS:
        return "\0" not in text
    if "\0" in text or text.upper() == "IF":  # the parser logs what follows IF as a statement
        return False
    return text[:1].isalpha() or text[:1] == "_"


class _Reader:
    """Resolve parentheses from the inside out: each group read leaves a name that stands for it."""

    __slots__ = ("groups", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.groups: dict[str, Expression] = {}

    def read(self, tokens: list[Token]) -> Expression:
        """Read all tokens as one condition."""
        opened: list[tuple[Token, bool]] = []  # each open parenthesis, and whether it groups a condition
        levels: list[list[Token]] = [[]]
        for token in tokens:
            match token.token_type:
                case TokenType.L_PAREN:
                    opened.append((token, _opens_group(levels[-1])))
                    levels.append([])
                    check_depth(len(opened))
                case TokenType.R_PAREN:
                    if not opened:
                        raise refusal(f"an unopened parenthesis at {_place(token)}", ")", "Remove it.")
                    inside = levels.pop()
                    left, is_group = opened.pop()
                    levels[-1].extend(self._resolve(inside, left) if is_group else (left, *inside, token))
                case _:
                    levels[-1].append(token)
        if opened:
            raise refusal(f"an unclosed parenthesis at {_place(opened[-1][0])}", "(", "Close it.")
        return self._parse(levels[0])

    def _resolve(self, inside: list[Token], left: Token) -> list[Token]:
        """Return a lone value without its parentheses, or the stand-in for a condition."""
        if len(inside) == 1 or (len(inside) == 2 and inside[0].token_type is TokenType.DASH):
            return inside
        if not inside:
            raise refusal(f"nothing in parentheses at {_place(left)}", "()", REMEDY)
        stand_in = f"\0{len(self.groups)}"
        self.groups[stand_in] = self._parse(inside)
        return [Token(TokenType.IDENTIFIER, stand_in, left.line, left.col, left.start, left.end)]

    def _parse(self, tokens: list[Token]) -> Expression:
        _check_ranges(tokens)
        for kind, run in groupby(token.token_type for token in tokens):
            if kind in _RECURSIVE:
                check_depth(sum(1 for _ in run))
        parser = Dialect.get_or_raise("duckdb").parser(error_level=ErrorLevel.IMMEDIATE)
        try:
            trees = parser.parse_into(exp.Condition, tokens, self.text)
            if len(trees) == 1:
                return translate(trees[0], self.groups)
        except ParseError as error:
            detail = error.errors[0] if error.errors else {}
            place = f" at line {detail['line']}, column {detail['col']}" if "line" in detail else ""
            raise refusal(f"text that is not a condition{place}", self.text, REMEDY) from None
        except RecursionError:
            raise refusal("operators nested too deep", self.text, "Write NOT and - once.") from None
        raise refusal("text that is not a condition", self.text, REMEDY)


def _check_ranges(tokens: list[Token]) -> None:
    """Raise WhereError for BETWEEN without one value and AND after it, which the parser lets pass."""
    for place, token in enumerate(tokens):
        if token.token_type is TokenType.BETWEEN:
            value = tokens[place + 1 : place + 4]
            ends = [number for number, part in enumerate(value) if part.token_type is TokenType.AND]
            two = ends == [2] and value[0].token_type not in (TokenType.NUMBER, TokenType.STRING)
            if ends != [1] and not two:
                raise refusal(
                    f"BETWEEN without AND at {_place(token)}", "BETWEEN", "Write f BETWEEN 1 AND 3."
                )


def _opens_group(before: list[Token]) -> bool:
    """Tell whether a parenthesis opens a condition or value, not the list of IN or of a function.

    The name of a function is made opaque to the parser.
    """
    if not before or before[-1].token_type in _BEFORE_GROUP:
        return True
    last = before[-1]
    if last.token_type is TokenType.IN:
        return False
    function = last.text.lower()
    if function not in FUNCTIONS:
        known = f"The functions are {', '.join(FUNCTIONS)}."
        raise refusal(f"{shown(last.text)} before a parenthesis at {_place(last)}", last.text, known)
    before[-1] = Token(TokenType.VAR, OPAQUE + function, last.line, last.col, last.start, last.end)
    return False


def _place(token: Token) -> str:
    return f"line {token.line}, column {token.col}"
