"""The recipe of a build: what goes into a datastore, and how."""

import os
import re
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from compactds.configs.errors import ConfigError, InvalidValueError
from compactds.configs.sizes import parse_bytes
from compactds.configs.toml import read_toml
from compactds.configs.validation import validate

__all__ = [
    "Decontamination",
    "Duplicates",
    "EncoderConfig",
    "Exact",
    "FilterTable",
    "Format",
    "Index",
    "Passages",
    "Recipe",
    "Source",
    "TypeName",
    "load_recipe",
    "parse_bytes",
    "recipe_for",
]

TypeName = Literal["bool", "int64", "float64", "string", "date", "timestamp", "list<string>", "list<int64>"]
Format = Literal["auto", "jsonl", "json", "csv", "parquet", "text", "markdown", "html", "pdf", "huggingface"]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_FILE_SUFFIX = re.compile(r".*\.(gz|zst|\w*json\w*|csv|tsv|parquet|txt|md|markdown|html?|pdf)", re.IGNORECASE)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _without_nul(path: str) -> str:
    if "\0" in path:
        raise ValueError("expected a path, not one with a NUL character")
    return path


class Source(_Table):
    """Say where records come from and how to read them."""

    path: Annotated[Text, AfterValidator(_without_nul)] = Field(
        description="A file, a folder, or a Hugging Face dataset as hf:owner/name; a relative path starts at "
        "the recipe's folder."
    )
    format: Format = Field("auto", description="The format of the files; auto tells it by their suffixes.")
    name: str = Field("", description="What passages report as their source; the path's name if left out.")
    fields: dict[Literal["id", "text", "title", "source"], Text] = Field(
        default_factory=dict,
        description="Which field of a record holds its id, text, title, source: text = 'body'.",
    )
    attributes: list[Text] | None = Field(
        None, description="The fields to keep as attributes; all remaining ones if left out, none if empty."
    )
    vector: Text | None = Field(
        None, description="The field that holds a ready-made vector; nothing is split or encoded then."
    )
    max_documents: Count | None = Field(None, description="Stop after so many documents.")
    config: Text | None = Field(None, description="The configuration of a Hugging Face dataset.")
    files: Text | None = Field(
        None, description="The files to read of a Hugging Face dataset, as a pattern: pes2o/*."
    )
    split: Text = Field("train", description="The split of a Hugging Face dataset.")
    revision: Text | None = Field(None, description="The revision of a Hugging Face dataset.")
    ids: Literal["record", "file", "content"] = Field(
        "record",
        description="What a document's id is: its record's own, that with the file's name before it, or one "
        "made of title and text.",
    )


