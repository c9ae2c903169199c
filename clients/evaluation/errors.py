"""The error of evaluations: files that cannot be read, measures that do not exist, odd answers."""

from typing import Any

from compactds.clients.errors import ClientError

WRONG_VALUE = "invalid_value"


class EvaluationError(ClientError):
    """Say what stopped an evaluation, with which value, and what to do about it.

    `code` is `invalid_value` where the caller asked for something that does not exist (a measure, a
    split, k = 0), and `evaluation_error` where a file or a searcher is at fault.
    """

    def __init__(
        self, message: str, *, value: Any = None, remedy: str = "", code: str = "evaluation_error"
    ) -> None:
        super().__init__(message, code=code, value=value, remedy=remedy)
