"""Check that a store gives the same answers embedded, over HTTP, and through both clients.

    python -m benchmarks parity --store store --queries queries.jsonl --where "subject = 'physics'"

Asks the same queries (JSON lines with "text", "query" or "question", or one query a line) in four ways,
with and without the filter, one at a time and as one batch. Prints how many answers have the same ids in
the same order, the largest difference of a score, and queries per second.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from compactds.clients import AsyncClient, Client
from compactds.datastore import Datastore
from compactds.server.run import serving
from compactds.server.settings import ServerSettings

Answer = list[tuple[str, float]]
Ask = Callable[[Sequence[str], str | None, bool], list[Answer]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--where", required=True, help="an SQL condition")
    parser.add_argument("--limit", type=int, default=200)
    options = parser.parse_args(arguments)
    queries = read_queries(options.queries)[: options.limit]
    with (
        Datastore.open(options.store) as store,
        serving(store, ServerSettings(port=0)) as url,
        Client(url) as client,
    ):
        store.load_encoders()
        ways: dict[str, Ask] = {
            "embedded": lambda texts, where, batch: ask(store, texts, where, batch),
            "HTTP": lambda texts, where, batch: post(url, texts, where, batch),
            "Client": lambda texts, where, batch: ask(client, texts, where, batch),
            "AsyncClient": lambda texts, where, batch: asyncio.run(ask_async(url, texts, where, batch)),
        }
        print(f"{len(queries)} queries, k = 10, where: {options.where}")
        print("| way | filter | asked | same ids | largest score difference | queries/s |")
        print("| --- | --- | --- | --- | --- | --- |")
        for batch in (False, True):
            for where in (None, options.where):
                compare(ways, queries, where, batch)


def compare(ways: dict[str, Ask], queries: Sequence[str], where: str | None, batch: bool) -> None:
    """Ask in every way and print a row for each."""
    expected: list[Answer] = []
    for name, way in ways.items():
        start = time.perf_counter()
        answers = way(queries, where, batch)
        rate = len(queries) / (time.perf_counter() - start)
        expected = expected or answers
        pairs = list(zip(answers, expected, strict=True))
        same = sum([i for i, _ in found] == [i for i, _ in wanted] for found, wanted in pairs)
        apart = max(
            (abs(a[1] - b[1]) for found, wanted in pairs for a, b in zip(found, wanted, strict=False)),
            default=0.0,
        )
        cells = (
            name,
            "yes" if where else "no",
            "one batch" if batch else "one at a time",
            f"{same} of {len(queries)}",
            f"{apart:g}",
            f"{rate:,.0f}",
        )
        print("| " + " | ".join(cells) + " |")


def ask(searcher: Any, texts: Sequence[str], where: str | None, batch: bool) -> list[Answer]:
    """Ask a Datastore or a Client."""
    results = (
        searcher.search(list(texts), where=where)
        if batch
        else [searcher.search(text, where=where) for text in texts]
    )
    return [[(hit.passage.id, hit.score) for hit in hits] for hits in results]


async def ask_async(url: str, texts: Sequence[str], where: str | None, batch: bool) -> list[Answer]:
    """Ask an AsyncClient; queries one at a time are under way together."""
    async with AsyncClient(url) as client:
        if batch:
            results = await client.search(list(texts), where=where)
        else:
            results = await asyncio.gather(*(client.search(text, where=where) for text in texts))
        return [[(hit.passage.id, hit.score) for hit in hits] for hits in results]


def post(url: str, texts: Sequence[str], where: str | None, batch: bool) -> list[Answer]:
    """Ask over plain HTTP."""
    bodies: list[dict[str, Any]] = [{"query": list(texts)}] if batch else [{"query": text} for text in texts]
    answers: list[Answer] = []
    for body in bodies:
        content = json.dumps(body | ({"where": where} if where else {})).encode()
        request = Request(f"{url}/v1/search", content, {"Content-Type": "application/json"})
        with urlopen(request, timeout=120) as response:
            reply = json.load(response)
        answers += [
            [(hit["passage"]["id"], hit["score"]) for hit in result["hits"]]
            for result in reply.get("results", [reply])
        ]
    return answers


def read_queries(path: Path) -> list[str]:
    """Return the queries in a file."""
    queries = []
    for line in path.read_text().splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            queries.append(next(record[key] for key in ("text", "query", "question") if key in record))
        elif line.strip():
            queries.append(line)
    return queries


if __name__ == "__main__":
    main()
