"""Make up vectors in crowds, with attributes that tell them apart: where a filter can hide all of a crowd.

Of real text, rows near a query have all sorts of attributes. A store of many subjects, or of many customers,
is made of crowds instead, and a filter that excludes the crowd a query is in leaves its nearest rows far off,
in lists that an unfiltered search would not look at.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

TOPICS = 20
THEMES = 15  # in each topic
THEME_SPREAD = 0.8
ROW_SPREAD = 0.9
LANGUAGES, LANGUAGE_SHARES = ("en", "de", "fr", "pt"), (0.7, 0.2, 0.08, 0.02)
TAGS = 40
DAYS = 3_650


def made_up(rows: int, dimension: int, seed: int = 0) -> tuple[NDArray[np.float16], list[dict[str, Any]]]:
    """Return vectors of unit length, shape (rows, dimension), and as many records.

    `topic`, `theme` and `year` depend on where a vector is; `lang`, `day` and `source` on nothing; one of the
    `tags` on its topic.
    """
    draw = np.random.default_rng(seed)
    topics = _directions(draw, (TOPICS, dimension))
    themes = np.repeat(topics, THEMES, axis=0) + THEME_SPREAD * _directions(
        draw, (len(topics) * THEMES, dimension)
    )
    theme = draw.integers(len(themes), size=rows)
    vectors = themes[theme] + ROW_SPREAD * _directions(draw, (rows, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    languages = draw.choice(LANGUAGES, rows, p=LANGUAGE_SHARES)
    days, sources, tags = draw.integers(DAYS, size=rows), draw.zipf(1.5, rows), draw.integers(TAGS, size=rows)
    records = [
        {
            "topic": f"topic {number // THEMES}",
            "theme": f"theme {number}",
            "year": 1980 + number % 45,
            "lang": str(languages[row]),
            "day": int(days[row]),
            "source": f"source {min(int(sources[row]), 1_000)}",
            "tags": [f"tag {tags[row]}", f"of topic {number // THEMES}"],
        }
        for row, number in enumerate(theme.tolist())
    ]
    return vectors.astype(np.float16), records


def _directions(draw: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return random vectors of about unit length."""
    return draw.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[1]))
