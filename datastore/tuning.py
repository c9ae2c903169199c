"""Calibrate the index of a finished store anew, for queries of its user's own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compactds.datastore.advisor import sample_rows
from compactds.datastore.calibration import (
    HeldOut,
    calibrate,
    held_out_rows,
    hold_out,
    queries_from_elsewhere,
)
from compactds.datastore.encoders.base import Vectors
from compactds.datastore.errors import FewQueriesError, SearchError
from compactds.datastore.manifest import HELD_OUT, CalibrationPoint, Manifest, SegmentRecord
from compactds.datastore.parallel import share_out
from compactds.datastore.plan import CALIBRATION_K, point_for
from compactds.datastore.search import rescore
from compactds.datastore.segment import Segment, open_segments

MOST_QUERIES = 1_000
LEAST_QUERIES = 20
SHOWN_RECALLS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
SEED = 0


@dataclass(frozen=True, slots=True)
class TunedSegment:
    """Hold a segment's record with its new curve, and what the old one gave for the same queries.

    `delivered` is recall@10 at what the old curve chose for each of `SHOWN_RECALLS`; empty without one.
    """

    before: SegmentRecord
    after: SegmentRecord
    delivered: dict[float, float]


@dataclass(frozen=True, slots=True)
class OwnQueries:
    """Hold a user's queries as both encoders see them, equally many, and what they are called."""

    name: str
    proposing: Vectors
    deciding: Vectors


def pick_queries(count: int) -> list[int]:
    """Return which of `count` queries are used: all, or 1,000 drawn at random, in order.

    Raises FewQueriesError for fewer than 20, whose recall says next to nothing.
    """
    if count < LEAST_QUERIES:
        raise FewQueriesError(
            f"{count} queries are too few to calibrate with.",
            value=count,
            remedy=f"Give at least {LEAST_QUERIES}; some hundreds are better.",
        )
    drawn = np.random.default_rng(SEED).permutation(count)[:MOST_QUERIES]
    return [int(number) for number in np.sort(drawn)]


def tune(root: Path, manifest: Manifest, queries: OwnQueries | None = None) -> list[TunedSegment]:
    """Measure the index of every segment anew, with a user's queries or with passages held out.

    Every query is compared with every passage once. Nothing is written: `tuned` gives the manifest to
    write. Raises SearchError for a store with two encoders and no queries, because it does not keep the
    passages' vectors of the index's encoder, and StoreError for one that cannot be opened.
    """
    if queries is None and manifest.encoder.fingerprint != manifest.exact_encoder.fingerprint:
        raise SearchError(
            "this store has two encoders, and keeps the passages' vectors of one.",
            remedy="Give queries as text, with --queries.",
        )
    segments = open_segments(root, manifest)
    try:
        return [_tuned(segment, queries) for segment in segments]
    finally:
        for segment in segments:
            segment.close()


def sample_store(root: Path, manifest: Manifest) -> tuple[int, Vectors]:
    """Return how many vectors a store has, and a sample of them to measure codes on, shape (n, d).

    Raises SearchError for a store with two encoders: it does not keep the vectors that codes are made of.
    """
    if manifest.encoder.fingerprint != manifest.exact_encoder.fingerprint:
        raise SearchError(
            "this store has two encoders, and does not keep the vectors that codes are made of.",
            remedy="Give those as a .npy file: compactds tune --codes --vectors FILE.",
        )
    segments = open_segments(root, manifest)
    total, offset, parts = sum(segment.rows for segment in segments), 0, []
    wanted = sample_rows(total, manifest.exact_encoder.dimension)
    for segment in segments:
        inside = wanted[(wanted >= offset) & (wanted < offset + segment.rows)]
        parts.append(segment.vectors.gather(inside - offset))
        offset += segment.rows
        segment.close()
    return total, np.concatenate(parts)


def tuned(manifest: Manifest, segments: Sequence[TunedSegment]) -> Manifest:
    """Return the manifest with the new curves."""
    return replace(manifest, segments=tuple(segment.after for segment in segments))


def _tuned(segment: Segment, queries: OwnQueries | None) -> TunedSegment:
    record = segment.record
    if segment.index.exact:
        return TunedSegment(record, record, {})
    if queries is None:
        held_out = hold_out(segment.vectors, segment.vectors, held_out_rows(segment.rows))
        name = HELD_OUT
    else:
        held_out = queries_from_elsewhere(queries.proposing, queries.deciding, segment.vectors)
        name = f"{len(queries.deciding):,} queries of {queries.name}"
    points = calibrate(segment.index, segment.vectors, held_out)
    after = replace(record, calibration=points, calibrated_on=name)
    return TunedSegment(record, after, _delivered(segment, held_out, record.calibration))


def _delivered(segment: Segment, held_out: HeldOut, points: Sequence[CalibrationPoint]) -> dict[float, float]:
    """Return the recall that asking for each of some recalls gives, by the curve in `points`."""
    found: dict[tuple[int, int], float] = {}
    delivered = {}
    for recall in SHOWN_RECALLS:
        point = point_for(points, recall)
        if point is None:
            continue
        setting = point.effort, point.candidates
        if setting not in found:
            found[setting] = _recall(segment, held_out, *setting)
        delivered[recall] = found[setting]
    return delivered


def _recall(segment: Segment, held_out: HeldOut, effort: int, candidates: int) -> float:
    def search(part: slice) -> list[int]:
        _, proposed = segment.index.search(held_out.proposing[part], candidates + 1, effort=effort)
        hits = []
        for rows, query, own, truth in zip(
            proposed, held_out.deciding[part], held_out.own[part], held_out.truth[part], strict=True
        ):
            others = rows[rows != own][:candidates]
            best = rescore(segment.vectors, query, others, CALIBRATION_K).rows
            hits.append(len(np.intersect1d(best, truth)))
        return hits

    return round(sum(share_out(search, len(held_out.proposing))) / held_out.truth.size, 4)
