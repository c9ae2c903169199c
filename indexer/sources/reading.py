"""Read the documents of a source, whatever its format."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

import numpy as np

from compactds.indexer.documents import Document
from compactds.indexer.errors import RecordError, SourceError
from compactds.indexer.sources.files import list_input_files
from compactds.indexer.sources.formats import DOCUMENT_FORMATS
from compactds.indexer.sources.jsonl import read_json, read_jsonl
from compactds.indexer.sources.options import (
    RAW_LIMIT,
    InputFile,
    Notices,
    Record,
    Reject,
    Rejection,
    SourceOptions,
)
from compactds.indexer.sources.records import DocumentShape
from compactds.indexer.sources.texts import DocumentFiles
from compactds.indexer.sources.values import clean_text, json_text

logger = logging.getLogger(__name__)

OnReject = Callable[[Rejection], None]


def read_documents(
    options: SourceOptions,
    on_reject: OnReject | None = None,
    *,
    files: Sequence[InputFile] | None = None,
    notices: Notices | None = None,
) -> Iterator[Document]:
    """Yield the documents of a source in a fixed order, holding one record at a time.

    Raise SourceError for a source that cannot be read at all, and RecordError for a broken record; with
    `options.skip_invalid`, broken records go to `on_reject` instead. A file that is damaged half way
    counts as one broken record, and reading goes on with the next file. An empty text file among others
    in a folder goes to `on_reject` in any case.

    `files` are those to read of what `list_input_files` gives, all if left out. `notices` counts what is
    worth telling; it is logged if left out.
    """
    if options.max_documents is not None and options.max_documents < 1:
        raise SourceError(
            f"max_documents is {options.max_documents}.",
            value=options.max_documents,
            remedy="Give at least 1, or leave it out to read all.",
        )
    documents = _documents(options, files, on_reject or _ignore, notices)
    return islice(documents, options.max_documents)


def _ignore(_: Rejection) -> None:
    """Take no note of a record that is left out."""


def _documents(
    options: SourceOptions,
    files: Sequence[InputFile] | None,
    on_reject: OnReject,
    notices: Notices | None,
) -> Iterator[Document]:
    """Yield the documents of a source; say at the end what is worth telling, or leave it in `notices`."""
    noticed = Notices() if notices is None else notices
    yield from _read(options, files, on_reject, noticed)
    for sentence in noticed.sentences() if notices is None else ():
        logger.warning("%s", sentence)


def _read(
    options: SourceOptions, files: Sequence[InputFile] | None, on_reject: OnReject, notices: Notices
) -> Iterator[Document]:
    def pass_over(error: RecordError, raw: str) -> None:
        on_reject(Rejection(clean_text(error.origin), clean_text(error.reason), clean_text(raw[:RAW_LIMIT])))

    def reject(error: RecordError, raw: str) -> None:
        if not options.skip_invalid:
            raise error
        pass_over(error, raw)

    name = options.source_name
    shapes: dict[tuple[bool, bool], DocumentShape] = {}
    if options.is_hub_dataset:
        from compactds.indexer.sources.hub import read_hub

        shape = DocumentShape(options, name, notices=notices)
        yield from _shaped(read_hub(options, shape), shape, reject)
        return
    texts = DocumentFiles(reject, reject if options.allow_empty_text else pass_over, notices)
    for file in list_input_files(options) if files is None else files:
        if options.skip_invalid and not os.access(file.path, os.R_OK):
            reject(RecordError("the file is gone, or may not be read", origin=str(file.path)), "")
            continue
        kind = file.format in DOCUMENT_FORMATS, file.format == "csv"
        if kind not in shapes:
            shapes[kind] = DocumentShape(
                options, name, files=kind[0], attributes_are_text=kind[1], notices=notices
            )
        yield from _shaped(_records(file, texts, shapes[kind], reject), shapes[kind], reject, file)
        _check_unchanged(file)


def _check_unchanged(file: InputFile) -> None:
    """Refuse a file that was written to or replaced while it was read: what was read may be neither."""
    try:
        status = file.path.stat()
    except OSError:
        return  # it was read to its end, all the same
    if (status.st_size, status.st_mtime_ns) != (file.size_bytes, file.mtime_ns):
        raise SourceError(
            f"{file.path} changed while it was read.",
            value=str(file.path),
            remedy="Run the same command again when nothing writes to it.",
        )


def _shaped(
    records: Iterator[Record], shape: DocumentShape, reject: Reject, file: InputFile | None = None
) -> Iterator[Document]:
    for record in records:
        try:
            document = shape.document(record, file)
        except RecordError as error:
            reject(error, _raw(record))
            continue
        yield document


def _raw(record: Record) -> str:
    if record.raw is not None:
        return record.raw[:RAW_LIMIT].decode("utf-8", "replace")
    with suppress(ValueError):
        return _shown(record)
    return ""


def _shown(record: Record) -> str:
    return json_text(
        {key: value for key, value in record.values.items() if not isinstance(value, np.ndarray)}
    )


def _records(file: InputFile, texts: DocumentFiles, shape: DocumentShape, reject: Reject) -> Iterator[Record]:
    """Return the records of one file; each reader is imported when it is first needed."""
    match file.format:
        case "jsonl":
            return read_jsonl(file, reject)
        case "json":
            return read_json(file, reject)
        case "csv":
            from compactds.indexer.sources.delimited import read_csv

            return read_csv(file, shape, reject)
        case "parquet":
            from compactds.indexer.sources.parquet import read_parquet

            return read_parquet(file, shape, reject)
        case _:
            return texts.read(file)
