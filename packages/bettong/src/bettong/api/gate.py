"""What every request passes before any route: its id, its Host, its token, its size, and one line in the access log."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders

from bettong.api.problem import INFERENCE_PREFIX, answer
from bettong.errors import BadInput, TooLarge, Unauthenticated, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from bettong.api.request_counts import RequestCounts
    from bettong.domain.identity import Principal
    from bettong.engine.host_header import KnownHosts
    from bettong.settings import Limits

log = logging.getLogger("bettong.api.access")

MAX_JSON_BYTES = 8 * 2**20
MAX_OPEN_BYTES = 64 * 2**10  # where no token is asked for
UPLOAD_PREFIX = "/v1/api/models/upload"
WRITE_PATH = "/v1/api/connections/write"
_FORM_BYTES = 2**20  # what a multipart body has beside its file
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_GUARDED = "/v1/"
_OPEN = frozenset({"/v1/api/health", "/v1/api/docs"})


class Gate:
    """A pure ASGI middleware. Routes find `request.state.request_id` and `request.state.principal`."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticate: Callable[[str | None, str], Principal],
        hosts: KnownHosts,
        limits: Limits,
        counts: RequestCounts,
    ) -> None:
        self._app, self._authenticate, self._hosts, self._limits = app, authenticate, hosts, limits
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path, began = Headers(scope=scope), scope["path"], time.perf_counter()
        sent = headers.get("x-request-id", "")
        request_id = sent if _REQUEST_ID.fullmatch(sent) else str(uuid4())
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            guarded_receive = await self._admit(scope, headers, path, receive)
            await self._app(scope, guarded_receive, send_marked)
        except Exception as error:
            if status:  # half an answer is out: ending the connection is all that is left to say
                log.exception("answer_broke_off path=%s request_id=%s", quote(path), request_id)
                raise
            await answer(error, path, request_id)(scope, receive, send_marked)
        finally:
            self._counts.count(scope, status)
            principal: Principal | None = state.get("principal")
            log.info(
                "request method=%s path=%s status=%d took_ms=%.1f request_id=%s user=%s",
                scope["method"],
                quote(path),
                status,
                (time.perf_counter() - began) * 1000,
                request_id,
                principal.user_id if principal else "-",
            )

    async def _admit(self, scope: Scope, headers: Headers, path: str, receive: Receive) -> Receive:
        """Check the request; what its route may read from. Raises what the answer is to say."""
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            raise BadInput(f"The request has {len(hosts)} Host headers.", "Send exactly one.")
        if not self._hosts.takes(hosts[0].encode("latin-1")):
            raise BadInput(
                "The Host header names another server.",
                "Use the address that 'bettong status' shows, or let the operator allow the name.",
            )
        if _guarded(path):
            client = scope.get("client")
            scope["state"]["principal"] = await run_in_threadpool(
                self._authenticate, _bearer(headers), client[0] if client else ""
            )
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise UnsupportedFormat("The body has a Content-Encoding.", "Send it as it is (identity).")
        limit, streamed = self._limit(path)
        declared = headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
            raise _too_large(limit)
        counted = _counting(receive, limit)
        return counted if streamed else await _read_whole(counted)

    def _limit(self, path: str) -> tuple[int, bool]:
        """How many bytes a body may have, and whether its route reads it as a stream."""
        if path.startswith(UPLOAD_PREFIX):
            return self._limits.max_upload_bytes + _FORM_BYTES, True
        if path == WRITE_PATH:
            return self._limits.max_upload_bytes, True
        if path.startswith(INFERENCE_PREFIX):
            return self._limits.max_body_bytes, True
        return MAX_JSON_BYTES if _guarded(path) else MAX_OPEN_BYTES, False


def _guarded(path: str) -> bool:
    """Whether a path asks for a token."""
    return path.startswith(_GUARDED) and path not in _OPEN


def _bearer(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if not scheme:
        return None
    if scheme.lower() != "bearer":
        raise Unauthenticated("Jwt verification fails")
    return token.strip() or None


def _counting(receive: Receive, limit: int) -> Receive:
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request" and (taken := taken + len(message.get("body", b""))) > limit:
            raise _too_large(limit)
        return message

    return counted


async def _read_whole(receive: Receive) -> Receive:
    """Take the whole body first, so that a route, with a thread of its own, never waits for a slow sender."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadInput("The connection ended before the request did.", "Send it again.")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    whole: Message | None = {"type": "http.request", "body": b"".join(parts), "more_body": False}

    async def replayed() -> Message:
        nonlocal whole
        message, whole = whole, None
        return message if message is not None else await receive()

    return replayed


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body has more than {limit} bytes.", f"Send at most {limit} bytes.")
