"""Delete documents from a store: their rows are listed as deleted, and the manifest is replaced."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.deletions import read_deleted, write_deletions
from compactds.datastore.documents import IdList, open_documents, write_ids
from compactds.datastore.manifest import Manifest, read_manifest
from compactds.datastore.publishing import publish
from compactds.filters import Expression, Where, parse_where
from compactds.indexer.damage import check_undamaged
from compactds.indexer.disk import change_folder, disk_errors, remove_leftovers
from compactds.indexer.errors import BuildError, UnknownDocumentError
from compactds.indexer.workspace import locked

_IDS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """Say what was deleted, and what the store holds now.

    `missing` are ids, of those given, that the store does not hold. `left` counts the passages of the store
    afterwards, `deleted_share` how many of all rows on disk are deleted ones: `compact` drops them.
    """

    path: Path
    documents: int
    passages: int
    missing: tuple[str, ...]
    left: int
    deleted_share: float


def delete(
    store: Path,
    *,
    ids: Iterable[str] | None = None,
    where: Where = None,
    ignore_missing: bool = False,
    dry_run: bool = False,
) -> DeleteResult:
    """Delete documents from a store, by their ids or by a where expression.

    All of them are gone in one step, from every reader that opens the store afterwards; readers that have
    it open keep what they see. The rows stay on disk until the store is compacted. With `dry_run`,
    nothing is changed. Raises UnknownDocumentError for ids that the store does not hold, unless
    `ignore_missing`; WhereError; StoreNotFoundError, StoreBusyError, DamagedStoreError or BuildError.
    """
    if (ids is None) == (where is None):
        raise BuildError(
            "give either ids or a where expression.",
            remedy="Name documents with ids=[…], or describe them with where='…'.",
        )
    read_manifest(store)  # where there is no store, nothing is made
    with locked(store), disk_errors(store), change_folder(store) as work:
        manifest = read_manifest(store)
        check_undamaged(store, manifest)
        missing: tuple[str, ...] = ()
        if ids is None:
            found = _matching(store, manifest, _condition(where, manifest))
        else:
            listed = write_ids(work / "ids.parquet", [_checked(ids)])
            found, known = held_rows(store, manifest, listed)
            missing = tuple(dict.fromkeys(listed.at(np.flatnonzero(~known).tolist())))
            if missing and not ignore_missing:
                raise _unknown(missing)
        if found and not dry_run:
            publish(store, None, with_deleted(store, manifest, found), replaces=manifest)
            remove_leftovers(store)
    return _result(store, manifest, found, missing)


@dataclass(frozen=True, slots=True)
class Found:
    """Hold live rows of a segment, and the number of documents they are of."""

    rows: Bitmap
    documents: int


def held_rows(root: Path, manifest: Manifest, ids: IdList) -> tuple[dict[str, Found], NDArray[np.bool_]]:
    """Return the rows of the documents with these ids, by segment, and which of the ids were found."""
    found = {}
    known = np.zeros(len(ids), np.bool_)
    for record in manifest.segments:
        with open_documents(root, manifest, record) as documents:
            held = documents.held(ids)
            known |= held.places
            if held.rows.count:
                found[record.name] = Found(held.rows, documents.documents(held.rows))
    return found, known


def with_deleted(root: Path, manifest: Manifest, found: Mapping[str, Found]) -> Manifest:
    """Write down that these rows are deleted, too; return the manifest that says so."""
    segments = []
    for record in manifest.segments:
        more = found.get(record.name)
        if more is not None:
            rows = read_deleted(root, record.deletions, record.passages) | more.rows
            documents = more.documents + record.documents - record.live_documents
            record = replace(record, deletions=write_deletions(root, record.name, rows, documents))
        segments.append(record)
    return replace(manifest, segments=tuple(segments))


def _condition(where: Where, manifest: Manifest) -> Expression:
    expression = parse_where(where, manifest.schema)
    if expression is None:
        raise BuildError(
            "the where expression is empty, which allows every document; nothing was deleted.",
            value=where,
            remedy="To delete all of them, say so: document_id IS NOT NULL.",
        )
    return expression


def _matching(root: Path, manifest: Manifest, expression: Expression) -> dict[str, Found]:
    found = {}
    for record in manifest.segments:
        with open_documents(root, manifest, record) as documents:
            rows = documents.matching(expression)
            if rows.count:
                found[record.name] = Found(rows, documents.documents(rows))
    return found


def _checked(ids: Iterable[str]) -> list[str]:
    """Return the ids as a list; raise BuildError for what cannot be one."""
    listed = [ids] if isinstance(ids, str) else list(ids)
    for name in listed:
        try:
            name.encode()
        except (AttributeError, UnicodeEncodeError):
            raise BuildError(
                f"{name!r} is not the id of a document.", value=repr(name), remedy="Give ids as text."
            ) from None
    return listed


def _unknown(missing: Sequence[str]) -> UnknownDocumentError:
    shown = ", ".join(repr(name) for name in missing[:_IDS_SHOWN])
    more = f" and {len(missing) - _IDS_SHOWN:,} more" if len(missing) > _IDS_SHOWN else ""
    return UnknownDocumentError(
        f"the store holds no document {shown}{more}; nothing was deleted.",
        value=list(missing[:_IDS_SHOWN]),
        remedy="Ids are those of documents, without the '#' and number of a passage. To delete the others, "
        "ignore missing ones (--ignore-missing).",
    )


def _result(
    store: Path, manifest: Manifest, found: Mapping[str, Found], missing: tuple[str, ...]
) -> DeleteResult:
    passages = sum(part.rows.count for part in found.values())
    rows = sum(record.passages for record in manifest.segments)
    left = manifest.passages - passages
    return DeleteResult(
        path=store,
        documents=sum(part.documents for part in found.values()),
        passages=passages,
        missing=missing,
        left=left,
        deleted_share=1 - left / rows if rows else 0.0,
    )
