"""Encode with a sentence-transformers model, with everything that changes a vector pinned."""

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compactds.datastore.encoders.base import EncoderSpec, TokenSpans, Vectors
from compactds.datastore.encoders.batches import BatchShape, encode_texts
from compactds.datastore.encoders.computation import Computation, machine_facts, wants_bfloat16
from compactds.datastore.encoders.fingerprint import json_sha256, model_hashes, module_types
from compactds.datastore.encoders.quiet import quiet_libraries
from compactds.datastore.encoders.settings import Settings, cut_and_normalize
from compactds.datastore.encoders.texts import check_texts
from compactds.datastore.encoders.tokens import TokenCounter
from compactds.datastore.errors import EncoderError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

POOLINGS = ("mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens")
# Appended to a pooling's name: only the text's own tokens are pooled, not the prompt's.
WITHOUT_PROMPT = "-without-prompt"
# Architectures whose first position is number 2.
_OFFSET_POSITIONS = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})
# Tokenizers without a limit state one of about 1e30.
_NO_LIMIT = 10_000_000


class SentenceTransformerEncoder:
    """Encode queries and passages with one loaded model.

    The weights are held once, in float32. Passages may be computed in bfloat16 (matrix products only:
    torch's autocast), queries never are. A passage's vector depends on nothing but its text. Calls from
    several threads take turns.
    """

    def __init__(self, model: "SentenceTransformer", spec: EncoderSpec, computation: Computation) -> None:
        device = model.device.type
        self._model = model
        self._spec = spec
        self._batch_tokens = computation.batch_tokens(device)
        self._bfloat16 = wants_bfloat16(computation.dtype, device)
        self._turn = threading.Lock()

    @property
    def spec(self) -> EncoderSpec:
        """Return what the manifest records of this encoder."""
        return self._spec

    @property
    def computes_in_bfloat16(self) -> bool:
        """Say whether passages are computed in bfloat16."""
        return self._bfloat16

    @property
    def cache_key(self) -> str:
        """Return a digest of all that a passage's vector depends on besides its text."""
        facts = {
            "fingerprint": self._spec.fingerprint,
            "dtype": "bfloat16" if self._bfloat16 else "float32",
            "device": _device_name(self._model),
            "batch_tokens": self._batch_tokens,
            "machine": machine_facts(),
        }
        return json_sha256(facts)

    @property
    def tokenizer_json(self) -> str:
        """Return the tokenizer in its serialised form; raise EncoderError if there is no fast one."""
        backend = getattr(self._model.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise EncoderError(
                f"{self._spec.model} has no fast tokenizer, so its tokens cannot be counted.",
                value=self._spec.model,
                remedy="Add a tokenizer.json to the model's folder.",
            )
        return str(backend.to_str())

    @property
    def overhead_tokens(self) -> int:
        """Return what each passage costs besides its own tokens: special tokens and the prompt."""
        return self._tokens.overhead_tokens

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row per query, shape (len(texts), dimension)."""
        return self._encode(texts, self._spec.query_prompt, passages=False)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Return one float32 row per passage, shape (len(texts), dimension).

        Texts longer than `spec.max_tokens` are cut by the model: count first. Each text's vector is the
        same to the last digit whatever it is encoded with. Short lists cost as much as a full batch.
        """
        return self._encode(texts, self._spec.passage_prompt, passages=True)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return what each passage costs of `max_tokens`: special tokens and prompt included."""
        return self._tokens.count(check_texts(texts))

    def token_offsets(self, texts: Sequence[str]) -> list[TokenSpans]:
        """Return the character span of every token of each text, without prompt and special tokens."""
        return self._tokens.offsets(check_texts(texts))

    @cached_property
    def _tokens(self) -> TokenCounter:
        counter = TokenCounter.from_json(self.tokenizer_json, self._spec.passage_prompt)
        limit = self._spec.max_tokens
        if limit is not None and counter.overhead_tokens >= limit:
            raise EncoderError(
                f"max_tokens = {limit} leaves no room for text: the prompt and special tokens take "
                f"{counter.overhead_tokens}.",
                value=limit,
                remedy="Raise max_tokens or shorten passage_prompt.",
            )
        return counter

    def _encode(self, texts: Sequence[str], prompt: str, *, passages: bool) -> Vectors:
        checked = check_texts(texts)
        if not checked:
            return np.empty((0, self._spec.dimension), np.float32)
        bfloat16 = passages and self._bfloat16
        shape = BatchShape(self._batch_tokens, filled=passages)
        limit = self._spec.max_tokens
        with self._turn:
            vectors = encode_texts(self._model, checked, prompt, limit, shape, bfloat16=bfloat16)
        return cut_and_normalize(vectors, self._spec.dimension, normalize=self._spec.normalized)


def load_sentence_transformer(
    folder: Path, name: str, settings: Settings, computation: Computation
) -> SentenceTransformerEncoder:
    """Load a sentence-transformers or plain transformers folder.

    `name` is what the manifest will call the model. Raises EncoderError for weights stored as pickles,
    models that need code of their own, and settings that do not fit the model.
    """
    _refuse_own_code(folder)
    hashes = model_hashes(folder)
    model = _load(folder, settings, computation.device)
    normalizes = _drop_normalize(model)
    pooling = _set_pooling(model, settings.pooling)
    query_prompt = _prompt(model, settings.query_prompt, ("query",))
    passage_prompt = _prompt(model, settings.passage_prompt, ("passage", "document", "corpus"))
    dimension = _dimension(model, settings)
    max_tokens = _set_max_tokens(model, settings)
    normalized = normalizes if settings.normalize is None else settings.normalize
    fingerprint = json_sha256(
        {
            "kind": "sentence-transformers",
            "files": hashes,
            "pooling": pooling,
            "bidirectional": settings.bidirectional,
            "prompts": [query_prompt, passage_prompt],
            "normalized": normalized,
            "dimension": dimension,
            "max_tokens": max_tokens,
        }
    )
    spec = EncoderSpec(
        model=name,
        kind="sentence-transformers",
        dimension=dimension,
        max_tokens=max_tokens,
        normalized=normalized,
        query_prompt=query_prompt,
        passage_prompt=passage_prompt,
        pooling=pooling,
        fingerprint=fingerprint,
    )
    return SentenceTransformerEncoder(model, spec, computation)


def _device_name(model: "SentenceTransformer") -> str:
    if model.device.type != "cuda":
        return str(model.device.type)
    import torch

    return str(torch.cuda.get_device_name(model.device))


def _load(folder: Path, settings: Settings, device: str) -> "SentenceTransformer":
    import torch
    from sentence_transformers import SentenceTransformer

    try:
        with quiet_libraries():
            model = SentenceTransformer(
                str(folder),
                device=None if device == "auto" else device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": torch.float32, "use_safetensors": True},
            ).eval()
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise EncoderError(
            f"the model in {folder} cannot be loaded: {reason}",
            value=str(folder),
            remedy="Check that the folder is complete and that the installed sentence-transformers knows "
            "its architecture.",
        ) from error
    if settings.bidirectional:
        # Given at load time, transformers drops what the architecture's configuration does not know.
        model[0].auto_model.config.is_causal = False
    if model.tokenizer.pad_token is None:
        model.tokenizer.pad_token = model.tokenizer.eos_token
    return model


def _refuse_own_code(folder: Path) -> None:
    """Raise EncoderError for a model whose modules are code that comes with the model."""
    for kind in module_types(folder):
        if not kind.startswith("sentence_transformers."):
            raise EncoderError(
                f"the model in {folder} asks for the module {kind}, code of its own.",
                value=kind,
                remedy="Running a model's own code is not supported: serve it over HTTP, kind openai or tei.",
            )


def _drop_normalize(model: "SentenceTransformer") -> bool:
    """Take the final normalisation off the model and say whether there was one.

    It is done afterwards, in float32 and after the dimensions are cut.
    """
    if type(model[-1]).__name__ != "Normalize":
        return False
    del model[-1]
    return True


def _set_pooling(model: "SentenceTransformer", wanted: str | None) -> str:
    """Set how token vectors become one, and return its name; None keeps the model's own way."""
    module: Any = next((module for module in model if type(module).__name__ == "Pooling"), None)
    if module is None:
        if wanted not in (None, "model"):
            raise EncoderError(
                f"pooling = {wanted!r} cannot be set: the model has no pooling of its own.",
                value=wanted,
                remedy="Leave pooling out.",
            )
        return "model"
    if wanted is not None:
        modes = wanted.removesuffix(WITHOUT_PROMPT).split("+")
        unknown = next((mode for mode in modes if mode not in POOLINGS), None)
        if unknown is not None:
            raise EncoderError(
                f"pooling {unknown!r} is unknown.", value=unknown, remedy=f"Use one of {', '.join(POOLINGS)}."
            )
        module.pooling_mode = modes[0] if len(modes) == 1 else tuple(modes)
        module.pooling_output_dimension = len(modes) * module.embedding_dimension
        module.include_prompt = not wanted.endswith(WITHOUT_PROMPT)
    modes = [module.pooling_mode] if isinstance(module.pooling_mode, str) else list(module.pooling_mode)
    return "+".join(modes) + ("" if module.include_prompt else WITHOUT_PROMPT)


def _prompt(model: "SentenceTransformer", wanted: str | None, names: tuple[str, ...]) -> str:
    """Return the prompt to use: the one asked for, else the first the model's files name."""
    if wanted is not None:
        return wanted
    return next((model.prompts[name] for name in names if model.prompts.get(name)), "")


def _dimension(model: "SentenceTransformer", settings: Settings) -> int:
    full = model.get_embedding_dimension()
    if full is None:
        raise EncoderError("the model does not say its dimension.", remedy="Use another model.")
    if settings.dimension is not None and settings.dimension > full:
        raise EncoderError(
            f"dimension = {settings.dimension} is more than the model's {full}.",
            value=settings.dimension,
            remedy=f"Give at most {full}.",
        )
    return settings.dimension or full


def _set_max_tokens(model: "SentenceTransformer", settings: Settings) -> int | None:
    """Set where the model cuts its input, and return it; None means nowhere."""
    config = model[0].config if hasattr(model[0], "config") else None
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and getattr(config, "model_type", "") in _OFFSET_POSITIONS:
        positions -= 2
    if settings.max_tokens is not None:
        if positions is not None and settings.max_tokens > positions > 0:
            raise EncoderError(
                f"max_tokens = {settings.max_tokens} is more than the {positions} positions of the model.",
                value=settings.max_tokens,
                remedy=f"Give at most {positions}.",
            )
        model.max_seq_length = settings.max_tokens
    limit = model.max_seq_length
    return None if limit is None or limit > _NO_LIMIT else int(limit)
