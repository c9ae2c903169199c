"""Readers that turn files, folders and datasets into documents."""

from compactds.indexer.sources.files import content_hint, list_input_files
from compactds.indexer.sources.options import InputFile, Notices, Rejection, SourceOptions
from compactds.indexer.sources.reading import read_documents

__all__ = [
    "InputFile",
    "Notices",
    "Rejection",
    "SourceOptions",
    "content_hint",
    "list_input_files",
    "read_documents",
]
