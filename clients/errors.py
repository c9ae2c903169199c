"""What can go wrong between a client and a server.

ClientError
├── ConnectionFailedError     no connection: nobody listens, the name is unknown, the line broke
├── TimedOutError             no answer in time
├── BadRequestError           the request makes no sense; the server says which part and why
├── AuthenticationError       the API key is missing or another
├── NotFoundError             there is no passage with this id, or no such route
├── ServerError               the server failed to answer
│   └── UnavailableError          it cannot answer at present: 429 or 503, after all retries
└── UnexpectedResponseError   the answer is not one of a compactds server
"""

from typing import Any


class ClientError(Exception):
    """Say what went wrong, with which value, and what to do about it.

    `code` is the server's stable name of the error, or "" if it never answered; `status` is the HTTP
    status, `field` the part of the request at fault, `request_id` what the server's log calls it.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        value: Any = None,
        remedy: str = "",
        field: str | None = None,
        status: int | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.value = value
        self.remedy = remedy
        self.field = field
        self.status = status
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class ConnectionFailedError(ClientError):
    """Report that no connection could be made or kept."""


class TimedOutError(ClientError):
    """Report that no answer came in time."""


class BadRequestError(ClientError):
    """Report a request that the server refused, or that cannot be sent."""


class AuthenticationError(ClientError):
    """Report a missing or wrong API key."""


class NotFoundError(ClientError):
    """Report that there is no such passage, or no such route."""


class ServerError(ClientError):
    """Report that the server failed to answer."""


class UnavailableError(ServerError):
    """Report that the server cannot answer at present."""


class UnexpectedResponseError(ClientError):
    """Report an answer that no compactds server gives."""
