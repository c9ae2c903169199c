"""The documentation names every command, flag, recipe key, setting and variable, and its links hold."""

import ast
import asyncio
import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest
import typer
from pydantic import BaseModel

from compactds.cli.main import app
from compactds.configs.recipe import EncoderConfig, Format, Recipe, TypeName
from compactds.configs.settings import ENVIRONMENT_PREFIX, ServeSettings
from compactds.filters import FieldType, Schema, evaluate, parse_where
from compactds.server.routes import links

ROOT = Path(__file__).parents[1]
PACKAGES = ("cli", "clients", "configs", "datastore", "filters", "indexer", "server")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
COMMANDS = typer.main.get_command(app).commands
COMMON_FLAGS = {"--help", "--debug", "--json"}


def text_of(name):
    return (ROOT / name).read_text()


def sections(text, level):
    """Return the text under each heading of a level, by the heading's words."""
    parts = re.split(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text):
    """Return the cells in backticks that open each row of the tables."""
    return [
        re.findall(r"`([^`]+)`", line.split("|")[1]) for line in text.splitlines() if line.startswith("| `")
    ]


def flags(command):
    return {
        flag for option in command.params for flag in (*option.opts, *option.secondary_opts) if flag[0] == "-"
    }


def test_the_page_of_http_says_what_the_root_answers():
    answer = asyncio.run(links())
    (shown,) = re.findall(r'^\{"title".*?\}$', text_of("docs/http.md"), re.MULTILINE | re.DOTALL)
    assert json.loads(shown) == json.loads(answer.body)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_subcommand_and_flag_is_in_the_page_of_the_command_line(name):
    section = sections(text_of("docs/cli.md"), 2)[name]
    documented = {flag for row in rows(section) for flag in row if flag.startswith("-")}
    offered = flags(COMMANDS[name])
    assert offered - COMMON_FLAGS - {"-h"} == documented - COMMON_FLAGS
    if "--json" in offered:
        assert "--json" in section


def test_subcommands_that_do_not_exist_are_not_documented():
    headings = set(sections(text_of("docs/cli.md"), 2))
    assert headings - set(COMMANDS) == {"In a container"}


def test_every_exit_code_is_documented():
    opening = text_of("docs/cli.md").split("\n## ")[0]
    assert re.findall(r"^\| (\d+) \|", opening, re.MULTILINE) == ["0", "1", "2", "130"]


def model_of(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := model_of(part))), None)


def recipe_tables():
    """Yield (heading, model) for the top level of recipes and each table in it."""
    yield "Top level", Recipe
    for name, field in Recipe.model_fields.items():
        model = model_of(field.annotation)
        if model is EncoderConfig:
            yield "`[encoder]` and `[exact_encoder]`", model
        elif model is not None:
            yield (f"`[[{name}]]`" if name in ("sources", "filters") else f"`[{name}]`"), model


def test_every_recipe_key_is_documented():
    page = sections(text_of("docs/recipes.md"), 2)
    for heading, model in recipe_tables():
        assert sorted(row[0] for row in rows(page[heading])) == sorted(model.model_fields), heading


def test_documented_defaults_are_the_defaults():
    page = sections(text_of("docs/recipes.md"), 2)
    for heading, model in recipe_tables():
        for line in page[heading].splitlines():
            if not line.startswith("| `"):
                continue
            name, _, shown = (cell.strip().strip("`") for cell in line.split("|")[1:4])
            default = model.model_fields[name].default
            if isinstance(default, bool | int) or (isinstance(default, str) and default and name != "name"):
                assert shown.strip('"').lower() == str(default).lower(), name


def test_formats_and_attribute_types_are_documented():
    page = text_of("docs/recipes.md")
    for word in (*get_args(Format), *get_args(TypeName)):
        assert f"`{word}`" in page, word


def test_every_setting_of_the_server_is_documented_with_its_variable_and_default():
    section = sections(text_of("docs/cli.md"), 2)["serve"]
    lines = {
        row.split("`")[1]: row for row in section.splitlines() if row.startswith("| `") and "COMPACTDS" in row
    }
    assert set(lines) == set(ServeSettings.model_fields)
    for name, field in ServeSettings.model_fields.items():
        default = "none" if field.default is None else str(field.default)
        assert f"| `{name}` | `{ENVIRONMENT_PREFIX}{name.upper()}` | {default} |" in lines[name]


