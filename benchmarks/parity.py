"""Check that a store gives the same answers embedded, over HTTP, and through both clients.

    python -m benchmarks parity --store store --queries queries.jsonl --where "subject = 'physics'"

Asks the same queries (JSON lines with "text", "query" or "question", or one query a line) in four ways,
with and without the filter: one at a time, in batches, and with AsyncClient many at once. The server is
`compactds serve` in a process of its own. Everything is asked once before anything is timed. Prints how many
answers have the same ids in the same order, the largest difference of a score, and queries per second.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from compactds.clients import AsyncClient, Client
from compactds.datastore import Datastore

BATCH = 64
AT_ONCE = 16
ONE, BATCHES, MANY = "one at a time", f"{BATCH} a batch", f"{AT_ONCE} at once"
HEADS = ("way", "filter", "asked", "same ids", "largest score difference", "queries/s")

Answer = list[tuple[str, float]]
Ask = Callable[[Sequence[str], str | None, str], list[Answer]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--where", required=True, help="an SQL condition")
    parser.add_argument("--limit", type=int, default=200, help="at most so many queries")
    options = parser.parse_args(arguments)
    queries = read_queries(options.queries)[: options.limit]
    with (
        Datastore.open(options.store) as store,
        served(options.store) as url,
        Client(url) as client,
    ):
        store.load_encoders()
        ways: dict[str, Ask] = {
            "embedded": lambda texts, where, how: ask(store, texts, where, how),
            "HTTP": lambda texts, where, how: post(url, texts, where, how),
            "Client": lambda texts, where, how: ask(client, texts, where, how),
            "AsyncClient": lambda texts, where, how: asyncio.run(ask_async(url, texts, where, how)),
        }
        filters = (None, options.where)
        for way in ways.values():
            for where in filters:
                way(queries, where, ONE)
        print(f"{len(queries)} queries, k = 10, where: {options.where}")
        print("| " + " | ".join(HEADS) + " |")
        print("|" + " --- |" * len(HEADS))
        for how in (ONE, BATCHES):
            for where in filters:
                compare(ways, queries, where, how)
        for where in filters:
            compare(
                {"AsyncClient": ways["AsyncClient"]}, queries, where, MANY, ask(store, queries, where, ONE)
            )


@contextmanager
def served(store: Path) -> Iterator[str]:
    """Run `compactds serve` while the block runs, and yield the URL it prints."""
    program = [sys.executable, "-c", "from compactds.cli.main import main; main()"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPACTDS_")}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*program, "serve", str(store), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
        with process:
            assert process.stdout is not None
            announced = process.stdout.readline()
            if not announced:
                process.wait()
                log.seek(0)
                raise RuntimeError(f"the server did not start:\n{log.read()}")
            try:
                yield announced.split()[-1]
            finally:
                process.terminate()


def compare(
    ways: dict[str, Ask],
    queries: Sequence[str],
    where: str | None,
    how: str,
    expected: Sequence[Answer] = (),
) -> None:
    """Ask in every way and print a row for each; without `expected`, the first way's answers are."""
    for name, way in ways.items():
        start = time.perf_counter()
        answers = way(queries, where, how)
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
            how,
            f"{same} of {len(queries)}",
            f"{apart:g}",
            f"{rate:,.0f}",
        )
        print("| " + " | ".join(cells) + " |", flush=True)


def ask(searcher: Any, texts: Sequence[str], where: str | None, how: str) -> list[Answer]:
    """Ask a Datastore or a Client."""
    results = (
        [hits for batch in batches(texts) for hits in searcher.search(batch, where=where)]
        if how == BATCHES
        else [searcher.search(text, where=where) for text in texts]
    )
    return [answer(hits) for hits in results]


async def ask_async(url: str, texts: Sequence[str], where: str | None, how: str) -> list[Answer]:
    """Ask an AsyncClient."""
    async with AsyncClient(url) as client:
        if how == BATCHES:
            found = [await client.search(batch, where=where) for batch in batches(texts)]
            return [answer(hits) for results in found for hits in results]
        turns = asyncio.Semaphore(1 if how == ONE else AT_ONCE)

        async def ask_one(text: str) -> Answer:
            async with turns:
                return answer(await client.search(text, where=where))

        return await asyncio.gather(*map(ask_one, texts))


def post(url: str, texts: Sequence[str], where: str | None, how: str) -> list[Answer]:
    """Ask over plain HTTP."""
    bodies: list[dict[str, Any]] = (
        [{"query": batch} for batch in batches(texts)]
        if how == BATCHES
        else [{"query": text} for text in texts]
    )
    opener = build_opener(ProxyHandler({}))
    answers: list[Answer] = []
    for body in bodies:
        content = json.dumps(body | ({"where": where} if where else {})).encode()
        request = Request(f"{url}/v1/search", content, {"Content-Type": "application/json"})
        with opener.open(request, timeout=120) as response:
            reply = json.load(response)
        answers += [
            [(hit["passage"]["id"], hit["score"]) for hit in result["hits"]]
            for result in reply.get("results", [reply])
        ]
    return answers


def answer(hits: Any) -> Answer:
    """Return what is compared of hits: ids and scores, in order."""
    return [(hit.passage.id, hit.score) for hit in hits]


def batches(texts: Sequence[str]) -> list[list[str]]:
    """Return the texts in batches."""
    return [list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]


def read_queries(path: Path) -> list[str]:
    """Return the queries in a file."""
    queries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            queries.append(next(record[key] for key in ("text", "query", "question") if key in record))
        elif line.strip():
            queries.append(line)
    return queries


if __name__ == "__main__":
    main()
