"""What one request costs in a replica, beside its models: `python benchmarks/replica.py [--cells w1,w2] [--profile]`.

Everything of a replica but its host and its workers: the uvicorn protocol with its bounds, the application, tokens
checked, every request in a log in a temporary folder. The models are small numpy ones on the event loop. Figures are
CPU time per request of the process that serves, its log's sync thread included: `app` calls the application without
a socket, `c1` and `c16` go through a loopback socket with 1 and 16 connections. Each is the least of several rounds:
what others do on the machine only adds to it.

`beyond the model` takes off what the same runner needs for the same rows alone.
"""

from __future__ import annotations

import os

from bettong.engine.forking import SINGLE_THREADED

os.environ.update(SINGLE_THREADED)  # as replicas have it, before numpy is imported

import argparse
import asyncio
import base64
import cProfile
import gc
import json
import pstats
import socket
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import numpy as np
import orjson
import pyarrow as pa
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bettong.domain.deployments import DeploymentSpec, ModelSpec, ObservedWorker, State
from bettong.engine import codec
from bettong.engine.answer import Answer, AnswerShape, Origin
from bettong.engine.app import InferenceApp
from bettong.engine.dataset import parse_dataset
from bettong.engine.program import Program
from bettong.engine.replica import _Door
from bettong.engine.tokens import TokenVerifier
from bettong.logstore.factory import open_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Model = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]

JSON, ARROW = codec.JSON_RECORDS, codec.ARROW_FILE
PEERS = "dataset[]=*&dataset.exclude[]=in&dataset.exclude[]=metadata"  # what other servers answer: outputs alone
ECHO = "dataset[]=*&dataset.exclude[]=metadata&dataset.separator=."  # what the SDK asks for
KEY = Ed25519PrivateKey.from_private_bytes(b"a key that is known to everyone.")
RNG = np.random.default_rng(11)
ROUNDS = 4


