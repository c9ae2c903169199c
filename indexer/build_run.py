"""Run a build: read, encode, assemble, publish, and go on where a run stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compactds.configs.recipe import Recipe
from compactds.configs.sizes import format_bytes
from compactds.datastore.ann.choose import IndexPlan, choose_index
from compactds.datastore.encoders import Encoder, EncoderOptions, EncoderSpec, vectors_spec
from compactds.datastore.encoders.base import Steady
from compactds.datastore.errors import DamagedStoreError, StoreFormatError, StoreNotFoundError
from compactds.datastore.files import find_damage
from compactds.datastore.manifest import Manifest, SegmentRecord, read_manifest
from compactds.datastore.publishing import publish
from compactds.datastore.segment import SEGMENTS_FOLDER
from compactds.filters.schema import Schema
from compactds.indexer.assembling import Assembly, assemble_rows, build_index, make_manifest
from compactds.indexer.build_keys import keys_of
from compactds.indexer.build_result import Outcome, replaced_store
from compactds.indexer.bundles import bundled, load_build_encoder, publish_bundles, remove_old_bundles
from compactds.indexer.disk import disk_errors, remove_leftovers
from compactds.indexer.embedding_cache import CacheOptions
from compactds.indexer.encoder_names import check_encoders, encoder_configs
from compactds.indexer.encoding import EncodingCount, Spread, encode_shards
from compactds.indexer.errors import BuildError
from compactds.indexer.execution import Executor
from compactds.indexer.given_vectors import (
    GivenVectors,
    check_dimension,
    given_dimension,
    take_given_vectors,
)
from compactds.indexer.growth import check_not_grown
from compactds.indexer.ledger import Ledger, installed_version, software
from compactds.indexer.left_out import write_lists
from compactds.indexer.passages import PassageOptions, Passager
from compactds.indexer.pipeline import (
    Documents,
    Passages,
    Pipeline,
    filter_steps,
    passage_options,
    source_options,
)
from compactds.indexer.progress import Progress
from compactds.indexer.reading import plan_reading
from compactds.indexer.recipe_files import file_names, portable
from compactds.indexer.revisions import Revision, pinned, unchanging
from compactds.indexer.sources import list_input_files
from compactds.indexer.spread_encoding import spread_encoding
from compactds.indexer.workspace import ENCODERS_FOLDER, WORK_FOLDER, Workspace, noting_work


class BuildRun:
    """One run of a build; holds what the stages hand on."""

    _known_attributes: frozenset[str] = frozenset()
    """What has a type by the store already."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        progress: Progress,
        encoder: Encoder | None,
        executor: Executor,
        cache: CacheOptions | None = None,
        *,
        undoes_growth: bool = False,
    ) -> None:
        self._recipe = recipe
        self._out = out
        self._progress = progress
        self._given = encoder
        self._executor = executor
        self._cache = cache
        self._undoes_growth = undoes_growth
        self._sources = source_options(recipe)
        self._files = [list_input_files(options) for options in self._sources]
        self._revisions: list[Revision] = []
        self._resumable: str | None = None
        """The key of the documents, while an error leaves work that the same build goes on with."""

    def run(self) -> Outcome:
        """Run all stages that are not done yet; an error has a note of where the work done is kept."""
        with noting_work(self._out / WORK_FOLDER, self._holds_work), disk_errors(self._out):
            return self._run()

    def _holds_work(self) -> bool:
        workspace = Workspace(self._out / WORK_FOLDER)
        return self._resumable is not None and workspace.holds_work(self._resumable)

    def _run(self) -> Outcome:
        steps = filter_steps(self._recipe)
        dimension = given_dimension(self._recipe.vectors)
        key, documents_key = self._keys()
        existing = _existing(self._out)
        if existing is not None and self._is_current(existing, key):
            Workspace.discard(self._out, key)
            self._progress.note(f"{self._out} is up to date: recipe and inputs are unchanged.")
            return Outcome(existing, {}, resumed=False, unchanged=True)
        if existing is not None and not self._undoes_growth:
            check_not_grown(self._out, existing)
        self._resumable = documents_key
        self._check_encoders()
        if existing is not None:
            self._tell_of_replacing(existing)
        workspace, resumed = Workspace.open(self._out, key, documents_key)
        if resumed:
            self._progress.note("Going on where an earlier build stopped.")
        for source in self._sources:
            if source.is_hub_by_looks:
                self._progress.note(f"{source.no_such_path}It is read as a Hugging Face dataset.")
        self._sources, self._revisions = pinned(workspace, self._sources)
        for found in self._revisions:
            self._progress.note(f"hf:{found.dataset} is read at commit {found.commit}.")
        pipeline = Pipeline(workspace, self._recipe, self._sources, steps, self._executor, self._progress)
        encoders = self._encoders_of_given(workspace, pipeline.ledger, dimension, resumed=resumed)
        tasks = list(plan_reading(self._sources, self._files))
        documents = pipeline.documents(tasks, self._recipe.vectors)
        for sentence in documents.inference.remarks(self._known_attributes):
            self._progress.note(sentence)
        schema = self._schema(workspace, documents)
        if not encoders:
            with pipeline.ledger.timed("load encoders"):
                encoders = self._load_encoders(workspace)
        measures = () if self._recipe.has_vectors else tuple(encoders.values())
        passages = pipeline.passages(documents, self._passage_options(), measures)
        with pipeline.ledger.timed("encode"):
            assembly, counts = self._encode(workspace, encoders, documents.records, passages, schema)
        for of_shards in counts.values():
            truncated, cached = ([getattr(c, name) for c in of_shards] for name in ("truncated", "cached"))
            pipeline.ledger.encode(passages.sources, truncated, cached)
        with pipeline.ledger.timed("write"):
            writer = assemble_rows(workspace, assembly, self._progress)
        account = self._account(pipeline.ledger, counts, resumed)
        lists = write_lists(workspace, writer.folder)
        record = build_index(workspace, assembly, writer, account, lists, pipeline.ledger, self._progress)
        manifest = self._publish(workspace, assembly, record, key, existing)
        self._resumable = None
        remove_old_bundles(self._out, manifest)
        workspace.clear()
        remove_leftovers(self._out)
        return Outcome(manifest, account, resumed=resumed, unchanged=False, replaced=existing)

    def _check_encoders(self) -> None:
        """Find the encoders to load, but for those that an earlier run has kept."""
        kept = self._out / WORK_FOLDER / ENCODERS_FOLDER
        if self._given is None and not kept.exists():
            check_encoders(encoder_configs(self._recipe))

    def _encoders_of_given(
        self, workspace: Workspace, ledger: Ledger, dimension: int | None, *, resumed: bool
    ) -> dict[str, Encoder]:
        """Load the encoders that a file of ready-made vectors has to fit, before the documents are read."""
        if dimension is None:
            return {}
        with ledger.timed("load encoders"):
            encoders = self._load_encoders(workspace)
        try:
            self._check_dimension(dimension, encoders)
        except BuildError:
            if not resumed:
                workspace.clear()
            raise
        return encoders

    def _check_dimension(self, dimension: int, encoders: Mapping[str, Encoder]) -> None:
        """Raise BuildError for ready-made vectors of another dimension than what they are to go with."""
        if encoders:
            check_dimension(dimension, encoders["exact"].spec)

    def _tell_of_replacing(self, existing: Manifest) -> None:
        """Say that another corpus is in the place of this one, while there is time to stop."""
        if existing.recipe.get("resolved", {}).get("sources") == portable(self._recipe)["sources"]:
            return
        self._progress.note(
            f"{self._out} holds {replaced_store(existing)}, built from other sources. This build replaces "
            "it when it is done; to keep its documents, stop, and use `compactds add`."
        )

    def _schema(self, workspace: Workspace, documents: Documents) -> Schema:  # noqa: ARG002
        """Return the types of the attributes that the new segment is to have."""
        return documents.schema()

    def _publish(
        self,
        workspace: Workspace,
        assembly: Assembly,
        record: SegmentRecord,
        key: str,
        existing: Manifest | None,
    ) -> Manifest:
        """Make the new segment the store."""
        manifest = make_manifest(
            assembly,
            record,
            name=self._recipe.name,
            software=f"compactds {installed_version('compactds')}",
            recipe={"key": key, "resolved": portable(self._recipe), "files": file_names(self._recipe)},
            encoder_files=publish_bundles(workspace, self._out, (assembly.encoder, assembly.exact_encoder)),
        )
        return publish(self._out, workspace.segment, manifest, replaces=existing)

    def _keys(self) -> tuple[str, str]:
        """Return the key of the whole build, and that of the documents alone."""
        return keys_of(self._recipe, self._files)

    def _is_current(self, existing: Manifest, key: str) -> bool:
        same = (files or unchanging(source) for files, source in zip(self._files, self._sources, strict=True))
        if existing.recipe.get("key") != key or not all(same):
            return False
        folders = [(self._out / SEGMENTS_FOLDER / record.name, record.files) for record in existing.segments]
        return not any(
            find_damage(folder, files, deep=False)
            for folder, files in [*folders, (self._out, existing.encoder_files)]
        )

    def _load_encoders(self, workspace: Workspace) -> dict[str, Encoder]:
        """Return the encoders by role: "exact", and "ann" if it is another one; none for vectors."""
        if self._recipe.encoder.kind == "vectors":
            return {}
        if self._given is None:
            self._progress.stage("loading encoder", None)
        configs = {"ann": self._recipe.encoder}
        if self._recipe.exact_encoder is not None:
            configs["exact"] = self._recipe.exact_encoder
        encoders = {
            role: self._given or self._load_encoder(workspace, role, EncoderOptions(**config.model_dump()))
            for role, config in configs.items()
        }
        if "exact" not in encoders:
            encoders = {"exact": encoders["ann"]}
        fingerprints = {role: encoder.spec.fingerprint for role, encoder in encoders.items()}
        if workspace.read_state("encoders") not in (None, fingerprints):
            self._resumable = None  # nothing goes on while that is there
            raise BuildError(
                "the encoder has changed since this build was interrupted.",
                value=fingerprints,
                remedy=f"Remove {workspace.root} to start over.",
            )
        workspace.write_state("encoders", fingerprints)
        return encoders

    def _load_encoder(self, workspace: Workspace, role: str, options: EncoderOptions) -> Encoder:
        return load_build_encoder(workspace, role, options, self._cache)

    def _passage_options(self) -> PassageOptions:
        return passage_options(self._recipe)

    def _encode(
        self,
        workspace: Workspace,
        encoders: Mapping[str, Encoder],
        records: int,
        passages: Passages,
        schema: Schema,
    ) -> tuple[Assembly, dict[str, tuple[EncodingCount, ...]]]:
        dtype = self._recipe.exact.dtype
        counts: dict[str, tuple[EncodingCount, ...]] = {}
        if self._recipe.has_vectors:
            self._progress.stage("taking vectors", passages.total)
            given = take_given_vectors(
                workspace, passages.shards, records, self._recipe.vectors, dtype, self._progress
            )
            specs = [self._spec_of_given(given, encoders)] * 2
            plan = self._plan(passages.total, specs[0])
        else:
            specs = [encoders.get("ann", encoders["exact"]).spec, encoders["exact"].spec]
            plan = self._plan(passages.total, specs[0])  # a budget too small is told before hours of work
            passager = Passager(self._passage_options(), list(encoders.values()))
            self._tell_of_cache(encoders)
            for role, encoder in encoders.items():
                stage = f"encoding ({role})" if len(encoders) > 1 else "encoding"
                self._progress.stage(stage, passages.total)
                role_dtype = dtype if role == "exact" else "float16"
                counts[role] = encode_shards(
                    workspace,
                    passages.shards,
                    encoder,
                    role,
                    passager,
                    role_dtype,
                    self._progress,
                    self._cache,
                    self._spread(workspace, encoders, role, role_dtype),
                )
        self._progress.note(
            f"Index: {plan.kind}, {format_bytes(plan.ram_bytes)} in memory, because {plan.reason}."
        )
        assembly = Assembly(
            shards=passages.shards,
            passages=passages.total,
            attributes=schema,
            encoder=bundled(specs[0]),
            exact_encoder=bundled(specs[1]),
            exact_dtype=dtype,
            plan=plan,
        )
        return assembly, counts

    def _spread(
        self, workspace: Workspace, encoders: Mapping[str, Encoder], role: str, dtype: str
    ) -> Spread | None:
        """Return what has the executor's workers encode for a role; None where this process does it."""
        if self._given is not None or not self._executor.spreads_encoding:
            return None
        config = self._recipe.exact_encoder if role == "exact" else None
        loaded_as = "ann" if config is None else "exact"
        options = EncoderOptions(**(config or self._recipe.encoder).model_dump())
        passages = self._passage_options()
        return spread_encoding(
            self._executor, workspace, encoders, role, loaded_as, options, passages, dtype, self._cache
        )

    def _tell_of_cache(self, encoders: Mapping[str, Encoder]) -> None:
        """Say where vectors are kept, if any are."""
        if self._cache is not None and any(isinstance(encoder, Steady) for encoder in encoders.values()):
            size = format_bytes(self._cache.limit_bytes)
            self._progress.note(f"Vectors are kept for other builds in {self._cache.folder}, at most {size}.")

    def _plan(self, passages: int, spec: EncoderSpec) -> IndexPlan:
        index = self._recipe.index
        return choose_index(passages, spec.dimension, memory_bytes=index.memory_bytes, kind=index.kind)

    def _account(
        self, ledger: Ledger, counts: Mapping[str, Sequence[EncodingCount]], resumed: bool
    ) -> dict[str, Any]:
        account = {
            **ledger.to_json(),
            "truncated": sum(line.truncated for line in ledger.sources),
            "zero_vectors": sum(count.zero for of_shards in counts.values() for count in of_shards),
            "cached": sum(line.cached for line in ledger.sources),
            "resumed": resumed,
            "software": software(),
        }
        if self._revisions:
            account["revisions"] = [asdict(revision) for revision in self._revisions]
        for name, text in (
            ("truncated", "passages are longer than the encoder's limit; their ends are not searchable"),
            ("zero_vectors", "passages hold nothing the encoder knows; no query will find them"),
        ):
            if account[name]:
                self._progress.note(f"{account[name]:,} {text}.")
        return account

    def _spec_of_given(self, given: GivenVectors, encoders: Mapping[str, Encoder]) -> EncoderSpec:
        """Return the spec of ready-made vectors: the named encoder's, or one that takes vectors only."""
        if not encoders:
            return vectors_spec(given.dimension, normalized=given.normalized)
        self._check_dimension(given.dimension, encoders)
        return encoders["exact"].spec


def _existing(out: Path) -> Manifest | None:
    try:
        return read_manifest(out)
    except StoreNotFoundError:
        return None
    except (DamagedStoreError, StoreFormatError) as error:
        raise BuildError(
            f"{out} holds a store that cannot be read: {error.message}",
            value=str(out),
            remedy="Give --out another folder, or remove this one.",
        ) from error
