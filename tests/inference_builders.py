"""Builders for inference: a pipeline of in-process runners, a log in memory, tokens, and a real socket in front."""

from __future__ import annotations

import asyncio
import base64
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jwt
import pyarrow as pa
import uvicorn
from builders import row_batch, whole_rows
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from uvicorn.server import ServerState

from bettong.domain.deployments import DeploymentSpec, ModelSpec, ObservedWorker, State
from bettong.engine.app import InferenceApp
from bettong.engine.program import Program
from bettong.engine.protocol import guarded
from bettong.engine.tokens import TokenVerifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from bettong.domain.logs import LogShape
    from bettong.engine.runners.base import Runner

FORECAST_IN = pa.schema([pa.field("count", pa.list_(pa.int32()))])
FORECAST_OUT = pa.schema([pa.field("forecast", pa.list_(pa.int32())), pa.field("weekly_average", pa.float32())])
FORECAST_ROW = [1526, 1550, 1708, 1005, 1623, 1712, 1530, 1605, 1538, 1746, 1472, 1589, 1913, 1815, 2115]
FORECAST = [1764, 1749, 1743, 1741, 1740, 1740, 1740]
WEEKLY_AVERAGE = 1745.2858
WORKSPACE = 5
NOW_MS = 1_752_681_130_155

SIGNING_KEY = Ed25519PrivateKey.from_private_bytes(b"a key that is known to everyone.")
PUBLIC_KEY = base64.b64encode(SIGNING_KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def access_token(
    *, now: float | None = None, life_s: float = 60, key: Ed25519PrivateKey = SIGNING_KEY, **claims: Any
) -> str:
    """A token that holds, unless `claims` say otherwise; a claim of None is left out."""
    at = time.time() if now is None else now
    whole = {
        "sub": "u-1",
        "email": "ada@example.org",
        "adm": False,
        "ws": [WORKSPACE],
        "aud": "bettong",
        "iat": int(at),
        "exp": int(at) + life_s,
        **claims,
    }
    return jwt.encode({k: v for k, v in whole.items() if v is not None}, key, algorithm="EdDSA")


def model_spec(name: str = "forecast-control-model", **changes: Any) -> ModelSpec:
    made = ModelSpec(f"{name}-7", 7, name, "6f7d0a3e-version", "80b5sha", "python", "/none", "/none", "", "")
    return replace(made, **changes)


def deployment_spec(**changes: Any) -> DeploymentSpec:
    made = DeploymentSpec(
        deployment_id=3,
        name="rental-forecast",
        workspace_id=WORKSPACE,
        workspace_name="tutorial",
        pipeline_id=2,
        pipeline_version="b5c7-pipeline-version",
        generation=1,
        replicas=1,
        cpus=1.0,
        models=(model_spec(),),
        public_key=PUBLIC_KEY,
        log_folder="/none",
        topic="workspace-5-pipeline-rental-forecast-inference",
    )
    return replace(made, **changes)


class InProcessRunner:
    """A Runner that calls a function here: rows as a list of dicts in, a list of dicts out."""

    def __init__(
        self,
        function: Callable[[list[dict[str, Any]]], Awaitable[list[dict[str, Any]]]],
        input_schema: pa.Schema = FORECAST_IN,
        output_schema: pa.Schema = FORECAST_OUT,
    ) -> None:
        self.input_schema, self.output_schema, self._function = input_schema, output_schema, function

    async def start(self) -> None: ...

    async def predict(self, rows: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(await self._function(rows.to_pylist()), schema=self.output_schema)

    async def close(self) -> None: ...

    def observed(self) -> ObservedWorker:
        return ObservedWorker("here", 0, State.RUNNING)


class PromptRunner(InProcessRunner):
    """The same, answering at once when its function does not wait for anything."""

    def predict_now(self, rows: pa.Table) -> pa.Table | None:
        work = self.predict(rows)
        try:
            work.send(None)
        except StopIteration as done:
            answer: pa.Table = done.value
            return answer
        work.close()
        return None


async def forecast(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"forecast": FORECAST, "weekly_average": WEEKLY_AVERAGE} for _ in rows]


@dataclass
class MemoryLog:
    """A LogWriter that keeps what it is given; `refusal` is raised instead when it is set."""

    answered: list[pa.RecordBatch] = field(default_factory=list)
    failed: list[pa.RecordBatch] = field(default_factory=list)
    refusal: Exception | None = None
    problem: str | None = None

    def append(self, rows: pa.RecordBatch, *, failed: bool = False) -> int:
        if self.refusal is not None:
            raise self.refusal
        (self.failed if failed else self.answered).append(rows)
        return rows.nbytes

    def append_request(self, shape: LogShape, time_ms: int, shared: Sequence[Any], rows: pa.RecordBatch) -> int:
        return self.append(whole_rows(shape, time_ms, shared, rows))

    def append_row(self, shape: LogShape, time_ms: int, shared: Sequence[Any], values: Sequence[Any]) -> int:
        return self.append_request(shape, time_ms, shared, row_batch(shape, values))

    def close(self) -> None: ...


def inference_app(
    runners: Sequence[Runner] = (),
    *,
    spec: DeploymentSpec | None = None,
    log: MemoryLog | None = None,
    late_log: MemoryLog | None = None,
    draw: Callable[[], float] | None = None,
    clock: Callable[[], float] = time.time,
) -> InferenceApp:
    spec = spec or deployment_spec()
    program = Program(spec, runners or [InProcessRunner(forecast)], draw=draw)
    return InferenceApp(
        spec,
        program,
        log or MemoryLog(),
        TokenVerifier(spec.public_key, clock=clock),
        "rental-forecast-3-r0",
        log_of_challengers=late_log,
        now_ms=lambda: NOW_MS,
    )


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


async def call(
    app: InferenceApp,
    body: bytes | Sequence[bytes] = b"",
    *,
    path: str = "/infer",
    method: str = "POST",
    query: str = "",
    headers: dict[str, str | None] | None = None,
) -> Reply:
    """One request to the application without a socket. Headers fill in host, token and content type unless given."""
    given = {
        "host": "127.0.0.1:8080",
        "authorization": f"Bearer {access_token()}",
        "content-type": "application/json",
        **(headers or {}),
    }
    parts = [body] if isinstance(body, bytes) else list(body)
    events = [{"type": "http.request", "body": part, "more_body": at < len(parts)} for at, part in enumerate(parts, 1)]
    events.append({"type": "http.disconnect"})
    sent: list[Any] = []

    async def receive() -> Any:
        return events.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in given.items() if v is not None],
    }
    await app(scope, receive, send)
    if not sent:
        return Reply(0, {}, b"")
    return Reply(sent[0]["status"], dict(sent[0]["headers"]), b"".join(m.get("body", b"") for m in sent[1:]))


