"""The external inference path: for clients that reach the server only. Bodies go through as they come, both ways."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import APIRouter, Request
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from bettong.api import replies
from bettong.api.addresses import addresses_of
from bettong.api.auth import Caller, Uses
from bettong.errors import DeadlineExceeded, NotFound, Unavailable

router = APIRouter(prefix="/v1/api/pipelines/infer", tags=["inference"])

# Of one connection, not of the message (RFC 9110 7.6.1); Host is the replica's own, Authorization is replaced.
_OF_ONE_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NOT_FORWARDED = _OF_ONE_HOP | {"host", "authorization", "cookie", "x-request-id", "expect"}
_ROWS: dict[str, Any] = {"type": "array", "items": {"type": "object"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json; format=pandas-records": {"schema": _ROWS},
            "application/vnd.apache.arrow.file": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post(
    "/{label}/{name}",
    summary="Infer, through the server",
    response_model=list[replies.Rows],
    openapi_extra=_BODY,
)
async def infer(request: Request, label: str, name: str, caller: Caller, services: Uses) -> StreamingResponse:
    """Rows in, rows out, as JSON records or an Arrow file. Clients that reach the replicas ask those instead."""
    facts = await run_in_threadpool(services.deployments.labelled, caller, label)
    url = addresses_of(request).replica(facts)
    if name != facts.deployment.name or url is None:
        raise NotFound(f"Deployment {label} has no pipeline running at this path.", "Take the pipeline's own url().")
    session = await run_in_threadpool(services.identity.exchange, caller)
    headers = [(k, v) for k, v in request.headers.items() if k not in _NOT_FORWARDED]
    headers += [("authorization", f"Bearer {session.access_token}"), ("x-request-id", request.state.request_id)]
    client: httpx.AsyncClient = request.app.state.forwarder
    forwarded = client.build_request(
        "POST", httpx.URL(url, query=request.scope["query_string"]), headers=headers, content=request.stream()
    )
    try:
        answered = await client.send(forwarded, stream=True)
    except httpx.TimeoutException as late:
        raise DeadlineExceeded(
            f"Deployment {label} did not answer in time.", "Send fewer rows at once, or try again later."
        ) from late
    except httpx.TransportError as refused:
        raise Unavailable(
            f"Deployment {label} does not answer.", "Try again in a moment; status() says why."
        ) from refused
    kept = {k: v for k, v in answered.headers.items() if k not in _OF_ONE_HOP and k != "x-request-id"}
    return StreamingResponse(
        _body(answered), answered.status_code, headers=kept, background=BackgroundTask(answered.aclose)
    )


async def _body(answered: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answered.aiter_raw():
            yield chunk
    finally:
        await answered.aclose()
