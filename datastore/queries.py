"""Check what a caller asks for before any work is done."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from compactds.datastore.encoders.base import Encoder, EncoderSpec, Vectors
from compactds.datastore.errors import SearchError, UnsupportedModeError, VectorError

MAX_K = 10_000
MAX_CANDIDATES = 100_000
MAX_EFFORT = 1_000_000
PLANS = ("exact", "lists", "codes", "open")
SPECIAL_TOKENS = 8
"""More than any model puts around a text."""


@dataclass(frozen=True, slots=True)
class Effort:
    """Hold how much a search asks for: k results, K candidates, a recall target, the index's own effort.

    `plan` names a plan to be taken if it can be.
    """

    k: int
    candidates: int | None = None
    recall: float | None = None
    effort: int | None = None
    plan: str | None = None


@dataclass(frozen=True, slots=True)
class Queries:
    """Hold the queries of a search, equally many in each: for candidates, and for exact scores.

    `truncated` tells which were longer than an encoder reads, `single` that they are one query and not
    a list.
    """

    proposing: Vectors
    deciding: Vectors
    truncated: Sequence[bool]
    single: bool

    def at(self, places: Sequence[int]) -> "Queries":
        """Return the queries at some places, as a list of them."""
        chosen = list(places)
        truncated = [self.truncated[place] for place in chosen]
        proposing = self.proposing[chosen]
        deciding = proposing if self.deciding is self.proposing else self.deciding[chosen]
        return Queries(proposing, deciding, truncated, False)


def check_mode(mode: Any) -> None:
    """Raise UnsupportedModeError for a mode of search this version does not have."""
    if mode != "dense":
        raise UnsupportedModeError(
            f"mode is {mode!r}; this version searches in mode 'dense'.",
            value=mode,
            remedy="Leave mode out.",
        )


def find_truncated(encoder: Encoder, texts: Sequence[str]) -> list[bool]:
    """Tell which queries have more tokens than the encoder reads; the rest of those is not used.

    No token is shorter than a character, so that most queries need not be counted.
    """
    limit = encoder.spec.max_tokens
    if limit is None:
        return [False] * len(texts)
    prompted = [encoder.spec.query_prompt + text for text in texts]
    long = [place for place, text in enumerate(prompted) if len(text) + SPECIAL_TOKENS > limit]
    found = [False] * len(texts)
    if long:
        (prompt,) = encoder.token_offsets([encoder.spec.passage_prompt])
        special = encoder.overhead_tokens - len(prompt)
        for place, tokens in zip(
            long, encoder.token_offsets([prompted[place] for place in long]), strict=True
        ):
            found[place] = len(tokens) + special > limit
    return found


def check_effort(k: Any, candidates: Any, recall: Any, effort: Any = None, plan: Any = None) -> Effort:
    """Return the checked parameters of a search, or raise SearchError naming the one at fault."""
    _check_count("k", k, MAX_K)
    if candidates is not None:
        _check_count("candidates", candidates, MAX_CANDIDATES)
        if candidates < k:
            raise SearchError(
                f"candidates is {candidates}, less than k, which is {k}.",
                value=candidates,
                remedy="Leave candidates out, or give at least k.",
            )
    if recall is not None:
        number = isinstance(recall, int | float | np.floating) and not isinstance(recall, bool)
        if not number or not 0 < recall <= 1:
            raise SearchError(
                f"recall is {recall!r}, expected a number above 0 and up to 1.",
                value=recall,
                remedy="Ask for 0.95, say; 1.0 searches exactly.",
            )
        recall = float(recall)
    if effort is not None:
        _check_count("effort", effort, MAX_EFFORT)
        if recall is not None:
            raise SearchError(
                "recall and effort are both given.",
                value=effort,
                remedy="Leave effort out: the recall asked for chooses it.",
            )
    if plan is not None and plan not in PLANS:
        raise SearchError(
            f"plan is {plan!r}, expected one of {', '.join(PLANS)}.", value=plan, remedy="Leave plan out."
        )
    return Effort(int(k), candidates, recall, effort, plan)


def check_queries(query: Any) -> tuple[list[str], bool]:
    """Return the query texts, and whether a single one was given; raise SearchError for anything else."""
    if isinstance(query, str):
        return [_check_text(query)], True
    if isinstance(query, Sequence) and not isinstance(query, bytes | bytearray):
        return [_check_text(text) for text in query], False
    raise SearchError(
        f"query is of type {type(query).__name__}, expected text or a list of texts.",
        value=repr(query)[:80],
        remedy="Give query='…', query=['…', '…'] or vectors=….",
    )


def check_where_list(where: Any, queries: int, *, single: bool) -> None:
    """Raise SearchError for a list of where expressions that does not go with the queries, one for each.

    One expression that is in no list goes for all; `single` tells that there is one query and no batch.
    """
    if not isinstance(where, list | tuple) or (len(where) == queries and not single):
        return
    asked = "one query" if single else f"a batch of {queries:,}"
    raise SearchError(
        f"where is a list of {len(where):,}, given with {asked}.",
        value=len(where),
        remedy="Give one expression for all queries, or a list with one for each query of a batch.",
    )


def check_vectors(vectors: Any, encoder: EncoderSpec) -> tuple[Vectors, bool]:
    """Return query vectors of shape (n, d) as float32, and whether a single one, (d,), was given.

    Raises VectorError for another dimension than the encoder's, and for vectors that are zero, not finite, or
    of a length whose square float32 does not hold. Vectors are scaled to length one if the encoder's are.
    """
    try:
        with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite, and is refused
            array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise VectorError(
            "vectors are not numbers in one or two dimensions.",
            remedy=f"Give {encoder.dimension} numbers a query.",
        ) from None
    single = array.ndim == 1
    array = np.atleast_2d(array)
    if array.ndim == 2 and len(array) == 0:
        return np.empty((0, encoder.dimension), np.float32), False
    if array.ndim != 2 or array.shape[1] != encoder.dimension:
        raise VectorError(
            f"query vectors have shape {np.shape(vectors)}, the store's have {encoder.dimension} dimensions.",
            value=list(np.shape(vectors)),
            remedy=f"Give vectors of {encoder.model or 'the encoder the store was built with'}.",
        )
    array = np.ascontiguousarray(array)
    squares = squared_lengths(array)
    if not have_directions(squares):
        place = int((~((squares > 0) & (squares < math.inf))).argmax())
        fault, remedy = fault_of(array[place])
        raise VectorError(f"query vector {place} {fault}.", value=place, remedy=remedy)
    return at_unit_length(array) if encoder.normalized else array, single


def fault_of(vector: Vectors) -> tuple[str, str]:
    """Say what is wrong with a float32 vector, shape (d,), whose squared length is zero or not finite.

    Returns what goes after its name, and the remedy.
    """
    if not np.isfinite(vector).all():
        return "holds NaN, infinity or a number too large for float32", "Correct it, or leave it out."
    if not vector.any():
        return "is zero", "Leave it out."
    size = "long" if np.abs(vector).max() > 1 else "short"
    return f"is too {size} for float32 to hold the square of its length", "Scale it, to length one perhaps."


def squared_lengths(vectors: Vectors) -> NDArray[np.float32]:
    """Return the squared length of each vector, shape (n, d), in a row; the same alone and among others."""
    squares = np.empty(len(vectors), np.float32)
    faiss.fvec_norms_L2sqr(faiss.swig_ptr(squares), faiss.swig_ptr(vectors), vectors.shape[1], len(vectors))
    return squares


def have_directions(squares: NDArray[np.float32]) -> bool:
    """Tell whether none of the squared lengths is zero or not finite: they are as float32 has them."""
    return all(0 < square < math.inf for square in squares.tolist())


def at_unit_length(vectors: Vectors) -> Vectors:
    """Return copies of vectors, shape (n, d), each scaled to length one; the same alone and among others."""
    scaled = vectors.copy()
    faiss.fvec_renorm_L2(vectors.shape[1], len(scaled), faiss.swig_ptr(scaled))
    return scaled


def _check_count(name: str, value: Any, most: int) -> None:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not 1 <= value <= most:
        raise SearchError(
            f"{name} is {value!r}, expected a whole number from 1 to {most:,}.",
            value=value,
            remedy=f"Give {name} between 1 and {most:,}.",
        )


def _check_text(text: Any) -> str:
    if not isinstance(text, str):
        raise SearchError(
            f"a query is of type {type(text).__name__}, expected text.",
            value=repr(text)[:80],
            remedy="Give every query as text.",
        )
    if not text.strip():
        raise SearchError("a query is empty.", value=text, remedy="Give at least one word.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SearchError(
            "a query holds half of a surrogate pair, which is not text.", remedy="Send valid Unicode."
        ) from None
    return text