def ask(app: InferenceApp, body: bytes | Sequence[bytes] = b"", **request: Any) -> Reply:
    """`call` from a test that is not a coroutine."""
    return asyncio.run(call(app, body, **request))


@asynccontextmanager
async def served(
    app: Any,
    spec: DeploymentSpec,
    *,
    lost: Callable[[], None] = lambda: None,
    read: Callable[[], None] = lambda: None,
    made: Callable[[Any], None] = lambda _: None,
    **bounds: Any,
) -> AsyncIterator[tuple[str, int]]:
    """`app` on a loopback port, its connections accepted here and handed to the protocol, as a replica has them.

    `lost` is called when a connection is gone, `read` when the parser's part of a request has been read, `made` with
    the protocol of each connection.
    """

    class Told(guarded(spec, **bounds)):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            made(self)

        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            lost()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            read()

    protocol = Told
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=spec.keep_alive_timeout_s,
    )
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)

    async def accept() -> None:
        while True:
            connection, _ = await loop.sock_accept(listener)
            await loop.connect_accepted_socket(
                lambda: protocol(config=config, server_state=state, app_state={}), connection
            )

    accepting = asyncio.create_task(accept())
    try:
        yield listener.getsockname()
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        listener.close()
        await asyncio.sleep(0)  # lets the transports close their sockets
