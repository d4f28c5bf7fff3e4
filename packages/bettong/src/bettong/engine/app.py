"""The replica's HTTP application: raw ASGI, one function per route, no framework on the hot path.

An inference goes authenticate → read → decode → run → log → answer, and never back. What is answered with 200 has
been handed to the log's file before; when the log cannot take it, the answer is 507.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from random import getrandbits
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote

import orjson

from bettong.domain.exposition import CONTENT_TYPE, Exposition, tell_counted, tell_queue
from bettong.engine import one_row
from bettong.engine.answer import Answer, AnswerShape, Origin, failed_batch
from bettong.engine.body_coding import coding_of, unpack
from bettong.engine.challengers import Challengers
from bettong.engine.codec import Format, accepted, decode, encode, format_of
from bettong.engine.dataset import parse_dataset
from bettong.engine.deadlines import Deadlines, Left
from bettong.engine.host_header import KnownHosts
from bettong.engine.json_answer import pieces_of
from bettong.engine.key_columns import widened
from bettong.engine.known_heads import KnownHeads
from bettong.engine.known_layouts import KnownLayouts
from bettong.engine.metrics import AT_LIMIT, Memory, Recorder
from bettong.engine.one_row import OneRow
from bettong.engine.problem import error_body, problem, status_of
from bettong.errors import (
    BadInput,
    BettongError,
    DeadlineExceeded,
    NotFound,
    StorageFull,
    TooLarge,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence

    import pyarrow as pa

    from bettong.domain.deployments import DeploymentSpec
    from bettong.domain.ports import LogWriter
    from bettong.engine.dataset import Dataset
    from bettong.engine.json_answer import Piece
    from bettong.engine.program import Program, Ran
    from bettong.engine.step_state import Beside
    from bettong.engine.tokens import TokenVerifier

    Message = MutableMapping[str, Any]
    Headers = tuple[tuple[bytes, bytes], ...]
    Fields = list[tuple[bytes, bytes]]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

BIG_BYTES = 4 * 2**20  # what is larger is decoded and encoded in a thread, so that the loop keeps answering others
CLIENT_LEFT = 499  # counted in place of a status: there is nobody to answer
PACKED_BYTES = 64 * 2**10  # what is larger is unpacked in a thread
LINGER_BYTES, LINGER_S = 64 * 2**20, 2.0  # how much of a refused body is still taken, so that its sender reads why
JSON: Headers = ((b"content-type", b"application/json"),)
EXPOSITION: Headers = ((b"content-type", CONTENT_TYPE.encode()),)
_CONTENT_TYPES: dict[Format, Headers] = {form: ((b"content-type", form.value.encode()),) for form in Format}
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")

logger = logging.getLogger("bettong.engine")


T = TypeVar("T")


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    headers: Fields
    body: bytes | memoryview


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
        metrics: counts the answers; by default what nobody but this application reads.
        log_of_challengers: takes what they gave for which answers do not wait; without, that is not kept.
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
        metrics: Recorder | None = None,
        *,
        log_of_challengers: LogWriter | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.draining = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._spec, self._program, self._log, self._verifier, self._name = spec, program, log, verifier, name
        self._now_ms = now_ms
        self._metrics = metrics or Recorder(Memory(spec))
        self._record = self._metrics.record
        chain = program.plan.chain
        self._repeating = chain if chain and len(set(chain)) < len(chain) else None
        self._hosts = KnownHosts(spec.host, spec.hosts)
        self._origin = Origin.of(spec, name, program.last_model)
        self._shape = self._new_shape(program.input_schema)
        self._keyed_shapes: dict[pa.Schema, AnswerShape] = {}  # by what keys a request had beside the inputs
        self._challengers = Challengers(log_of_challengers, self._origin, spec.models, spec.max_queued_requests)
        self._row_shape = self._shape.logged(())[0]  # of the log, with all columns
        self._one_row = OneRow.of(program.input_schema, program.output_schema)
        self.heads = KnownHeads()
        self._layouts = KnownLayouts(program.input_schema)
        self._begun: _Begun | None = None
        self._deadlines = Deadlines(spec.request_timeout_s)
        self._infer_paths = frozenset({"/infer", f"/pipelines/{spec.name}"})
        self._prompt_bytes = min(BIG_BYTES, spec.max_body_bytes)  # what is larger is never answered at once
        self._prompt_paths = frozenset(quote(path).encode() for path in self._infer_paths)  # as they come, undecoded
        self._get: dict[str, tuple[Headers, Callable[[], bytes]]] = {
            "/pipelines": (JSON, self._pipelines),
            "/models": (JSON, self._models),
            "/metrics": (EXPOSITION, self._exposition),
        }

    @property
    def in_flight(self) -> int:
        """Inferences that were taken and not answered yet."""
        return self._in_flight

    async def drained(self) -> None:
        """Return once no inference is in flight, and no challenger of one that was answered."""
        await self._idle.wait()
        await self._challengers.done()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"This application speaks http, not {scope['type']}.")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id, attempt = _request_id(headers.get(b"x-request-id")), _Attempt()
        try:
            await self._route(scope, headers, request_id, attempt, receive, send)
        except _Gone:
            return
        except Exception as error:
            answer = problem(error, request_id)
            self._count(answer.status, attempt)
            await self._send(send, answer.status, answer.headers, answer.body, request_id)

    async def _route(
        self,
        scope: Message,
        headers: dict[bytes, bytes],
        request_id: str,
        attempt: _Attempt,
        receive: Receive,
        send: Send,
    ) -> None:
        if (refusal := self._foreign_host(scope["headers"])) is not None:
            status, text = refusal
            self._record(status)
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
            await self._take(scope, headers, request_id, attempt, receive, send)
        elif (found := self._get.get(path)) is not None:
            if method not in ("GET", "HEAD"):
                await self._wrong_method(send, b"GET", request_id)
                return
            kind, document = found
            await self._send(send, 200, kind, document(), request_id)
        else:
            raise _nothing_here()

    def _foreign_host(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1:
            return 400, f"The request has {len(hosts)} Host headers. Send exactly one."
        if not self._hosts.takes(hosts[0]):
            return 421, (
                "The Host header names another server. Use the address in deployment.url(), "
                "or have the platform's operator allow this name."
            )
        return None

    async def _wrong_method(self, send: Send, allowed: bytes, request_id: str) -> None:
        self._record(405)
        body = error_body(405, f"This path does not take that method. Use {allowed.decode()}.")
        await self._send(send, 405, (*JSON, (b"allow", allowed)), body, request_id)

    # --- an inference

    async def _take(
        self,
        scope: Message,
        headers: dict[bytes, bytes],
        request_id: str,
        attempt: _Attempt,
        receive: Receive,
        send: Send,
    ) -> None:
        limit = self._spec.max_queued_requests
        if self._in_flight >= limit:
            attempt.rejected = True
            raise Unavailable(
                f"This replica has {limit} requests in hand, its limit (max_queued_requests).",
                "Try again in a second, or deploy more replicas.",
            )
        self._in_flight += 1
        self._idle.clear()
        try:
            await self._infer(scope, headers, request_id, attempt, receive, send)
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()

    async def _infer(
        self,
        scope: Message,
        headers: dict[bytes, bytes],
        request_id: str,
        attempt: _Attempt,
        receive: Receive,
        send: Send,
    ) -> None:
        time_ms = self._now_ms()
        try:
            asked = _asked(scope["query_string"], headers)
            coding = coding_of(headers.get(b"content-encoding", b""))
            body = await self._read(scope, headers, receive)
        except BadInput as error:
            self._log_failure(time_ms, attempt, error, request_id)
            if not isinstance(error, TooLarge):
                raise
            self._count(status_of(error), attempt)
            await self._cut_off(error, request_id, receive, send)
            return
        time_ms, attempt.began_ns = self._now_ms(), time.perf_counter_ns()
        try:
            with self._deadlines.watch() as watch:
                if (departure := scope.get("departure")) is not None:
                    departure.then = watch.leave
                started = time.perf_counter_ns()
                if coding is not None:
                    body = await _beside(len(body) > PACKED_BYTES, unpack, coding, body, self._spec.max_body_bytes)
                begun, self._begun = self._begun, None
                if begun is not None and begun.body is body:
                    attempt.inputs = begun.inputs
                else:
                    attempt.inputs = await _beside(len(body) > BIG_BYTES, self._decoded, asked.form, body)
                attempt.elapsed_ns.append(time.perf_counter_ns() - started)
                attempt.ran(await self._program.run(attempt.inputs))
        except TimeoutError:
            late = DeadlineExceeded(
                f"The pipeline did not answer within {self._spec.request_timeout_s:g} s (request_timeout_s).",
                "Send fewer rows at once, or have the platform's operator raise the limit.",
            )
            self._log_failure(time_ms, attempt, late, request_id)
            raise late from None
        except Left:
            gone = Unavailable("The client left before its answer was there.")
            self._log_failure(time_ms, attempt, gone, request_id)
            self._count(CLIENT_LEFT, attempt)
            raise _Gone from None
        except Exception as error:
            self._log_failure(time_ms, attempt, error, request_id)
            raise
        answer = self._logged(time_ms, attempt, request_id)
        started = time.perf_counter_ns()
        content = await _beside(answer.rows.nbytes > BIG_BYTES, encode, asked.wanted, answer, asked.dataset)
        attempt.encode_ns = time.perf_counter_ns() - started
        self._count(200, attempt)
        await self._send(send, 200, _CONTENT_TYPES[asked.wanted], content, request_id)
        self._start_late(answer, attempt)

    def now(self, method: bytes, target: bytes, headers: Fields, body: bytes) -> Reply | None:
        """Both in one: the answer to a whole request, or None when `__call__` has to take it."""
        head = self.read_head(method, target, headers)
        return None if head is None else self.answer_now(head, body)

    def read_head(self, method: bytes, target: bytes, headers: Fields) -> _Head | None:
        """What the head of a plain inference says, a matter of its bytes alone; None for any other request, and when
        models do not answer at once anyway."""
        path, _, query = target.partition(b"?")
        given = dict(headers)
        if (
            not self._program.prompt
            or method != b"POST"
            or path not in self._prompt_paths
            or b"content-encoding" in given
            or b"#" in query
            or self._foreign_host(headers) is not None
        ):
            return None
        try:
            asked = _asked(query, given)
        except BettongError:
            return None
        row = asked.form is asked.wanted is Format.RECORDS and self._one_row is not None
        pieces = pieces_of(self._shape, asked.dataset) if row else None
        return _Head(given.get(b"authorization"), asked, given.get(b"x-request-id"), pieces)

    def awaits(self, head: _Head, length: int) -> bool:
        """Whether `answer_now` may take a body of so many bytes: the caller may send it, and there is room."""
        if length > self._prompt_bytes or self._in_flight >= self._spec.max_queued_requests:
            return False
        return self._knows(head.authorization)

    def answer_now(self, head: _Head, body: bytes) -> Reply | None:
        """The answer to a whole request without a task of its own, when it is not large and all models answer at once.
        None for any other request, of which nothing was done then: `__call__` takes it.
        """
        program = self._program
        if not program.prompt or len(body) > self._prompt_bytes or self._in_flight >= self._spec.max_queued_requests:
            return None
        began = time.perf_counter_ns()
        if not self._knows(head.authorization):
            return None
        request_id, asked = _request_id(head.request_id), head.asked
        time_ms = self._now_ms()
        if head.pieces is not None and len(body) <= one_row.MAX_BYTES:
            try:
                row = self._row_now(began, time_ms, body, head.pieces, request_id)
            except StorageFull as error:
                told = problem(error, request_id)
                self._record(told.status, duration_ns=time.perf_counter_ns() - began)
                return Reply(told.status, self._fields(told.headers, told.body, request_id), told.body)
            if row is not None:
                return Reply(200, self._fields(_CONTENT_TYPES[asked.wanted], row, request_id), row)
        attempt = _Attempt(began)
        try:
            try:
                started = time.perf_counter_ns()
                attempt.inputs = self._decoded(asked.form, body)
                attempt.elapsed_ns.append(time.perf_counter_ns() - started)
                if (ran := program.run_now(attempt.inputs)) is None:
                    self._begun = _Begun(body, attempt.inputs)
                    return None
                attempt.ran(ran)
            except Exception as error:
                self._log_failure(time_ms, attempt, error, request_id)
                raise
            answer = self._logged(time_ms, attempt, request_id)
            started = time.perf_counter_ns()
            content = encode(asked.wanted, answer, asked.dataset)
            attempt.encode_ns = time.perf_counter_ns() - started
        except Exception as error:
            told = problem(error, request_id)
            self._count(told.status, attempt)
            return Reply(told.status, self._fields(told.headers, told.body, request_id), told.body)
        self._count(200, attempt)
        self._start_late(answer, attempt)
        return Reply(200, self._fields(_CONTENT_TYPES[asked.wanted], content, request_id), content)

    def _knows(self, authorization: bytes | None) -> bool:
        """Whether a caller may ask; why not is for `__call__` to tell."""
        try:
            return self._verifier.verify(authorization).may_see(self._spec.workspace_id)
        except BettongError:
            return False

    def _row_now(
        self, began_ns: int, time_ms: int, body: bytes, pieces: Sequence[Piece], request_id: str
    ) -> bytes | None:
        """The answer to one row of numbers, once it is in the log; None when the general way has to take it."""
        way, runner = self._one_row, self._program.row_runner
        if way is None or runner is None:
            return None
        started = time.perf_counter_ns()
        if (inputs := way.decode(body)) is None:
            return None
        parsed = time.perf_counter_ns()
        try:
            outputs = runner.predict_row(inputs)
        except Exception:  # it will fail again where that is told
            return None
        if outputs is None or not way.takes(outputs):
            return None
        ran = time.perf_counter_ns()
        elapsed = (parsed - started, ran - parsed)
        values = [*inputs, *outputs]
        size = 0
        for array in values:
            size += array.nbytes
        if size > self._shape.max_logged_row_bytes:
            return None
        shared = [elapsed, (), request_id]
        logged_bytes = self._append(self._log.append_row, self._row_shape, time_ms, shared, values)
        logged = time.perf_counter_ns()
        answer = one_row.encode_pieces(pieces, values, self._shape.shared(time_ms, elapsed, ()))
        ended = time.perf_counter_ns()
        log_rows = 1 if logged_bytes else 0
        self._record(200, 1, log_rows, logged_bytes, ended - began_ns, logged - ran, ended - logged, elapsed)
        return answer

    def _decoded(self, form: Format, body: bytes) -> pa.Table:
        limit, schema = max(self._spec.max_body_bytes, BIG_BYTES), self._program.input_schema
        if keys := self._program.plan.keys:
            schema = widened(form, body, schema, keys)
        arrow = form in (Format.ARROW_FILE, Format.ARROW_STREAM)
        layouts = self._layouts if arrow and not keys and len(body) <= BIG_BYTES else None  # not in a thread
        if layouts is not None and (rows := layouts.find(body)) is not None:
            return rows
        rows = decode(form, body, schema, max_unpacked_bytes=limit)
        if layouts is not None:
            layouts.keep(body, rows)
        return rows

    def _start_late(self, answer: Answer, attempt: _Attempt) -> None:
        """Run the challengers for which the answer did not wait."""
        if answer.beside is not None and answer.beside.later is not None:
            self._challengers.start(answer, attempt.complete()[0], self._program.plan, self._log)

    def _new_shape(self, inputs: pa.Schema) -> AnswerShape:
        program, limit = self._program, self._spec.max_logged_row_bytes
        plan = None if program.plan.chain else program.plan
        return AnswerShape(inputs, program.output_schema, self._origin, limit, plan)

    def _shape_for(self, inputs: pa.Table) -> AnswerShape:
        """The shape of answers to requests with these columns."""
        if not self._program.plan.keys or inputs.schema == self._program.input_schema:
            return self._shape
        if (known := self._keyed_shapes.get(inputs.schema)) is None:  # keys come as one of four types
            known = self._keyed_shapes[inputs.schema] = self._new_shape(inputs.schema)
        return known

    def _logged(self, time_ms: int, attempt: _Attempt, request_id: str) -> Answer:
        """The answer of an attempt that went through, once it is in the log."""
        inputs, outputs = attempt.complete()
        shape, beside = self._shape_for(inputs), attempt.beside
        answer = Answer(shape, time_ms, inputs, outputs, attempt.elapsed_ns, request_id, beside)
        started = time.perf_counter_ns()
        attempt.log_bytes = self._append(self._log.append_request, *answer.logged())
        attempt.log_ns = time.perf_counter_ns() - started
        attempt.log_rows = inputs.num_rows if attempt.log_bytes else 0  # the disk may be full, and that allowed
        if beside is not None and beside.failures:
            self._challengers.tell(beside.failures, answer, inputs, self._log)
        return answer

    def _count(self, status: int, attempt: _Attempt) -> None:
        """Count an answer that is about to leave."""
        self._record(
            AT_LIMIT if attempt.rejected else status,
            attempt.outputs.num_rows if status == 200 and attempt.outputs is not None else 0,
            attempt.log_rows,
            attempt.log_bytes,
            time.perf_counter_ns() - attempt.began_ns if attempt.began_ns else 0,
            attempt.log_ns,
            attempt.encode_ns,
            self._took(attempt),
        )

    def _took(self, attempt: _Attempt) -> Sequence[int]:
        """Nanoseconds of parsing and of each model of the deployment file, of which several steps may be one."""
        if attempt.beside is not None:
            return (attempt.elapsed_ns[0], *attempt.beside.models_ns)
        if self._repeating is None:
            return attempt.elapsed_ns
        models = [0] * len(self._spec.models)
        for model, ns in zip(self._repeating, attempt.elapsed_ns[1:], strict=False):  # it may have failed on its way
            models[model] += ns
        return (*attempt.elapsed_ns[:1], *models)

    async def _read(self, scope: Message, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self._spec.max_body_bytes
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            raise _too_large(limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        body: bytes = scope["body"] if "body" in scope else message.get("body", b"")
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

    def _append(self, append: Callable[..., int], *request: Any) -> int:
        try:
            return append(*request)
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
            attempt.log_bytes = self._log.append(rows, failed=True)
            attempt.log_rows = rows.num_rows
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
        fields = self._fields(headers, body, request_id)
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    def _fields(self, headers: Headers, body: bytes | memoryview, request_id: str) -> Fields:
        fields = [*headers, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id.encode())]
        if self.draining:
            fields.append((b"connection", b"close"))
        return fields

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

    def _exposition(self) -> bytes:
        labels = {"deployment": self._spec.label, "pipeline": self._spec.name, "replica": self._name}
        out = Exposition()
        counted, gauges = self._metrics.read()
        tell_counted(out, counted, labels)
        tell_queue(out, gauges.in_flight, gauges.waiting, labels)
        return out.text().encode()


class _Begun(NamedTuple):
    """A body that was read before it was known that its answer takes a while: it need not be read again."""

    body: bytes
    inputs: pa.Table


class _Attempt:
    """How far a request came: what the failures log and the metrics can tell of it."""

    __slots__ = (
        "began_ns",
        "beside",
        "elapsed_ns",
        "encode_ns",
        "inputs",
        "log_bytes",
        "log_ns",
        "log_rows",
        "outputs",
        "rejected",
    )

    def __init__(self, began_ns: int = 0) -> None:
        self.began_ns = began_ns  # when all of it was here
        self.log_bytes = self.log_rows = self.log_ns = self.encode_ns = 0
        self.rejected = False  # at the limit, before anything was done
        self.inputs: pa.Table | None = None
        self.outputs: pa.Table | None = None
        self.beside: Beside | None = None
        self.elapsed_ns: list[int] = []

    def ran(self, ran: Ran) -> None:
        """Keep what the program gave."""
        self.outputs, self.beside = ran.outputs, ran.beside
        self.elapsed_ns.extend(ran.elapsed_ns)

    def complete(self) -> tuple[pa.Table, pa.Table]:
        """Inputs and outputs of an attempt that went through."""
        if self.inputs is None or self.outputs is None:
            raise RuntimeError("The attempt has not gone through.")
        return self.inputs, self.outputs


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request's head says of its body and its answer."""

    form: Format
    wanted: Format
    dataset: Dataset


