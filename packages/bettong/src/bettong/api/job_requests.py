"""What callers send to have a job made. What the kinds want of each field is checked where the kinds are known."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from bettong.api.connection_requests import Query
from bettong.api.requests import Body, Id, Name

Number = Annotated[float, Field(strict=False)]
# Checked by the domain, which says more of a number that is neither than two types do.
CountOrShare = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "null"}]})]


class End(Body):
    """A connection, and what of it is read or written."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())

    connection_id: Name


class Source(End):
    query: Query = Field(
        "", description="What the driver's page says: SQL, a table, a path; empty: what the details name."
    )
    parameters: list[Any] = Field(default=[], description="Values for the query's placeholders.")


class Sink(End):
    table: Query
    mode: Literal["append", "replace", "upsert"] = "append"


class JobBody(Body):
    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())

    pipeline_id: Id
    pipeline_version: Name | None = Field(
        None, description="A version's UUID; without it the deployed one, or the newest."
    )

    def asked(self) -> dict[str, Any]:
        """As it was sent, with defaults."""
        return self.model_dump()


class InferBatch(JobBody):
    source: Source
    sink: Sink
    map: dict[Name, Name | list[Name]] = Field(
        default={}, description="By column of the model the column of the source, or those that are its list."
    )
    keys: list[Name] = Field(
        default=[], description="Columns of the source that tell rows apart; they are written too."
    )
    outputs: dict[Name, Name] | None = Field(None, description="Columns of answers by columns of the sink; null: all.")
    lineage: bool = Field(False, description="Write job and versions beside each row.")
    max_rejects: CountOrShare = Field(
        None, description="With more rejected rows the job fails: a count, or a share of all rows, such as 0.05."
    )


class InferStream(JobBody):
    source: End
    sink: End
    dead_letter: End | None = None
    keep: list[Name] = Field(default=[], description="Fields of a message that stand in its answer too.")


class Replay(JobBody):
    start: Name = Field(description="ISO-8601 with offset; included.")
    end: Name = Field(description="ISO-8601 with offset; not included.")
    limit: int | None = Field(None, description="The most rows, oldest first.")
    tolerance: Number | None = Field(None, description="How far numbers may be apart to be equal.")
    failed: bool = Field(False, description="Replay requests that failed, too.")
    inputs: bool = Field(True, description="Keep the inputs beside the answers.")


class JobsList(Body):
    workspace_id: Id | None = None
    kind: Literal["infer_batch", "infer_stream", "replay"] | None = None
    unended: bool = False
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: Name | None = Field(None, description="The id of the job that the list goes on after.")
