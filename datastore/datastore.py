"""Open a store and search it, in process."""

import json
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compactds.datastore.ann.base import NO_ROW
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.encoders import Encoder, load_spec
from compactds.datastore.encoders.base import EncoderSpec
from compactds.datastore.errors import (
    DamagedStoreError,
    EncoderMismatchError,
    PassageNotFoundError,
    SearchError,
    StoreError,
)
from compactds.datastore.facets import count_values
from compactds.datastore.manifest import Manifest, read_manifest
from compactds.datastore.queries import (
    Effort,
    Queries,
    check_effort,
    check_mode,
    check_queries,
    check_vectors,
    find_truncated,
)
from compactds.datastore.records import Hit, Hits, Neighbours, Passage, SearchReport
from compactds.datastore.search import EMPTY, Ranking, merge, search_segment
from compactds.datastore.segment import Segment, open_segments
from compactds.datastore.timing import Clock
from compactds.filters import Expression, Schema, Where, parse_where

OPEN_ATTEMPTS = 3


class Datastore:
    """A store opened for searching; any number of threads may search at once.

    Use it as a context manager, or call `close`. Opening maps files and reads the ANN index; the
    encoder is loaded by the first query that is text, or by `load_encoders`.
    """

    def __init__(
        self, path: Path, manifest: Manifest, segments: Sequence[Segment], encoder: Encoder | None
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.schema: Schema = manifest.schema
        self._segments: tuple[Segment, ...] | None = tuple(segments)
        self._offsets = np.cumsum([0, *(segment.rows for segment in segments)]).tolist()
        self._encoders: dict[str, Encoder] = {}
        self._loading = threading.Lock()
        if encoder is not None:
            self._encoders[encoder.spec.fingerprint] = encoder

    @classmethod
    def open(cls, path: str | Path, *, encoder: Encoder | None = None, verify: bool = False) -> "Datastore":
        """Open the store in folder `path`.

        `encoder` is used instead of loading the one the manifest names, and must have its fingerprint.
        Opening checks small files, the index, and a sample of the vectors, passages and attributes;
        `verify` checks all of them, which reads the whole store once. A store that a build replaces
        meanwhile is opened anew. Raises StoreNotFoundError, StoreFormatError, DamagedStoreError or
        EncoderMismatchError.
        """
        root = Path(path).absolute()  # what is opened later is found wherever the program goes
        for attempt in range(OPEN_ATTEMPTS):
            manifest = read_manifest(root)
            if encoder is not None:
                _check_encoder(encoder.spec, manifest)
            try:
                segments = open_segments(root, manifest, whole=verify)
            except DamagedStoreError:
                # A build may have replaced the segments between the two steps.
                if attempt == OPEN_ATTEMPTS - 1 or read_manifest(root) == manifest:
                    raise
            else:
                return cls(root, manifest, segments, encoder)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Give back files and memory; searches after this fail."""
        segments, self._segments = self._segments, None
        for segment in segments or ():
            segment.close()

    def __enter__(self) -> "Datastore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def load_encoders(self) -> None:
        """Load the encoders now rather than at the first text query."""
        for spec in (self.manifest.encoder, self.manifest.exact_encoder):
            if spec.kind != "vectors":
                self._encoder(spec)

    @overload
    def search(  # type: ignore[overload-overlap]  # text is a sequence of texts, too
        self,
        query: str,
        *,
        k: int = 10,
        where: Where = None,
        candidates: int | None = None,
        recall: float | None = None,
        mode: str = "dense",
    ) -> Hits: ...
    @overload
    def search(
        self,
        query: Sequence[str],
        *,
        k: int = 10,
        where: Where = None,
        candidates: int | None = None,
        recall: float | None = None,
        mode: str = "dense",
    ) -> list[Hits]: ...
    @overload
    def search(
        self,
        query: None = None,
        *,
        vectors: ArrayLike,
        k: int = 10,
        where: Where = None,
        candidates: int | None = None,
        recall: float | None = None,
        mode: str = "dense",
    ) -> Hits | list[Hits]: ...
    def search(
        self,
        query: str | Sequence[str] | None = None,
        *,
        vectors: ArrayLike | None = None,
        k: int = 10,
        where: Where = None,
        candidates: int | None = None,
        recall: float | None = None,
        mode: str = "dense",
    ) -> Hits | list[Hits]:
        """Return the `k` best passages for a query, or for each of several.

        Give `query` (text, or a list of texts) or `vectors` (shape (d,) or (n, d), from the store's
        encoder). `where` limits which passages may be returned; min(k, matching) always are.
        `candidates` is how many rows are scored exactly; `recall` asks for an expected recall@k
        instead, and 1.0 searches exhaustively. `mode` is "dense", the only one there is.

        Raises SearchError, VectorError, WhereError, EncoderError or DamagedStoreError.
        """
        check_mode(mode)
        effort = check_effort(k, candidates, recall)
        expression = parse_where(where, self.schema)
        timings: dict[str, float] = {}
        clock = Clock(timings)
        queries = self._query_vectors(query, vectors)
        clock.lap("encode")
        if not len(queries.proposing):
            return []
        results = self._search_vectors(queries, effort, expression, timings, clock)
        return results[0] if queries.single else results

    def nearest(
        self,
        vectors: ArrayLike,
        *,
        k: int = 10,
        where: Where = None,
        candidates: int | None = None,
        recall: float | None = None,
        effort: int | None = None,
    ) -> Neighbours:
        """Return the row numbers and scores of the `k` best passages for each vector, and nothing else.

        What `search` does without reading any text, for programs that keep their own. `vectors` have shape
        (d,) or (n, d); the results have shape (n, k), places without a row hold -1 and a score of -inf.
        Rows are numbered in the order of the store. `effort` sets the index's own measure of work (lists
        probed, or beam width) in place of the recall asked for. With fewer than `candidates` rows in reach
        of an effort, the best of all allowed rows are still returned.

        Raises SearchError, VectorError or WhereError.
        """
        asked = check_effort(k, candidates, recall, effort)
        expression = None if where is None else parse_where(where, self.schema)
        queries = self._query_vectors(None, vectors)
        merged: list[Ranking] = []
        if len(queries.deciding):
            _, _, merged = self._rank(queries, asked, expression, Clock({}))
        if len(merged) == 1 and len(merged[0].rows) == asked.k:
            return Neighbours(merged[0].rows[np.newaxis], merged[0].scores[np.newaxis])
        rows = np.full((len(merged), asked.k), NO_ROW, np.int64)
        scores = np.full(rows.shape, -np.inf, np.float32)
        for place, ranking in enumerate(merged):
            rows[place, : len(ranking.rows)] = ranking.rows
            scores[place, : len(ranking.rows)] = ranking.scores
        return Neighbours(rows, scores)

    def get(self, passage_id: str) -> Passage:
        """Return one passage by its id; raise PassageNotFoundError if the store does not hold it."""
        document_id, mark, position = passage_id.rpartition("#") if isinstance(passage_id, str) else ("",) * 3
        if mark and position.isdecimal() and position.isascii() and len(position) < 10:
            for segment in self._open_segments:
                for first in segment.lookup.first_rows(document_id):
                    row = first + int(position)
                    if row < segment.rows and not segment.is_deleted(row):
                        passage = segment.passages.fetch([row])[0]
                        if passage.id == passage_id:
                            return passage
        raise PassageNotFoundError(
            f"no passage {passage_id!r} in this store.",
            value=passage_id,
            remedy="A passage id is '<document id>#<number>', as search results give it.",
        )

    def count(self, where: Where = None) -> int:
        """Return how many passages a where expression allows."""
        expression = parse_where(where, self.schema)
        return _matching(self._allowed(expression))

    def facets(
        self, fields: Sequence[str], where: Where = None, limit: int = 10
    ) -> dict[str, list[tuple[Any, int]]]:
        """Return the most frequent values of each field among allowed passages, with their counts.

        A list field counts each of its elements; missing values are not counted. Values are JSON
        values (dates as ISO 8601 strings), most frequent first, equal counts ordered by value.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 10_000:
            raise SearchError(f"limit is {limit!r}, expected 1 to 10,000.", value=limit)
        if not isinstance(fields, Sequence) or isinstance(fields, str):
            raise SearchError(
                f"fields is of type {type(fields).__name__}, expected a list of field names.",
                value=repr(fields)[:80],
                remedy="Give ['year', 'subject'], say.",
            )
        for name in fields:
            self.schema[name]
        allowed = self._allowed(parse_where(where, self.schema))
        return {name: count_values(name, allowed, limit) for name in fields}

    def describe(self) -> dict[str, Any]:
        """Return what the store is, as JSON data: counts, schema, encoders, index, sizes in bytes."""
        manifest = self.manifest
        files: dict[str, int] = {}
        for segment in manifest.segments:
            for name, record in segment.files.items():
                files[name] = files.get(name, 0) + record.bytes
        return {
            "name": manifest.name,
            "format": manifest.format,
            "created": manifest.created,
            "software": manifest.software,
            "documents": manifest.documents,
            "passages": manifest.passages,
            "schema": manifest.schema.to_json(),
            "encoder": manifest.encoder.to_json(),
            "exact_encoder": manifest.exact_encoder.to_json(),
            "segments": [
                {
                    "name": record.name,
                    "passages": record.live_passages,
                    "deleted": record.passages - record.live_passages,
                    "exact_dtype": record.exact_dtype,
                    "index": asdict(record.index),
                    "calibration": [asdict(point) for point in record.calibration],
                }
                for record in manifest.segments
            ],
            "disk_bytes": files,
            "ram_bytes": {
                "index": sum(segment.index.ram_bytes for segment in self._open_segments),
                "filters": sum(segment.attributes.ram_bytes for segment in self._open_segments),
            },
        }

    def ledgers(self) -> list[dict[str, Any]]:
        """Return the account of every segment's build: what came in, what was left out, timings."""
        return [json.loads(segment.ledger) for segment in self._open_segments]

    @property
    def _open_segments(self) -> tuple[Segment, ...]:
        if self._segments is None:
            raise StoreError(f"the store at {self.path} is closed.", remedy="Open it again.")
        return self._segments

    def _query_vectors(self, query: Any, vectors: ArrayLike | None) -> Queries:
        """Return the queries as both encoders see them."""
        propose_spec, decide_spec = self.manifest.encoder, self.manifest.exact_encoder
        if (query is None) == (vectors is None):
            raise SearchError(
                "give either query or vectors." if query is None else "query and vectors are both given.",
                remedy="Pass query='…' for text, or vectors=… for ready-made vectors.",
            )
        if vectors is not None:
            if propose_spec != decide_spec:
                raise SearchError(
                    "this store has two encoders, so one vector is not enough.", remedy="Query it with text."
                )
            checked, single = check_vectors(vectors, propose_spec)
            return Queries(checked, checked, [False] * len(checked), single)
        texts, single = check_queries(query)
        if propose_spec.kind == "vectors":
            raise SearchError(
                "this store was built from ready-made vectors and names no encoder.",
                remedy="Query it with vectors, or build it with --encoder naming the one that made them.",
            )
        encoder = self._encoder(propose_spec)
        proposing, truncated = encoder.encode_queries(texts), find_truncated(encoder, texts)
        if propose_spec == decide_spec:
            return Queries(proposing, proposing, truncated, single)
        exact = self._encoder(decide_spec)
        either = [one or other for one, other in zip(truncated, find_truncated(exact, texts), strict=True)]
        return Queries(proposing, exact.encode_queries(texts), either, single)

    def _search_vectors(
        self,
        queries: Queries,
        effort: Effort,
        expression: Expression | None,
        timings: dict[str, float],
        clock: Clock,
    ) -> list[Hits]:
        plan_name, matching, merged = self._rank(queries, effort, expression, clock)
        passages = self._fetch([ranking.rows for ranking in merged])
        clock.lap("fetch")
        return [
            Hits(
                (
                    Hit(score=float(score), rank=rank, passage=passage)
                    for rank, (score, passage) in enumerate(zip(ranking.scores, texts, strict=True), start=1)
                ),
                SearchReport(plan_name, matching, ranking.scored, timings, truncated),
            )
            for ranking, texts, truncated in zip(merged, passages, queries.truncated, strict=True)
        ]

    def _rank(
        self, queries: Queries, effort: Effort, expression: Expression | None, clock: Clock
    ) -> tuple[str, int, list[Ranking]]:
        """Return the plan's name, the number of allowed rows, and the best global rows of every query."""
        allowed = self._allowed(expression)
        clock.lap("filter")
        plans, found = [], []
        for (segment, rows), offset in zip(allowed, self._offsets, strict=False):
            plan, rankings = search_segment(segment, rows, queries.proposing, queries.deciding, effort, clock)
            plans.append(plan)
            found.append([(ranking, offset) for ranking in rankings])
        if not found:
            merged = [EMPTY] * len(queries.proposing)
        elif len(found) == 1:
            merged = [ranking for ranking, _ in found[0]]
        else:
            merged = [merge(per_segment, effort.k) for per_segment in zip(*found, strict=True)]
        return "+".join(sorted(set(plans))) or "none", _matching(allowed), merged

    def _allowed(self, expression: Expression | None) -> list[tuple[Segment, Bitmap | None]]:
        """Return the rows of every segment that an expression allows and nobody deleted, None for all."""
        return [
            (
                segment,
                segment.allowed(None if expression is None else segment.attributes.filter.rows(expression)),
            )
            for segment in self._open_segments
        ]

    def _fetch(self, rows_of_queries: Sequence[NDArray[np.int64]]) -> list[list[Passage]]:
        """Return the passages of global rows, reading each row once for the whole batch."""
        wanted = np.unique(np.concatenate(rows_of_queries)) if rows_of_queries else np.empty(0, np.int64)
        passages: dict[int, Passage] = {}
        for segment, offset in zip(self._open_segments, self._offsets, strict=False):
            rows = wanted[(wanted >= offset) & (wanted < offset + segment.rows)]
            for row, passage in zip(rows, segment.passages.fetch(rows - offset), strict=True):
                passages[int(row)] = passage
        return [[passages[int(row)] for row in rows] for rows in rows_of_queries]

    def _encoder(self, spec: EncoderSpec) -> Encoder:
        encoder = self._encoders.get(spec.fingerprint)
        if encoder is None:
            with self._loading:
                encoder = self._encoders.get(spec.fingerprint)
                if encoder is None:
                    encoder = load_spec(spec, store_root=self.path)
                    self._encoders[spec.fingerprint] = encoder
        return encoder


def _matching(allowed: Sequence[tuple[Segment, Bitmap | None]]) -> int:
    return sum(segment.rows if rows is None else rows.count for segment, rows in allowed)


def _check_encoder(spec: EncoderSpec, manifest: Manifest) -> None:
    known = (manifest.encoder.fingerprint, manifest.exact_encoder.fingerprint)
    if spec.fingerprint not in known and manifest.encoder.kind != "vectors":
        raise EncoderMismatchError(
            f"the store was built with {manifest.encoder.model!r} (fingerprint "
            f"{manifest.encoder.fingerprint[:12]}), not with {spec.model!r} ({spec.fingerprint[:12]}).",
            value=spec.fingerprint,
            remedy="Open it without an encoder, so that the right one is loaded, or build it again.",
        )