class FilterTable(BaseModel):
    """Name a corpus filter, the sources it is for, and its options: all further keys."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    filter: Text = Field(description="What the filter is called.")
    sources: list[Text] | None = Field(
        None, description="The names of the sources it is for; all of them if left out."
    )


class Duplicates(_Table):
    """Say which documents, or passages, repeat others; the first copy stays."""

    level: Literal["document", "passage", "both"] = Field(
        "document",
        description="What is compared: documents before they are split, the passages they are split into, "
        "or first those and then these.",
    )
    near: bool = Field(True, description="Also leave out what is nearly the same as another.")
    threshold: Annotated[float, Field(ge=0.3, le=1, strict=False)] = Field(
        0.8, description="The least similarity of near-duplicates: Jaccard, of sets of runs of words."
    )
    words: Annotated[int, Field(ge=1, le=100)] = Field(5, description="The words of a run.")

    @property
    def of_documents(self) -> bool:
        """Tell whether whole documents are compared."""
        return self.level != "passage"

    @property
    def of_passages(self) -> bool:
        """Tell whether passages are compared."""
        return self.level != "document"


class Decontamination(_Table):
    """Say which evaluation questions are kept out, and what shares so much with one that it has to go."""

    questions: list[Annotated[Text, AfterValidator(_without_nul)]] = Field(
        min_length=1,
        description="Files of questions, or folders of such files; a relative path starts at "
        "the recipe's folder.",
    )
    mode: Literal["ngram", "span", "jaccard"] = Field(
        "ngram",
        description="What is shared: any run of 13 words, a span of 32, or most of the runs of a question.",
    )
    words: Annotated[int, Field(ge=4, le=1000)] | None = Field(
        None, description="The words of a run; 13, or 32 with mode span."
    )
    threshold: Annotated[float, Field(gt=0, le=1, strict=False)] = Field(
        0.7, description="The least similarity with mode jaccard."
    )
    remove: Literal["paragraphs", "documents"] = Field(
        "paragraphs", description="What is taken out: the paragraphs that overlap, or their documents."
    )


class Passages(_Table):
    """Say how documents are split into passages."""

    words: Count = Field(256, description="The most words a passage has.")
    min_words: int = Field(
        default_factory=lambda known: min(32, known.get("words", 0) // 4),
        ge=0,
        description="A shorter tail is joined to the passage before it; 32, or a quarter of words if less.",
    )
    split: bool = Field(True, description="Split documents; if false, each document is one passage.")
    embed_title: bool = Field(True, description="Encode a passage together with its document's title.")

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        if self.split and self.min_words >= self.words:
            raise ValueError(f"min_words is {self.min_words}, expected less than words, {self.words}")
        return self


class EncoderConfig(_Table):
    """Say which encoder turns text into vectors; what is left out is chosen by the model."""

    model: str = Field("minilm", description="A preset's name, a local path, or a Hugging Face model id.")
    kind: Literal["auto", "sentence-transformers", "static", "openai", "tei", "vectors"] = Field(
        "auto",
        description="What runs the model; openai and tei are endpoints, vectors encodes nothing.",
    )
    query_prompt: str | None = Field(None, description="What is put before a query.")
    passage_prompt: str | None = Field(None, description="What is put before a passage.")
    pooling: str | None = Field(None, description="How token vectors become one: mean, cls or lasttoken.")
    normalize: bool | None = Field(
        None, description="Scale vectors to length one, so that scores are cosines."
    )
    dimension: Count | None = Field(
        None, description="Cut vectors to so many dimensions, for Matryoshka models."
    )
    max_tokens: Count | None = Field(None, description="The most tokens the model reads of a passage.")
    url: Text | None = Field(None, description="The address of an embedding endpoint.")
    api_key_env: Text | None = Field(
        None, description="The environment variable that holds the endpoint's key."
    )
    batch_size: Count = Field(32, description="Passages encoded at a time.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="What passages are computed in; auto is bfloat16 where the processor is good at it.",
    )
    device: Text = Field("auto", description="Where the model runs: auto, cpu, cuda, cuda:1.")


class Exact(_Table):
    """Say how the vectors of the exact stage are kept on disk."""

    dtype: Literal["float16", "float32"] = Field("float16", description="The type of the numbers on disk.")


class Index(_Table):
    """Say which index finds candidates, and how much memory it may take."""

    kind: Literal["auto", "flat", "hnsw", "ivf"] = Field(
        "auto", description="The kind of index; auto chooses by the number of passages and the memory."
    )
    memory: str = Field("512MB", description="The most memory the index may take when searched.")

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, memory: str) -> str:
        try:
            parse_bytes(memory)
        except ConfigError as error:
            raise ValueError(f"expected a size such as 512MB or 2GiB, not {memory!r}") from error
        return memory

    @property
    def memory_bytes(self) -> int:
        """Return the memory limit in bytes."""
        return parse_bytes(self.memory)


def _default_encoder(known: dict[str, Any]) -> EncoderConfig:
    ready_made = known.get("vectors") or any(source.vector for source in known.get("sources", ()))
    return EncoderConfig(model="", kind="vectors") if ready_made else EncoderConfig()


class Recipe(_Table):
    """Say what goes into a datastore, and how: the whole input of a build.

    With ready-made vectors and no encoder named, the encoder's kind is "vectors": queries then come
    as vectors too.
    """

    name: Text = Field(
        "datastore", description="What the datastore is called; the recipe's file name if left out."
    )
    sources: list[Source] = Field(min_length=1, description="Where records come from, in order.")
    vectors: Annotated[Path, Field(strict=False)] | None = Field(
        None,
        description="A .npy file of ready-made vectors, row i for record i; nothing is split or encoded.",
    )
    attributes: dict[Text, TypeName] = Field(
        default_factory=dict, description="Types of attributes that are not to be inferred: year = 'int64'."
    )
    filters: list[FilterTable] = Field(
        default_factory=list, description="What documents must pass, and what edits their text, in order."
    )
    duplicates: Duplicates | None = Field(
        None,
        description="Which documents, or passages, repeat others; without it, documents of the same title "
        "and text.",
    )
    decontamination: Decontamination | None = Field(
        None, description="Which evaluation questions are kept out of the datastore."
    )
    passages: Passages = Field(default_factory=Passages, description="How documents are split into passages.")
    encoder: EncoderConfig = Field(
        default_factory=_default_encoder, description="The encoder of the index, and of queries."
    )
    exact_encoder: EncoderConfig | None = Field(
        None, description="The encoder of the exact stage, if it is another one."
    )
    exact: Exact = Field(default_factory=Exact, description="The vectors of the exact stage.")
    index: Index = Field(default_factory=Index, description="The index that finds candidates.")
    skip_invalid: bool = Field(
        False, description="Leave out records that cannot be used, list them in a file, and go on."
    )

    @model_validator(mode="after")
    def _check_vectors(self) -> Self:
        per_record = [source.vector for source in self.sources]
        if self.vectors and any(per_record):
            raise ValueError("vectors come from a file and from a field of a source; choose one")
        if any(per_record) and not all(per_record):
            raise ValueError(
                "some sources name a vector field and some do not; a store has one kind of vectors"
            )
        if self.has_vectors and self.exact_encoder:
            raise ValueError("ready-made vectors serve both stages; leave exact_encoder out")
        if self.encoder.kind == "vectors" and not self.has_vectors:
            raise ValueError("encoder.kind is 'vectors', but neither vectors nor a source's vector is set")
        return self

    @model_validator(mode="after")
    def _check_source_names(self) -> Self:
        names = {source.name for source in self.sources}
        for table in self.filters:
            unknown = next((name for name in table.sources or () if name not in names), None)
            if unknown is not None:
                known = ", ".join(sorted(filter(None, names))) or "none"
                raise ValueError(
                    f"filter {table.filter!r} is for the source {unknown!r}, but the names given to sources "
                    f"are: {known}"
                )
        return self

    def sources_of(self, table: FilterTable) -> frozenset[int]:
        """Return the numbers of the sources that a filter is for."""
        return frozenset(
            number
            for number, source in enumerate(self.sources)
            if table.sources is None or source.name in table.sources
        )

    def tables(self) -> dict[str, Any]:
        """Return the complete recipe as tables to write, but for what says nothing.

        That is a list of filters without any, the name of a source that has its path's, and the split of what
        is no Hugging Face dataset.
        """
        tables = self.model_dump(mode="json")
        if not self.filters:
            del tables["filters"]  # so that [[filters]] can be appended
        for source, table in zip(self.sources, tables["sources"], strict=True):
            if not source.name:
                del table["name"]
            if source.split == "train" and Path(source.path).is_absolute():
                del table["split"]
        return tables

    @property
    def has_vectors(self) -> bool:
        """Tell whether vectors come ready-made, so that nothing is split or encoded."""
        return self.vectors is not None or any(source.vector for source in self.sources)


def load_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe in a TOML file, with overrides as `recipe_for` takes them.

    Relative paths in the file start at its folder. Raises ConfigError.
    """
    tables = read_toml(path)
    _resolve_paths(tables, path.parent)
    return _finish({"name": path.stem, **tables}, overrides, str(path))


