"""Documents on their way through a build: Arrow files of bounded size, one document a row."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from compactds.indexer.attributes import plain_attributes
from compactds.indexer.documents import Document
from compactds.indexer.workspace import ShardSizes, read_table, write_table

DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("ordinal", pa.int64()),
        pa.field("document_id", pa.string()),
        pa.field("title", pa.string()),
        pa.field("text", pa.string()),
        pa.field("source", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("attributes", pa.string()),
        pa.field("words", pa.int64()),
        pa.field("id_from_content", pa.bool_()),
        pa.field("attributes_are_text", pa.bool_()),
        pa.field("vector", pa.list_(pa.float32())),
    ]
)


class DocumentRows:
    """Gather documents until they fill a shard, then hand them over as a table."""

    def __init__(self, sizes: ShardSizes) -> None:
        self._sizes = sizes
        self._rows: list[dict[str, Any]] = []
        self._characters = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def full(self) -> bool:
        """Tell whether the documents gathered fill a shard."""
        return len(self._rows) >= self._sizes.documents or self._characters >= self._sizes.characters

    def add(self, document: Document, ordinal: int, words: int) -> None:
        """Take a document; `ordinal` is its record's place among all records."""
        self._characters += len(document.text)
        self._rows.append(
            {
                "ordinal": ordinal,
                "document_id": document.id,
                "title": document.title,
                "text": document.text,
                "source": document.source,
                "origin": document.origin,
                "attributes": orjson.dumps(plain_attributes(document.attributes)).decode(),
                "words": words,
                "id_from_content": document.id_from_content,
                "attributes_are_text": document.attributes_are_text,
                "vector": document.vector,
            }
        )

    def write(self, path: Path) -> None:
        """Save the documents gathered, and begin anew."""
        write_table(path, pa.Table.from_pylist(self._rows, DOCUMENT_SCHEMA))
        self._rows, self._characters = [], 0


def read_shard_documents(path: Path) -> Iterator[tuple[Document, int, int]]:
    """Yield (document, ordinal, words) for each row of a shard.

    Dates among the attributes have become ISO 8601 text, which infers and converts to the same.
    """
    for batch in read_table(path).to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            vector = row.pop("vector")
            ordinal, words = row.pop("ordinal"), row.pop("words")
            yield (
                Document(
                    id=row.pop("document_id"),
                    attributes=orjson.loads(row.pop("attributes")),
                    vector=None if vector is None else np.asarray(vector, np.float32),
                    **row,
                ),
                ordinal,
                words,
            )
