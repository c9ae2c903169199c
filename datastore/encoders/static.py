"""Encode with a static model: the mean of its tokens' vectors, a hundred times faster than a transformer."""

import io
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compactds.datastore.encoders.base import EncoderSpec, TokenSpans, Vectors
from compactds.datastore.encoders.computation import machine_facts
from compactds.datastore.encoders.fingerprint import file_sha256, json_sha256, module_types, read_json
from compactds.datastore.encoders.quiet import quiet_libraries, quiet_logger
from compactds.datastore.encoders.settings import Settings, cut_and_normalize
from compactds.datastore.encoders.texts import check_texts
from compactds.datastore.encoders.tokens import TokenCounter
from compactds.datastore.errors import EncoderError

if TYPE_CHECKING:
    from model2vec import StaticModel

_log = logging.getLogger(__name__)

DEFAULT_DIMENSION = 256
_TEXTS_PER_BATCH = 512
# Where the weights and the tokenizer lie together, in the order they are looked for.
_WEIGHT_FOLDERS = (".", "0_StaticEmbedding")
_MODEL_FILES = ("config.json", "config_sentence_transformers.json", "model.safetensors", "modules.json")


class StaticEncoder:
    """Encode queries and passages as the mean of their tokens' vectors.

    There is no token limit, and a text's vector does not depend on what it is encoded with. A text
    without a known token is all zeros. Threads may share it.
    """

    def __init__(self, model: "StaticModel", spec: EncoderSpec, files: Mapping[str, bytes | Path]) -> None:
        self._embedding: NDArray[np.float32] = model.embedding.astype(np.float32)
        self._weights: NDArray[np.float32] | None = model.weights
        self._mapping: NDArray[np.int64] | None = model.token_mapping
        self._unknown: int | None = model.unk_token_id
        self._tokenizer_json: str = model.tokenizer.to_str()
        self._spec = spec
        self._files = files

    @property
    def spec(self) -> EncoderSpec:
        """Return what the manifest records of this encoder."""
        return self._spec

    @property
    def cache_key(self) -> str:
        """Return a digest of all that a passage's vector depends on besides its text."""
        return json_sha256({"fingerprint": self._spec.fingerprint, "machine": machine_facts()})

    @property
    def overhead_tokens(self) -> int:
        """Return what each passage costs besides its own tokens: the prompt's."""
        return self._tokens.overhead_tokens

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row per query, shape (len(texts), dimension)."""
        return self._encode(texts, self._spec.query_prompt)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row per passage, shape (len(texts), dimension)."""
        return self._encode(texts, self._spec.passage_prompt)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each passage, the prompt's included."""
        return self._tokens.count(check_texts(texts))

    def token_offsets(self, texts: Sequence[str]) -> list[TokenSpans]:
        """Return the character span of every token of each text, without the prompt's."""
        return self._tokens.offsets(check_texts(texts))

    def save(self, folder: Path) -> None:
        """Write the model's files into a new folder, from which `open_static` reads them.

        The same model gives the same bytes. Raises FileExistsError if there is such a folder.
        """
        folder.mkdir(parents=True)
        for name, content in self._files.items():
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_bytes(content)

    @cached_property
    def _tokens(self) -> TokenCounter:
        return TokenCounter.from_json(self._tokenizer_json, self._spec.passage_prompt, special_tokens=False)

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        checked = check_texts(texts)
        vectors = np.zeros((len(checked), self._embedding.shape[1]), np.float32)
        for start in range(0, len(checked), _TEXTS_PER_BATCH):
            batch = checked[start : start + _TEXTS_PER_BATCH]
            for row, token_ids in enumerate(self._tokens.ids([prompt + text for text in batch]), start):
                vectors[row] = self._mean(token_ids)
        return cut_and_normalize(vectors, self._spec.dimension, normalize=self._spec.normalized)

    def _mean(self, token_ids: list[int]) -> NDArray[np.float32]:
        ids = np.array(token_ids, np.int64)
        if self._unknown is not None:
            ids = ids[ids != self._unknown]
        if not len(ids):
            return np.zeros(self._embedding.shape[1], np.float32)
        vectors = self._embedding[ids if self._mapping is None else self._mapping[ids]]
        if self._weights is not None:
            vectors = vectors * self._weights[ids][:, None]
        mean: NDArray[np.float32] = vectors.mean(axis=0, dtype=np.float32)
        return mean


def is_static(folder: Path) -> bool:
    """Say whether a model folder holds a static model, written by model2vec or sentence-transformers."""
    if any(kind.endswith(".StaticEmbedding") for kind in module_types(folder)):
        return True
    config = folder / "config.json"
    return config.is_file() and read_json(config).get("model_type") == "model2vec"