def test_every_environment_variable_is_documented():
    documented = "".join(page.read_text() for page in PAGES)
    for package in PACKAGES:
        for module in (ROOT / package).rglob("*.py"):
            for variable in re.findall(r"\bCOMPACTDS_[A-Z_]*[A-Z]\b", module.read_text()):
                assert variable in documented, f"{variable} in {module}"


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


def test_the_commands_that_pages_show_exist():
    for page in PAGES:
        code = "\n".join(re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
        for name, rest in re.findall(r"^(?:\$ |\w+=\S+ )?compactds (\w[\w-]*)(.*)$", code, re.MULTILINE):
            assert name in COMMANDS, f"{page.name}: compactds {name}"
            shown = set(re.findall(r"(?<!\S)(--[a-z][a-z-]*)", re.sub(r"'[^']*'|\"[^\"]*\"", "", rest)))
            assert shown <= flags(COMMANDS[name]), f"{page.name}: compactds {name}{rest}"


def test_the_make_targets_that_pages_show_exist():
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    for page in PAGES:
        shown = re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE)
        assert set(shown) <= targets, page.name


def test_the_readme_shows_the_way_in():
    readme = text_of("README.md")
    for word in ("make demo", "compactds build", "compactds search", "compactds serve", "docs/cli.md"):
        assert word in readme


def test_the_filters_of_the_readme_fit_the_demo_corpus():
    corpus = text_of("configs/demo/corpus.jsonl").splitlines()
    rows = [json.loads(line) for line in corpus]
    schema = Schema({"subject": FieldType.STRING, "year": FieldType.INT64})

    class Columns:
        def column(self, name):
            return pa.array([row.get(name) for row in rows])

    readme = text_of("README.md")
    as_sql = re.findall(r'--where "([^"]+)"', readme)
    as_json = [json.loads(body)["where"] for body in re.findall(r"-d '(.*)'$", readme, re.MULTILINE)]
    as_python = [ast.literal_eval(where) for where in re.findall(r"where=(\{.*?\})\)", readme)]
    assert as_sql
    assert as_json
    assert as_python
    for where in (*as_sql, *as_json, *as_python):
        allowed = evaluate(parse_where(where, schema), Columns(), len(rows))
        assert 5 <= allowed.sum() < len(rows), where
    commands = re.findall(r"compactds search (\S+)", readme)
    assert set(commands) == {"demo-store"}


def test_the_image_runs_without_privileges_and_says_when_it_is_ready():
    instructions = re.findall(r"^([A-Z]+) (.*)$", text_of("Dockerfile"), re.MULTILINE)
    last_stage = instructions[max(place for place, (word, _) in enumerate(instructions) if word == "FROM") :]
    found = dict(last_stage)
    assert found["USER"] not in ("root", "0")
    assert found["VOLUME"] == "/store"
    assert found["ENTRYPOINT"] == '["compactds"]'
    assert found["CMD"] == '["serve", "/store", "--host", "0.0.0.0"]'
    assert "HEALTHCHECK" in found
    assert "/readyz" in text_of("Dockerfile")
    assert not any("API_KEY" in value for word, value in instructions if word in ("ENV", "ARG"))


def test_the_image_asks_its_own_server_whether_it_is_ready_past_any_proxy():
    _, check = re.split(r"^HEALTHCHECK .* CMD ", text_of("Dockerfile"), flags=re.MULTILINE)
    python, *arguments = json.loads(
        check.split("\n# The key")[0].split("\nENTRYPOINT")[0].replace("\\\n", "")
    )
    assert python == "python"

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {"http_proxy": "http://127.0.0.1:1", "COMPACTDS_SERVE_PORT": str(server.server_port)}
        command = [sys.executable, *arguments]
        assert subprocess.run(command, env=environment, timeout=60).returncode == 0
        server.shutdown()
    assert subprocess.run(command, env=environment, timeout=60, capture_output=True).returncode == 1
