"""Listen, serve, and stop gracefully."""

import errno
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType

import uvicorn

from compactds.server.app import create_app
from compactds.server.engine import SearchEngine
from compactds.server.errors import AddressError, KeyRequiredError, PortInUseError, ServeError
from compactds.server.settings import ServerSettings, check_api_key

logger = logging.getLogger(__name__)

BACKLOG = 2048


class _Server(uvicorn.Server):
    """A uvicorn server that says when it accepts requests, and ends quietly on a signal."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; the signal counts as handled, so that the caller goes on to close the store."""
        super().handle_exit(sig, frame)
        self._captured_signals.clear()


def serve(
    engine: SearchEngine, settings: ServerSettings, *, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, then let running requests finish and return.

    `on_ready` is called once with the URL when requests are accepted; it must not block. Raises
    ServeError before anything starts: a port in use, an unknown address, or one beyond this machine
    without an API key.
    """
    with closing(bind(settings)) as listener:
        url = url_of(listener)
        server = _make_server(engine, settings, lambda: on_ready(url) if on_ready else None)
        server.run([listener])


@contextmanager
def serving(engine: SearchEngine, settings: ServerSettings) -> Iterator[str]:
    """Serve in a background thread while the block runs, and yield the URL.

    Raises ServeError as `serve` does.
    """
    with closing(bind(settings)) as listener:
        started = threading.Event()
        server = _make_server(engine, settings, started.set)

        def run() -> None:
            try:
                server.run([listener])
            except SystemExit:  # how uvicorn gives up on starting
                logger.error("the server did not start")  # noqa: TRY400
            finally:
                started.set()

        thread = threading.Thread(target=run, name="compactds-server", daemon=True)
        thread.start()
        started.wait()
        if not server.started:
            raise ServeError("the server did not start.", remedy="See the log.")
        try:
            yield url_of(listener)
        finally:
            server.should_exit = True
            thread.join()


def bind(settings: ServerSettings) -> socket.socket:
    """Return a listening socket for the settings' host and port; raise ServeError."""
    host, port = settings.host, settings.port
    if not 0 <= port <= 65_535:
        raise AddressError(
            f"port is {port}, expected 0 to 65535.", value=port, remedy="Port 0 takes a free one."
        )
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise AddressError(
            f"host {host!r} is unknown: {error}.",
            value=host,
            remedy="Give 127.0.0.1 or an address of this machine.",
        ) from None
    family, kind, protocol, _, address = found[0]
    check_key(settings, str(address[0]))
    # The protocol must be named: asyncio turns off Nagle's delay, 40 ms an answer, for TCP alone.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _bind_error(error, host, port) from None
    return listener


def check_key(settings: ServerSettings, address: str) -> None:
    """Raise ServeError for an API key of no use, or an address beyond this machine without one."""
    check_api_key(settings.api_key)
    loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
    if settings.api_key is None and not loopback:
        raise KeyRequiredError(
            f"host {settings.host!r} can be reached from other machines, and there is no API key.",
            value=settings.host,
            remedy="Set an API key, in the variable COMPACTDS_SERVE_API_KEY or as api_key in a file for "
            "--config (from Python: ServerSettings(api_key=…)), or bind 127.0.0.1.",
        )


def url_of(listener: socket.socket) -> str:
    """Return the URL under which a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bind_error(error: OSError, host: str, port: int) -> ServeError:
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(
            f"port {port} on {host} is in use.",
            value=port,
            remedy="Stop what listens there, or choose another port; 0 takes a free one.",
        )
    return AddressError(
        f"cannot listen on {host} port {port}: {error.strerror}.",
        value=f"{host}:{port}",
        remedy="Give an address of this machine and a port above 1023.",
    )


def _make_server(engine: SearchEngine, settings: ServerSettings, on_start: Callable[[], None]) -> _Server:
    config = uvicorn.Config(
        create_app(engine, settings),
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_s,
    )
    return _Server(config, on_start)
