"""What callers send to use and to change a connection, which they name by `id` or by `name`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bettong.api.requests import Body, Id, Name, Text
from bettong.errors import BadInput

if TYPE_CHECKING:
    from bettong.domain.connections import Connection
    from bettong.domain.identity import Principal
    from bettong.services.connections import ConnectionService

Purpose = Annotated[str, Field(max_length=256, pattern=r"^[^\x00]*$")]
Query = Annotated[str, Field(max_length=2**20, pattern=r"^[^\x00]*$")]
Details = dict[str, Any]


class Which(Body):
    id: Name | None = None
    name: Name | None = None

    def found(self, caller: Principal, connections: ConnectionService) -> Connection:
        """The connection that is meant, if the caller may see it."""
        if self.id is not None:
            return connections.get_by_id(caller, self.id)
        if self.name is None:
            raise BadInput("Neither 'id' nor 'name' of a connection was given.", "Send one of them.")
        return connections.get(caller, self.name)


class Used(Which):
    purpose: Purpose = Field("", description="For the audit, in the caller's own words.")


class Test(Used):
    type: Name | None = Field(None, description="With `details` and without a connection: what would be made.")
    details: Details | None = Field(None, description="A change to try; `*****` and missing fields mean what is kept.")


class Browse(Used):
    path: Text = ""


class Preview(Used):
    table: Query = ""
    rows: Annotated[int, Field(ge=1, le=1000)] = 10


class Read(Used):
    query: Query = ""
    parameters: list[str | int | float | bool | None] = Field(default=[], description="Bound, never formatted in.")
    limit: Annotated[int, Field(ge=0)] | None = Field(None, description="Rows; all without it.")
    batch_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 65_536
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(60.0, description="Most seconds to wait for each batch.")


class Write(Used):
    """Sent as query parameters: the body is the Arrow stream of the rows."""

    table: Query
    mode: Literal["append", "replace", "upsert"] = "append"
    keys: list[Name] = Field(default=[], description="Columns that tell rows apart, for upsert.")
    timeout_s: Annotated[float, Field(gt=0, le=86_400, strict=False)] = 3600.0


class Update(Which):
    details: Details = Field({}, description="Over what is kept; `*****` keeps a value.")
    remove: list[Name] = Field(default=[], description="Fields to drop.")
    replace: bool = Field(False, description="Drop every field that `details` does not name.")


class Rotate(Which):
    details: Details


class Rollback(Which):
    version: Annotated[int, Field(ge=1, le=2**31 - 1)]


class Audit(Which):
    limit: Annotated[int, Field(ge=1, le=10_000)] = 100


class Export(Body):
    workspace_id: Id | None = Field(None, description="Only those that are linked to it.")


class UseOnly(Which):
    use_only: bool
