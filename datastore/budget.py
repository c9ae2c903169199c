"""Predict the memory that building and serving a store take, from what is known before any of it is done.

The figures that no structure gives were measured (`python -m benchmarks memory` measures them again).
Memory is predicted within a tenth; time depends on the machine and what else it does, and is a rough guide.
"""

from dataclasses import dataclass
from typing import cast

from compactds.datastore.ann.choose import IndexKind, IndexPlan, choose_index
from compactds.datastore.ann.ivf_build import ROTATION_ROWS, training_rows
from compactds.datastore.calibration import CANDIDATE_LADDER, held_out_rows
from compactds.datastore.filter_memory import FilterMemory, filters_at_most
from compactds.datastore.manifest import Manifest, MemoryRecord
from compactds.datastore.vectors import SCAN_BYTES

UNLIMITED = 1 << 62

WORKER_BYTES = 104_000_000
"""What a process holds that reads, filters and splits, besides the libraries it shares with the others."""
WRITING_BYTES = 108_000_000
"""What the stages before the index leave in the building process: readers, writers, Arrow's buffers."""
OPENING_BYTES = 12_000_000
"""What opening a store takes besides its index: maps, footers of files, code that only searches run."""

ROTATION_COPIES = 3
"""How many copies of the rows it is fitted to finding the rotation holds."""
AXES_BYTES = 24
"""What finding the axes of n dimensions holds besides, divided by n squared."""
TRAINING_FACTOR = 1.12
"""How much more than the sample, as it is and turned, finding lists and codes holds."""
FILLING_FACTOR = 1.4
"""How much more an index holds while it is filled: its lists grow by doubling."""
FOUND_BYTES = 40
"""What calibration holds for every candidate of every query: ten matches, twice, and scores and rows."""

FLOPS_PER_SECOND = 8e10
KMEANS_ROUNDS = 10
EIGENVECTOR_FLOPS = 25.0
"""How many operations it takes to find the axes of n dimensions, divided by n cubed."""
CALIBRATING_S = 5.0
GRAPH_S_PER_NUMBER = 1.5e-6


@dataclass(frozen=True, slots=True)
class MemoryPrediction:
    """Hold what building and serving are predicted to take, whole processes, and what the parts are.

    `serving_bytes` is without filters, `filters` the most that they add: columns, results, map of lists.
    """

    serving_bytes: int
    building_bytes: int
    parts: dict[str, int]
    filters: FilterMemory

    @property
    def serving_at_most_bytes(self) -> int:
        """Return the most that serving takes with filters on every field."""
        return self.serving_bytes + self.filters.total_bytes


def predict_memory(
    plan: IndexPlan,
    rows: int,
    dimension: int,
    *,
    building_base_bytes: int,
    serving_base_bytes: int,
    encoder_bytes: int = 0,
    workers: int = 1,
) -> MemoryPrediction:
    """Return what building and serving an index of `plan` take.

    `building_base_bytes` and `serving_base_bytes` are measured: a process that has imported what it needs,
    the latter with the encoders. `encoder_bytes` is what those take in a build, measured, too. `workers` are
    the processes that read and split, which stay until the build ends.
    """
    helpers = WORKER_BYTES * workers if workers > 1 else 0
    stage = max(indexing_bytes(plan, rows, dimension), calibrating_bytes(plan, rows))
    parts = {
        "the program": building_base_bytes,
        "encoders": encoder_bytes,
        "workers": helpers,
        "reading and writing": WRITING_BYTES,
        "training and filling the index": stage,
    }
    return MemoryPrediction(
        serving_bytes=serving_base_bytes + plan.ram_bytes + OPENING_BYTES,
        building_bytes=sum(parts.values()),
        parts=parts,
        filters=filters_at_most(rows, plan.ram_bytes, plan.lists),
    )


def predict_store_memory(
    manifest: Manifest, *, building_base_bytes: int, serving_base_bytes: int, workers: int
) -> MemoryRecord:
    """Return what a store that is there is predicted to take: by its rows, as a plan would have done it.

    Both bases are measured with the store's encoders loaded, if it has any.
    """
    predictions = [
        predict_memory(
            choose_index(
                segment.passages,
                manifest.encoder.dimension,
                memory_bytes=UNLIMITED,
                kind=cast(IndexKind, segment.index.kind),
                code_bytes=segment.index.parameters.get("code_bytes"),
            ),
            segment.passages,
            manifest.encoder.dimension,
            building_base_bytes=building_base_bytes,
            serving_base_bytes=0,
            workers=workers,
        )
        for segment in manifest.segments
    ]
    return MemoryRecord(
        serving_bytes=serving_base_bytes + sum(found.serving_bytes for found in predictions),
        serving_base_bytes=serving_base_bytes,
        building_bytes=max(found.building_bytes for found in predictions),
    )


def indexing_bytes(plan: IndexPlan, rows: int, dimension: int) -> int:
    """Return what it takes to train and fill an index: its sample, copies of that, and the index."""
    if plan.kind != "ivf":
        return plan.ram_bytes + SCAN_BYTES
    shape = plan.shape(dimension)
    trained = training_rows(rows, dimension, plan.lists)
    sample, rotated = 4 * trained * dimension, 4 * trained * shape.rotated
    fitting = ROTATION_COPIES * 4 * min(trained, ROTATION_ROWS) * dimension + AXES_BYTES * dimension**2
    filled = round(FILLING_FACTOR * plan.ram_bytes)
    training = round(TRAINING_FACTOR * (sample + rotated))
    return max(sample + fitting, training, sample + filled) + SCAN_BYTES


def calibrating_bytes(plan: IndexPlan, rows: int) -> int:
    """Return what it takes to measure an index: the index, and what its searches found."""
    if plan.kind == "flat":
        return plan.ram_bytes
    queries = len(held_out_rows(rows))
    most = min(CANDIDATE_LADDER[-1], max(CANDIDATE_LADDER[0], rows // 4))
    return plan.ram_bytes + queries * most * FOUND_BYTES


def indexing_seconds(plan: IndexPlan, rows: int, dimension: int) -> float:
    """Return about how long one core takes to train, fill and calibrate an index."""
    if plan.kind == "flat":
        return rows * dimension * 1e-8
    held_out = 2.0 * len(held_out_rows(rows)) * rows * dimension / FLOPS_PER_SECOND
    if plan.kind == "hnsw":
        return rows * dimension * GRAPH_S_PER_NUMBER + held_out + CALIBRATING_S
    compared = KMEANS_ROUNDS * training_rows(rows, dimension, plan.lists) + rows
    lists = 2.0 * compared * plan.lists * dimension / FLOPS_PER_SECOND
    rotation = EIGENVECTOR_FLOPS * dimension**3 / FLOPS_PER_SECOND
    return lists + rotation + held_out + CALIBRATING_S
