"""The recipe of a store as it can be built again: what its manifest keeps, and what that does not tell."""

from collections.abc import Iterable, Mapping, Set
from typing import Any

from compactds.configs.recipe import Duplicates
from compactds.datastore.manifest import Manifest
from compactds.indexer.errors import BuildError
from compactds.indexer.growth import ADDITIONS, growth


def stored_recipe(manifest: Manifest, revisions: Iterable[Mapping[str, str]] = ()) -> dict[str, Any]:
    """Return the tables of the recipe that a store was built from, without what is as by default.

    Files are named without their folders, so that they are looked for beside the recipe. `revisions`, as the
    ledgers have them, name the commit that was read of each dataset. Raises BuildError for a store that keeps
    no recipe.
    """
    if "resolved" not in manifest.recipe:
        raise BuildError(
            "the store keeps no recipe: it was not made by a build.",
            value=manifest.name,
            remedy="Write a recipe with the store's sources, and build again.",
        )
    tables: dict[str, Any] = {"name": manifest.name, **manifest.recipe["resolved"]}
    files = frozenset(manifest.recipe.get("files", ()))
    for name in tables.keys() & {"filters", "decontamination"}:
        tables[name] = _beside(tables[name], files)
    if "duplicates" in tables:  # an empty table would not be written, but means something
        tables["duplicates"] = Duplicates(**tables["duplicates"]).model_dump(mode="json")
    commits = {(found["dataset"], found["revision"]): found["commit"] for found in revisions}
    tables["sources"] = [_at_commit(source, commits) for source in tables.get("sources", ())]
    return tables


def untold(manifest: Manifest) -> list[str]:
    """Return what the recipe of a store does not tell, in sentences: where files lie, and what came since."""
    told = ["Files are named without their folders, which the store does not keep: save this beside them."]
    if since := growth(manifest):
        sources = [
            source for addition in manifest.recipe.get(ADDITIONS, ()) for source in addition["sources"]
        ]
        names = ", ".join(dict.fromkeys(source["path"] for source in sources))
        came = f" What was added came from {names}." if names else ""
        told.append(f"This is what the store was built from. Since then, {' and '.join(since)}.{came}")
    return told


def _beside(value: Any, files: Set[str]) -> Any:
    """Return options of filters with the files they read written as paths, which start at the recipe."""
    if isinstance(value, Mapping):
        return {key: _beside(item, files) for key, item in value.items()}
    if isinstance(value, list):
        return [_beside(item, files) for item in value]
    return f"./{value}" if isinstance(value, str) and value in files else value


def _at_commit(source: Mapping[str, Any], commits: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    dataset = source["path"].removeprefix("hf:")
    commit = commits.get((dataset, source.get("revision", "")))
    return {**source, "revision": commit} if commit else dict(source)
