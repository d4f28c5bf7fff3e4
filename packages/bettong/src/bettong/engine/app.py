"""The replica's HTTP application: raw ASGI, one function per route, no framework on the hot path.

An inference goes authenticate → read → decode → run → log → answer, and never back. What is answered with 200 has
been handed to the log's file before; when the log cannot take it, the answer is 507.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

import orjson

from bettong.engine.answer import Answer, AnswerShape, Origin, failed_batch
from bettong.engine.codec import Format, accepted, decode, encode, format_of
from bettong.engine.dataset import parse_dataset
from bettong.engine.deadlines import Deadlines
from bettong.engine.host_header import KnownHosts
from bettong.engine.problem import error_body, problem
from bettong.errors import (
    BadInput,
    BettongError,
    DeadlineExceeded,
    NotFound,
    StorageFull,
    TooLarge,
    Unavailable,
    UnsupportedFormat,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    import pyarrow as pa

    from bettong.domain.deployments import DeploymentSpec
    from bettong.domain.ports import LogWriter
    from bettong.engine.program import Program
    from bettong.engine.tokens import TokenVerifier

    Message = MutableMapping[str, Any]
    Headers = tuple[tuple[bytes, bytes], ...]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

BIG_BYTES = 2**20  # what is larger is decoded and encoded in a thread, so that the loop keeps answering others
LINGER_BYTES, LINGER_S = 64 * 2**20, 2.0  # how much of a refused body is still taken, so that its sender reads why
JSON: Headers = ((b"content-type", b"application/json"),)
_CONTENT_TYPES: dict[Format, Headers] = {form: ((b"content-type", form.value.encode()),) for form in Format}
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")

logger = logging.getLogger("bettong.engine")


class _Gone(Exception):
    """The client left before its request was complete: there is nobody to answer."""


class InferenceApp:
    """Answers inferences of one pipeline, and tells what it serves.

    Args:
        spec: the deployment file.
        program: its steps, started.
        log: takes every inference before it is answered. Called on the event loop.
        verifier: of access tokens.
        name: of this replica.
        now_ms: milliseconds since the epoch.

    Set `draining` to have every answer close its connection; `drained()` then waits for the requests in flight.
    """

    def __init__(
        self,
        spec: DeploymentSpec,
        program: Program,
        log: LogWriter,
        verifier: TokenVerifier,
        name: str,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.draining = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._spec, self._program, self._log, self._verifier, self._name = spec, program, log, verifier, name
        self._now_ms = now_ms
        self._hosts = KnownHosts(spec.host, spec.hosts)
        self._origin = Origin.of(spec, name)
        self._shape = AnswerShape(program.input_schema, program.output_schema, self._origin, spec.max_logged_row_bytes)
        self._deadlines = Deadlines(spec.request_timeout_s)
        self._infer_paths = frozenset({"/infer", f"/pipelines/{spec.name}"})
        self._get: dict[str, Callable[[], bytes]] = {"/pipelines": self._pipelines, "/models": self._models}

    @property
    def in_flight(self) -> int:
        """Inferences that were taken and not answered yet."""
        return self._in_flight

    async def drained(self) -> None:
        """Return once no inference is in flight."""
        await self._idle.wait()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"This application speaks http, not {scope['type']}.")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id"))
        try:
            await self._route(scope, headers, request_id, receive, send)
        except _Gone:
            return
        except Exception as error:
            answer = problem(error, request_id)
            await self._send(send, answer.status, answer.headers, answer.body, request_id)

    async def _route(
        self, scope: Message, headers: dict[bytes, bytes], request_id: str, receive: Receive, send: Send
    ) -> None:
        if (refusal := self._foreign_host(scope)) is not None:
            status, text = refusal
            await self._send(send, status, JSON, error_body(status, text), request_id)
            return
        path, method = scope["path"], scope["method"]
        if path == "/healthz":
            if method not in ("GET", "HEAD"):
                await self._wrong_method(send, b"GET", request_id)
                return
            body = orjson.dumps({"status": "ok", "name": self._name})
            await self._send(send, 200, JSON, body, request_id)
            return
        if not self._verifier.verify(headers.get(b"authorization")).may_see(self._spec.workspace_id):
            raise _nothing_here()
        if path in self._infer_paths:
            if method != "POST":
                await self._wrong_method(send, b"POST", request_id)
                return
            await self._take(scope, headers, request_id, receive, send)
        elif (document := self._get.get(path)) is not None:
            if method not in ("GET", "HEAD"):
                await self._wrong_method(send, b"GET", request_id)
                return
            await self._send(send, 200, JSON, document(), request_id)
        else:
            raise _nothing_here()

    def _foreign_host(self, scope: Message) -> tuple[int, str] | None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            return 400, f"The request has {len(hosts)} Host headers. Send exactly one."
        if not self._hosts.takes(hosts[0]):
            return 421, (
                "The Host header names another server. Use the address in deployment.url(), "
                "or have the platform's operator allow this name."
            )
        return None

    async def _wrong_method(self, send: Send, allowed: bytes, request_id: str) -> None:
        body = error_body(405, f"This path does not take that method. Use {allowed.decode()}.")
        await self._send(send, 405, (*JSON, (b"allow", allowed)), body, request_id)

    # --- an inference

    async def _take(
        self, scope: Message, headers: dict[bytes, bytes], request_id: str, receive: Receive, send: Send
    ) -> None:
        limit = self._spec.max_queued_requests
        if self._in_flight >= limit:
            raise Unavailable(
                f"This replica has {limit} requests in hand, its limit (max_queued_requests).",
                "Try again in a second, or deploy more replicas.",
            )
        self._in_flight += 1
        self._idle.clear()
        try:
            await self._infer(scope, headers, request_id, receive, send)
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()

    async def _infer(
        self, scope: Message, headers: dict[bytes, bytes], request_id: str, receive: Receive, send: Send
    ) -> None:
        time_ms, attempt = self._now_ms(), _Attempt()
        try:
            dataset = parse_dataset(scope["query_string"])
            form = format_of(headers.get(b"content-type", b""))
            wanted = accepted(headers.get(b"accept", b""))
            if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
                raise UnsupportedFormat("The body has a Content-Encoding.", "Send it as it is (identity).")
            body = await self._read(headers, receive)
        except BadInput as error:
            self._log_failure(time_ms, attempt, error, request_id)
            if not isinstance(error, TooLarge):
                raise
            await self._cut_off(error, request_id, receive, send)
            return
        time_ms = self._now_ms()
        try:
            with self._deadlines.watch():
                await self._run(form, body, attempt)
        except TimeoutError:
            late = DeadlineExceeded(
                f"The pipeline did not answer within {self._spec.request_timeout_s:g} s (request_timeout_s).",
                "Send fewer rows at once, or have the platform's operator raise the limit.",
            )
            self._log_failure(time_ms, attempt, late, request_id)
            raise late from None
        except Exception as error:
            self._log_failure(time_ms, attempt, error, request_id)
            raise
        inputs, outputs = attempt.complete()
        answer = Answer(self._shape, time_ms, inputs, outputs, attempt.elapsed_ns, request_id)
        self._append(answer)
        if answer.rows.nbytes > BIG_BYTES:
            content = await asyncio.to_thread(encode, wanted, answer, dataset)
        else:
            content = encode(wanted, answer, dataset)
        await self._send(send, 200, _CONTENT_TYPES[wanted], content, request_id)

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self._spec.max_body_bytes
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            raise _too_large(limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        body: bytes = message.get("body", b"")
        if not message.get("more_body") and len(body) <= limit:
            return body
        parts, size = [body], len(body)
        while message.get("more_body") and size <= limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        return b"".join(parts)

    async def _run(self, form: Format, body: bytes, attempt: _Attempt) -> None:
        """Fill `attempt` as far as it goes."""
        started = time.perf_counter_ns()
        schema, limit = self._program.input_schema, max(self._spec.max_body_bytes, BIG_BYTES)
        if len(body) > BIG_BYTES:
            attempt.inputs = await asyncio.to_thread(decode, form, body, schema, max_unpacked_bytes=limit)
        else:
            attempt.inputs = decode(form, body, schema, max_unpacked_bytes=limit)
        attempt.elapsed_ns.append(time.perf_counter_ns() - started)
        ran = await self._program.run(attempt.inputs)
        attempt.outputs = ran.outputs
        attempt.elapsed_ns.extend(ran.elapsed_ns)

    def _append(self, answer: Answer) -> None:
        try:
            self._log.append_request(*answer.logged())
        except StorageFull:
            logger.error("inference not answered, the log cannot take it topic=%s", self._spec.topic)
            raise
        except OSError as error:
            logger.error("inference not answered, the log failed topic=%s", self._spec.topic, exc_info=error)
            raise StorageFull("The inference log cannot be written.", "The platform's log says why.") from error

    def _log_failure(self, time_ms: int, attempt: _Attempt, error: Exception, request_id: str) -> None:
        """Keep a failed request in the failures log; when that fails too, at least say so."""
        text = str(error) if isinstance(error, BettongError) else f"{type(error).__name__} inside the engine"
        text = text.encode("utf-8", "replace").decode()
        try:
            rows = failed_batch(time_ms, attempt.inputs, text, attempt.elapsed_ns, request_id, self._origin)
            self._log.append(rows, failed=True)
        except Exception as lost:  # whatever it is, the caller hears of its own failure, not of the log's
            logger.warning(
                "failed inference is not in the failures log topic=%s request_id=%s cause=%s",
                self._spec.topic,
                request_id,
                type(lost).__name__,
                exc_info=None if isinstance(lost, BettongError) else lost,
            )

    # --- answers

    async def _send(self, send: Send, status: int, headers: Headers, body: bytes | memoryview, request_id: str) -> None:
        fields = [*headers, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id.encode())]
        if self.draining:
            fields.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    async def _cut_off(self, error: TooLarge, request_id: str, receive: Receive, send: Send) -> None:
        """Refuse a body before it is here. Closing at once would reset the connection and lose the answer on its way,
        so a little more is taken and thrown away."""
        answer = problem(error, request_id)
        fields = [
            *answer.headers,
            (b"content-length", b"%d" % len(answer.body)),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": fields})
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        try:
            async with asyncio.timeout(LINGER_S):
                taken = 0
                while taken < LINGER_BYTES:
                    message = await receive()
                    taken += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        break
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b""})

    def _pipelines(self) -> bytes:
        served = {"id": self._spec.name, "version": self._spec.pipeline_version, "status": "Running"}
        return orjson.dumps({"pipelines": [served]})

    def _models(self) -> bytes:
        served = [
            {"sha": m.sha, "name": m.name, "version": m.version, "status": "Running", "model_version_id": m.id}
            for m in self._spec.models
        ]
        return orjson.dumps({"models": served})


class _Attempt:
    """How far a request came: what the failures log can tell of it."""

    __slots__ = ("elapsed_ns", "inputs", "outputs")

    def __init__(self) -> None:
        self.inputs: pa.Table | None = None
        self.outputs: pa.Table | None = None
        self.elapsed_ns: list[int] = []

    def complete(self) -> tuple[pa.Table, pa.Table]:
        """Inputs and outputs of an attempt that went through."""
        if self.inputs is None or self.outputs is None:
            raise RuntimeError("The attempt has not gone through.")
        return self.inputs, self.outputs


def _request_id(sent: bytes | None) -> str:
    """The caller's id when it is 1 to 128 visible ASCII characters, else a new one."""
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    return str(uuid.uuid4())


def _nothing_here() -> NotFound:
    # the same words for a foreign path and for a foreign workspace: neither tells that the other exists
    return NotFound(
        "Nothing is served at this path for this token.", "POST inferences to the address in deployment.url()."
    )


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes (max_body_bytes).", "Send the rows in several requests.")
