"""The systems that are asked filtered queries."""

from benchmarks.peers.launch import Peer

WORKER = "filtered_worker"
GIVEN_BITMAPS = frozenset({"hnswlib", "faiss-hnsw", "faiss-ivf"})
"""Systems without attributes: their bitmaps are ready before a query is timed."""

SYSTEMS = {
    name: Peer(name, f"filtered_{adapter}", environment, worker=WORKER)
    for name, adapter, environment in (
        ("compactds", "compactds", None),
        ("hnswlib", "hnswlib", None),
        ("faiss-hnsw", "faiss_graph", None),
        ("faiss-ivf", "faiss_lists", None),
        ("lancedb", "lancedb", "lancedb"),
        ("chroma", "chroma", "chroma"),
        ("duckdb", "duckdb", None),
    )
}
