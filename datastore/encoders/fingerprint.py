"""Tell models apart by what they hold, not by where they were found."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compactds.datastore.errors import EncoderError

# Keys of a model's config.json that change when it is saved again, but change no vector.
_INCIDENTAL_KEYS = frozenset(
    {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def model_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of all in a sentence-transformers folder that decides its vectors.

    That is the weights of every module, the tokenizer and the model's own configuration. Raises
    EncoderError if the weights are missing or stored as a pickle.
    """
    hashes = {path.relative_to(folder).as_posix(): file_sha256(path) for path in weight_files(folder)}
    tokenizer = folder / "tokenizer.json"
    if tokenizer.is_file():
        hashes["tokenizer.json"] = file_sha256(tokenizer)
    config = read_json(folder / "config.json")
    hashes["config.json"] = json_sha256({k: v for k, v in config.items() if k not in _INCIDENTAL_KEYS})
    return hashes


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that a sentence-transformers folder is loaded from.

    Raises EncoderError if a module's weights are only there as a pickle, or if there are none at all.
    """
    found: list[Path] = []
    for module in _module_folders(folder):
        files = _safetensors(module)
        pickles = [module / "pytorch_model.bin", *module.glob("pytorch_model-*.bin")]
        pickle_file = next((path for path in pickles if path.is_file()), None)
        if not files and pickle_file is not None:
            raise EncoderError(
                f"{pickle_file} stores weights as a pickle, which can run code when it is read.",
                value=str(pickle_file),
                remedy="Convert it to model.safetensors, or use a revision of the model that has it.",
            )
        found.extend(files)
    if not found:
        raise EncoderError(
            f"{folder} holds no model.safetensors.",
            value=str(folder),
            remedy="Point to a folder that SentenceTransformer.save or save_pretrained wrote.",
        )
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a model folder; raise EncoderError naming the file if it is not one."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise EncoderError(f"{path} cannot be read: {error.strerror}.", value=str(path)) from error
    except ValueError as error:
        raise EncoderError(f"{path} is not JSON: {error}.", value=str(path)) from error
    if not isinstance(data, dict):
        raise EncoderError(f"{path} holds a {type(data).__name__}, not an object.", value=str(path))
    return data


def module_types(folder: Path) -> list[str]:
    """Return the class names in a folder's modules.json, in order; none if it has no such file."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    return [str(module.get("type", "")) for module in _read_modules(path)]


def _read_modules(path: Path) -> list[dict[str, Any]]:
    try:
        modules = json.loads(path.read_bytes())
    except ValueError as error:
        raise EncoderError(f"{path} is not JSON: {error}.", value=str(path)) from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise EncoderError(f"{path} is not a list of modules.", value=str(path))
    return modules


def _module_folders(folder: Path) -> list[Path]:
    """Return the root and every module's folder, each once."""
    path = folder / "modules.json"
    folders = {folder: None}
    if path.is_file():
        folders |= {folder / str(module.get("path", "")): None for module in _read_modules(path)}
    return list(folders)


def _safetensors(folder: Path) -> list[Path]:
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return []
    names = sorted(set(read_json(index).get("weight_map", {}).values()))
    shards = [folder / name for name in names]
    missing = next((path for path in shards if path.parent != folder or not path.is_file()), None)
    if missing is not None:
        raise EncoderError(f"{index} names {missing.name}, which is not there.", value=str(missing))
    return shards
