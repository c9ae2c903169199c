"""What subcommands that search share: stores by folder or URL, where conditions, early checks."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from compactds.cli.output import warn

KEY_VARIABLE = "COMPACTDS_API_KEY"
_ADDRESS = re.compile(r"(?:(?P<host>[\w.-]+|\[[\da-fA-F:]+\])?:)?(?P<port>\d{1,5})(?P<path>/\S*)?")
_URL = re.compile(r"https?:/", re.IGNORECASE)


def check_folder(path: Path | None) -> Path | None:
    """Refuse a URL where a folder is needed."""
    if path is not None and _URL.match(str(path)):
        raise typer.BadParameter("it takes the folder of a store; this is the URL of a server")
    return path


def check_recall(recall: float | None) -> float | None:
    """Refuse a recall that no search can aim at, before a store is opened."""
    if recall is not None and not 0 < recall <= 1:
        raise typer.BadParameter(f"recall is {recall:g}, expected a number above 0 and up to 1")
    return recall


StoreFolder = Annotated[
    Path, typer.Argument(metavar="STORE", help="The folder of a store.", callback=check_folder)
]


def open_store(store: str, api_key: str | None) -> AbstractContextManager[Any]:
    """Return the store in a folder, its encoders not loaded yet, or a server's if it is a URL."""
    if "://" not in store:
        _check_no_address(store)
        from compactds.datastore import Datastore

        return Datastore.open(store)
    from compactds.clients import Client
    from compactds.clients.errors import BadRequestError

    try:
        return Client(store, api_key=api_key or None)
    except BadRequestError as error:
        raise typer.BadParameter(str(error), param_hint="'STORE'") from error


def _check_no_address(store: str) -> None:
    """Refuse `localhost:8080` and the like, unless there is such a folder: a server is named by its URL."""
    address = _ADDRESS.fullmatch(store)
    if address is None or Path(store).exists():
        return
    url = f"http://{address['host'] or 'localhost'}:{address['port']}{address['path'] or ''}"
    raise typer.BadParameter(f"there is no folder {store!r}; for a server, write {url}", param_hint="'STORE'")


def check_search(
    engine: Any,
    *,
    where: Any,
    k: int,
    candidates: int | None = None,
    recall: float | None = None,
    queries: Sequence[str] = (),
) -> None:
    """Refuse what makes no sense to ask the store in a folder; a server checks by itself."""
    from compactds.clients import Client

    if isinstance(engine, Client):
        return
    from compactds.datastore.queries import check_effort, check_queries
    from compactds.filters import parse_where

    check_effort(k, candidates, recall)
    check_queries(queries)
    parse_where(where, engine.schema)


def load_encoders(engine: Any) -> None:
    """Load the encoders of the store in a folder, so that the time a search takes is that of the search.

    It takes seconds, which is told on a terminal.
    """
    from compactds.clients import Client

    if isinstance(engine, Client):
        return
    if sys.stderr.isatty() and engine.manifest.encoder.kind != "vectors":
        warn("loading the encoder …")
    engine.load_encoders()


def where_condition(where: str | None) -> Mapping[str, Any] | str | None:
    """Return what `--where` says: a dict for JSON, which starts with a brace, else the SQL as it is."""
    if where is None or not where.lstrip().startswith("{"):
        return where
    from compactds.filters.limits import MAX_DEPTH, check_depth

    try:
        condition: dict[str, Any] = json.loads(where)
    except ValueError as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint="'--where'") from error
    except RecursionError:
        check_depth(MAX_DEPTH + 1)  # what the reader of JSON gives up on is far deeper
        raise
    return condition
