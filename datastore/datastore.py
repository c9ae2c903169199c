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

from compactds.datastore.encoders import Encoder, load_spec
from compactds.datastore.encoders.base import EncoderSpec
from compactds.datastore.errors import (
    DamagedStoreError,
    EncoderMismatchError,
    PassageNotFoundError,
    SearchError,
    StoreError,
)
from compactds.datastore.exclusion import Exclude, Found, Judge, make_judges, search_clean
from compactds.datastore.facets import count_values
from compactds.datastore.filter_memory import describe_filters
from compactds.datastore.manifest import Manifest, read_manifest
from compactds.datastore.prepared import PreparedSearch, PreparedSearches, prepare
from compactds.datastore.queries import (
    Effort,
    Queries,
    check_effort,
    check_mode,
    check_queries,
    check_vectors,
    check_where_list,
    find_truncated,
)
from compactds.datastore.ranking import Answer, allowed_rows, count_rows, fill, rank
from compactds.datastore.records import Hit, Hits, Neighbours, Passage, SearchReport
from compactds.datastore.segment import Segment, open_segments
from compactds.datastore.timing import Clock
from compactds.filters import Expression, ParsedWheres, Schema, Where, WhereError

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
        self._wheres = ParsedWheres(manifest.schema)
        self._segments: tuple[Segment, ...] | None = tuple(segments)
        self._offsets = np.cumsum([0, *(segment.rows for segment in segments)]).tolist()
        self._encoders: dict[str, Encoder] = {}
        self._one_encoder = manifest.encoder == manifest.exact_encoder
        self._loading = threading.Lock()
        self._short_ways = PreparedSearches()
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
        self._short_ways = PreparedSearches()
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
        where: Where | Sequence[Where] = None,
        candidates: int | None = None,
        recall: float | None = None,
        mode: str = "dense",
        exclude_overlap_with: Exclude = None,
    ) -> Hits: ...
    @overload
    def search(
        self,
        query: Sequence[str],
        *,
        k: int = 10,
        where: Where | Sequence[Where] = None,
        candidates: int | None = None,
        recall: float | None = None,
        mode: str = "dense",
        exclude_overlap_with: Exclude = None,
    ) -> list[Hits]: ...
    @overload
    def search(
        self,
        query: None = None,
        *,
        vectors: ArrayLike,
        k: int = 10,
        where: Where | Sequence[Where] = None,
        candidates: int | None = None,
        recall: float | None = None,
        mode: str = "dense",
        exclude_overlap_with: Exclude = None,
    ) -> Hits | list[Hits]: ...
    def search(
        self,
        query: str | Sequence[str] | None = None,
        *,
        vectors: ArrayLike | None = None,
        k: int = 10,
        where: Where | Sequence[Where] = None,
        candidates: int | None = None,
        recall: float | None = None,
        mode: str = "dense",
        exclude_overlap_with: Exclude = None,
    ) -> Hits | list[Hits]:
        """Return the `k` best passages for a query, or for each of several.

        Give `query` (text, or a list of texts) or `vectors` (shape (d,) or (n, d), from the store's
        encoder). `where` limits which passages may be returned, and min(k, matching) always are; a list
        of expressions gives each query of a batch its own, and has one or None for each.
        `candidates` is how many rows are scored exactly; `recall`, above 0 up to 1, asks for an expected
        recall@k instead, and 1.0 searches exhaustively. `mode` is "dense", the only one there is.
        `exclude_overlap_with` holds the texts of evaluation questions: no passage returned shares 13 words in
        a row with one, or a whole shorter one, and others take their places, as long as k clean ones are
        among the best 10,000. True stands for each query's own text.

        Raises SearchError, VectorError, WhereError, OverlapError, EncoderError or DamagedStoreError.
        """
        check_mode(mode)
        effort = check_effort(k, candidates, recall)
        expressions = self._expressions(where)
        timings: dict[str, float] = {}
        clock = Clock(timings)
        judges = make_judges(exclude_overlap_with, query)
        queries = self._query_vectors(query, vectors)
        check_where_list(where, len(queries.proposing), single=queries.single)
        clock.lap("encode")
        found = self._find(queries, effort, expressions, judges, clock)
        results = [
            Hits(
                (
                    Hit(score=float(score), rank=place, passage=passage)
                    for place, (score, passage) in enumerate(
                        zip(answer.ranking.scores, passages, strict=True), start=1
                    )
                ),
                SearchReport(
                    plan=answer.plan,
                    matching=answer.matching,
                    candidates=answer.ranking.scored,
                    timings_ms=timings,
                    truncated=truncated,
                    predicted_ms=answer.predicted_ms,
                    excluded=excluded,
                ),
            )
            for (answer, passages, excluded), truncated in zip(found, queries.truncated, strict=True)
        ]
        return results[0] if queries.single else results

    def nearest(
        self,
        vectors: ArrayLike,
        *,
        k: int = 10,
        where: Where | Sequence[Where] = None,
        candidates: int | None = None,
        recall: float | None = None,
        effort: int | None = None,
        plan: str | None = None,
    ) -> Neighbours:
        """Return the row numbers and scores of the `k` best passages for each vector, and nothing else.

        What `search` does without reading any text, for programs that keep their own. `vectors` have shape
        (d,) or (n, d); the results have shape (n, k), places without a row hold -1 and a score of -inf.
        Rows are numbered in the order of the store. `effort` sets the index's own measure of work (lists
        probed, or beam width) in place of the recall asked for; `plan` takes a plan that the planner would
        not choose, to compare them ("exact", "lists", "codes" or "open").

        Raises SearchError, VectorError or WhereError.
        """
        if plan is None and (prepared := self._prepared(k, candidates, recall, effort)):
            found = prepared.nearest(vectors) if where is None else self._allowed(prepared, vectors, where)
            if found is not None:
                return found
        asked = check_effort(k, candidates, recall, effort, plan)
        expressions = self._expressions(where)
        queries = self._query_vectors(None, vectors)
        check_where_list(where, len(queries.proposing), single=queries.single)
        answers = self._rank(queries, asked, expressions, Clock({}))
        if len(answers) == 1 and len(answers[0].ranking.rows) == asked.k:
            ranking = answers[0].ranking
            return Neighbours(ranking.rows[np.newaxis], ranking.scores[np.newaxis], answers[0].plan)
        plan_name = "+".join(sorted({answer.plan for answer in answers})) or "none"
        return Neighbours(*fill(answers, asked.k), plan_name)

    def get(self, passage_id: str) -> Passage:
        """Return one passage by its id; raise PassageNotFoundError if the store does not hold it."""
        document_id, mark, position = passage_id.rpartition("#") if isinstance(passage_id, str) else ("",) * 3
        if mark and position.isdecimal() and position.isascii() and len(position) < 10:
            for segment in self._open_segments:
                for first in segment.lookup.first_rows(document_id):
                    last = min(first + int(position), segment.rows - 1)
                    row, passage = segment.passages.find(document_id, int(position), first, last)
                    if passage.id == passage_id and not segment.is_deleted(row):
                        return passage
        raise PassageNotFoundError(
            f"no passage {passage_id!r} in this store.",
            value=passage_id,
            remedy="A passage id is '<document id>#<number>', as search results give it.",
        )

    def count(self, where: Where = None) -> int:
        """Return how many passages a where expression allows."""
        expression = self._wheres.parse(where)
        return count_rows(allowed_rows(self._open_segments, expression))

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
        allowed = allowed_rows(self._open_segments, self._wheres.parse(where))
        return {name: count_values(name, allowed, limit) for name in fields}

    def describe(self, *, measure: bool = False) -> dict[str, Any]:
        """Return what the store is, as JSON data: counts, schema, encoders, index, sizes in bytes.

        `filters` says what each field takes in memory once a condition names it: exactly for those held, and
        for all others at most, or exactly with `measure`, which builds their columns and lets them go.
        """
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
                "filters": sum(segment.filters_ram_bytes for segment in self._open_segments),
            },
            "filters": describe_filters(
                self.schema,
                ((segment.record, segment.attributes) for segment in self._open_segments),
                measure=measure,
            ),
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
            if not self._one_encoder:
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
        if self._one_encoder:
            return Queries(proposing, proposing, truncated, single)
        exact = self._encoder(decide_spec)
        either = [one or other for one, other in zip(truncated, find_truncated(exact, texts), strict=True)]
        return Queries(proposing, exact.encode_queries(texts), either, single)

    def _prepared(self, k: Any, candidates: Any, recall: Any, effort: Any) -> PreparedSearch | None:
        """Return what answers single vectors with these arguments in short, if anything does."""
        known, prepared = self._short_ways.get(k, candidates, recall, effort)
        segments = self._open_segments
        if not known and len(segments) == 1 and self._one_encoder:
            prepared = prepare(
                segments[0], check_effort(k, candidates, recall, effort), self.manifest.encoder
            )
            self._short_ways.keep(prepared, k, candidates, recall, effort)
        return prepared

    def _allowed(
        self, prepared: PreparedSearch, vectors: ArrayLike, where: Where | Sequence[Where]
    ) -> Neighbours | None:
        """Return the best rows that one where expression allows for one vector, in short if that can be."""
        if isinstance(where, list | tuple) or not prepared.takes(vectors):
            return None  # before the filter is found, which the longer way does
        expression = self._wheres.parse(where)  # type: ignore[arg-type]  # a sequence is one of those
        if expression is None:
            return prepared.nearest(vectors)
        allowed = prepared.segment.attributes.filter.rows(expression)
        return prepared.nearest_allowed(vectors, allowed) if allowed.count else None

    def _expressions(self, where: Where | Sequence[Where]) -> list[Expression | None]:
        """Return the expression of all queries, or one for each if a list of them is given."""
        if isinstance(where, list | tuple):
            return [self._expression(each, place) for place, each in enumerate(where)]
        one: Where = where  # type: ignore[assignment]  # a sequence is a list or a tuple, or else an error
        return [None if one is None else self._wheres.parse(one)]

    def _expression(self, where: Where, place: int) -> Expression | None:
        """Return the expression at a place in a list; an error knows the place."""
        try:
            return self._wheres.parse(where)
        except WhereError as error:
            error.place = place
            raise

    def _rank(
        self, queries: Queries, effort: Effort, expressions: Sequence[Expression | None], clock: Clock
    ) -> list[Answer]:
        if not len(queries.proposing):
            return []
        return rank(self._open_segments, self._offsets, queries, effort, expressions, clock)

    def _find(
        self,
        queries: Queries,
        effort: Effort,
        expressions: Sequence[Expression | None],
        judges: Sequence[Judge],
        clock: Clock,
    ) -> list[Found]:
        """Return what every query finds, without what its judge finds to overlap if there are judges."""
        count = len(queries.proposing)

        def rank_at(places: Sequence[int], asked: Effort) -> list[Answer]:
            theirs = [expressions[place] for place in places] if len(expressions) > 1 else expressions
            return self._rank(queries.at(places), asked, theirs, clock)

        def fetch(rows: Sequence[NDArray[np.int64]]) -> list[list[Passage]]:
            clock.lap("overlap")  # what was fetched before has been compared meanwhile
            passages = self._fetch(rows)
            clock.lap("fetch")
            return passages

        if judges:
            found = search_clean(judges, count, effort, rank_at, fetch)
            clock.lap("overlap")
            return found
        answers = self._rank(queries, effort, expressions, clock)
        passages = self._fetch([answer.ranking.rows for answer in answers])
        clock.lap("fetch")
        return [Found(*both) for both in zip(answers, passages, strict=True)]

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


def _check_encoder(spec: EncoderSpec, manifest: Manifest) -> None:
    known = (manifest.encoder.fingerprint, manifest.exact_encoder.fingerprint)
    if spec.fingerprint not in known and manifest.encoder.kind != "vectors":
        raise EncoderMismatchError(
            f"the store was built with {manifest.encoder.model!r} (fingerprint "
            f"{manifest.encoder.fingerprint[:12]}), not with {spec.model!r} ({spec.fingerprint[:12]}).",
            value=spec.fingerprint,
            remedy="Open it without an encoder, so that the right one is loaded, or build it again.",
        )
