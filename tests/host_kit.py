"""Real hosts and replicas for tests: a process that holds a nursery, models that need no environment, and clients.

Run as a program it stands for the server: it starts a nursery, and hosts on request, one JSON line each. It is killed
like one, too. The test's own process has threads and open files, so it cannot be forked itself.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import jwt
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bettong.domain.deployments import DeploymentSpec, ModelSpec, Observed, ObservedWorker, State
from bettong.engine.forking import SINGLE_THREADED
from bettong.errors import ModelFailed, Unavailable
from bettong.runtimes.local import LocalRuntime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from bettong.domain.logs import LogShape
    from bettong.domain.ports import Runtime
    from bettong.engine.replica import Place

DEADLINE_S = 30.0
_KEY = Ed25519PrivateKey.generate()
PUBLIC_KEY = base64.b64encode(_KEY.public_key().public_bytes_raw()).decode()


# --- the process that stands for the server -------------------------------------------------------------------------


class Adder:
    """A model inside the replica: `y` is `x` plus the number in its environment variable PLUS.

    REFUSES makes it fail to load, with these words. GATE names a Unix socket: each prediction connects there and waits
    for the end of that connection, so that a test knows when a request is in flight and lets it go on when it likes.
    """

    def __init__(self, model: ModelSpec, place: Place) -> None:
        self._model, self._place = model, place
        self.input_schema = pa.schema([pa.field("x", pa.int64())])
        self.output_schema = pa.schema([pa.field("y", pa.int64())])
        self._state = State.PENDING

    async def start(self) -> None:
        if words := self._model.env.get("REFUSES"):
            raise ModelFailed(words)
        if gate := self._model.env.get("LOAD_GATE"):
            await _pass(gate)
        self._state = State.RUNNING

    async def predict(self, rows: pa.Table) -> pa.Table:
        if gate := self._model.env.get("GATE"):
            await _pass(gate)
        plus = int(self._model.env.get("PLUS", "0"))
        return pa.table({"y": [int(x or 0) + plus for x in rows["x"].to_pylist()]}, schema=self.output_schema)

    async def close(self) -> None:
        self._state = State.UNKNOWN

    def observed(self) -> ObservedWorker:
        return ObservedWorker(self._model.uid, os.getpid(), self._state)


async def _pass(gate: str) -> None:
    reader, writer = await asyncio.open_unix_connection(gate)
    try:
        await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class LineLog:
    """A log writer: a line per inference, handed to the system before it is answered."""

    problem: str | None = None

    def __init__(self, spec: DeploymentSpec, name: str) -> None:
        self._fd = os.open(Path(spec.log_folder) / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, rows: pa.RecordBatch, *, failed: bool = False) -> int:
        return os.write(self._fd, f"{rows.num_rows} {'failed' if failed else 'ok'}\n".encode())

    def append_request(self, shape: LogShape, time_ms: int, shared: Sequence[Any], rows: pa.RecordBatch) -> int:
        return self.append(rows)

    def append_row(self, shape: LogShape, time_ms: int, shared: Sequence[Any], values: Sequence[Any]) -> int:
        return os.write(self._fd, b"1 ok\n")

    def close(self) -> None:
        os.close(self._fd)


def serve_requests() -> None:
    from bettong.engine.nursery import Nursery

    nursery = Nursery.start(LineLog) if sys.argv[1] == "python" else Nursery.start(LineLog, Adder)
    print(json.dumps({"nursery": nursery.pid}), flush=True)
    for line in sys.stdin:
        request = {name: Path(path) for name, path in json.loads(line).items()}
        try:
            nursery.launch(request["spec_file"], request["control_socket"], request["log_file"])
            print(json.dumps({"error": None}), flush=True)
        except Unavailable as error:
            print(json.dumps({"error": [error.problem, error.next_step]}), flush=True)
    nursery.close()


class Server:
    """That process, from the test's side. Its models are `Adder`s, or Python steps as in a real deployment."""

    def __init__(self, models: Literal["adder", "python"] = "adder") -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, models],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **SINGLE_THREADED},
            start_new_session=True,
        )
        self.nursery_pid: int = self._say(None)["nursery"]

    @property
    def pid(self) -> int:
        return self._process.pid

    def launch(self, spec_file: Path, control_socket: Path, log_file: Path) -> None:
        paths = {"spec_file": spec_file, "control_socket": control_socket, "log_file": log_file}
        answer = self._say({name: str(path) for name, path in paths.items()})
        if answer["error"]:
            raise Unavailable(*answer["error"])

    def kill(self) -> None:
        """As `kill -9` does it."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _say(self, request: dict[str, str] | None) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if request is not None:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def local_runtime(folder: Path, server: Server) -> Iterator[LocalRuntime]:
    """A runtime in `folder`. Nothing of it is left afterwards."""
    runtime = LocalRuntime(folder / "deployments", folder / "run", server.launch)
    try:
        yield runtime
    finally:
        for deployment in (folder / "deployments").glob("*"):
            runtime.undeploy(0, deployment.name)


# --- what is deployed, and how it is asked --------------------------------------------------------------------------


def adder(**env: str) -> ModelSpec:
    return ModelSpec("adder-1", 1, "adder", "v1", "0" * 64, "python", "/", "/", "", "", load_timeout_s=30.0, env=env)


def adder_spec(folder: Path, generation: int = 1, replicas: int = 1, **more: Any) -> DeploymentSpec:
    """Generation n adds n, unless `models` says otherwise."""
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    defaults: dict[str, Any] = {
        "deployment_id": 7,
        "name": "adding",
        "workspace_id": 1,
        "workspace_name": "tests",
        "pipeline_id": 1,
        "pipeline_version": f"version-{generation}",
        "generation": generation,
        "replicas": replicas,
        "cpus": 1.0,
        "models": (adder(PLUS=str(generation)),),
        "public_key": PUBLIC_KEY,
        "log_folder": str(logs),
        "topic": "adding",
        "linger_s": 1.0,
        "drain_s": 5.0,
    }
    return DeploymentSpec(**{**defaults, **more})


def token() -> str:
    now = int(time.time())
    claims = {"sub": "u", "email": "u@x", "adm": True, "ws": [1], "aud": "bettong", "iat": now, "exp": now + 60}
    return jwt.encode(claims, _KEY, algorithm="EdDSA")


class Client:
    """One keep-alive connection, opened again only after the server said that it closes it. Never asks twice."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._token = token()
        self.opened = 0
        self.connected = asyncio.Event()

    async def add(self, x: int) -> int:
        """The `y` of one inference; raises when it is answered by anything but 200, or not at all."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            self.opened += 1
            self.connected.set()
        reader, writer = self._streams
        body = json.dumps([{"x": x}]).encode()
        head = (
            f"POST /pipelines/adding HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self._token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        status, headers, answer = await read_answer(reader)
        if headers.get("connection") == "close":
            await self.close()
        if status != 200:
            raise RuntimeError(f"answered {status}: {answer!r}")
        y: int = json.loads(answer)[0]["out"]["y"]
        return y

    async def close(self) -> None:
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


class Gate:
    """Where a model's requests wait: `await gate.arrived(n)`, then `gate.open()`. Later ones pass."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[asyncio.StreamWriter] = []
        self._changed = asyncio.Event()
        self._is_open = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._on_request, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open()
        self._server.close()

    async def arrived(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while len(self._waiting) < count:
                self._changed.clear()
                await self._changed.wait()

    def open(self) -> None:
        self._is_open = True
        for writer in self._waiting:
            writer.close()

    def _on_request(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._waiting.append(writer)
        self._changed.set()
        if self._is_open:
            writer.close()


# --- waiting for what is observed -----------------------------------------------------------------------------------


def wait_until(
    runtime: Runtime, holds: Callable[[Observed], bool], label: str = "adding-7", deadline_s: float = DEADLINE_S
) -> Observed:
    """Observe until `holds`; the observation. Each look is a live probe, which is also what paces the looking."""
    end_s = time.monotonic() + deadline_s
    while True:
        observed = runtime.observe(7, label)
        if observed is not None and holds(observed):
            return observed
        if time.monotonic() > end_s:
            raise AssertionError(f"not seen within {deadline_s:g} s; last seen: {observed}")
        _breathe()


def serving(generation: int, replicas: int = 1) -> Callable[[Observed], bool]:
    """Whether `generation` serves and nothing else is left."""

    def holds(observed: Observed) -> bool:
        running = [r for r in observed.replicas if r.state is State.RUNNING and r.generation == generation]
        return observed.serving == generation and len(running) == len(observed.replicas) == replicas

    return holds


def wait_gone(*pids: int, deadline_s: float = DEADLINE_S) -> None:
    """Wait until none of these processes runs."""
    end_s = time.monotonic() + deadline_s
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < end_s, f"still running after {deadline_s:g} s: {left}"
        _breathe()


def is_alive(pid: int) -> bool:
    """A process that has ended and is only not reaped yet does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _breathe() -> None:
    """Give the processor away between two looks: two cores are shared with what is being waited for."""
    time.sleep(0.01)


async def aside(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call something that blocks while clients go on."""
    return await asyncio.to_thread(function, *arguments)


def connect_raw(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)


def running(main: Awaitable[Any]) -> Any:
    async def go() -> Any:
        return await main

    return asyncio.run(go())


if __name__ == "__main__":
    serve_requests()
