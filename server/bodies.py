"""The bodies of requests: what each route takes, with what every key means."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from compactds.server.settings import MAX_DIMENSION, MAX_EXCLUDED, MAX_QUERIES

FLOAT32_MAX = 3.4028234663852886e38

Number = Annotated[float, Field(ge=-FLOAT32_MAX, le=FLOAT32_MAX, allow_inf_nan=False)]

# Lists fail at their first wrong element: an error for each would cost far more than the body itself.
Vector = Annotated[list[Number], Field(fail_fast=True, min_length=1, max_length=MAX_DIMENSION)]
Vectors = Annotated[list[Vector], Field(fail_fast=True, max_length=MAX_QUERIES)]
Texts = Annotated[list[str], Field(fail_fast=True, max_length=MAX_QUERIES)]


def _text_or_list(value: Any) -> str | None:
    return "one" if isinstance(value, str) else "many" if isinstance(value, list) else None


def _object_or_text(value: Any) -> str | None:
    return "text" if isinstance(value, str) else "object" if isinstance(value, dict) else None


def _flag_or_list(value: Any) -> str | None:
    return "flag" if isinstance(value, bool) else "many" if isinstance(value, list) else None


Queries = Annotated[
    Annotated[str, Tag("one")] | Annotated[Texts, Tag("many")],
    Discriminator(
        _text_or_list,
        custom_error_type="text_or_list",
        custom_error_message="Input should be a string or a list of strings",
    ),
]

WhereBody = Annotated[
    Annotated[dict[str, Any], Tag("object")] | Annotated[str, Tag("text")],
    Discriminator(
        _object_or_text,
        custom_error_type="object_or_text",
        custom_error_message="Input should be an object or an SQL condition in a string",
    ),
]

Wheres = Annotated[list[WhereBody | None], Field(fail_fast=True, max_length=MAX_QUERIES)]

WhereOrList = Annotated[
    Annotated[dict[str, Any], Tag("object")] | Annotated[str, Tag("text")] | Annotated[Wheres, Tag("many")],
    Discriminator(
        lambda value: "many" if isinstance(value, list) else _object_or_text(value),
        custom_error_type="object_or_text",
        custom_error_message="Input should be an object, an SQL condition in a string, or a list of these",
    ),
]

Questions = Annotated[list[str], Field(fail_fast=True, max_length=MAX_EXCLUDED)]

ExcludeBody = Annotated[
    Annotated[bool, Tag("flag")] | Annotated[Questions, Tag("many")],
    Discriminator(
        _flag_or_list,
        custom_error_type="flag_or_list",
        custom_error_message="Input should be true or a list of strings",
    ),
]

WHERE_MEANING = (
    "Which passages may be returned: an object such as "
    '{"subject": "physics", "year": {"$gte": 2015}}, or an SQL condition such as '
    "\"subject = 'physics' AND year >= 2015\"."
)


class Body(BaseModel):
    """Refuse unknown keys and convert nothing: "5" is not a number, true is not 1."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _keep_one_unknown_key(cls, data: Any) -> Any:
        """Drop unknown keys but the first, which is enough to refuse the body: each would be an error."""
        if not isinstance(data, dict):
            return data
        known = {key: value for key, value in data.items() if key in cls.model_fields}
        unknown = next((key for key in data if key not in known), None)
        return known if unknown is None else {**known, unknown: data[unknown]}


class SearchBody(Body):
    """A search: one query or a batch, as text or as vectors."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "why is the sky blue",
                    "k": 5,
                    "where": {"subject": "physics", "year": {"$gte": 2015}},
                }
            ]
        }
    )

    query: Queries | None = Field(
        None, description="The question as text; a list of texts is a batch, answered in order."
    )
    vector: Vector | None = Field(None, description="The question as a vector of the store's encoder.")
    vectors: Vectors | None = Field(None, description="A batch of vectors, each of the store's dimension.")
    k: int = Field(
        10,
        ge=1,
        description="How many hits to return per query: a whole number from 1 to the server's max_k.",
    )
    where: WhereOrList | None = Field(
        None,
        description=f"{WHERE_MEANING} A list gives each query of a batch its own; null in it allows all.",
    )
    candidates: int | None = Field(
        None, ge=1, description="How many rows are scored exactly: at least k, at most max_candidates."
    )
    recall: float | None = Field(
        None,
        gt=0,
        le=1,
        description="The expected share of the true top k: above 0, up to 1; 1 searches exhaustively.",
    )
    mode: str = Field("dense", description="How to search: 'dense' compares vectors.")
    exclude_overlap_with: ExcludeBody | None = Field(
        None,
        description="Evaluation questions, at most 20,000 texts: no hit shares 13 words in a row with one, "
        "or a whole shorter one, and others take their places. true stands for each query's own text.",
    )
    explain: bool = Field(
        False,
        description="Whether each answer carries a report: plan, rows matched and scored, timings, cuts.",
    )


class CountBody(Body):
    """A count of passages."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"where": "year >= 2015"}]})

    where: WhereBody | None = Field(None, description=WHERE_MEANING)


class FacetsBody(Body):
    """A question for the most frequent values of fields."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"fields": ["subject", "year"], "where": {"level": "college"}}]}
    )

    fields: list[str] = Field(
        fail_fast=True,
        min_length=1,
        max_length=100,
        description="The fields to count, 1 to 100 names of the store's schema.",
    )
    where: WhereBody | None = Field(None, description=WHERE_MEANING)
    limit: int = Field(
        10,
        ge=1,
        le=10_000,
        description="How many values to return per field: a whole number from 1 to 10,000.",
    )
