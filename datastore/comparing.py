"""Say what two stores hold differently, in bounded memory: documents are joined on disk, by their ids."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from xxhash import xxh3_128

from compactds.datastore.deletions import read_deleted
from compactds.datastore.documents import QUERY_MEMORY
from compactds.datastore.manifest import Manifest, SegmentRecord, read_manifest
from compactds.datastore.passages import PassageReader
from compactds.datastore.segment import PASSAGES_FILE, SEGMENTS_FOLDER

_ROWS_AT_ONCE = 4_096
_LISTED_AT_ONCE = 4_096
_FACTS = ("title", "source", "attributes")
_LISTING = pa.schema(
    [
        pa.field("document_id", pa.string()),
        pa.field("text", pa.string()),
        pa.field("passages", pa.string()),
        pa.field("facts", pa.string()),
    ]
)
_JOIN = """
    CREATE TEMP TABLE different AS
    SELECT one.document_id AS one, other.document_id AS other, one.text <> other.text AS text,
        one.text = other.text AND one.passages <> other.passages AS passages,
        CASE WHEN one.facts <> other.facts THEN one.facts END AS before,
        CASE WHEN one.facts <> other.facts THEN other.facts END AS after
    FROM read_parquet($one) AS one
    FULL JOIN read_parquet($other) AS other ON one.document_id = other.document_id
    WHERE one.document_id IS NULL OR other.document_id IS NULL OR one.text <> other.text
        OR one.passages <> other.passages OR one.facts <> other.facts
"""
_KINDS = {
    "only_in_first": ("one", "other IS NULL"),
    "only_in_second": ("other", "one IS NULL"),
    "changed_text": ("one", "text"),
    "changed_passages": ("one", "passages"),
    "changed_attributes": ("one", "before IS NOT NULL"),
}


@dataclass(frozen=True, slots=True)
class Documents:
    """Hold how many documents differ in one way, and the first few of their ids in order."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoreDiff:
    """Say what two stores hold differently.

    `same` counts documents that are equal in both. `changed_text` are those whose text differs in more than
    white space, `changed_passages` those of the same text that is split otherwise, and
    `changed_attributes` those of another title, source or attribute; `fields` counts which. `settings`
    holds pairs of values that differ between the stores' encoders, schemas, recipes and indexes, by name;
    None is what one store lacks.
    """

    documents: tuple[int, int]
    same: int
    only_in_first: Documents
    only_in_second: Documents
    changed_text: Documents
    changed_passages: Documents
    changed_attributes: Documents
    fields: Mapping[str, int]
    settings: Mapping[str, tuple[Any, Any]]

    @property
    def equal(self) -> bool:
        """Tell whether both stores hold the same documents, made in the same way."""
        return self.same == self.documents[0] == self.documents[1] and not self.settings

    def to_json(self) -> dict[str, Any]:
        """Return the difference as JSON data."""
        return {"equal": self.equal, **asdict(self)}


def diff(first: str | Path, second: str | Path, *, examples: int = 5) -> StoreDiff:
    """Compare two stores, document by document, without loading their indexes or encoders.

    All passages of both are read once, except segments that both have. Raises StoreNotFoundError,
    StoreFormatError or DamagedStoreError.
    """
    roots = Path(first), Path(second)
    manifests = read_manifest(roots[0]), read_manifest(roots[1])
    shared = _identities(manifests[0]).keys() & _identities(manifests[1]).keys()
    same = sum(_identities(manifests[0])[identity].live_documents for identity in shared)
    with tempfile.TemporaryDirectory(prefix="compactds-diff-") as folder:
        listings = [Path(folder) / "one.parquet", Path(folder) / "other.parquet"]
        listed = [
            _write_listing(
                path,
                root,
                [record for identity, record in _identities(manifest).items() if identity not in shared],
            )
            for path, root, manifest in zip(listings, roots, manifests, strict=True)
        ]
        settings = {"memory_limit": QUERY_MEMORY, "threads": 1, "temp_directory": folder}
        with duckdb.connect(config=settings) as connection:
            connection.execute(_JOIN, {"one": str(listings[0]), "other": str(listings[1])})
            found = {kind: _documents(connection, kind, examples) for kind in _KINDS}
            ((differing,),) = connection.execute("SELECT count(one) FROM different").fetchall()
            fields = _changed_fields(connection)
    return StoreDiff(
        documents=(manifests[0].documents, manifests[1].documents),
        same=same + listed[0] - differing,
        fields=fields,
        settings=_changed_settings(*manifests),
        **found,
    )


