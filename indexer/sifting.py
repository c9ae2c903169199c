"""With skip_invalid, documents are left out whose attributes have a wrong type, or whose vector is none."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from compactds.datastore.encoders.base import Vectors
from compactds.filters.schema import FieldType
from compactds.indexer.attributes import AttributeInference
from compactds.indexer.document_shards import DocumentRows, read_shard_documents
from compactds.indexer.documents import Document
from compactds.indexer.errors import AttributeNameError, AttributeTypeError
from compactds.indexer.filtering import kept_shard
from compactds.indexer.given_vectors import unusable_rows
from compactds.indexer.sources import Rejection
from compactds.indexer.sources.options import RAW_LIMIT
from compactds.indexer.sources.values import clean_text, json_text
from compactds.indexer.workspace import SIFTING_FOLDER, ShardSizes, Workspace, read_table, settled


class Sieve:
    """Go through the shards of kept documents in order, and leave out of them what cannot be used.

    An attribute has the type of its first values, or the one it was given; a document that is left out has
    no say in that. `vectors` are ready-made ones of a file, one for each record, if there are any.
    A shard that loses documents is written anew before it is marked, and takes its place after that, so that
    a build which was stopped comes to the same.
    """

    def __init__(
        self,
        workspace: Workspace,
        overrides: Mapping[str, FieldType],
        sizes: ShardSizes,
        vectors: Vectors | None = None,
    ) -> None:
        self._workspace = workspace
        self._overrides = overrides
        self._sizes = sizes
        self._vectors = vectors
        self._folder = workspace.root / SIFTING_FOLDER

    def sift(
        self, number: int, result: Mapping[str, Any], inference: AttributeInference
    ) -> Mapping[str, Any]:
        """Return the result of filtering a shard without the documents that cannot be used.

        `inference` knows the attributes of the shards before this one, and takes note of what stays.
        """
        saved: dict[str, Any] | None = self._workspace.read_state(f"{SIFTING_FOLDER}/{number:06d}")
        if saved is None:
            without = self._without_direction(number) if result["documents"] else {}
            if not without and not result.get("mixed"):
                try:
                    inference.merge(result["attributes"])
                except AttributeNameError:
                    raise
                except AttributeTypeError:
                    pass  # it merges nothing then
                else:
                    return result
            saved = {**result, **self._written(number, inference, without)}
            self._workspace.write_state(f"{SIFTING_FOLDER}/{number:06d}", saved)
        self._put_in_place(number, saved["documents"])
        inference.merge(saved["attributes"])
        return saved

    def _without_direction(self, number: int) -> Mapping[int, str]:
        """Return why ready-made vectors of a shard's documents cannot be used, by the documents' ordinals."""
        if self._vectors is None:
            return {}
        ordinals = read_table(kept_shard(self._workspace, number), ["ordinal"]).column(0).to_numpy()
        return unusable_rows(self._vectors, ordinals)

    def _written(
        self, number: int, inference: AttributeInference, without: Mapping[int, str]
    ) -> dict[str, Any]:
        """Write a shard's usable documents, and a list of the others; return what changes in its result."""
        before, kept = inference.copy(), AttributeInference(self._overrides)
        rows = DocumentRows(self._sizes)
        rejections: list[Rejection] = []
        words = rejected_words = characters = 0
        for document, ordinal, count in read_shard_documents(kept_shard(self._workspace, number)):
            reason = _no_vector(ordinal, without[ordinal]) if ordinal in without else before.misfit(document)
            if reason:
                rejections.append(_rejection(document, reason))
                rejected_words += count
                continue
            kept.observe(document)
            rows.add(document, ordinal, count)
            words, characters = words + count, characters + len(document.text)
        self._folder.mkdir(exist_ok=True)
        documents = len(rows)
        if documents:
            rows.write(self._shard(number))
        with settled(self._folder / f"{number:06d}.rejects.jsonl") as beside:
            beside.write_bytes(b"".join(orjson.dumps(asdict(each)) + b"\n" for each in rejections))
        return {
            "documents": documents,
            "words": words,
            "characters": characters,
            "attributes": kept.to_json(),
            "rejected": len(rejections),
            "rejected_words": rejected_words,
        }

    def _put_in_place(self, number: int, documents: int) -> None:
        """Have the shard that was written anew take the place of the one it was made of."""
        shard = kept_shard(self._workspace, number)
        if not documents:
            shard.unlink(missing_ok=True)
        elif self._shard(number).exists():
            self._shard(number).replace(shard)

    def _shard(self, number: int) -> Path:
        return self._folder / f"{number:06d}.arrow"


def _no_vector(ordinal: int, fault: str) -> str:
    return f"the vector of record {ordinal + 1:,}, counted from 1, {fault}"


def _rejection(document: Document, reason: str) -> Rejection:
    told = {"id": document.id, "title": document.title, "text": document.text[:RAW_LIMIT]}
    raw = json_text({**told, **document.attributes})
    return Rejection(clean_text(document.origin), clean_text(reason), raw[:RAW_LIMIT])
