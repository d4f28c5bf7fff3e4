"""Using a connection: the server reaches the data source, and no caller sees how."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from bettong.api import connection_replies as replies
from bettong.api.answers import Answer
from bettong.api.arrow_streams import apart, arrow_answer, arrow_body, read_rows, table_as_stream
from bettong.api.auth import Caller, Uses
from bettong.api.connection_requests import Browse, Preview, Read, Test, Write
from bettong.api.requests import Empty
from bettong.api.strict_json import StrictRoute, may_be_absent
from bettong.domain.drivers import ReadRequest, WriteMode, WriteRequest
from bettong.engine.codec import ARROW_STREAM
from bettong.errors import BadInput, UnsupportedFormat

router = APIRouter(prefix="/v1/api/connections", route_class=StrictRoute, tags=["connections"])

_STREAM: dict[str, Any] = {"content": {ARROW_STREAM: {"schema": {"type": "string", "format": "binary"}}}}
_ROWS: dict[int | str, dict[str, Any]] = {200: {"description": "Rows as an Arrow stream.", **_STREAM}}


@router.post("/drivers", summary="What connections of which types can do", response_model=replies.Drivers)
def drivers(caller: Caller, services: Uses, body: Annotated[Empty, may_be_absent(Empty)]) -> Answer:
    """A type is compared without case; any other type is stored only."""
    return Answer(replies.drivers(services.connection_use.drivers()))


@router.post("/test", summary="Whether a connection works, layer by layer", response_model=replies.Report)
async def test(request: Request, caller: Caller, services: Uses, body: Test) -> Answer:
    """Of a connection; of a change to it, with `details` too; or of what would be made, with `type` and `details`."""

    def work() -> Answer:
        use = services.connection_use
        if body.id is None and body.name is None and body.type is not None:
            return Answer(replies.report(use.try_out(caller, body.type, body.details or {})))
        connection = body.found(caller, services.connections)
        return Answer(replies.report(use.test(caller, connection.id, body.details, body.purpose)))

    return await apart(request, work)


@router.post("/browse", summary="What there is to read", response_model=replies.Entries)
async def browse(request: Request, caller: Caller, services: Uses, body: Browse) -> Answer:
    def work() -> Answer:
        connection = body.found(caller, services.connections)
        return Answer(replies.entries(services.connection_use.browse(caller, connection.id, body.path, body.purpose)))

    return await apart(request, work)


@router.post("/preview", summary="The first rows of a table", response_class=Response, responses=_ROWS)
async def preview(request: Request, caller: Caller, services: Uses, body: Preview) -> Response:
    """An Arrow stream of at most 1,000 rows."""

    def work() -> Response:
        connection = body.found(caller, services.connections)
        rows = services.connection_use.preview(caller, connection.id, body.table, body.rows, body.purpose)
        return Response(table_as_stream(rows), media_type=ARROW_STREAM)

    return await apart(request, work)


@router.post("/read", summary="Rows of a connection", response_class=Response, responses=_ROWS)
async def read(request: Request, caller: Caller, services: Uses, body: Read) -> Response:
    """An Arrow stream, sent as the source gives it. One that fails in its middle ends without its end."""
    asked = ReadRequest(body.query, tuple(body.parameters), body.batch_rows, body.limit)
    connection = await apart(request, lambda: body.found(caller, services.connections))
    rows = services.connection_use.read(caller, connection.id, asked, body.purpose, body.timeout_s)
    return await arrow_answer(request, rows, request.state.request_id)


@router.post(
    "/write",
    summary="Write rows to a connection",
    response_model=replies.Written,
    openapi_extra={"requestBody": {"required": True, **_STREAM}},
)
async def write(request: Request, caller: Caller, services: Uses, body: Annotated[Write, Query()]) -> Answer:
    """The body is an Arrow stream. Where the sink has transactions, all of it is kept, or nothing."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != ARROW_STREAM:
        raise UnsupportedFormat("Rows to write are not an Arrow stream.", f"Send them as {ARROW_STREAM}.")
    asked = WriteRequest(body.table, WriteMode(body.mode), tuple(body.keys))
    if (asked.mode is WriteMode.UPSERT) != bool(asked.keys):
        raise BadInput("Mode upsert and 'keys' go together.", "Give the key columns with mode upsert, and only there.")
    stream = await arrow_body(request)

    def work() -> Answer:
        connection = body.found(caller, services.connections)
        rows = read_rows(stream)
        done = services.connection_use.write(caller, connection.id, asked, rows, body.purpose, body.timeout_s)
        return Answer({"rows": done.rows})

    return await apart(request, work)