def open_static(folder: Path, name: str, settings: Settings | None = None) -> StaticEncoder:
    """Open a static model that model2vec, sentence-transformers or `StaticEncoder.save` wrote.

    `name` is what the manifest will call the model. Raises EncoderError for a damaged folder, and for
    settings that do not fit the model.
    """
    from model2vec import StaticModel

    weights = next(
        (folder / place for place in _WEIGHT_FOLDERS if (folder / place / "model.safetensors").is_file()),
        None,
    )
    if weights is None or not (weights / "tokenizer.json").is_file():
        raise EncoderError(
            f"{folder} lacks model.safetensors or tokenizer.json.",
            value=str(folder),
            remedy="Point to a folder that StaticModel.save_pretrained wrote; in a store, copy it again.",
        )
    hashes = {file: file_sha256(weights / file) for file in ("model.safetensors", "tokenizer.json")}
    names = [*_MODEL_FILES, "tokenizer.json", *(f"0_StaticEmbedding/{file}" for file in hashes)]
    files = {name: folder / name for name in names if (folder / name).is_file()}
    try:
        with quiet_logger("model2vec"):
            model = StaticModel.from_pretrained(folder, force_download=False)
    except Exception as error:
        raise EncoderError(
            f"the static model in {folder} cannot be loaded: {error}",
            value=str(folder),
            remedy="Copy it again.",
        ) from error
    return _static_encoder(model, name, hashes, files, settings or Settings())


def distill(
    base: Path, name: str, dimension: int = DEFAULT_DIMENSION, settings: Settings | None = None
) -> StaticEncoder:
    """Distil a static model from a transformer's folder with model2vec: every token encoded, then PCA.

    It takes about 15 s for MiniLM on two cores, and one machine gives the same bytes each time. Another
    kind of CPU may differ in the last digits, so a store carries the model. Raises EncoderError for a
    dimension larger than the transformer's.
    """
    from model2vec.distill import distill_from_model
    from safetensors.numpy import save
    from transformers import AutoModel, AutoTokenizer

    _log.info("distilling a static model of %d dimensions from %s", dimension, base)
    with quiet_libraries(), quiet_logger("model2vec"), redirect_stderr(io.StringIO()):
        model = AutoModel.from_pretrained(base, local_files_only=True, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        if dimension > model.config.hidden_size:
            raise EncoderError(
                f"a static model of dimension {dimension} cannot be distilled from one of "
                f"{model.config.hidden_size}.",
                value=dimension,
                remedy=f"Give at most {model.config.hidden_size}.",
            )
        static = distill_from_model(model, tokenizer, device="cpu", pca_dims=dimension)
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": True}
    files = {
        "model.safetensors": save({"embeddings": np.ascontiguousarray(static.embedding)}),
        "tokenizer.json": static.tokenizer.to_str().encode(),
        "config.json": json.dumps(config, indent=2).encode(),
    }
    hashes = {file: sha256(files[file]).hexdigest() for file in ("model.safetensors", "tokenizer.json")}
    return _static_encoder(static, name, hashes, files, settings or Settings())


def _static_encoder(
    model: "StaticModel",
    name: str,
    hashes: Mapping[str, str],
    files: Mapping[str, bytes | Path],
    settings: Settings,
) -> StaticEncoder:
    full = int(model.embedding.shape[1])
    dimension = settings.dimension or full
    if dimension > full:
        raise EncoderError(
            f"dimension = {dimension} is more than the model's {full}.",
            value=dimension,
            remedy=f"Give at most {full}.",
        )
    if settings.max_tokens is not None or settings.pooling not in (None, "mean"):
        raise EncoderError(
            "a static model has no token limit, and its pooling is the mean.",
            value=settings.max_tokens or settings.pooling,
            remedy="Leave max_tokens and pooling out.",
        )
    spec = EncoderSpec(
        model=name,
        kind="static",
        dimension=dimension,
        max_tokens=None,
        normalized=bool(model.normalize) if settings.normalize is None else settings.normalize,
        query_prompt=settings.query_prompt or "",
        passage_prompt=settings.passage_prompt or "",
        pooling="mean",
        fingerprint="",
    )
    fingerprint = json_sha256(
        {
            "kind": "static",
            "files": dict(hashes),
            "prompts": [spec.query_prompt, spec.passage_prompt],
            "normalized": spec.normalized,
            "dimension": dimension,
        }
    )
    return StaticEncoder(model, replace(spec, fingerprint=fingerprint), files)
