"""`compactds build --plan`: what a build will make and take; and after a build, whether that was right."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from compactds.cli.measuring import ServingMemory, serving_memory
from compactds.cli.output import say
from compactds.cli.progress import progress

if TYPE_CHECKING:
    from compactds.configs.recipe import Recipe
    from compactds.datastore.manifest import Manifest
    from compactds.indexer.build_result import BuildResult

SHOWN_STOPS = 5
"""Of files that would stop a build, so many are named."""

MEASURED_FROM_PASSAGES = 10_000
"""A smaller store takes next to nothing besides the program, which is not worth another process."""


def plan(recipe: "Recipe", workers: int) -> dict[str, Any]:
    """Return what a build of `recipe` will make and take, as JSON data; nothing is built."""
    from compactds.datastore.budget import indexing_seconds, predict_memory
    from compactds.datastore.expectation import expect_recall
    from compactds.indexer.planning import plan_build, sampled_vectors

    base = _building_base_bytes()
    with progress() as shown, TemporaryDirectory(prefix="compactds-") as folder:
        planned = plan_build(recipe, Path(folder), progress=shown)
        shown.stage("measuring a server", None)
        serving = serving_memory(encoders=planned.encoders.options) or ServingMemory(0, 0)
        shown.stage("estimating recall", None)
        recall = expect_recall(
            planned.index, planned.corpus.passages, planned.dimension, sampled_vectors(recipe)
        )
    rows, encoders = planned.corpus.passages, planned.encoders
    memory = predict_memory(
        planned.index,
        rows,
        planned.dimension,
        building_base_bytes=base,
        serving_base_bytes=serving.base_bytes,
        encoder_bytes=encoders.memory_bytes,
        workers=workers,
    )
    seconds = {
        "reading": planned.corpus.records / planned.corpus.records_per_s / workers,
        "encoding": rows / encoders.passages_per_s if encoders.passages_per_s else 0.0,
        "indexing": indexing_seconds(planned.index, rows, planned.dimension),
    }
    corpus = {name: value for name, value in asdict(planned.corpus).items() if name != "texts"}
    return {
        "corpus": corpus,
        "dimension": planned.dimension,
        "index": asdict(planned.index),
        "budget_bytes": recipe.index.memory_bytes,
        "memory": {**asdict(memory), "serving_at_most_bytes": memory.serving_at_most_bytes},
        "disk_bytes": planned.disk_bytes,
        "seconds": {**seconds, "all": sum(seconds.values())},
        "recall": asdict(recall),
    }


def show(planned: dict[str, Any]) -> None:
    """Print a plan for people."""
    from compactds.configs.sizes import format_bytes

    corpus, index, memory = planned["corpus"], planned["index"], planned["memory"]
    counted = "counted" if corpus["exact"] else "estimated"
    known = "counted" if corpus["counted"] else "estimated"
    sampled = (
        f"{corpus['sampled_passages']:,} passages of {corpus['sampled_documents']:,} records sampled"
        + in_files(corpus["sampled_files"], corpus["files"])
    )
    seconds, recall = planned["seconds"], planned["recall"]
    codes = f", {index['lists']:,} lists, codes of {index['code_bytes']} bytes" if index["lists"] else ""
    facts = {
        "records": f"{corpus['records']:,} ({known})",
        "passages": f"{corpus['passages']:,} ({counted}; {sampled})",
        "index": f"{index['kind']}{codes}: {index['reason']}",
        "index memory": f"{format_bytes(index['ram_bytes'])} of {format_bytes(planned['budget_bytes'])}",
        "to serve": f"{format_bytes(memory['serving_bytes'])} of memory, the program included",
        "with filters": f"{format_bytes(memory['serving_at_most_bytes'])} at most: "
        + _filters(memory["filters"]),
        "to build": f"{format_bytes(memory['building_bytes'])} of memory at most: "
        + ", ".join(f"{name} {format_bytes(size)}" for name, size in memory["parts"].items() if size),
        "on disk": format_bytes(planned["disk_bytes"]),
        "time": f"about {duration(seconds['all'])}: "
        + ", ".join(f"{name} {duration(value)}" for name, value in seconds.items() if name != "all"),
        "recall@10": expected(recall),
    }
    for name, value in facts.items():
        say(f"{name:<13} {value}")
    tell_stops(corpus["stops"])
    say("nothing was built")


def in_files(sampled: int, all_files: int) -> str:
    """Return in how many of all files something was sampled; "" where there are no files."""
    return f" in {sampled:,} of {all_files:,} file{'s' if all_files > 1 else ''}" if all_files else ""


def tell_stops(stops: Sequence[str]) -> None:
    """Print the errors at which a build would stop, the first few, as the build would say them."""
    if not stops:
        return
    one = "a file of the sample cannot be used as it is"
    many = f"{len(stops):,} of the files sampled cannot be used as they are"
    say(f"{one if len(stops) == 1 else many}, and the build would stop there:", fg="yellow")
    for stop in stops[:SHOWN_STOPS]:
        say(f"  {stop}", fg="yellow")


def _filters(parts: dict[str, int]) -> str:
    """Return what filters add to a server, from the first condition on an attribute on."""
    from compactds.configs.sizes import format_bytes

    names = {
        "columns": "columns_bytes",
        "results": "results_bytes",
        "map of lists": "list_map_bytes",
        "copies of lists": "list_copies_bytes",
    }
    sizes = ", ".join(f"{name} {format_bytes(parts[key])}" for name, key in names.items() if parts[key])
    return f"{sizes}, from the first condition on"


def expected(recall: dict[str, Any]) -> str:
    """Return what recall to expect, in one line."""
    if recall["recall"] is None:
        return f"not known before the build calibrates it: {recall['source']}"
    reached = f"{recall['recall']:g}"
    if recall["recall"] < 1:
        reached += f" unless you ask for another, from about {recall['candidates']:,} candidates a query"
    return f"{reached} ({recall['source']})"


def duration(seconds: float) -> str:
    """Return a time in the unit that people would use."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.0f} s"


