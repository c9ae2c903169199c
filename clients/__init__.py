"""Ask a compactds server from Python; nothing heavy is imported."""

from compactds.clients.async_client import AsyncClient
from compactds.clients.client import Client
from compactds.clients.errors import (
    AuthenticationError,
    BadRequestError,
    ClientError,
    ConnectionFailedError,
    NotFoundError,
    ServerError,
    TimedOutError,
    UnavailableError,
    UnexpectedResponseError,
)
from compactds.clients.results import Hit, Hits, Passage, SearchReport

__all__ = [
    "AsyncClient",
    "AuthenticationError",
    "BadRequestError",
    "Client",
    "ClientError",
    "ConnectionFailedError",
    "Hit",
    "Hits",
    "NotFoundError",
    "Passage",
    "SearchReport",
    "ServerError",
    "TimedOutError",
    "UnavailableError",
    "UnexpectedResponseError",
]
