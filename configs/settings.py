"""The settings of `compactds serve`, from defaults, a TOML file, the environment and flags."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from compactds.configs.toml import read_toml
from compactds.configs.validation import validate

ENVIRONMENT_PREFIX = "COMPACTDS_SERVE_"


class ServeSettings(BaseModel):
    """Hold the settings of a server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(
        "127.0.0.1", min_length=1, description="The address to bind; one beyond loopback needs a key."
    )
    port: int = Field(8080, ge=0, le=65535, description="The port to bind; 0 takes a free one.")
    api_key: SecretStr | None = Field(
        None, description="The key that requests must carry; without one, none need to."
    )
    max_k: int = Field(1_000, ge=1, le=10_000, description="The most hits a query may ask for.")
    max_batch: int = Field(256, ge=1, description="The most queries a request may hold.")
    max_hits: int = Field(50_000, ge=1, description="The most hits an answer may hold: k times the queries.")
    max_candidates: int = Field(
        100_000, ge=1, le=100_000, description="The most candidates a query may ask for."
    )
    max_query_chars: int = Field(100_000, ge=1, description="The longest query, in characters.")
    max_body_bytes: int = Field(16_000_000, ge=1, description="The largest request body, in bytes.")
    max_concurrent: int = Field(64, ge=1, description="The most requests under way at once.")
    drain_s: int = Field(10, ge=0, description="Seconds that running requests may take to finish at the end.")


def load_settings(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> ServeSettings:
    """Return the settings: defaults, then the file, then COMPACTDS_SERVE_* variables, then flags.

    Files and flags must give the very types; variables are text and are converted. Empty variables count
    as unset. Raises ConfigError naming where the wrong value came from.
    """
    variables = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX) and value
    }
    layers: list[tuple[str, Mapping[str, Any], bool]] = [
        (str(file), read_toml(file) if file else {}, True),
        (f"environment ({ENVIRONMENT_PREFIX}*)", variables, False),
        ("command line", flags or {}, True),
    ]
    merged: dict[str, Any] = {}
    for origin, values, strict in layers:
        layer = validate(ServeSettings, values, origin, strict=strict)
        merged |= {name: getattr(layer, name) for name in layer.model_fields_set}
    return validate(ServeSettings, merged, "settings")