def _identities(manifest: Manifest) -> dict[tuple[str, str], SegmentRecord]:
    """Return the segments by what they hold: the digest of their files, and that of their deleted rows."""
    return {
        (record.name.split("-")[1], record.deletions.record.sha256 if record.deletions else ""): record
        for record in manifest.segments
    }


def _write_listing(path: Path, root: Path, records: list[SegmentRecord]) -> int:
    """Write a row for each live document of these segments; return how many there are."""
    count = 0
    with pq.ParquetWriter(path, _LISTING, compression="zstd") as writer:
        rows: list[dict[str, str]] = []
        for record in records:
            for row in _listed(root, record):
                rows.append(row)
                count += 1
                if len(rows) == _LISTED_AT_ONCE:
                    writer.write_table(pa.Table.from_pylist(rows, _LISTING))
                    rows = []
        writer.write_table(pa.Table.from_pylist(rows, _LISTING))
    return count


def _listed(root: Path, record: SegmentRecord) -> Iterator[dict[str, str]]:
    """Yield what is compared of each live document: digests of its text and passages, and all else."""
    for document_id, passages in groupby(_live_passages(root, record), key=lambda row: row["document_id"]):
        text, spans, facts = xxh3_128(), xxh3_128(), ""
        for passage in passages:
            facts = (
                facts or orjson.dumps([passage[name] for name in ("title", "source", "attributes")]).decode()
            )
            text.update("".join(passage["text"].split()).encode())  # whatever the passages it is cut into
            spans.update(f"{passage['start']}:{passage['end']} ".encode())
        yield {
            "document_id": document_id,
            "text": text.hexdigest(),
            "passages": spans.hexdigest(),
            "facts": facts,
        }


def _live_passages(root: Path, record: SegmentRecord) -> Iterator[dict[str, Any]]:
    live = (~read_deleted(root, record.deletions, record.passages)).mask()
    with closing(PassageReader(root / SEGMENTS_FOLDER / record.name / PASSAGES_FILE)) as reader:
        for start in range(0, record.passages, _ROWS_AT_ONCE):
            rows = start + np.flatnonzero(live[start : start + _ROWS_AT_ONCE])
            yield from reader.table(rows).to_pylist()


def _documents(connection: Any, kind: str, examples: int) -> Documents:
    name, condition = _KINDS[kind]
    different = connection.table("different").filter(condition)
    ((count,),) = different.count("*").fetchall()
    first = different.project(name).order(name).limit(examples).fetchall()
    return Documents(count, tuple(row[0] for row in first))


def _changed_fields(connection: Any) -> dict[str, int]:
    """Return how many documents differ in each of title, source and attributes."""
    counts: Counter[str] = Counter()
    result = connection.execute("SELECT before, after FROM different WHERE before IS NOT NULL")
    while pairs := result.fetchmany(_LISTED_AT_ONCE):
        for before, after in pairs:
            counts.update(list(_differing(_facts(before), _facts(after))))
    return dict(sorted(counts.items()))


def _facts(listed: str) -> dict[str, Any]:
    title, source, attributes = orjson.loads(listed)
    return {**orjson.loads(attributes), "title": title, "source": source}


def _changed_settings(one: Manifest, other: Manifest) -> dict[str, tuple[Any, Any]]:
    return _differing(_settings(one), _settings(other))


def _settings(manifest: Manifest) -> dict[str, Any]:
    """Return what a store is made with, flat: by dotted names."""
    tables = {
        "encoder": manifest.encoder.to_json(),
        "exact_encoder": manifest.exact_encoder.to_json(),
        "schema": manifest.schema.to_json(),
    }
    resolved = {
        name: value
        for name, value in manifest.recipe.get("resolved", {}).items()
        if name not in ("name", "sources", "vectors", "encoder", "exact_encoder")
    }
    return {
        **{f"{table}.{name}": value for table, values in tables.items() for name, value in values.items()},
        **{f"recipe.{name}": value for name, value in resolved.items()},
        "vectors": sorted({record.exact_dtype for record in manifest.segments}),
        "indexes": [
            {"kind": record.index.kind, "passages": record.passages, **record.index.parameters}
            for record in manifest.segments
        ],
    }


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the pairs of values that differ, by name; None where there is none."""
    pairs = {name: (one.get(name), other.get(name)) for name in sorted({*one, *other})}
    return {
        name: (before, after)
        for name, (before, after) in pairs.items()
        if before != after or type(before) is not type(after)  # 1, 1.0 and true are not the same value
    }
