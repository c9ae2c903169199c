"""Tell builds apart: by their recipe, and by the files it names as they are now."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compactds.configs.recipe import Recipe
from compactds.indexer.ledger import installed_version
from compactds.indexer.recipe_files import named_files
from compactds.indexer.sources import InputFile, content_hint
from compactds.indexer.workspace import build_key

DOCUMENT_KEYS = ("sources", "filters", "duplicates", "decontamination", "attributes", "skip_invalid")
"""What of a recipe decides which documents there are, before they are split."""


def keys_of(recipe: Recipe, files_of_sources: Sequence[Sequence[InputFile]]) -> tuple[str, str]:
    """Return the key of a whole build, and that of its documents alone, from the files of each source."""
    inputs = [
        [file.name, file.size_bytes, file.mtime_ns, content_hint(file)]
        for files in files_of_sources
        for file in files
    ]
    tables = recipe.model_dump(mode="json")
    facts = {
        "named": [_status(path) for path in named_files(recipe)],
        "recipe": {name: tables[name] for name in DOCUMENT_KEYS},
        "has_vectors": recipe.has_vectors,
        "inputs": inputs,
        "software": installed_version("compactds"),
    }
    vectors = [] if recipe.vectors is None else [_status(recipe.vectors)]
    if vectors and recipe.skip_invalid:
        facts["judged"] = vectors  # which of them are unusable decides which documents there are
    return build_key({**facts, "recipe": tables, "vectors": vectors}), build_key(facts)


def _status(path: Path) -> list[Any]:
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]
