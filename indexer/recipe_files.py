"""The files that a recipe names: which of its options are paths, and the recipe without their folders."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from compactds.configs.recipe import Recipe
from compactds.filters.corpus.options import path_options

_PATH_KEYS = {"sources": frozenset({"path"}), "decontamination": frozenset({"questions"})}


def named_files(recipe: Recipe) -> list[Path]:
    """Return the files that filters and decontamination read, those of folders among them, in order."""
    found: list[Path] = []
    for path in _read_paths(recipe):
        if path.exists():
            found += sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return found


def file_names(recipe: Recipe) -> list[str]:
    """Return the names of what filters and decontamination read, which a manifest keeps without folders."""
    return sorted({path.name for path in _read_paths(recipe)})


def portable(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as the manifest keeps it: files by their names, since a store may travel."""
    resolved = recipe.model_dump(mode="json", exclude_defaults=True)
    for section in resolved.keys() & {"sources", "filters"}:
        resolved[section] = [_without_folders(section, table) for table in resolved[section]]
    if "decontamination" in resolved:
        resolved["decontamination"] = _without_folders("decontamination", resolved["decontamination"])
    if "vectors" in resolved:
        resolved["vectors"] = _name(resolved["vectors"])
    return resolved


def _read_paths(recipe: Recipe) -> list[Path]:
    """Return the absolute paths among the options of filters and decontamination."""
    tables = recipe.model_dump(mode="json", include={"filters", "decontamination"})
    against = tables["decontamination"]
    sections = [("filters", table) for table in tables["filters"]]
    sections += [("decontamination", against)] if against is not None else []
    values = [table[key] for section, table in sections for key in sorted(_path_keys(section, table))]
    named = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [Path(item) for item in named if isinstance(item, str) and Path(item).is_absolute()]


def _path_keys(section: str, table: Mapping[str, Any]) -> Collection[str]:
    """Return the keys of one of the recipe's tables that name files; any other value is what it says."""
    if section != "filters":
        return _PATH_KEYS[section] & table.keys()
    from compactds.filters.corpus.catalogue import entry_of

    return path_options(entry_of(table).made) & table.keys()


def _without_folders(section: str, table: Mapping[str, Any]) -> dict[str, Any]:
    paths = _path_keys(section, table)
    return {key: _name(value) if key in paths else value for key, value in table.items()}


def _name(value: Any) -> Any:
    if isinstance(value, list):
        return [_name(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