class Layers:
    """A fully connected network of 18-64-64-1 in numpy, as W1 and W2 of the bench have it."""

    def __init__(self) -> None:
        shapes = ((18, 64), (64, 64), (64, 1))
        self._weights = [RNG.standard_normal(shape).astype(np.float32) / shape[0] for shape in shapes]

    def __call__(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        first, second, last = self._weights
        answer: np.ndarray[Any, Any] = np.maximum(np.maximum(x @ first, 0) @ second, 0) @ last
        return answer


def ten_of(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A model of images that takes no time."""
    return np.ascontiguousarray(image.reshape(len(image), -1)[:, :10])


def seven_of(counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A model of counts that takes no time."""
    return np.ascontiguousarray(counts[:, -7:])


class NumpyRunner:
    """One list column in, one out, around a function of arrays. Answers at once when it is asked that way."""

    def __init__(self, model: Model, input_schema: pa.Schema, output_schema: pa.Schema, shape: tuple[int, ...]) -> None:
        self.input_schema, self.output_schema = input_schema, output_schema
        self._model, self._shape = model, shape
        self._kind = input_schema.field(0).type
        while hasattr(self._kind, "value_type"):
            self._kind = self._kind.value_type
        self._dtype = self._kind.to_pandas_dtype()

    async def start(self) -> None: ...

    async def predict(self, rows: pa.Table) -> pa.Table:
        return self.predict_now(rows)

    def predict_now(self, rows: pa.Table) -> pa.Table:
        values: Any = rows.column(0).chunk(0)
        while hasattr(values.type, "value_type"):
            values = values.values
        x = np.frombuffer(values.buffers()[1], self._dtype, len(values), values.offset * np.dtype(self._dtype).itemsize)
        y = self._model(x.reshape(rows.num_rows, *self._shape))
        width = y.shape[1]
        offsets = _buffer(np.arange(0, y.size + 1, width, dtype=np.int32))
        kind = self.output_schema.field(0).type
        flat = pa.Array.from_buffers(kind.value_type, y.size, [None, _buffer(y)])
        column = pa.Array.from_buffers(kind, rows.num_rows, [None, offsets], children=[flat])
        return pa.Table.from_arrays([column], schema=self.output_schema)

    async def close(self) -> None: ...

    def observed(self) -> ObservedWorker:
        return ObservedWorker("here", 0, State.RUNNING)


def _buffer(values: Any) -> pa.Buffer:
    return pa.py_buffer(values)


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of request."""

    runner: NumpyRunner
    body: bytes
    form: str
    query: str
    repeats: int  # requests per round

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"host", b"127.0.0.1:8080"),
            (b"user-agent", b"bench/1"),
            (b"accept", self.form.encode()),
            (b"content-type", self.form.encode()),
            (b"authorization", b"Bearer " + TOKEN.encode()),
            (b"content-length", b"%d" % len(self.body)),
        ]


def _token() -> str:
    now = int(time.time())
    claims = {"sub": "u-1", "email": "ada@example.org", "adm": False, "ws": [1], "aud": "bettong"}
    return jwt.encode({**claims, "iat": now, "exp": now + 60}, KEY, algorithm="EdDSA")


TOKEN = _token()


def cells() -> Iterator[tuple[str, Cell]]:
    mlp, floats = Layers(), _of(pa.list_(pa.float32()))
    image, ints = _of(pa.list_(pa.list_(pa.list_(pa.float32())))), _of(pa.list_(pa.int32()))
    tabular = NumpyRunner(mlp, floats, _of(pa.list_(pa.float32()), "variable"), (18,))
    images = NumpyRunner(ten_of, image, _of(pa.list_(pa.float32()), "variable"), (3, 224, 224))
    counts = NumpyRunner(seven_of, ints, _of(pa.list_(pa.int32()), "forecast"), (28,))
    one, many, picture = (RNG.standard_normal(shape).round(10) for shape in ((1, 18), (10_000, 18), (1, 3, 224, 224)))
    fit = RNG.integers(800, 3000, (1, 28))
    for suffix, query in (("", PEERS), ("_echo", ECHO)):
        yield f"w1{suffix}", Cell(tabular, _json(one), JSON, query, 3000)
        yield f"ints{suffix}", Cell(counts, _json(fit, "tensor"), JSON, query, 3000)
        yield f"w1_arrow{suffix}", Cell(tabular, _arrow(one, floats), ARROW, query, 2000)
        yield f"w2{suffix}", Cell(tabular, _json(many), JSON, query, 12)
        yield f"w2_arrow{suffix}", Cell(tabular, _arrow(many, floats), ARROW, query, 60)
        yield f"w3{suffix}", Cell(images, _json(picture), JSON, query, 20)
        yield f"w3_arrow{suffix}", Cell(images, _arrow(picture, image), ARROW, query, 100)


def _of(kind: Any, name: str = "tensor") -> pa.Schema:
    return pa.schema([pa.field(name, kind)])


def _json(rows: np.ndarray[Any, Any], name: str = "tensor") -> bytes:
    return orjson.dumps([{name: row.tolist()} for row in rows])


def _arrow(rows: np.ndarray[Any, Any], schema: pa.Schema) -> bytes:
    table = pa.Table.from_arrays([pa.array(rows.tolist(), schema.field(0).type)], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


# --- a replica ------------------------------------------------------------------------------------------------------


def _spec(folder: str) -> DeploymentSpec:
    public = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    model = ModelSpec(
        "m-7", 7, "house-price", "6f7d0a3e-1c8e-4a52-9f0f-6a1e5bd20f6e", "e2" * 32, "numpy", "", "", "", ""
    )
    return DeploymentSpec(
        deployment_id=3, name="bench", workspace_id=1, workspace_name="w", pipeline_id=2,
        pipeline_version="6a1e5bd2-0f6e-4c0a-9a52-0e2f3f3a9f5d", generation=1, replicas=1, cpus=1.0, models=(model,),
        public_key=base64.b64encode(public).decode(), log_folder=folder, topic="workspace-1-pipeline-bench-inference",
    )  # fmt: skip


def _app(cell: Cell, spec: DeploymentSpec) -> tuple[InferenceApp, Any]:
    log = open_log(spec, "bench-3-r0")
    return InferenceApp(spec, Program(spec, [cell.runner]), log, TokenVerifier(spec.public_key), "bench-3-r0"), log


def _settle() -> None:
    gc.collect()
    gc.freeze()


def in_process(cell: Cell, folder: str, profile: bool = False) -> float:
    """CPU µs of one request, without HTTP."""
    spec = _spec(folder)
    app, log = _app(cell, spec)
    headers = cell.headers()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/infer",
        "query_string": cell.query.encode(),
        "headers": headers,
    }
    statuses: list[int] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": cell.body, "more_body": False}

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])

    async def requests(count: int) -> None:
        for _ in range(count):
            await app(dict(scope, headers=list(headers)), receive, send)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(requests(3))
        _settle()
        if profile:
            profiler = cProfile.Profile()
            profiler.enable()
            loop.run(requests(cell.repeats))
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
        best = float("inf")
        for _ in range(ROUNDS):
            began = time.process_time_ns()
            loop.run(requests(cell.repeats))
            best = min(best, (time.process_time_ns() - began) / cell.repeats / 1e3)
    log.close()
    assert set(statuses) == {200}, statuses
    return best


def over_socket(cell: Cell, folder: str, connections: int) -> float:
    """CPU µs of one request, HTTP included: a child serves, this process asks."""
    theirs: list[socket.socket] = []
    ours: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(connections):
            ours.append(socket.create_connection(listener.getsockname()))
            theirs.append(listener.accept()[0])
    for connection in (*ours, *theirs):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tell, told = socket.socketpair()
    child = os.fork()
    if child == 0:
        for connection in (*ours, tell):
            connection.close()
        try:
            _serve(cell, folder, theirs, told)
        finally:
            os._exit(0)
    for connection in (*theirs, told):
        connection.close()
    head = b"".join(b"%b: %b\r\n" % field for field in cell.headers())
    request = b"POST /infer?%b HTTP/1.1\r\n%b\r\n%b" % (cell.query.encode(), head, cell.body)
    rounds = max(2, cell.repeats // connections)
    best = float("inf")
    _ask(ours, request, 2)
    for _ in range(ROUNDS):
        began = _cpu_ns(tell)
        _ask(ours, request, rounds)
        best = min(best, (_cpu_ns(tell) - began) / (rounds * connections) / 1e3)
    for connection in (*ours, tell):
        connection.close()
    os.waitpid(child, 0)
    return best


def _ask(connections: list[socket.socket], request: bytes, rounds: int) -> None:
    """Send a request on every connection, then take all answers; `rounds` times."""
    for _ in range(rounds):
        for connection in connections:
            connection.sendall(request)
        for connection in connections:
            _answer(connection)


def _answer(connection: socket.socket) -> bytes:
    data = bytearray(connection.recv(2**20))
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += connection.recv(2**20)
    head = bytes(data[:end]).lower()
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise SystemExit(f"a request failed: {bytes(data[:1000])!r}")
    size = end + 4 + int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(data) < size:
        if not (more := connection.recv(2**20)):
            raise SystemExit("the replica hung up")
        data += more
    return bytes(data[end + 4 :])


def _cpu_ns(tell: socket.socket) -> int:
    tell.sendall(b"?")
    return int(struct.unpack("<q", tell.recv(8))[0])


def _serve(cell: Cell, folder: str, connections: list[socket.socket], told: socket.socket) -> None:
    async def live() -> None:
        ended = asyncio.Event()
        spec = _spec(folder)
        app, log = _app(cell, spec)
        door = _Door(spec, app, ended.set)
        for connection in connections:
            door.take(connection)
        _settle()
        told.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(told, lambda: told.recv(1) and told.send(struct.pack("<q", time.process_time_ns())))
        await ended.wait()
        await door.abort()
        log.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(live())


# --- the hops, each alone -------------------------------------------------------------------------------------------


def least_us(call: Callable[[], object], repeats: int) -> float:
    call()
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time_ns()
        for _ in range(repeats):
            call()
        best = min(best, (time.process_time_ns() - began) / repeats / 1e3)
    return best


def hops(cell: Cell, folder: str) -> dict[str, float]:
    """CPU µs of each hop alone."""
    spec = _spec(folder)
    verifier, log = TokenVerifier(spec.public_key), open_log(spec, "bench-3-r0")
    authorization = dict(cell.headers())[b"authorization"]
    form, dataset = codec.format_of(cell.form.encode()), parse_dataset(cell.query.encode())
    runner = cell.runner
    rows = codec.decode(form, cell.body, runner.input_schema, max_unpacked_bytes=2**27)
    outputs = runner.predict_now(rows)
    shape = AnswerShape(runner.input_schema, runner.output_schema, Origin.of(spec, "bench-3-r0"), 2**20)

    def answered() -> Answer:
        return Answer(shape, 1_752_681_130_155, rows, outputs, (1000, 2000), "2f6e-4c0a")

    answer = answered()
    n = cell.repeats
    found = {
        "auth": least_us(lambda: verifier.verify(authorization), n),
        "decode": least_us(lambda: codec.decode(form, cell.body, runner.input_schema, max_unpacked_bytes=2**27), n),
        "model": least_us(lambda: runner.predict_now(rows), n),
        "batch": least_us(answered, n),
        "log": least_us(lambda: log.append_request(*answer.logged()), n),
        "encode": least_us(lambda: codec.encode(form, answer, dataset), n),
    }
    log.close()
    return found


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--cells", help="comma-separated; all when left out")
    asked.add_argument("--profile", action="store_true", help="also print where the application spends its time")
    asked.add_argument("--json", type=Path, help="append the figures to this file, one JSON object per cell")
    arguments = asked.parse_args()
    wanted = arguments.cells.split(",") if arguments.cells else None
    columns = ("app", "c1", "c16", "beyond", "auth", "decode", "model", "batch", "log", "encode")
    print("CPU µs per request\n" + f"{'cell':<16}" + "".join(f"{name:>10}" for name in columns), flush=True)
    for name, cell in cells():
        if wanted is not None and name not in wanted:
            continue
        global TOKEN
        TOKEN = _token()
        with tempfile.TemporaryDirectory() as folder:
            alone = hops(cell, folder)
            figures = {
                "app": in_process(cell, folder, arguments.profile),
                "c1": over_socket(cell, folder, 1),
                "c16": over_socket(cell, folder, 16),
                **alone,
            }
            figures["beyond"] = figures["c1"] - alone["model"]
        print(f"{name:<16}" + "".join(f"{figures[column]:>10.1f}" for column in columns), flush=True)
        if arguments.json:
            with arguments.json.open("a") as file:
                file.write(json.dumps({"cell": name, **figures}) + "\n")


if __name__ == "__main__":
    main()