class _Head(NamedTuple):
    """What is known of a plain inference before its body is looked at. `pieces` are of an answer to one row, None when
    it is not of numbers, or not in JSON."""

    authorization: bytes | None
    asked: _Asked
    request_id: bytes | None
    pieces: Sequence[Piece] | None


def _asked(query: bytes, headers: dict[bytes, bytes]) -> _Asked:
    """Raises BadInput when the head asks for what there is not."""
    return _asked_for(query, headers.get(b"content-type", b""), headers.get(b"accept", b""))


@lru_cache(maxsize=256)
def _asked_for(query: bytes, content_type: bytes, accept: bytes) -> _Asked:
    dataset = parse_dataset(query)
    return _Asked(format_of(content_type), accepted(accept), dataset)


async def _beside(apart: bool, work: Callable[..., T], *arguments: Any) -> T:
    """Do `work`, in a thread if it is so much that the loop would keep others waiting."""
    if apart:
        return await asyncio.to_thread(work, *arguments)
    return work(*arguments)


def _request_id(sent: bytes | None) -> str:
    """The caller's id when it is 1 to 128 visible ASCII characters, else a new one."""
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    # as a UUID of version 4 is written, at a fifth of its cost; a fork seeds it anew
    text = f"{getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def _nothing_here() -> NotFound:
    # the same words for a foreign path and for a foreign workspace: neither tells that the other exists
    return NotFound(
        "Nothing is served at this path for this token.", "POST inferences to the address in deployment.url()."
    )


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes (max_body_bytes).", "Send the rows in several requests.")
