"""When to send a request again, and after how long."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

from compactds.clients._wire import Outcome

BUSY_STATUSES = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Retries:
    """Send again up to `most` times when the connection failed or the server was busy.

    The wait starts at `first_wait_s`, doubles each time and is shortened by chance by up to a half, so
    that many clients do not come back at once. A server's Retry-After is followed up to
    `longest_wait_s`; a longer one ends the retries. Timeouts are never retried.
    """

    most: int = 2
    first_wait_s: float = 0.2
    longest_wait_s: float = 10.0
    chance: Callable[[], float] = random.random

    def wait_s(self, attempt: int, outcome: Outcome, *, patient: bool = True) -> float | None:
        """Return the seconds to wait after failed attempt `attempt`, from 0; None ends it."""
        if attempt >= self.most:
            return None
        wait = min(self.first_wait_s * 2.0**attempt, self.longest_wait_s) * (1 - self.chance() / 2)
        if isinstance(outcome, httpx2.NetworkError | httpx2.RemoteProtocolError):
            return wait
        if isinstance(outcome, httpx2.Response) and patient and outcome.status_code in BUSY_STATUSES:
            asked = retry_after_s(outcome.headers.get("retry-after", ""))
            wait = max(wait, asked)
            return wait if wait <= self.longest_wait_s else None
        return None


def retry_after_s(header: str) -> float:
    """Return the seconds a Retry-After header asks for, as a number or a date; 0 if it makes no sense."""
    if header.strip().isdecimal() and header.isascii():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
