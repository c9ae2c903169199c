"""Read a where expression in whichever of its forms it comes."""

import re
from collections.abc import Mapping
from typing import Any

from compactds.filters.binding import bind
from compactds.filters.errors import FieldTypeError, WhereError, reported, shown
from compactds.filters.schema import Schema
from compactds.filters.where import Expression
from compactds.filters.where_json import from_json
from compactds.filters.where_sql import from_sql

_DOUBLE_QUOTED = re.compile(r'"(\d[^"]*)"')
"""A date in a remedy as JSON writes it; in SQL, double quotes are for names."""

_NO_JSON_IN_TEXT = "Give an expression in JSON as an object (in Python, a dict), not as a string."

Where = Mapping[str, Any] | str | Expression | None


def parse_where(where: Where, schema: Schema) -> Expression | None:
    """Return the bound expression of a JSON object, an SQL condition or a Python expression.

    None and an empty object allow all rows and give None. Raise UnknownFieldError, FieldTypeError or
    another WhereError for what cannot be used.
    """
    if type(where) is dict:
        return bind(from_json(where), schema) if where else None
    match where:
        case None:
            return None
        case Expression():
            return bind(where, schema)
        case Mapping():
            return bind(from_json(where), schema) if where else None
        case str():
            try:
                return bind(from_sql(where), schema)
            except FieldTypeError as error:
                error.remedy = _DOUBLE_QUOTED.sub(r"'\1'", error.remedy)
                raise
            except WhereError as error:
                if where.lstrip().startswith("{"):
                    error.remedy = f"{_NO_JSON_IN_TEXT} {error.remedy}"
                raise
        case _:
            raise WhereError(
                f"where expression: expected an object, a string or an expression, not {shown(where)}.",
                value=reported(where),
                remedy='Write {"year": {"$gte": 2015}}, "year >= 2015" or field("year") >= 2015.',
            )
