"""`compactds serve`: a store over HTTP."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compactds.cli.output import say, warn
from compactds.cli.stores import StoreFolder

if TYPE_CHECKING:
    from compactds.server.settings import ServerSettings

KEY_VARIABLE = "COMPACTDS_SERVE_API_KEY"


def serve(
    store: StoreFolder,
    host: Annotated[
        str | None,
        typer.Option(help=f"The address to bind [127.0.0.1]; others need a key in {KEY_VARIABLE}."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port to bind [8080]; 0 takes a free one.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings; variables and flags win.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check every file of the store first.")] = False,
) -> None:
    """Serve a store over HTTP until Ctrl-C."""
    settings = server_settings(config, {"host": host, "port": port})
    from compactds.configs.sizes import counted, format_bytes
    from compactds.datastore import Datastore
    from compactds.server.run import bind
    from compactds.server.run import serve as serve_engine

    bind(settings).close()  # a port in use is told before a large index is read
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("compactds").setLevel(logging.INFO)

    def announce(url: str) -> None:
        say(f"serving {store} at {url}", bold=True)
        say(f"docs: {url}/docs")
        with_key = settings.api_key is not None
        if engine.manifest.encoder.kind == "vectors":  # without an encoder, no text can be searched with
            say(f"try:  curl -s {url}/v1/store{key_header(with_key)}")
        else:
            say(f"try:  {curl(url, 'your question', with_key=with_key)}")
        warn("Ctrl-C stops it")

    with Datastore.open(store, verify=verify) as engine:
        needed = sum(segment.index.ram_bytes for segment in engine.manifest.segments)
        passages = counted(engine.manifest.passages, "passage")
        warn(f"{engine.manifest.name}: {passages}; the index takes {format_bytes(needed)} of memory")
        engine.load_encoders()  # a server that cannot answer text does not start
        serve_engine(engine, settings, on_ready=announce)
    warn("stopped")


def server_settings(config: Path | None, flags: Mapping[str, Any]) -> "ServerSettings":
    """Return the settings from defaults, a file, COMPACTDS_SERVE_* variables and the flags given."""
    from compactds.configs.settings import load_settings
    from compactds.server.settings import ServerSettings

    given = {name: value for name, value in flags.items() if value is not None}
    settings = load_settings(config, os.environ, given)
    key = settings.api_key.get_secret_value() if settings.api_key else None
    return ServerSettings(**{**settings.model_dump(), "api_key": key})


def key_header(with_key: bool) -> str:
    """Return what tells curl to send the key of the environment, if there is one."""
    return f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if with_key else ""


def curl(url: str, query: str, *, where: str = "", with_key: bool = False) -> str:
    """Return a curl command that asks a server; `where` is JSON."""
    key = key_header(with_key)
    condition = f', "where": {where}' if where else ""
    body = f'{{"query": "{query}", "k": 3{condition}}}'
    return f"curl -s {url}/v1/search -H 'Content-Type: application/json'{key} -d '{body}'"
