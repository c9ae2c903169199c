"""Build a datastore from a recipe: read, encode, assemble, publish, and go on where a run stopped."""

import errno
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from compactds.configs.recipe import EncoderConfig, Recipe, Source
from compactds.datastore.ann.choose import IndexPlan, choose_index
from compactds.datastore.encoders import Encoder, EncoderOptions, EncoderSpec, vectors_spec
from compactds.datastore.errors import DamagedStoreError, StoreFormatError, StoreNotFoundError
from compactds.datastore.files import find_damage
from compactds.datastore.manifest import Manifest, read_manifest
from compactds.datastore.segment import SEGMENTS_FOLDER
from compactds.datastore.writer import publish
from compactds.filters.schema import FieldType, Schema
from compactds.indexer.assembling import Assembly, assemble_rows, build_index, make_manifest
from compactds.indexer.attributes import AttributeInference
from compactds.indexer.bundles import bundled, load_build_encoder, publish_bundles
from compactds.indexer.duplicates import drop_duplicates
from compactds.indexer.encoding import EncodingCount, encode_shards, take_given_vectors
from compactds.indexer.errors import BuildError, EmptyCorpusError
from compactds.indexer.passages import PassageOptions, Passager
from compactds.indexer.progress import LoggedProgress, Progress
from compactds.indexer.reading import ReadState, read_sources
from compactds.indexer.sources import SourceOptions, list_input_files
from compactds.indexer.workspace import Workspace, build_key, locked

