"""The store on disk, and the search over it.

`Datastore` is loaded when first asked for, so that the errors and records in this package can be used
without loading an index library.
"""

from typing import TYPE_CHECKING, Any

from compactds.datastore.records import Hit, Hits, Passage, SearchReport

if TYPE_CHECKING:
    from compactds.datastore.datastore import Datastore

__all__ = ["Datastore", "Hit", "Hits", "Passage", "SearchReport"]


def __getattr__(name: str) -> Any:
    if name == "Datastore":
        from compactds.datastore.datastore import Datastore

        return Datastore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