def recipe_for(paths: Sequence[str], overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe that reads these sources with default settings, or the one .toml file named.

    `overrides` maps dotted keys to values, such as {"passages.words": 128}; they win over the file.
    A table given replaces the file's, but for `attributes`, which are added to it; a key of `sources`
    sets every source. Relative paths start at the working directory. Raises
    ConfigError.
    """
    if len(paths) == 1 and paths[0].lower().endswith(".toml"):
        return load_recipe(Path(paths[0]), overrides)
    tables: dict[str, Any] = {"sources": [{"path": path} for path in paths]}
    _resolve_paths(tables, Path())
    names = [Path(path).resolve().name.split(".")[0] for path in paths]
    name = names[0] if len(names) == 1 and names[0] else "datastore"
    return _finish({"name": name, **tables}, overrides, "command line")


def _finish(tables: dict[str, Any], overrides: Mapping[str, Any] | None, origin: str) -> Recipe:
    for key, given in (overrides or {}).items():
        value = _resolve_override(key.split("."), given)
        if key == "attributes" and isinstance(tables.get(key), dict):
            value = tables[key] | dict(value)
        _set(tables, key.split("."), value)
    return validate(Recipe, tables, origin, flags=overrides or ())


def _set(tables: Any, keys: list[str], value: Any) -> None:
    if isinstance(tables, list):
        for item in tables:
            _set(item, keys, value)
    elif isinstance(tables, dict):  # anything else is left for validation to refuse
        if len(keys) > 1:
            _set(tables.setdefault(keys[0], {}), keys[1:], value)
        else:
            tables[keys[0]] = value


def _resolve_override(keys: list[str], value: Any) -> Any:
    """Return an override with its relative paths made absolute, from the working directory."""
    tables: dict[str, Any] = {}
    _set(tables, keys, dict(value) if isinstance(value, Mapping) else value)
    _resolve_paths(tables, Path())
    return reduce(getitem, keys, tables)


def _resolve_paths(tables: dict[str, Any], folder: Path) -> None:
    """Make relative paths absolute, in place; values of a wrong type are left for validation."""
    sources = tables.get("sources")
    for source in sources if isinstance(sources, list) else []:
        if isinstance(source, dict) and isinstance(path := source.get("path"), str) and path:
            source["path"] = _resolve_source(path, source.get("format"), folder)
    if isinstance(vectors := tables.get("vectors"), str):
        tables["vectors"] = str(_absolute(vectors, folder))
    filters = tables.get("filters")
    for table in filters if isinstance(filters, list) else []:
        if isinstance(table, dict):
            table |= {key: _resolve_option(value, folder) for key, value in table.items()}
    against = tables.get("decontamination")
    questions = against.get("questions") if isinstance(against, dict) else None
    if isinstance(questions, list) and all(isinstance(path, str) and path for path in questions):
        tables["decontamination"]["questions"] = [str(_absolute(path, folder)) for path in questions]
    for key in ("encoder", "exact_encoder"):
        encoder = tables.get(key)
        model = encoder.get("model") if isinstance(encoder, dict) else None
        if isinstance(model, str) and model.startswith((".", "/", "~")):
            tables[key]["model"] = str(_absolute(model, folder))


def _resolve_option(value: Any, folder: Path) -> Any:
    """Return a filter's option, a path made absolute if it is written as one: ./ and ../ and ~/."""
    if isinstance(value, list):
        return [_resolve_option(item, folder) for item in value]
    is_path = isinstance(value, str) and value.startswith(("./", "../", "~/"))
    return str(_absolute(value, folder)) if is_path else value


def _resolve_source(path: str, kind: Any, folder: Path) -> str:
    """Return an absolute path, or a Hugging Face dataset's name as it is."""
    if kind == "huggingface" or path.startswith("hf:"):
        return path
    absolute = _absolute(path, folder)
    looks_like_hub = _HUB_ID.fullmatch(path) and not _FILE_SUFFIX.fullmatch(path)
    return path if looks_like_hub and not absolute.parent.exists() else str(absolute)


def _absolute(path: str, folder: Path) -> Path:
    try:
        absolute = folder.absolute().joinpath(Path(path).expanduser())
    except RuntimeError as error:  # ~nobody
        raise InvalidValueError(f"{path!r} is not a path: {error}", value=path) from error
    plain = Path(os.path.normpath(absolute))
    try:  # a folder that is a link has another parent than its name says
        same = os.path.realpath(plain) == os.path.realpath(absolute)
    except (OSError, ValueError):  # what is no path is told where it is read
        same = False
    return plain if same else absolute
