"""Chroma with where, attributes as metadata."""

from pathlib import Path
from typing import Any

from benchmarks.peers import chroma_graph
from benchmarks.peers.blocks import blocks
from benchmarks.peers.filtered_where import Where, read_attributes, to_chroma
from benchmarks.peers.worker import K

PACKAGES = chroma_graph.PACKAGES
BEAMS = (20, 100, 400)


def build(vectors: Any, folder: Path, _threads: int, options: dict[str, Any]) -> None:
    collection = chroma_graph.client(folder).create_collection(
        "rows", configuration={"hnsw": {"space": "ip"}}, embedding_function=None
    )
    attributes = read_attributes(options["attributes"], len(vectors))
    first = 0
    for block in blocks(vectors, chroma_graph.BATCH_ROWS):
        numbers = range(first, first + len(block))
        metadata = [  # it takes neither None nor an empty list
            {name: value for name, value in attributes[row].items() if value not in (None, [])}
            for row in numbers
        ]
        collection.add(ids=[str(row) for row in numbers], embeddings=block, metadatas=metadata)
        first += len(block)


class Graph(chroma_graph.Graph):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings = [{"ef_search": beam} for beam in BEAMS]

    def prepare_filtered(self, setting: dict[str, Any], where: Where | None) -> Any:
        self.prepare(setting)
        condition = where and to_chroma(where)
        query = self.collection.query

        def one(vector: Any) -> Any:
            return query(query_embeddings=[vector], n_results=K, where=condition, include=[])["ids"][0]

        return one


def open_index(folder: Path, _threads: int, _options: dict[str, Any]) -> Graph:
    return Graph(folder)
