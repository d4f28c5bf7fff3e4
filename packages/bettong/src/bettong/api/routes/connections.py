"""Connections. Their details leave this server by an audited reveal alone."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from bettong.api import replies
from bettong.api.answers import Answer
from bettong.api.auth import Caller, Uses
from bettong.api.requests import (
    ConnectionCreate,
    ConnectionDelete,
    ConnectionGet,
    ConnectionGetById,
    ConnectionLink,
    ConnectionsList,
)
from bettong.api.strict_json import StrictRoute, may_be_absent
from bettong.api.wire import connection_record
from bettong.domain.connections import Connection
from bettong.domain.identity import Principal
from bettong.services.platform import Services

router = APIRouter(prefix="/v1/api/connections", route_class=StrictRoute, tags=["connections"])


@router.post("/create", summary="Make a connection", response_model=replies.ConnectionId)
def create(caller: Caller, services: Uses, body: ConnectionCreate) -> Answer:
    """`details` are sealed before they are stored; no answer but a reveal holds them."""
    return Answer({"id": services.connections.create(caller, body.name, body.type, body.details).id})


@router.post("/get", summary="A connection by name", response_model=replies.ConnectionRecord)
def get(request: Request, caller: Caller, services: Uses, body: ConnectionGet) -> Answer:
    """With `"reveal": true` the answer has `details`, and the audit an entry. Callers that know nothing of `reveal`,
    and are not our SDK, get them too, as the reference system's clients expect, where they may have them at all."""
    connection = services.connections.get(caller, body.name)
    return _answer(request, services, caller, connection, body.reveal)


@router.post("/get_by_id", summary="A connection by id", response_model=replies.ConnectionRecord)
def get_by_id(request: Request, caller: Caller, services: Uses, body: ConnectionGetById) -> Answer:
    """As `/get`."""
    connection = services.connections.get_by_id(caller, body.id)
    return _answer(request, services, caller, connection, body.reveal)


@router.post("/list", summary="The connections that the caller may see", response_model=replies.Connections)
def list_connections(
    caller: Caller, services: Uses, body: Annotated[ConnectionsList, may_be_absent(ConnectionsList)]
) -> Answer:
    """In order of creation; of one workspace in order of linking, the newest link last. Never with details.
    `limit` and `after`, the id of the last one had, give the list in pages."""
    found = services.connections.all(caller, body.workspace_id, limit=body.limit, after=body.after)
    return Answer({"connections": [connection_record(c) for c in found]})


@router.post("/add_to_workspace", summary="Link a connection to a workspace", response_model=replies.ConnectionId)
def add_to_workspace(caller: Caller, services: Uses, body: ConnectionLink) -> Answer:
    """`id` is that of the link. Linking again changes nothing."""
    return Answer({"id": services.connections.link(caller, body.workspace_id, body.connection_id)})


@router.post("/remove_from_workspace", summary="Unlink a connection", status_code=204, response_class=Response)
def remove_from_workspace(caller: Caller, services: Uses, body: ConnectionLink) -> Response:
    """The connection stays. No error when there is no such link."""
    services.connections.unlink(caller, body.workspace_id, body.connection_id)
    return Response(status_code=204)


@router.post("/delete", summary="Delete a connection and every link", status_code=204, response_class=Response)
def delete(caller: Caller, services: Uses, body: ConnectionDelete) -> Response:
    """For its creator and administrators. 409 while jobs that have not ended use it, unless it is to be forced."""
    services.connections.delete(caller, body.name, force=body.force)
    return Response(status_code=204)


def _answer(
    request: Request, services: Services, caller: Principal, connection: Connection, asked: bool | None
) -> Answer:
    record: dict[str, Any] = connection_record(connection)
    expected = "x-bettong-client" not in request.headers and services.connections.may_reveal(caller, connection)
    if not (expected if asked is None else asked):
        return Answer(record)
    record["details"] = services.connections.reveal(caller, connection)
    return Answer(record, headers={"cache-control": "no-store"})
