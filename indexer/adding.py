"""Add documents to a store: they become one more segment, visible when the manifest is replaced."""

import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from compactds.configs.recipe import Recipe
from compactds.datastore.ann.choose import BudgetError, IndexPlan, choose_index
from compactds.datastore.attributes import BUILT_IN_FIELDS, full_schema
from compactds.datastore.documents import write_ids
from compactds.datastore.encoders import Encoder, EncoderOptions, EncoderSpec, load_encoder, load_spec
from compactds.datastore.errors import EncoderMismatchError
from compactds.datastore.manifest import MANIFEST_NAME, Manifest, SegmentRecord, read_manifest
from compactds.datastore.publishing import publish
from compactds.filters.schema import FieldType, Schema
from compactds.indexer.adding_recipe import recipe_for_adding
from compactds.indexer.assembling import Assembly
from compactds.indexer.attribute_types import Kind, resolve
from compactds.indexer.attributes import MAX_FIELDS, with_article
from compactds.indexer.build_result import Outcome
from compactds.indexer.build_run import BuildRun
from compactds.indexer.damage import check_undamaged
from compactds.indexer.deleting import held_rows, with_deleted
from compactds.indexer.dropped import DROPS_SCHEMA
from compactds.indexer.embedding_cache import CacheOptions
from compactds.indexer.errors import AttributeTypeError, BuildError, HeldIdError
from compactds.indexer.execution import Executor, LocalExecutor
from compactds.indexer.filtering import kept_shard
from compactds.indexer.given_vectors import GivenVectors
from compactds.indexer.growth import ADDITIONS
from compactds.indexer.ledger import DUPLICATES
from compactds.indexer.pipeline import Documents, held_list
from compactds.indexer.progress import LoggedProgress, Progress
from compactds.indexer.recipe_files import portable
from compactds.indexer.repredicting import with_memory_of
from compactds.indexer.workspace import WORK_FOLDER, Workspace, build_key, locked, read_table, settled

HELD_ALREADY = "held_already"
"""The reason of a document that is left out because the store holds it."""

_IDS_SHOWN = 3
_WITNESSES = {
    FieldType.BOOL: Kind.BOOL,
    FieldType.INT64: Kind.INTEGER,
    FieldType.FLOAT64: Kind.NUMBER,
    FieldType.STRING: Kind.STRING,
    FieldType.DATE: Kind.DATE,
    FieldType.TIMESTAMP: Kind.TIMESTAMP,
    FieldType.STRING_LIST: Kind.STRINGS,
    FieldType.INT64_LIST: Kind.INTEGERS,
}


@dataclass(frozen=True, slots=True)
class AddResult:
    """Say what was added, and what the store holds now.

    `documents` and `passages` were added, `replaced` documents went for them; `total_documents` and
    `total_passages` are in the store now. The other counts are those of a build; documents that the store
    held already are among the duplicates.
    """

    path: Path
    documents: int
    passages: int
    replaced: int
    total_documents: int
    total_passages: int
    segments: int
    index: str
    seconds: float
    resumed: bool
    unchanged: bool
    rejected: int
    duplicates: int
    removed: int
    contaminated: int
    truncated: int
    duplicate_passages: int = 0