PACKAGES = ("compactds", "faiss-cpu", "hnswlib", "numpy", "pyarrow", "sentence-transformers", "torch")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Say what a build made, and what it took.

    `resumed` tells that it went on from an earlier run, `unchanged` that the store was up to date and
    nothing was done. `truncated` counts passages an encoder could not read whole.
    """

    path: Path
    documents: int
    passages: int
    seconds: float
    resumed: bool
    unchanged: bool
    rejected: int
    duplicates: int
    truncated: int
    index: str
    peak_rss_bytes: int
    bytes_per_passage: float


def build(
    recipe: Recipe, out: Path, *, progress: Progress | None = None, encoder: Encoder | None = None
) -> BuildResult:
    """Build the datastore that `recipe` describes into the folder `out`, and publish it.

    A store already there stays as it is until the new one replaces it in one step. An interrupted
    build is gone on with when the same recipe over the same inputs is built again; if nothing changed
    since the store was built, nothing is done. `encoder` is used in place of loading the recipe's.

    Raises CompactdsError: SourceError, RecordError, DuplicateIdError, AttributeTypeError,
    EmptyCorpusError, EncoderError, BudgetError, StoreBusyError or BuildError.
    """
    started = time.perf_counter()
    with locked(out), _disk_errors(out):
        return _Build(recipe, out, progress or LoggedProgress(), encoder, started).run()


class _Build:
    """One run of a build; holds what the stages hand on."""

    def __init__(
        self, recipe: Recipe, out: Path, progress: Progress, encoder: Encoder | None, started: float
    ) -> None:
        self._recipe = recipe
        self._out = out
        self._progress = progress
        self._given = encoder
        self._started = started
        self._sources = [_source_options(source, recipe) for source in recipe.sources]
        self._stages_s: dict[str, float] = {}

    def run(self) -> BuildResult:
        key = self._key()
        existing = _existing(self._out)
        if existing is not None and self._is_current(existing, key):
            Workspace.discard(self._out, key)
            self._progress.note(f"{self._out} is up to date: recipe and inputs are unchanged.")
            return self._result(existing, {}, resumed=False, unchanged=True)
        workspace, resumed = Workspace.open(self._out, key)
        if resumed:
            self._progress.note("Going on where an earlier build stopped.")
        encoders = self._load_encoders(workspace)
        state, schema = self._read(workspace, encoders)
        assembly, counts = self._encode(workspace, encoders, state, schema)
        with self._timed("write"):
            writer = assemble_rows(workspace, assembly, self._progress)
        ledger = self._ledger(state, counts, resumed)
        record = build_index(workspace, assembly, writer, ledger, self._progress)
        manifest = make_manifest(
            assembly,
            record,
            name=self._recipe.name,
            software=f"compactds {_version('compactds')}",
            recipe={"key": key, "resolved": _portable(self._recipe)},
            encoder_files=publish_bundles(workspace, self._out, (assembly.encoder, assembly.exact_encoder)),
        )
        published = publish(self._out, workspace.segment, manifest, replaces=existing)
        workspace.clear()
        return self._result(published, ledger, resumed=resumed, unchanged=False)

    def _key(self) -> str:
        inputs = [
            [file.name, file.size_bytes, file.mtime_ns]
            for options in self._sources
            for file in list_input_files(options)
        ]
        if self._recipe.vectors is not None:
            try:
                status = self._recipe.vectors.stat()
            except OSError as error:
                raise BuildError(
                    f"cannot read vectors from {self._recipe.vectors}: {error.strerror}.",
                    value=str(self._recipe.vectors),
                    remedy="Give the path of a .npy file.",
                ) from error
            inputs.append([str(self._recipe.vectors), status.st_size, status.st_mtime_ns])
        return build_key(
            {
                "recipe": self._recipe.model_dump(mode="json"),
                "inputs": inputs,
                "software": _version("compactds"),
            }
        )

    def _is_current(self, existing: Manifest, key: str) -> bool:
        if existing.recipe.get("key") != key or any(not list_input_files(o) for o in self._sources):
            return False
        return not any(
            find_damage(self._out / SEGMENTS_FOLDER / record.name, record.files, deep=False)
            for record in existing.segments
        )

    def _load_encoders(self, workspace: Workspace) -> dict[str, Encoder]:
        """Return the encoders by role: "exact", and "ann" if it is another one; none for vectors."""
        if self._recipe.encoder.kind == "vectors":
            return {}
        with self._timed("load encoders"):
            if self._given is None:
                self._progress.stage("loading encoder", None)
            configs = {"ann": self._recipe.encoder}
            if self._recipe.exact_encoder is not None:
                configs["exact"] = self._recipe.exact_encoder
            encoders = {
                role: self._given or load_build_encoder(workspace, role, _encoder_options(config))
                for role, config in configs.items()
            }
        if "exact" not in encoders:
            encoders = {"exact": encoders["ann"]}
        fingerprints = {role: encoder.spec.fingerprint for role, encoder in encoders.items()}
        if workspace.read_state("encoders") not in (None, fingerprints):
            raise BuildError(
                "the encoder has changed since this build was interrupted.",
                value=fingerprints,
                remedy=f"Remove {workspace.root} to start over.",
            )
        workspace.write_state("encoders", fingerprints)
        return encoders

    def _read(self, workspace: Workspace, encoders: Mapping[str, Encoder]) -> tuple[ReadState, Schema]:
        overrides = {name: FieldType(kind) for name, kind in self._recipe.attributes.items()}
        with self._timed("read"):
            state = read_sources(
                workspace, self._sources, self._passager(encoders), overrides, self._progress
            )
            drop_duplicates(workspace, state, self._progress)
        if not state.passages:
            rejected = sum(source.rejected for source in state.sources)
            raise EmptyCorpusError(
                f"no documents to index in {', '.join(source.path for source in self._recipe.sources)}"
                + (f": all {rejected} records were rejected." if rejected else "."),
                value=rejected,
                remedy="Check the paths, and the reasons for rejections if there are any.",
            )
        for name in sorted(overrides.keys() - state.inference.keys()):
            self._progress.note(f"No document has the attribute {name!r}, which is given a type.")
        return state, AttributeInference.from_json(state.inference, overrides).schema()

    def _passager(self, encoders: Mapping[str, Encoder]) -> Passager:
        passages = self._recipe.passages
        options = PassageOptions(
            words=passages.words,
            min_words=passages.min_words,
            split=passages.split and not self._recipe.has_vectors,
            embed_title=passages.embed_title,
        )
        return Passager(options, [] if self._recipe.has_vectors else list(encoders.values()))

    def _encode(
        self, workspace: Workspace, encoders: Mapping[str, Encoder], state: ReadState, schema: Schema
    ) -> tuple[Assembly, dict[str, EncodingCount]]:
        dtype = self._recipe.exact.dtype
        counts: dict[str, EncodingCount] = {}
        with self._timed("encode"):
            if self._recipe.has_vectors:
                self._progress.stage("taking vectors", state.passages)
                given = take_given_vectors(
                    workspace,
                    state.shards,
                    sum(source.records for source in state.sources),
                    self._recipe.vectors,
                    dtype,
                    self._progress,
                )
                specs = [_spec_of_given(given.dimension, given.normalized, encoders)] * 2
                plan = self._plan(state.passages, specs[0])
            else:
                specs = [encoders.get("ann", encoders["exact"]).spec, encoders["exact"].spec]
                plan = self._plan(state.passages, specs[0])  # a budget too small is told before hours of work
                passager = self._passager(encoders)
                for role, encoder in encoders.items():
                    stage = f"encoding ({role})" if len(encoders) > 1 else "encoding"
                    self._progress.stage(stage, state.passages)
                    role_dtype = dtype if role == "exact" else "float16"
                    counts[role] = encode_shards(
                        workspace, state.shards, encoder, role, passager, role_dtype, self._progress
                    )
        self._progress.note(f"Index: {plan.kind}, {plan.ram_bytes:,} bytes in memory, because {plan.reason}.")
        assembly = Assembly(
            shards=state.shards,
            passages=state.passages,
            attributes=schema,
            encoder=bundled(specs[0]),
            exact_encoder=bundled(specs[1]),
            exact_dtype=dtype,
            plan=plan,
        )
        return assembly, counts

    def _plan(self, passages: int, spec: EncoderSpec) -> IndexPlan:
        index = self._recipe.index
        return choose_index(passages, spec.dimension, memory_bytes=index.memory_bytes, kind=index.kind)

    def _ledger(self, state: ReadState, counts: Mapping[str, EncodingCount], resumed: bool) -> dict[str, Any]:
        ledger = {
            "sources": [asdict(source) for source in state.sources],
            "passages": state.passages,
            "truncated": sum(count.truncated for count in counts.values()),
            "zero_vectors": sum(count.zero for count in counts.values()),
            "resumed": resumed,
            "seconds": {stage: round(seconds, 3) for stage, seconds in self._stages_s.items()},
            "software": {name: _version(name) for name in PACKAGES} | {"python": sys.version.split()[0]},
        }
        for name, text in (
            ("truncated", "passages are longer than the encoder's limit; their ends are not searchable"),
            ("zero_vectors", "passages hold nothing the encoder knows; no query will find them"),
        ):
            if ledger[name]:
                self._progress.note(f"{ledger[name]:,} {text}.")
        return ledger

    def _result(
        self, manifest: Manifest, ledger: Mapping[str, Any], *, resumed: bool, unchanged: bool
    ) -> BuildResult:
        sources = ledger.get("sources", [])
        disk = sum(record.bytes for segment in manifest.segments for record in segment.files.values())
        return BuildResult(
            path=self._out,
            documents=manifest.documents,
            passages=manifest.passages,
            seconds=time.perf_counter() - self._started,
            resumed=resumed,
            unchanged=unchanged,
            rejected=sum(source["rejected"] for source in sources),
            duplicates=sum(source["duplicates"] for source in sources),
            truncated=ledger.get("truncated", 0),
            index=manifest.segments[0].index.kind,
            peak_rss_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            bytes_per_passage=disk / max(1, manifest.passages),
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._stages_s[stage] = self._stages_s.get(stage, 0.0) + time.perf_counter() - start


def _portable(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as the manifest keeps it: files by their names, since a store may travel."""
    resolved = recipe.model_dump(mode="json", exclude_defaults=True)
    for source in resolved["sources"]:
        if Path(source["path"]).is_absolute():
            source["path"] = Path(source["path"]).name
    if "vectors" in resolved:
        resolved["vectors"] = Path(resolved["vectors"]).name
    return resolved


