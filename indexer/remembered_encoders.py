"""Keep from one build to the next what is slow to find out about an encoder."""

import json
import logging
import shutil
import uuid
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compactds.datastore.encoders import Encoder, EncoderOptions, EncoderSpec, load_encoder
from compactds.datastore.encoders.computation import machine_facts
from compactds.datastore.encoders.fingerprint import file_sha256, json_sha256, model_hashes
from compactds.datastore.encoders.lazy import LazyEncoder
from compactds.datastore.encoders.loading import FoundModel, find_model
from compactds.datastore.encoders.sentence_transformer import SentenceTransformerEncoder
from compactds.datastore.encoders.static import StaticEncoder
from compactds.datastore.errors import EncoderError
from compactds.indexer.embedding_segments import write_beside

_log = logging.getLogger(__name__)

FORMAT = 1
_SETTINGS_SUFFIXES = frozenset({".json", ".txt", ".model", ".jinja"})
_ABOUT = "about.json"
_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def load_remembered(options: EncoderOptions, folder: Path) -> Encoder:
    """Load the encoder that `options` describe, as `load_encoder` does, but sooner the second time.

    A transformer seen before is loaded when its first vector is wanted, a static model distilled before
    is read. What `folder` holds of them is used only if the model's files, the libraries and the machine
    are the same. Raises what `load_encoder` raises; a folder that cannot be used is logged.
    """
    found = find_model(options)
    if found is None:
        return load_encoder(options)
    if found.distilled:
        return _distilled(options, folder / "models" / _digest(options, found))
    return _transformer(options, folder / "encoders" / f"{_digest(options, found)}.json")


def _digest(options: EncoderOptions, found: FoundModel) -> str:
    """Return a digest of all that may change what is remembered: options, files, libraries, machine."""
    files = {
        path.relative_to(found.folder).as_posix(): file_sha256(path)
        for path in sorted(found.folder.rglob("*"))
        if path.suffix in _SETTINGS_SUFFIXES and path.is_file()
    }
    facts = {
        "format": FORMAT,
        "model": found.name,
        "files": model_hashes(found.folder) | files,
        "machine": machine_facts() | {"model2vec": version("model2vec")},
        "options": {"dimension": options.dimension} if found.distilled else asdict(options),
    }
    return json_sha256(facts)


def _transformer(options: EncoderOptions, path: Path) -> Encoder:
    known = _read(path)
    if known is not None:
        spec, cache_key, tokenizer = known
        return LazyEncoder(spec, cache_key, tokenizer, lambda: load_encoder(options))
    encoder = load_encoder(options)
    if isinstance(encoder, SentenceTransformerEncoder) and encoder.overhead_tokens >= 0:
        body = {
            "spec": encoder.spec.to_json(),
            "cache_key": encoder.cache_key,
            "tokenizer": encoder.tokenizer_json,
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_beside(path, json.dumps({"sha256": _sha256(body), "body": body}).encode())
        except OSError as error:
            _log.warning("nothing is remembered of %s: %s", encoder.spec.model, error)
    return encoder


def _read(path: Path) -> tuple[EncoderSpec, str, str] | None:
    """Return what was remembered of a transformer, None if that is nothing or damaged."""
    try:
        content = json.loads(path.read_bytes())
        body = content["body"]
        if content["sha256"] == _sha256(body):
            return EncoderSpec.from_json(body["spec"]), body["cache_key"], body["tokenizer"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        pass
    _log.warning("%s is damaged; the model is loaded instead", path)
    return None


def _sha256(body: Any) -> str:
    return sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _distilled(options: EncoderOptions, kept: Path) -> Encoder:
    if _is_whole(kept):
        try:
            return load_encoder(options, bundle_root=kept)
        except EncoderError as error:
            _log.warning("%s cannot be used: %s", kept, error)
    encoder = load_encoder(options)
    if isinstance(encoder, StaticEncoder):
        beside = kept.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            encoder.save(beside)
            hashes = {name: file_sha256(beside / name) for name in _FILES}
            write_beside(beside / _ABOUT, json.dumps(hashes).encode())
            shutil.rmtree(kept, ignore_errors=True)
            beside.rename(kept)
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            if not kept.exists():  # else another build has just kept the same
                _log.warning("the static model is not kept: %s", error)
    return encoder


def _is_whole(kept: Path) -> bool:
    try:
        hashes = json.loads((kept / _ABOUT).read_bytes())
        return all(file_sha256(kept / name) == hashes[name] for name in _FILES)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError, KeyError):
        _log.warning("%s is damaged; the model is distilled again", kept)
        return False
