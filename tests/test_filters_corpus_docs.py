"""The page on corpus filters names every filter, and every option with its default and meaning."""

import json
import re
from pathlib import Path

import pytest

from compactds.filters.corpus.catalogue import CATALOGUE, make_filter

PAGE = (Path(__file__).parents[1] / "docs" / "filters-corpus.md").read_text(encoding="utf-8")


def default(known):
    if known.required:
        return "required"
    match known.default:
        case None:
            return "none"
        case bool() | str() | tuple():
            return f"`{json.dumps(known.default)}`"
        case number:
            return f"`{number:g}`" if isinstance(number, float) else f"`{number}`"


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_filter_has_a_section_with_its_options(name):
    section = PAGE.split(f"\n## `{name}`\n")[1].split("\n## ")[0]
    entry = CATALOGUE[name]
    assert section.startswith(f"\n{entry.about}\n")
    expected = [
        f"| `{known.name}` | {default(known)} | {known.about} |"
        for known in entry.options
        if known.name != "name"
    ]
    assert [line for line in section.splitlines() if line.startswith("| `") and line in expected] == expected


def test_no_section_is_about_a_filter_that_does_not_exist():
    assert re.findall(r"^## `(\w+)`$", PAGE, re.MULTILINE) == sorted(
        CATALOGUE, key=lambda name: PAGE.index(f"\n## `{name}`\n")
    )


def test_the_recipe_of_the_page_makes_filters():
    import tomllib

    recipe = tomllib.loads(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1])
    assert [make_filter(table).name for table in recipe["filters"]] == [
        table["filter"] for table in recipe["filters"]
    ]
