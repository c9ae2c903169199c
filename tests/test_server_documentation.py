"""docs/http.md and docs/python.md name everything there is."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from compactds import clients
from compactds.clients import Client
from compactds.server import ServerSettings, create_app
from compactds.server.bodies import CountBody, FacetsBody, SearchBody
from compactds.server.compatible import CompatibleBody

ROOT = Path(__file__).parent.parent
HTTP = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
PYTHON = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_every_route_is_documented():
    for path, operations in create_app(None).openapi()["paths"].items():
        for method in operations:
            assert f"`{method.upper()} {path.replace('passage_id', 'id')}`" in HTTP


@pytest.mark.parametrize("body", [SearchBody, CountBody, FacetsBody, CompatibleBody])
def test_every_key_of_a_body_is_documented(body):
    for name, field in body.model_fields.items():
        key = field.alias or name
        assert re.search(rf'[`"]{key}[`"]', HTTP), key


def test_every_setting_is_documented_with_its_default():
    for field in dataclasses.fields(ServerSettings):
        row = next(line for line in HTTP.splitlines() if line.startswith(f"| `{field.name}` |"))
        default = {None: "none"}.get(field.default, str(field.default))
        assert default in row.split("|")[2].replace(",", ""), field.name


def test_every_code_in_the_source_is_documented():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "server").glob("*.py"))
    codes = set(re.findall(r'ProblemError\(\s*\d+,\s*"(\w+)"', source))
    assert len(codes) > 8
    for code in codes:
        assert f"`{code}`" in HTTP, code


def test_every_method_argument_and_error_of_the_clients_is_documented():
    for name, _ in inspect.getmembers(Client, inspect.isfunction):
        assert name.startswith("_") or f"| `{name}(" in PYTHON, name
    for name in list(inspect.signature(Client).parameters):
        assert f"| `{name}` |" in PYTHON, name
    for name in clients.__all__:
        assert f"`{name}`" in PYTHON, name
