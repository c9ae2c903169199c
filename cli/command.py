"""What all subcommands share: one clear line for an error, exit codes, Ctrl-C, --debug.

Exit codes are 0 for success, 1 for failure, 2 for wrong use and 130 for Ctrl-C.
"""

import inspect
import shlex
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand

from compactds.cli.output import clean, runnable, warn

FAILED = 1
WRONG_USE = 2
STOPPED = 130

# Errors that a caller makes, whichever part finds them: a recipe, a store on disk, or a server. That a vector
# is invalid, or that queries are few, is none here: they come from files, and a file that cannot be used is a
# failure.
_WRONG_USE_CODES = frozenset(
    {
        *("config_error", "config_syntax", "unknown_key", "invalid_value", "invalid_filter"),
        *("invalid_where", "unknown_field", "wrong_type", "invalid_search"),
        *("empty_query", "limit_exceeded", "invalid_request", "unsupported_mode", "unsupported_option"),
    }
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


# of click, or of what typer carries of it
_USAGE_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[1])


class Subcommand(TyperCommand):
    """Say how to write an argument that starts with a dash, where it is taken for an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read arguments; the hint is added to the error of an option that there is not."""
        try:
            return super().parse_args(ctx, args)
        except _USAGE_ERROR as error:
            unknown = str(getattr(error, "option_name", "--")) if hasattr(error, "possibilities") else "--"
            if hasattr(error, "message") and not unknown.startswith("--"):
                error.message += " Put -- before arguments that start with a dash."
            raise


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a subcommand of a function: add --debug, and turn its errors into lines and exit codes."""

    @wraps(function)
    def run(*, debug: bool = False, **arguments: Any) -> None:
        try:
            function(**arguments)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except KeyboardInterrupt as stop:
            warn("stopped")
            _tell_notes(stop)
            raise typer.Exit(STOPPED) from stop
        except Exception as error:  # the edge of the process
            raise typer.Exit(report(error, debug=debug, store=arguments.get("store"))) from error

    signature = inspect.signature(function, eval_str=True)
    flag = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), flag])  # type: ignore[attr-defined]
    return run


def report(error: Exception, *, debug: bool, store: object = None) -> int:
    """Print what went wrong and what to do about it on standard error; return the exit code.

    A remedy that is a command for the store names the `store` that the user gave.
    """
    if debug:
        warn("".join(traceback.format_exception(error)).rstrip(), multiline=True)
    remedy = "" if debug else "Run the command again with --debug to see where."
    code = FAILED
    if hasattr(error, "remedy") and hasattr(error, "message"):  # compactds' own errors, of any part
        message, remedy = str(error.message), str(error.remedy)
        code = WRONG_USE if getattr(error, "code", "") in _WRONG_USE_CODES else FAILED
    elif isinstance(error, OSError) and error.strerror:
        place = f": {error.filename!r}" if error.filename is not None else ""
        message, remedy = f"{error.strerror}{place}", ""
    elif isinstance(error, MemoryError):
        message, remedy = "not enough memory", "Close other programs, or give --memory a smaller size."
    else:
        message = f"unexpected {type(error).__name__}: {error}"
    typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
    warn(runnable(clean(message)))
    if remedy:
        if store is not None:
            remedy = remedy.replace("`compactds verify`", f"`compactds verify {shlex.quote(str(store))}`")
        warn(runnable(clean(remedy)))
    if not debug:  # the traceback has them
        _tell_notes(error)
    return code


def _tell_notes(error: BaseException) -> None:
    """Print what was noted on an error on its way, such as where unfinished work is kept."""
    for note in getattr(error, "__notes__", ()):
        warn(note)
