"""The command as a whole: help without weight, exit codes, one clear line for every failure."""

import subprocess
import sys
from importlib.metadata import version

import pytest
import typer
from typer.testing import CliRunner

from compactds.cli.command import command, report
from compactds.cli.main import app
from compactds.clients.errors import ClientError
from compactds.configs.errors import ConfigFileError, UnknownKeyError
from compactds.datastore.errors import DamagedStoreError, SearchError, StoreNotFoundError

SUBCOMMANDS = sorted(
    command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands
)
HEAVY = ("numpy", "torch", "faiss", "pyarrow", "sentence_transformers", "duckdb", "fastapi")

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments], prog_name="compactds")


def failing(error):
    """Return a command line whose one command raises `error`."""
    failing_app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)

    def fail() -> None:
        raise error

    failing_app.command()(command(fail))
    return failing_app


def test_the_help_on_each_subcommand_is_whole():
    for line in run("--help").stdout.split("Commands:\n")[1].splitlines():
        assert line.endswith("."), line
        assert "..." not in line
        assert len(line) <= 80


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in SUBCOMMANDS)])
def test_help_loads_nothing_heavy(arguments):
    program = f"""
import sys
from compactds.cli.main import main
sys.argv = ["compactds", *{arguments!r}]
try:
    main()
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["[]"]
    assert "Usage: compactds" in done.stdout


def test_help_lists_every_subcommand_with_what_it_does():
    lines = run("--help").stdout.splitlines()
    for name in SUBCOMMANDS:
        assert any(line.split()[:1] == [name] and len(line.split()) > 3 for line in lines), name


def test_the_version_is_that_of_the_package():
    assert run("--version").stdout == f"compactds {version('compactds')}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["search"], ["build", "x", "--nonsense"], ["build", "--words", "x"]]
)
def test_wrong_use_exits_with_2(arguments):
    done = run(*arguments)
    assert done.exit_code == 2
    assert "Error" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (
            StoreNotFoundError("no store at x.", remedy="Build one."),
            1,
            ["error: no store at x.", "Build one."],
        ),
        (ClientError("refused."), 1, ["error: refused."]),
        (UnknownKeyError("unknown key.", remedy="Mean it?"), 2, ["error: unknown key.", "Mean it?"]),
        (ConfigFileError("no such file."), 1, ["error: no such file."]),
        (SearchError("k is 0."), 2, ["error: k is 0."]),
        (FileNotFoundError(2, "No such file", "a\nb"), 1, [r"error: No such file: 'a\nb'"]),
        (OSError(28, "No space left on device"), 1, ["error: No space left on device"]),
        (
            MemoryError(),
            1,
            ["error: not enough memory", "Close other programs, or give --memory a smaller size."],
        ),
        (
            RuntimeError("strange"),
            1,
            ["error: unexpected RuntimeError: strange", "Run the command again with --debug to see where."],
        ),
        (KeyboardInterrupt(), 130, ["stopped"]),
    ],
)
def test_a_failure_is_a_line_and_a_remedy(error, code, lines):
    done = runner.invoke(failing(error))
    assert done.exit_code == code
    assert done.stdout == ""
    assert done.stderr.splitlines() == lines


WRONG_REQUESTS = [
    "empty_query",
    "limit_exceeded",
    "invalid_request",
    "unsupported_mode",
    "unsupported_option",
]


@pytest.mark.parametrize("code", ["invalid_where", "unknown_field", *WRONG_REQUESTS])
def test_what_a_server_refuses_is_wrong_use_as_for_a_folder(code):
    assert runner.invoke(failing(ClientError("refused.", code=code))).exit_code == 2


def test_debug_adds_the_traceback():
    done = runner.invoke(failing(RuntimeError("strange")), ["--debug"])
    assert done.exit_code == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: unexpected RuntimeError: strange"


def test_an_error_message_cannot_drive_the_terminal():
    done = runner.invoke(failing(StoreNotFoundError("bad \x1b]0;title\x07 name\nerror: fake")))
    assert done.stderr == "error: bad  ]0;title  name error: fake\n"


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("".join(f'[[sources]]\npath = "{number}.txt"\n' for number in range(5000)))
    program = (
        f"{sys.executable} -c 'from compactds.cli.main import main; main()' build {recipe} --print-recipe"
    )
    done = subprocess.run(
        ["bash", "-c", f"{program} | head -n 1"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("# Files are named by")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_json_flags_are_offered_where_something_is_reported():
    for name in ("build", "search", "evaluate", "inspect", "verify", "doctor"):
        assert "--json" in run(name, "--help").stdout


def test_an_argument_that_starts_with_a_dash_gets_a_hint(tmp_path):
    done = run("search", tmp_path, "-5 degrees")
    assert done.exit_code == 2
    assert "No such option: -5" in done.stderr
    assert "Put -- before arguments that start with a dash." in done.stderr
    assert "Put --" not in run("search", tmp_path, "words", "--jsno").stderr
    assert "Put --" not in run("search", tmp_path, "words", "-k").stderr
    done = run("search", "--", tmp_path, "-5 degrees")
    assert "no datastore at" in done.stderr


def test_a_command_for_the_store_names_it(tmp_path, capsys):
    error = DamagedStoreError("x is short.", remedy="Run `compactds verify`, then restore it.")
    report(error, debug=False, store=tmp_path / "my store")
    assert f"compactds verify '{tmp_path}/my store'" in capsys.readouterr().err
