"""What every request passes before it reaches a route: identity, host or API key, the limits."""

import hmac
import ipaddress
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from compactds.server.problems import ProblemError, internal_problem, problem_response

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "x-request-id"
OPEN_PATHS = frozenset({"/healthz", "/readyz"})

_PORT = re.compile(r":[0-9]*$")
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestIdentity:
    """Give every request an id, log how it ended, and turn what nobody caught into a problem.

    A client's own X-Request-ID is kept if it is up to 128 letters, digits, dots, dashes or underscores.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with an id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        identity = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = identity
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = identity
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            logger.exception("request %s: %s %r failed", identity, scope["method"], scope["path"])
            if status:
                raise  # half an answer is out: only closing the connection can tell
            await problem_response(internal_problem(), scope)(scope, receive, send_with_id)
        finally:
            took_ms = 1000 * (time.perf_counter() - started)
            logger.info(
                "%s %r %d %.1f ms, request %s", scope["method"], scope["path"], status, took_ms, identity
            )


class KeyCheck:
    """Refuse requests without the API key; the health checks stay open."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._key = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if it carries the key."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._admits(scope):
            problem = ProblemError(
                401,
                "unauthorized",
                "This server needs an API key, and the request carries none or another.",
                remedy="Send 'Authorization: Bearer <key>' or 'X-API-Key: <key>'.",
            )
            problem.headers = {"WWW-Authenticate": "Bearer"}
            await problem_response(problem, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        bearer = token.strip(" \t") if scheme.lower() == "bearer" else ""
        given = headers.get("x-api-key", bearer)
        return hmac.compare_digest(given.encode("latin-1"), self._key)


class HostCheck:
    """Refuse requests for other hosts than this machine's own and the configured one.

    A web page can have its name resolve to a loopback address and then read what a server there answers;
    the Host header still tells the page's name. HTTP/1.0 clients, which browsers are not, may send none.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._host = host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if it is meant for this server."""
        if scope["type"] == "http":
            for given in Headers(scope=scope).getlist("host"):
                if not self._knows(given):
                    problem = ProblemError(
                        421,
                        "unknown_host",
                        f"This server does not answer as {given[:100]!r}.",
                        remedy="Ask for 127.0.0.1, or have the server told its host or an API key.",
                        value=given,
                    )
                    await problem_response(problem, scope)(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    def _knows(self, given: str) -> bool:
        name = _PORT.sub("", given.lower()).removeprefix("[").removesuffix("]")
        if name in ("localhost", self._host):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


class Admission:
    """Refuse requests beyond a number under way at once; the health checks are always let in."""

    def __init__(self, app: ASGIApp, max_concurrent: int) -> None:
        self._app = app
        self._max_concurrent = max_concurrent
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if there is room for it."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._max_concurrent:
            problem = ProblemError(
                503,
                "overloaded",
                f"{self._max_concurrent:,} requests are under way, the server's max_concurrent.",
                remedy="Try again in a second, or send several queries in one request.",
            )
            problem.headers = {"Retry-After": "1"}
            await problem_response(problem, scope)(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1


class BodyLimit:
    """Refuse bodies over a limit, by the announced length or, without one, as they come in."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting the bytes of its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > self._max_bytes:
            await problem_response(self._problem(int(announced[:20])), scope)(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._problem(None)
            return message

        await self._app(scope, receive_counted, send)

    def _problem(self, size: int | None) -> ProblemError:
        problem = ProblemError(
            413,
            "body_too_large",
            f"The body is larger than {self._max_bytes:,} bytes, the server's max_body_bytes.",
            remedy="Send fewer queries or vectors per request.",
            value=size,
        )
        problem.headers = {"Connection": "close"}
        return problem
