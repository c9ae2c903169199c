"""The recipe of what is added to a store: the store's own, for other sources."""

from collections.abc import Mapping, Sequence
from typing import Any

from compactds.configs.recipe import Recipe, recipe_for
from compactds.configs.validation import validate
from compactds.datastore.manifest import Manifest
from compactds.indexer.errors import BuildError

_OF_THE_STORE = ("encoder", "exact_encoder", "passages", "exact")
_OF_THE_CORPUS = ("filters", "duplicates", "decontamination", "skip_invalid")
_OF_SOURCES = ("fields", "attributes", "vector", "ids")


def recipe_for_adding(
    manifest: Manifest, sources: Sequence[str], overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """Return the recipe that adds sources, or those of the one .toml file named, to a store.

    `overrides` are those of `recipe_for`. Encoders and passages are the store's; a recipe that says
    otherwise is refused. What it says of the index holds for the store from then on. Filters, duplicates
    and decontamination are the store's, too, unless the recipe has its own; how records are read is, if all
    of the store's sources agree. Raises ConfigError, and BuildError for a recipe that does not fit.
    """
    given = recipe_for(sources, overrides)
    kept: dict[str, Any] = dict(manifest.recipe.get("resolved", {}))
    stored = kept.pop("sources", [])
    kept.pop("vectors", None)
    said = given.model_dump(mode="json", exclude_unset=True)
    tables = {name: kept[name] for name in ("name", *_OF_THE_STORE) if name in kept}
    for name in _OF_THE_CORPUS:
        if name in said or name in kept:
            tables[name] = said[name] if name in said else kept[name]
    tables["index"] = {**kept.get("index", {}), **said.get("index", {})}
    tables["attributes"] = {**kept.get("attributes", {}), **said.get("attributes", {})}
    tables["sources"] = [{**_shared(stored), **source} for source in said["sources"]]
    if "vectors" in said:
        tables["vectors"] = said["vectors"]
        for source in tables["sources"]:
            source.pop("vector", None)
    if "filters" not in said:
        tables["filters"] = _for_sources(tables.get("filters", []), tables["sources"])
    _check_files(manifest, tables, said)
    _check_vectors(manifest, tables)
    recipe = validate(Recipe, tables, "the store's recipe")
    _check_settings(recipe, given, said)
    return recipe


def _shared(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how records are read, as far as all sources of the store say the same."""
    first = sources[0] if sources else {}
    return {
        name: first[name]
        for name in _OF_SOURCES
        if name in first and all(source.get(name) == first[name] for source in sources)
    }


def _for_sources(filters: Sequence[Mapping[str, Any]], sources: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the filters that are for one of these sources, or for all."""
    names = {source.get("name", "") for source in sources} - {""}
    tables = [
        table
        if table.get("sources") is None
        else {**table, "sources": [name for name in table["sources"] if name in names]}
        for table in filters
    ]
    return [table for table in tables if table.get("sources") != []]


def _check_files(manifest: Manifest, tables: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """Raise BuildError for files that the store's recipe reads: it knows their names, not where they are."""
    read = set(manifest.recipe.get("files", ()))
    for name in ("filters", "decontamination"):
        named = sorted(read & _texts(tables.get(name)))
        if name not in said and named:
            raise BuildError(
                f"the store's [{name}] reads {named[0]!r}, and a store does not know where its files lie.",
                value=named[0],
                remedy=f"Add with a recipe: a .toml file with the sources and [{name}].",
            )


def _check_vectors(manifest: Manifest, tables: Mapping[str, Any]) -> None:
    given = "vectors" in tables or any("vector" in source for source in tables["sources"])
    if manifest.encoder.kind == "vectors" and not given:
        raise BuildError(
            "the store was built from ready-made vectors, and none are given.",
            remedy="Give --vectors or --vector-field.",
        )


def _check_settings(recipe: Recipe, given: Recipe, said: Mapping[str, Any]) -> None:
    for name in _OF_THE_STORE:
        if name in said and getattr(given, name) != getattr(recipe, name):
            raise BuildError(
                f"the recipe's [{name}] is another than the store's.",
                value=said[name],
                remedy=f"Leave [{name}] out: what is added is made like the rest of the store.",
            )


def _texts(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return _texts(list(value.values()))
    if isinstance(value, list):
        return {text for item in value for text in _texts(item)}
    return {value} if isinstance(value, str) else set()
