"""Chroma: its persistent client with its graph over full vectors, all defaults but the beam of a search."""

import gc
from pathlib import Path
from typing import Any

import chromadb
from benchmarks.peers.blocks import blocks, graph_bytes
from benchmarks.peers.worker import K
from chromadb.api.shared_system_client import SharedSystemClient

PACKAGES = ("chromadb", "numpy")
BEAMS = (10, 20, 40, 100, 200, 400)
BATCH_ROWS = 4_096


def client(folder: Path) -> Any:
    return chromadb.PersistentClient(str(folder), settings=chromadb.Settings(anonymized_telemetry=False))


def build(vectors: Any, folder: Path, _threads: int, _options: dict[str, Any]) -> None:
    collection = client(folder).create_collection(
        "rows", configuration={"hnsw": {"space": "ip"}}, embedding_function=None
    )
    first = 0
    for block in blocks(vectors, BATCH_ROWS):
        collection.add(ids=[str(row) for row in range(first, first + len(block))], embeddings=block)
        first += len(block)


class Graph:
    """Hold a collection; it takes a new beam only when it is opened, so that each setting opens it anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.beam: int | None = None
        self.settings = [{"ef_search": beam} for beam in BEAMS]
        self._open()
        dimension = len(self.collection.peek(1)["embeddings"][0])
        self.ram_bytes = graph_bytes(self.collection.count(), 4 * dimension)

    def _open(self) -> None:
        self.collection = client(self.folder).get_collection("rows", embedding_function=None)

    def prepare(self, setting: dict[str, Any]) -> Any:
        if setting["ef_search"] != self.beam:
            self.beam = setting["ef_search"]
            self.collection.modify(configuration={"hnsw": setting})
            self.close()
            self._open()
        query = self.collection.query

        def one(vector: Any) -> Any:
            return query(query_embeddings=[vector], n_results=K, include=[])["ids"][0]

        def many(batch: Any) -> Any:
            return query(query_embeddings=batch, n_results=K, include=[])["ids"]

        return one, many

    def close(self) -> None:
        del self.collection
        SharedSystemClient.clear_system_cache()
        gc.collect()


def open_index(folder: Path, _threads: int, _options: dict[str, Any]) -> Graph:
    return Graph(folder)
