"""Errors of recipes and settings.

ConfigError
├── ConfigFileError       a file that is missing or cannot be read
├── ConfigSyntaxError     a file that is not TOML
├── UnknownKeyError       a key that does not exist
└── InvalidValueError     a value of the wrong type or out of range
"""

from typing import Any, ClassVar


class ConfigError(Exception):
    """Say which setting is wrong, what it holds, and what it should hold.

    `code` is stable and machine-readable; `value` is the offending value where there is one;
    `remedy` is one sentence a user can act on.
    """

    code: ClassVar[str] = "config_error"

    def __init__(self, message: str, *, value: Any = None, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class ConfigFileError(ConfigError):
    """Report a recipe or settings file that is missing or cannot be read."""

    code = "config_file"


class ConfigSyntaxError(ConfigError):
    """Report a file that is not TOML; the message names the line."""

    code = "config_syntax"


class UnknownKeyError(ConfigError):
    """Refuse a key that does not exist; the remedy names the nearest valid one."""

    code = "unknown_key"


class InvalidValueError(ConfigError):
    """Refuse a value of the wrong type or out of range, or a missing one that is required."""

    code = "invalid_value"