def _source_options(source: Source, recipe: Recipe) -> SourceOptions:
    fields = dict(source.fields) | ({"vector": source.vector} if source.vector else {})
    return SourceOptions(
        path=source.path,
        format=source.format,
        name=source.name or "",
        fields=fields,
        attributes=None if source.attributes is None else tuple(source.attributes),
        skip_invalid=recipe.skip_invalid,
        max_documents=source.max_documents,
        allow_empty_text=recipe.has_vectors,
        config=source.config,
        split=source.split or "train",
        revision=source.revision,
    )


def _encoder_options(config: EncoderConfig) -> EncoderOptions:
    return EncoderOptions(**config.model_dump())


def _spec_of_given(dimension: int, normalized: bool, encoders: Mapping[str, Encoder]) -> EncoderSpec:
    """Return the spec of ready-made vectors: the named encoder's, or one that takes vectors only."""
    if not encoders:
        return vectors_spec(dimension, normalized=normalized)
    spec = encoders["exact"].spec
    if spec.dimension != dimension:
        raise BuildError(
            f"the vectors have {dimension} dimensions, those of {spec.model!r} have {spec.dimension}.",
            value=dimension,
            remedy="Name the encoder that made the vectors, or none.",
        )
    return spec


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


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    """Turn errors of a full disk into one that says what to do; nothing built so far is lost."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE or "No space left" in str(error):
            free = shutil.disk_usage(out).free
            raise BuildError(
                f"no space left on the disk of {out} ({free:,} bytes free).",
                value=free,
                remedy="Free some space and run the same command again: it goes on where it stopped.",
            ) from error
        raise
