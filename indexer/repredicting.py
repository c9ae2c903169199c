"""Keep what a store is predicted to take in memory true when its segments change."""

from dataclasses import replace

from compactds.datastore.budget import predict_store_memory
from compactds.datastore.manifest import Manifest, MemoryRecord


def with_memory_of(before: Manifest, after: Manifest) -> Manifest:
    """Return `after` with the memory that it is predicted to take, by what `before` was predicted to.

    Serving takes the program and encoders that it took, and the indexes of all segments that there are now.
    Building takes what it took, but for the largest segment. What was measured was measured of other
    segments, and is left out; so is a prediction where none was made before, or nothing is left to search.
    """
    predicted = before.predicted
    if predicted is not None and before.segments and after.segments:
        predicted = _predicted(predicted, before, after)
    else:
        predicted = None
    return replace(after, predicted=predicted, measured=None)


def _predicted(known: MemoryRecord, before: Manifest, after: Manifest) -> MemoryRecord:
    old, new = (
        predict_store_memory(
            manifest, building_base_bytes=0, serving_base_bytes=known.serving_base_bytes, workers=1
        )
        for manifest in (before, after)
    )
    building = known.building_bytes + new.building_bytes - old.building_bytes
    return replace(new, building_bytes=building if known.building_bytes else 0)
