"""What the learned quality filter sees of a text: hashed words, word pairs and runs of four characters.

Only a text's first 5,000 characters count, in lower case. Each of its distinct features goes to one of 2^18
buckets by its hash; a bucket's value is 1 + log(its count), and a text's values have length one.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compactds.filters.corpus.repetition import ngram_hashes
from compactds.filters.corpus.text_statistics import TextStatistics

VERSION: Final = 1  # of everything in this module that changes a feature
BUCKET_BITS: Final = 18
BUCKETS: Final = 2**BUCKET_BITS
READ_CHARACTERS: Final = 5_000
_CHARACTERS_IN_A_RUN = 4
_KIND = np.uint64(0x9E3779B97F4A7C15)  # odd; spreads hashes over their high bits, and tells kinds apart
_STEP = np.uint64(0x10001_0001_0003)


@dataclass(frozen=True, slots=True)
class Features:
    """Hold a text's non-empty buckets, sorted, and their values, both of shape (n,)."""

    buckets: NDArray[np.uint32]
    values: NDArray[np.float32]


def features_of(text: str) -> Features:
    """Return the features of a text; a text without words has none."""
    words = TextStatistics(text[:READ_CHARACTERS].lower()).word_hashes
    if not len(words):
        return Features(np.empty(0, np.uint32), np.empty(0, np.float32))
    runs = _character_runs(text[:READ_CHARACTERS].lower())
    kinds = (words, ngram_hashes(words, 2), runs)
    spread = [_buckets(hashes, number) for number, hashes in enumerate(kinds)]
    buckets, counts = np.unique(np.concatenate(spread), return_counts=True)
    values = 1 + np.log(counts.astype(np.float64))
    values /= np.sqrt(np.sum(values * values))
    return Features(buckets, values.astype(np.float32))


def _buckets(hashes: NDArray[np.uint64], kind: int) -> NDArray[np.uint32]:
    spread = (hashes + np.uint64(kind)) * _KIND
    spread ^= spread >> np.uint64(29)
    spread *= _KIND
    return (spread >> np.uint64(64 - BUCKET_BITS)).astype(np.uint32)


def _character_runs(text: str) -> NDArray[np.uint64]:
    """Return a hash of every run of four characters, white space as one space."""
    codes = np.array([" ".join(text.split())]).view(np.uint32).astype(np.uint64)
    return ngram_hashes(codes * _STEP, _CHARACTERS_IN_A_RUN)
