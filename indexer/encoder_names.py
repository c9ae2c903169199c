"""Find a recipe's encoders before anything is read: a misspelt name is not to cost hours."""

from collections.abc import Sequence
from importlib.util import find_spec

from compactds.configs.recipe import EncoderConfig, Recipe
from compactds.datastore.encoders import PRESETS, EncoderOptions, find_preset
from compactds.datastore.encoders.loading import find_model
from compactds.datastore.errors import EncoderNotFoundError
from compactds.filters.errors import nearest

_STATIC = "static:"


def encoder_configs(recipe: Recipe) -> list[EncoderConfig]:
    """Return the encoder of the index and, if it is another, that of the exact stage; none for vectors."""
    if recipe.encoder.kind == "vectors":
        return []
    return [recipe.encoder] if recipe.exact_encoder is None else [recipe.encoder, recipe.exact_encoder]


def check_encoders(configs: Sequence[EncoderConfig]) -> None:
    """Raise what loading the encoders would raise for a model that is not found; none is loaded.

    A model that is on the hub only is downloaded. The remedy for a name without an owner lists the presets.
    """
    for config in configs:
        name = config.model.removeprefix(_STATIC)
        preset = find_preset(name)
        if preset is not None and preset.package is not None and find_spec(preset.package) is not None:
            continue
        try:
            find_model(EncoderOptions(**config.model_dump()))
        except EncoderNotFoundError as error:
            if "/" in name or name.startswith((".", "~")):
                raise
            near = nearest(name, PRESETS)
            meant = f"Did you mean {near!r}? " if near else ""
            raise EncoderNotFoundError(
                error.message,
                value=config.model,
                remedy=f"{meant}The presets are {', '.join(sorted(PRESETS))}. {error.remedy}",
            ) from error
