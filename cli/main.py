"""The `compactds` command."""

from typing import Annotated

import typer

from compactds.cli.add import add
from compactds.cli.build import build
from compactds.cli.command import Subcommand, command
from compactds.cli.compact import compact
from compactds.cli.delete import delete
from compactds.cli.demo import demo
from compactds.cli.diff import diff
from compactds.cli.doctor import doctor
from compactds.cli.evaluate import evaluate
from compactds.cli.inspect import inspect
from compactds.cli.search import search
from compactds.cli.serve import serve
from compactds.cli.train_filter import train_filter
from compactds.cli.tune import tune
from compactds.cli.verify import verify

app = typer.Typer(
    help="Build, search and serve compact, filtered datastores on one machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_SUBCOMMANDS = (
    *(demo, build, add, delete, compact, diff, train_filter),
    *(search, serve, evaluate, inspect, tune, verify, doctor),
)
for subcommand in _SUBCOMMANDS:
    app.command(cls=Subcommand)(command(subcommand))


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"compactds {version('compactds')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    app(prog_name="compactds")
