"""How a build tells what it is doing."""

import logging
from typing import Protocol

logger = logging.getLogger(__name__)


class Progress(Protocol):
    """Receive the progress of a long job: stages, units done in the current one, and notes."""

    def stage(self, name: str, total: int | None) -> None:
        """Begin a stage of `total` units; None when that is not known."""
        ...

    def advance(self, amount: int) -> None:
        """Count `amount` more units of the current stage as done."""
        ...

    def note(self, message: str) -> None:
        """Tell something worth knowing, in one sentence."""
        ...


class LoggedProgress:
    """Send stages and notes to the log, for builds started from Python."""

    def stage(self, name: str, total: int | None) -> None:
        """Log the beginning of a stage."""
        logger.info("%s (%s)", name, "unknown total" if total is None else f"{total:,}")

    def advance(self, amount: int) -> None:
        """Ignore the amount: a log wants no lines for it."""

    def note(self, message: str) -> None:
        """Log a note."""
        logger.info("%s", message)


class SilentProgress:
    """Tell nobody, of work that is not what was asked for."""

    def stage(self, name: str, total: int | None) -> None:
        """Ignore the beginning of a stage."""

    def advance(self, amount: int) -> None:
        """Ignore the amount."""

    def note(self, message: str) -> None:
        """Ignore a note."""