def add(
    store: Path,
    sources: Sequence[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    replace: bool = False,
    progress: Progress | None = None,
    encoder: Encoder | None = None,
    executor: Executor | None = None,
    cache: CacheOptions | None = None,
) -> AddResult:
    """Add the documents of sources, or of the one recipe.toml named, to a store, made as its own are.

    They are all there in one step; interrupted, the same call goes on where it was. An id that the store
    holds already is refused, unless `replace`, which deletes the old document in the same step. A
    document whose id was made of its text, and that the store holds, is left out as a duplicate.
    `overrides`, `encoder`, `executor` and `cache` are those of `recipe_for` and `build`.

    Raises what `build` raises; StoreNotFoundError, DamagedStoreError; HeldIdError; AttributeTypeError for
    an attribute of another type than the store's; EncoderMismatchError, and BuildError for a recipe that
    does not fit.
    """
    started = time.perf_counter()
    recipe_for_adding(read_manifest(store), sources, overrides)  # what cannot be is refused before a lock
    with locked(store):
        manifest = read_manifest(store)
        check_undamaged(store, manifest)
        recipe = recipe_for_adding(manifest, sources, overrides)
        run = _Addition(
            recipe, store, manifest, replace, progress or LoggedProgress(), encoder, executor, cache
        )
        outcome = run.run()
        if outcome.unchanged:
            Workspace(store / WORK_FOLDER).clear()
    return _result(store, outcome, time.perf_counter() - started)


class _Addition(BuildRun):
    """One run of an addition: a build whose segment joins those of a store."""

    def __init__(
        self,
        recipe: Recipe,
        store: Path,
        manifest: Manifest,
        replaces_held: bool,
        progress: Progress,
        encoder: Encoder | None,
        executor: Executor | None,
        cache: CacheOptions | None,
    ) -> None:
        executor = executor or LocalExecutor()
        super().__init__(recipe, store, progress, encoder, executor, cache, undoes_growth=True)  # it joins it
        self._store = manifest
        self._known_attributes = frozenset(manifest.schema)
        self._replaces_held = replaces_held
        self._base = hashlib.sha256((store / MANIFEST_NAME).read_bytes()).hexdigest()

    def _keys(self) -> tuple[str, str]:
        return self._keys_over(self._base)

    def _keys_over(self, base: str) -> tuple[str, str]:
        """Return the keys of adding this to the store whose manifest has the digest `base`."""
        facts = {"added to": base, "replace": self._replaces_held}
        whole, documents = super()._keys()
        return build_key({**facts, "build": whole}), build_key({**facts, "build": documents})

    def _is_current(self, existing: Manifest, key: str) -> bool:  # noqa: ARG002 - of another manifest
        """Tell whether this very addition was stopped after it was published."""
        saved = (Workspace(self._out / WORK_FOLDER).read_state("key") or {}).get("key")
        return any(
            saved == addition["key"] == self._keys_over(addition["base"])[0]
            for addition in existing.recipe.get(ADDITIONS, ())[-1:]
        )

    def _schema(self, workspace: Workspace, documents: Documents) -> Schema:
        found = documents.schema().fields
        own = {name: kind for name, kind in self._store.schema.fields.items() if name not in BUILT_IN_FIELDS}
        self._check_types(documents, own)
        fields = dict(sorted({**found, **own}.items()))
        if len(fields) > MAX_FIELDS:
            raise AttributeTypeError(
                f"with {len(fields) - len(own)} new attributes the store would have {len(fields)}; "
                f"it can have {MAX_FIELDS}.",
                value=len(fields),
                remedy="Name the attributes to keep in the source's `attributes`.",
            )
        if not self._replaces_held:
            self._leave_out_held(workspace, documents)
        return Schema(fields)

    def _check_types(self, documents: Documents, own: Mapping[str, FieldType]) -> None:
        """Raise AttributeTypeError for an attribute that has not the type it has in the store."""
        for name, kinds in documents.inference.to_json().items():
            expected, given = own.get(name), self._recipe.attributes.get(name)
            if expected is None:
                continue
            if given is not None and FieldType(given) is not expected:
                raise _other_type(name, expected, f"to be {given}")
            for kind, (origin, example) in kinds.items():
                if given is None and resolve([_WITNESSES[expected], Kind(kind)]) is not expected:
                    raise _other_type(name, expected, f"{with_article(Kind(kind))}, {example}, at {origin}")

    def _leave_out_held(self, workspace: Workspace, documents: Documents) -> None:
        """List the documents that the store holds; raise HeldIdError for those that came with their ids."""
        path = held_list(workspace)
        if path.exists():
            return
        shards = [
            kept_shard(workspace, number) for number, (_, count, _) in enumerate(documents.kept) if count
        ]
        ids = write_ids(
            workspace.root / "ids.parquet",
            (read_table(shard, ["document_id"]).column(0).to_pylist() for shard in shards),
        )
        _, known = held_rows(self._out, self._store, ids)
        start = refused = 0
        shown: list[str] = []
        with settled(path) as beside, pq.ParquetWriter(beside, DROPS_SCHEMA) as writer:
            for shard in shards:
                table = read_table(shard, ["ordinal", "document_id", "id_from_content"])
                held = table.filter(pa.array(known[start : start + len(table)]))
                start += len(table)
                own = held.filter(pc.invert(held.column("id_from_content"))).column("document_id").to_pylist()
                refused += len(own)
                shown += own[: _IDS_SHOWN - len(shown)]
                writer.write_table(_drops(held))
            if refused:
                raise _held(shown, refused)

    def _plan(self, passages: int, spec: EncoderSpec) -> IndexPlan:
        """Choose an index for the new segment, in the memory that the store's other segments leave."""
        taken = sum(record.index.ram_bytes for record in self._store.segments)
        index = self._recipe.index
        left = max(0, index.memory_bytes - taken)
        kind = "auto" if index.kind == "ivf" else index.kind  # few rows are better scored than clustered
        try:
            return choose_index(passages, spec.dimension, memory_bytes=left, kind=kind)
        except BudgetError as error:
            raise BudgetError(
                f"{error.message} The store's other segments take {taken:,} bytes.",
                value=error.value,
                remedy="Give the store more with --memory, or compact it first.",
            ) from error

    def _check_encoders(self) -> None:
        """Leave this to loading: the store says which encoders it has, and may carry them."""

    def _tell_of_replacing(self, existing: Manifest) -> None:
        """Say nothing: the store stays."""

    def _load_encoders(self, workspace: Workspace) -> dict[str, Encoder]:
        encoders = super()._load_encoders(workspace)
        for role, encoder in encoders.items():
            expected = self._spec(role)
            if encoder.spec.fingerprint != expected.fingerprint:
                raise EncoderMismatchError(
                    f"the store was built with {expected.model!r} (fingerprint {expected.fingerprint[:12]}); "
                    f"what is found has {encoder.spec.fingerprint[:12]}.",
                    value=encoder.spec.fingerprint,
                    remedy="Install the model the store was built with, or build the store again.",
                )
        return encoders

    def _load_encoder(self, workspace: Workspace, role: str, options: EncoderOptions) -> Encoder:
        spec = self._spec(role)
        if spec.url is not None:  # whose answer to a known sentence is compared
            return load_spec(spec)
        if spec.bundled is not None:
            return load_encoder(options, bundle_root=self._out / spec.bundled)
        return super()._load_encoder(workspace, role, options)

    def _spec(self, role: str) -> EncoderSpec:
        return self._store.exact_encoder if role == "exact" else self._store.encoder

    def _check_dimension(self, dimension: int, encoders: Mapping[str, Encoder]) -> None:  # noqa: ARG002
        expected = self._store.encoder.dimension
        if dimension != expected:
            raise BuildError(
                f"the vectors have {dimension} dimensions, the store's have {expected}.",
                value=dimension,
                remedy="Give vectors from the same encoder as the store's.",
            )

    def _spec_of_given(self, given: GivenVectors, encoders: Mapping[str, Encoder]) -> EncoderSpec:
        spec = self._store.encoder
        self._check_dimension(given.dimension, encoders)
        if spec.normalized and not given.normalized:
            raise BuildError(
                "the vectors are not of length one, as all of the store's are.",
                remedy="Scale them to length one.",
            )
        return spec

    def _publish(
        self,
        workspace: Workspace,
        assembly: Assembly,
        record: SegmentRecord,
        key: str,
        existing: Manifest | None,
    ) -> Manifest:
        """Make the new segment one more of the store, and delete the documents it replaces."""
        manifest = existing or self._store
        replaced = 0
        if self._replaces_held:
            shards = (workspace.read_shard(number, ["document_id"]) for number in range(assembly.shards))
            ids = write_ids(
                workspace.root / "ids.parquet", (shard.column(0).unique().to_pylist() for shard in shards)
            )
            found, _ = held_rows(self._out, manifest, ids)
            replaced = sum(part.documents for part in found.values())
            manifest = with_deleted(self._out, manifest, found)
        addition = {
            "key": key,
            "base": self._base,
            "sources": portable(self._recipe)["sources"],
            "documents": record.documents,
            "passages": record.passages,
            "replaced": replaced,
        }
        recipe = dict(manifest.recipe)
        recipe["resolved"] = {**recipe.get("resolved", {}), **_index_settings(self._recipe)}
        recipe[ADDITIONS] = [*recipe.get(ADDITIONS, ()), addition]
        changed = dataclasses.replace(
            manifest,
            schema=full_schema(assembly.attributes.fields),
            segments=(*manifest.segments, record),
            recipe=recipe,
        )
        changed = with_memory_of(self._store, changed)
        return publish(self._out, workspace.segment, changed, replaces=self._store)


def _index_settings(recipe: Recipe) -> dict[str, Any]:
    settings = recipe.index.model_dump(mode="json", exclude_defaults=True)
    return {"index": settings} if settings else {}


def _drops(held: pa.Table) -> pa.Table:
    """Return what tells that documents are left out because the store holds them."""
    rows = len(held)
    columns = [
        held.column("ordinal"),
        pa.array([DUPLICATES] * rows, pa.string()),
        pa.array([HELD_ALREADY] * rows, pa.string()),
        held.column("document_id"),
        pa.nulls(rows, pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=DROPS_SCHEMA)


def _held(shown: Sequence[str], count: int) -> HeldIdError:
    names = ", ".join(map(repr, shown))
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    return HeldIdError(
        f"the store holds documents with these ids already: {names}{more}; nothing was added.",
        value=list(shown),
        remedy="Add with --replace to have the new documents take their places, or leave these out.",
    )


def _other_type(name: str, expected: FieldType, found: str) -> AttributeTypeError:
    return AttributeTypeError(
        f"attribute {name!r} is {expected.value} in the store, but {found}.",
        value=name,
        remedy=f"Correct the values, or rename the attribute. If they can be read as {expected.value}, "
        f"say so: --attribute {name}={expected.value}; --skip-invalid leaves out those that cannot, then.",
    )


def _result(store: Path, outcome: Outcome, seconds: float) -> AddResult:
    manifest = outcome.manifest
    addition = manifest.recipe[ADDITIONS][-1]
    return AddResult(
        path=store,
        documents=addition["documents"],
        passages=addition["passages"],
        replaced=addition["replaced"],
        total_documents=manifest.documents,
        total_passages=manifest.passages,
        segments=len(manifest.segments),
        index=manifest.segments[-1].index.kind,
        seconds=seconds,
        resumed=outcome.resumed,
        unchanged=outcome.unchanged,
        rejected=outcome.total("rejected"),
        duplicates=outcome.total("duplicates"),
        removed=outcome.total("removed"),
        contaminated=outcome.total("contaminated"),
        truncated=outcome.account.get("truncated", 0),
        duplicate_passages=outcome.total("duplicate_passages"),
    )
