"""What subcommands that search share: stores by folder or URL, and where conditions."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import typer

KEY_VARIABLE = "COMPACTDS_API_KEY"


def open_store(store: str, api_key: str | None) -> AbstractContextManager[Any]:
    """Return a store that is ready to be searched: the one in a folder, or a server's if it is a URL."""
    if store.startswith(("http://", "https://")):
        from compactds.clients import Client

        return Client(store, api_key=api_key or None)
    from compactds.datastore import Datastore

    engine = Datastore.open(store)
    engine.load_encoders()  # so that the time a search takes is that of the search
    return engine


def where_condition(where: str | None) -> Mapping[str, Any] | str | None:
    """Return what `--where` says: a dict for JSON, which starts with a brace, else the SQL as it is."""
    if where is None or not where.lstrip().startswith("{"):
        return where
    try:
        condition: dict[str, Any] = json.loads(where)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint="'--where'") from error
    return condition
