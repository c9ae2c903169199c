"""Sign documents so that copies of one another can be found without comparing all with all.

`signature(text)` looks at one document alone; `compactds.filters.corpus.duplicates_search` compares what
was signed. A document, or a passage, is seen as its set of runs of five words (see `overlap_words` for
what a word is), one with fewer words as a single run. Two are near-duplicates if the Jaccard similarity
of their sets reaches the threshold.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rensa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from compactds.filters.corpus.overlap_words import Hashes, gram_hashes, normalized, word_hashes
from compactds.filters.errors import CompactdsError, reported, shown

PERMUTATIONS = 128
LEAST_RECALL = 0.99
"""What share of pairs exactly at the threshold becomes candidates; pairs above it do more often."""

_SEED = 42
_SETTINGS = b"compactds.duplicates"
_ROWS_AT_ONCE = 4096
_CHARACTERS_AT_ONCE = 1 << 18
_RUNS_AT_ONCE = 1 << 14
_PIECES_AT_ONCE = 64


class DuplicatesError(CompactdsError):
    """Refuse settings or files that duplicates cannot be found with."""

    code = "invalid_duplicates"


@dataclass(frozen=True, slots=True)
class DuplicateSettings:
    """Say what a duplicate is.

    `threshold` is the least Jaccard similarity of the sets of runs of `words` words, from 0.3 to 1. With
    `near` false, only texts with the same words in the same order are duplicates. Raises DuplicatesError
    for values outside these limits.
    """

    threshold: float = 0.8
    words: int = 5
    near: bool = True

    def __post_init__(self) -> None:
        if (
            isinstance(self.threshold, bool)
            or not isinstance(self.threshold, int | float)
            or not 0.3 <= self.threshold <= 1
        ):
            raise DuplicatesError(
                f"a similarity of {shown(self.threshold)} is no threshold for duplicates.",
                value=reported(self.threshold),
                remedy="Use a number from 0.3 to 1, such as 0.8.",
            )
        if not isinstance(self.words, int) or isinstance(self.words, bool) or not 1 <= self.words <= 100:
            raise DuplicatesError(
                f"runs of {shown(self.words)} words cannot be compared.",
                value=reported(self.words),
                remedy="Use from 1 to 100 words, such as 5.",
            )

    @property
    def bands(self) -> tuple[int, int]:
        """Return (bands, rows a band) of the signature; no bands if only exact duplicates are sought."""
        return banding(self.threshold) if self.near else (0, 0)


@lru_cache(maxsize=64)
def banding(threshold: float) -> tuple[int, int]:
    """Return (bands, rows a band): as few candidates as a recall of LEAST_RECALL at the threshold allows.

    Two texts of similarity s agree on a band of r rows with probability s**r, and on at least one of b
    bands with 1 - (1 - s**r)**b.
    """
    fitting = [
        (PERMUTATIONS // rows, rows)
        for rows in range(1, PERMUTATIONS + 1)
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= LEAST_RECALL
    ]
    return fitting[-1]


def shingles(text: str, words: int) -> Hashes:
    """Return the hashes of the runs of `words` words, sorted, each once; of all words if there are fewer."""
    return np.unique(_runs(word_hashes(normalized(text)), words))


def jaccard(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> float:
    """Return the Jaccard similarity of two sets, each sorted; that of two empty sets is 0."""
    if not len(first) or not len(second):
        return 0.0
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def signature(text: str, settings: DuplicateSettings) -> bytes:
    """Return what identifies the words of a text (16 bytes), and a key for each band (8 bytes each).

    It depends on nothing but the text and the settings. A text without words has none: b"".
    """
    return signatures([text], settings)[0]


def signatures(texts: Sequence[str], settings: DuplicateSettings) -> list[bytes]:
    """Return the signature of each text; for short texts much faster than one at a time."""
    compared = [normalized(text) for text in texts]
    counts = np.array([len(words.split()) for words in compared], np.int64)
    hashes = word_hashes(b" ".join(compared))
    ends = np.cumsum(counts).tolist()
    words = [hashes[start:end] for start, end in pairwise([0, *ends])]
    identities = [xxh3_128_digest(own.tobytes()) if len(own) else b"" for own in words]
    bands, rows = settings.bands
    if not bands or not len(hashes):
        return identities
    smallest = _sketches(_all_runs(words, hashes, ends, settings.words))[:, : bands * rows]
    keys = np.array(
        [xxh3_64_intdigest(band.tobytes()) for band in smallest.astype("<u4").reshape(-1, rows)], "<u8"
    )
    bands_of = keys.reshape(len(texts), bands)
    return [identity and identity + own.tobytes() for identity, own in zip(identities, bands_of, strict=True)]


def _all_runs(words: Sequence[Hashes], hashes: Hashes, ends: Sequence[int], length: int) -> list[Hashes]:
    """Return the runs of each text; the words of all are hashed together, which short texts gain from."""
    grams = gram_hashes(hashes, length)
    return [
        grams[end - len(own) : end - length + 1] if len(own) >= length else _runs(own, length)
        for own, end in zip(words, ends, strict=True)
    ]


def _sketches(runs: Sequence[Hashes]) -> NDArray[np.uint32]:
    """Return the MinHash of each set of runs: the least value under each of PERMUTATIONS.

    rensa starts threads of its own for large inputs, and hangs in a process that was forked after that.
    So it gets small ones: the least values of a set are the least of those of its pieces.
    """
    pieces = [
        (number, own[start : start + _RUNS_AT_ONCE])
        for number, own in enumerate(runs)
        for start in range(0, max(len(own), 1), _RUNS_AT_ONCE)
    ]
    least = np.full((len(runs), PERMUTATIONS), np.iinfo(np.uint32).max, np.uint32)
    first = tokens = 0
    for place, (_, piece) in enumerate(pieces):
        tokens += len(piece)
        following = len(pieces[place + 1][1]) if place + 1 < len(pieces) else _RUNS_AT_ONCE
        if tokens + following > _RUNS_AT_ONCE or place + 1 - first == _PIECES_AT_ONCE:
            some = pieces[first : place + 1]
            offsets = np.cumsum([0, *(len(piece) for _, piece in some)]).astype(np.uint64)
            sketch = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
                np.concatenate([piece for _, piece in some]), offsets, PERMUTATIONS, _SEED
            )
            np.minimum.at(least, [number for number, _ in some], np.array(sketch.to_rows(), np.uint32))
            first, tokens = place + 1, 0
    return least


def sign_shard(path: Path, documents: Iterable[tuple[int, str]], settings: DuplicateSettings) -> None:
    """Write the signatures of (ordinal, text) pairs to a Parquet file, unless it is there already.

    Ordinals say which document came first and are unique over all shards. The file appears in one step.
    """
    if is_signed(path, settings):
        return
    pairs = (
        pair
        for some in _batches(documents)
        for pair in zip(
            [ordinal for ordinal, _ in some], signatures([text for _, text in some], settings), strict=True
        )
    )
    write_signatures(path, pairs, settings)


def is_signed(path: Path, settings: DuplicateSettings) -> bool:
    """Tell whether the file holds signatures made with these settings."""
    try:
        metadata = pq.read_schema(path).metadata
    except (FileNotFoundError, pa.ArrowInvalid):
        return False
    return (metadata or {}).get(_SETTINGS) == fingerprint(settings).encode()


def write_signatures(path: Path, signed: Iterable[tuple[int, bytes]], settings: DuplicateSettings) -> None:
    """Write (ordinal, signature) pairs to a Parquet file of a column for each band, in one step.

    Documents without words are left out: they are no duplicates. Raises DuplicatesError for a signature
    that was made with other settings.
    """
    schema = signature_schema(settings)
    partial = path.with_name(path.name + ".partial")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        rows = (pair for pair in signed if pair[1])
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(_table(some, schema))
    partial.replace(path)


def fingerprint(settings: DuplicateSettings) -> str:
    """Return what signatures have to have in common to be compared."""
    made = {**asdict(settings), "permutations": PERMUTATIONS, "minhash": rensa.RMinHash.ALGORITHM_VERSION}
    return json.dumps(made, sort_keys=True)


def signature_schema(settings: DuplicateSettings) -> pa.Schema:
    """Return the columns of a file of signatures."""
    bands = [(f"band_{band}", pa.uint64()) for band in range(settings.bands[0])]
    fields = [("ordinal", pa.int64()), ("words_high", pa.uint64()), ("words_low", pa.uint64()), *bands]
    return pa.schema(fields, metadata={_SETTINGS: fingerprint(settings).encode()})


def _table(rows: Sequence[tuple[int, bytes]], schema: pa.Schema) -> pa.Table:
    width = len(schema.names) - 1
    wrong = next((len(signed) for _, signed in rows if len(signed) != 8 * width), None)
    if wrong is not None:
        raise DuplicatesError(
            f"a signature has {wrong} bytes, not {8 * width}.",
            value=wrong,
            remedy="Sign all documents with the settings they are compared with.",
        )
    keys = np.frombuffer(b"".join(signed for _, signed in rows), "<u8").reshape(len(rows), width)
    ordinals = pa.array([ordinal for ordinal, _ in rows], pa.int64())
    return pa.table([ordinals, *(pa.array(keys[:, column].copy()) for column in range(width))], schema=schema)


def _runs(hashes: Hashes, words: int) -> Hashes:
    return gram_hashes(hashes, min(words, len(hashes))) if len(hashes) else hashes


def _batches(documents: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Yield documents together that have not many more than _CHARACTERS_AT_ONCE in all."""
    some: list[tuple[int, str]] = []
    characters = 0
    for document in documents:
        some.append(document)
        characters += len(document[1])
        if characters >= _CHARACTERS_AT_ONCE or len(some) == _ROWS_AT_ONCE:
            yield some
            some, characters = [], 0
    if some:
        yield some
