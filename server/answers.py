"""The bodies of answers, for the documentation: answers themselves are serialised from records."""

from typing import Any

from pydantic import BaseModel, Field


class PassageAnswer(BaseModel):
    """A passage: a piece of a document, the unit that is searched."""

    id: str = Field(description="`<document id>#<position>`.", examples=["sky-1#0"])
    document_id: str
    position: int = Field(description="The passage's place in its document, from 0.")
    title: str
    text: str
    source: str
    start: int = Field(description="Where the text starts in the document's text, in characters.")
    end: int = Field(description="Where it ends.")
    attributes: dict[str, Any] = Field(description="Dates are ISO 8601 strings; missing ones are absent.")


class HitAnswer(BaseModel):
    """A result of a search."""

    score: float = Field(description="The similarity to the query: higher is better.")
    rank: int = Field(description="The place among the hits, from 1.")
    passage: PassageAnswer


class ReportAnswer(BaseModel):
    """How a search was answered."""

    plan: str
    matching: int = Field(description="How many passages the where expression allowed.")
    candidates: int = Field(description="How many were scored exactly.")
    timings_ms: dict[str, float] = Field(description="What each stage took, for the whole batch.")
    truncated: bool = Field(
        description="Whether the query was longer than the encoder reads, so that its end was not used."
    )
    predicted_ms: float = Field(description="What the planner expected the search of this query to cost.")
    excluded: int = Field(
        description="How many better passages were left out, as they overlap with the questions to exclude."
    )


class HitsAnswer(BaseModel):
    """The hits of one query, best first."""

    hits: list[HitAnswer]
    report: ReportAnswer | None = Field(None, description="Present if the request says explain.")


class SearchAnswer(HitsAnswer):
    """The answer to one query."""

    took_ms: float = Field(description="What the search took in the server.")


class BatchAnswer(BaseModel):
    """The answers to a batch, in its order."""

    results: list[HitsAnswer]
    took_ms: float


class CountAnswer(BaseModel):
    """How many passages match."""

    count: int


class FacetValue(BaseModel):
    """One value of a field."""

    value: Any
    count: int


class FacetsAnswer(BaseModel):
    """The most frequent values of each field, most frequent first."""

    facets: dict[str, list[FacetValue]]


class HealthAnswer(BaseModel):
    """The state of the process or of the store."""

    status: str = Field(examples=["ok"])


class ProblemAnswer(BaseModel):
    """An error, as RFC 9457 problem details."""

    type: str = Field(description="`urn:compactds:problem:<code>`.")
    title: str = Field(description="The phrase that goes with the status.")
    status: int
    detail: str = Field(description="What is wrong with this request.")
    code: str = Field(description="A stable name of the error, for programs.", examples=["unknown_field"])
    field: str | None = Field(
        description="The place in the body at fault, if it is one, such as `query[3]`; in a where "
        "expression, `where`, `where[1]` in a list, and the name of the field that it is wrong about."
    )
    value: Any = Field(description="What stood there, cut if it is long.")
    remedy: str = Field(description="What to do about it.")
    request_id: str = Field(description="The id under which the server logged the request.")
