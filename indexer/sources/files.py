"""Find the files of a source."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from xxhash import xxh3_64_hexdigest

from compactds.configs.sizes import counted
from compactds.datastore.manifest import MANIFEST_NAME, SEGMENT_NAME
from compactds.datastore.segment import SEGMENTS_FOLDER
from compactds.indexer.errors import SourceError
from compactds.indexer.sources.formats import FORMATS, SUFFIXES, split_suffix
from compactds.indexer.sources.lines import unreadable
from compactds.indexer.sources.options import InputFile, SourceOptions

_HINT_BYTES = 4096
_STORES_SHOWN = 3

logger = logging.getLogger(__name__)


def list_input_files(options: SourceOptions) -> list[InputFile]:
    """Return the files a source reads, in the order it reads them: sorted by folder and name.

    Hidden files and folders are skipped, links to folders are not followed. Files of unknown suffix are
    skipped with one warning that counts them, and so are datastores: what is built from a folder may lie in
    it. A Hugging Face dataset has no files. With a format other than "auto", a folder gives its files of
    that format's suffixes or, if it has none, all its files. Raise SourceError for a path that is missing,
    unreadable, of unknown format, a datastore, or without any file.
    """
    if options.format != "auto" and options.format not in FORMATS:
        raise SourceError(
            f"unknown source format {options.format!r}.",
            value=options.format,
            remedy=f"Choose auto or one of {', '.join(FORMATS)}.",
        )
    if options.is_hub_dataset:
        return []
    path = Path(options.path)
    try:
        if path.is_dir():
            return _folder_files(path, options)
        path.stat()
    except (OSError, ValueError) as error:
        error = error if isinstance(error, OSError) else OSError(str(error))
        raise unreadable(path, error) from None
    return [_single_file(path, options)]


def content_hint(file: InputFile) -> str:
    """Return a digest of a file's first and last bytes: a copy put in its place may have its size and time.

    Raise SourceError if it cannot be read.
    """
    try:
        with file.path.open("rb") as stream:
            head = stream.read(_HINT_BYTES)
            stream.seek(max(len(head), file.size_bytes - _HINT_BYTES))
            return xxh3_64_hexdigest(head + stream.read(_HINT_BYTES))
    except OSError as error:
        raise unreadable(file.path, error) from None


def _single_file(path: Path, options: SourceOptions) -> InputFile:
    kind = options.format
    if kind == "auto":
        suffix = split_suffix(path.name)[1]
        if suffix not in SUFFIXES:
            raise SourceError(
                f"{path} has the unknown suffix {suffix!r}.",
                value=str(path),
                remedy=f"Known suffixes are {' '.join(SUFFIXES)}. For another one, name the format in "
                f'a recipe, under [[sources]]: format = "text", or one of {", ".join(FORMATS)}.',
            )
        kind = SUFFIXES[suffix]
    return _input_file(path, path.name, kind, in_folder=False)


def _folder_files(folder: Path, options: SourceOptions) -> list[InputFile]:
    if _is_store(folder):
        raise SourceError(
            f"{folder} is a datastore, which is no source.",
            value=str(folder),
            remedy="Give the files or folders it was built from.",
        )
    stores: list[Path] = []
    paths = list(_walk(folder, stores))
    if stores:
        counts = f"{len(stores)} datastore" + ("s" if len(stores) > 1 else "")
        logger.warning("%s: passed over %s (%s)", folder, counts, _some(stores, folder))
    if options.format == "auto":
        chosen = [(path, SUFFIXES.get(split_suffix(path.name)[1])) for path in paths]
    else:
        matching = [path for path in paths if SUFFIXES.get(split_suffix(path.name)[1]) == options.format]
        chosen = [(path, options.format) for path in matching or paths]
    files = [
        _input_file(path, path.relative_to(folder).as_posix(), kind, in_folder=True)
        for path, kind in chosen
        if kind
    ]
    skipped = Counter(split_suffix(path.name)[1] or "no suffix" for path, kind in chosen if not kind)
    if skipped:
        counts = ", ".join(f"{suffix}: {count}" for suffix, count in sorted(skipped.items()))
        passed = counted(skipped.total(), "file")
        logger.warning("%s: skipped %s of unknown format (%s)", folder, passed, counts)
    if not files:
        raise SourceError(
            f"{folder} holds no file of a known format.",
            value=str(folder),
            remedy=f"Known suffixes are {' '.join(SUFFIXES)}; hidden files and datastores are not read.",
        )
    return files


def _is_store(folder: Path) -> bool:
    """Tell whether a folder holds a datastore, whole or not: segments, or a manifest beside none."""
    try:
        segments = [path.name for path in (folder / SEGMENTS_FOLDER).iterdir()]
    except OSError:
        return False
    if not segments:
        return (folder / MANIFEST_NAME).is_file()
    return any(SEGMENT_NAME.fullmatch(name) for name in segments)


def _some(stores: list[Path], folder: Path) -> str:
    shown = ", ".join(str(path.relative_to(folder)) for path in stores[:_STORES_SHOWN])
    return shown + (", …" if len(stores) > _STORES_SHOWN else "")


def _walk(folder: Path, stores: list[Path]) -> Iterator[Path]:
    """Yield the regular files below a folder, each folder's files before its sub-folders.

    Datastores are not entered; they are appended to `stores`.
    """

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=fail):
        visible = sorted(name for name in folders if not name.startswith("."))
        found = [name for name in visible if _is_store(Path(parent, name))]
        stores += [Path(parent, name) for name in found]
        folders[:] = [name for name in visible if name not in found]
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _input_file(path: Path, name: str, kind: str, *, in_folder: bool) -> InputFile:
    status = path.stat()
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # names need not be UTF-8
    return InputFile(path, name, kind, status.st_size, status.st_mtime_ns, in_folder)