class Account:
    """Note the memory that a build takes while a block runs, to keep it in the store's manifest."""

    def __init__(self, workers: int) -> None:
        from compactds.datastore.memory import MemoryWatch

        self._workers = workers
        self._base_bytes = _building_base_bytes()
        self._watch = MemoryWatch()

    def __enter__(self) -> "Account":
        self._watch.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._watch.__exit__(*error)

    def keep(self, result: "BuildResult") -> None:
        """Write what the store just built was predicted to take, and what it takes, into its manifest.

        What serving takes is measured in a process of its own.
        """
        from compactds.datastore.budget import predict_store_memory
        from compactds.datastore.errors import StoreBusyError
        from compactds.datastore.manifest import MemoryRecord, read_manifest, write_manifest
        from compactds.indexer.workspace import locked

        if result.unchanged or result.passages < MEASURED_FROM_PASSAGES or not self._watch.peak_bytes:
            return
        measured_of = read_manifest(result.path)
        serving = serving_memory(result.path)
        if serving is None:
            return
        with suppress(StoreBusyError), locked(result.path):  # busy: it is being changed into another already
            manifest = read_manifest(result.path)
            if manifest != measured_of:
                return
            encoders = _encoders_bytes(manifest, serving)
            predicted = predict_store_memory(
                manifest,
                building_base_bytes=self._base_bytes + (encoders or 0),
                serving_base_bytes=serving.base_bytes,
                workers=self._workers,
            )
            if encoders is None:
                predicted = replace(predicted, building_bytes=0)
            measured = MemoryRecord(serving.bytes, serving.base_bytes, self._watch.peak_bytes)
            write_manifest(result.path, replace(manifest, predicted=predicted, measured=measured))


def _building_base_bytes() -> int:
    """Return what this process holds once it has imported what a build needs."""
    import compactds.indexer.build
    import compactds.indexer.planning  # noqa: F401 - imported for what they take
    from compactds.datastore.memory import held_bytes

    return held_bytes()


def _encoders_bytes(manifest: "Manifest", serving: ServingMemory) -> int | None:
    """Return what a store's encoders take: what a server holds with them and without.

    None for distilled models: distilling takes far more than serving, and only a plan measures it.
    """
    kinds = {manifest.encoder.kind, manifest.exact_encoder.kind}
    if "static" in kinds:
        return None
    if kinds == {"vectors"}:
        return 0
    without = serving_memory()
    return None if without is None else max(0, serving.base_bytes - without.base_bytes)
