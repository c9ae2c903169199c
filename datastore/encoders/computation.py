"""Say how vectors are computed: what changes their last digits but not what they mean."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

TOKENS_PER_TEXT = 64
"""A batch holds so many tokens for each text of the batch size: fewer long texts, more short ones."""

GPU_BATCHES = 8
"""A GPU is given batches so many times as large."""

_PACKAGES = ("sentence-transformers", "tokenizers", "torch", "transformers")
_VARIABLES = ("ATEN_", "CUDA_", "DNNL_", "MKL_", "NVIDIA_", "ONEDNN_", "TORCH_")


@dataclass(frozen=True, slots=True)
class Computation:
    """Hold what a recipe says about computing: the batch size, the number format, the device."""

    batch_size: int = 32
    dtype: str = "auto"
    device: str = "auto"

    def batch_tokens(self, device: str) -> int:
        """Return how many tokens a batch holds on a torch device such as "cpu" or "cuda"."""
        return self.batch_size * TOKENS_PER_TEXT * (1 if device == "cpu" else GPU_BATCHES)


def wants_bfloat16(dtype: str, device: str) -> bool:
    """Say whether passages are computed in bfloat16: if asked, or if the hardware multiplies it."""
    if dtype != "auto":
        return dtype == "bfloat16"
    import torch

    if device == "cpu":
        names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, name)() for name in names if hasattr(torch.cpu, name))
    return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def machine_facts() -> dict[str, str]:
    """Return what of this machine and its libraries may change the last digits of a vector.

    That is the processor's instructions, the graphics driver, the versions of the libraries, and the
    environment variables that steer them. Nothing heavy is imported to find out.
    """
    facts = {
        "machine": platform.machine(),
        "instructions": _instructions(),
        "driver": _first_line(Path("/proc/driver/nvidia/version")),
    }
    facts |= {package: _version(package) for package in _PACKAGES}
    return facts | {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}


def _instructions() -> str:
    """Return the processor's vector instructions, or its name where the system lists none."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = ""
    return " ".join(sorted(flags.partition(":")[2].split())) or platform.processor()


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
