"""How cost grows, from its smallest end to its largest: rows, columns, models in a chain, replicas, logs, pipelines.

    make bench-growth            # some seven minutes; writes the section of docs/performance.md and its plot
    python benchmarks/growth.py [--only rows,columns] [--log-rows 50000000] [--page build/growth.json]

One fresh platform, everything over HTTP, tokens checked and every request logged, outputs answered without inputs. CPU
is that of all processes of the platform per request, from the kernel's own accounts: what others do on the machine
lengthens the wall time and hardly that. Memory is PSS.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import json
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
from onnx import TensorProto, helper, numpy_helper

from wallaroo.framework import Framework

main_job, log_growth, page = (importlib.import_module(name) for name in ("main_job", "log_growth", "growth_page"))

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = (1, 10, 100, 1_000, 10_000, 100_000)
COLUMNS = (1, 10, 100, 1_000)
MODELS = (1, 2, 4, 8)
REPLICAS = (1, 2, 3, 4)
PIPELINES = (1, 10, 20, 30, 40, 50)
LOG_ROWS = 10_000_000
FEATURES = 18
CONNECTIONS = 16
TURNS, TURN_S = 3, 0.5
IDLE_S = 10.0
RECORDS, ARROW = "application/json; format=pandas-records", "application/vnd.apache.arrow.file"
ELAPSED = "dataset[]=metadata.elapsed"
OUT = Path(__file__).parents[1] / "build" / "growth.json"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", default="rows,columns,models,replicas,log,pipelines", help="comma-separated")
    asked.add_argument("--log-rows", type=int, default=LOG_ROWS, help="of the longest log; 50 million take 2.3 GB")
    asked.add_argument("--page", type=Path, help="only write the page from the figures in such a file")
    options = asked.parse_args()
    if options.page:
        page.write(json.loads(options.page.read_text()))
        return
    wanted = options.only.split(",")
    found: dict[str, list[dict[str, float]]] = {}
    with main_job.fresh_home() as home, tempfile.TemporaryDirectory() as folder:
        platform = Platform(home, Path(folder))
        of_platform = {f.__name__: f(platform) for f in (rows, columns, models, replicas, pipelines)}
        for name, points in {**of_platform, "log": log(options.log_rows)}.items():  # measured when they are asked for
            if name in wanted:
                found[name] = []
                for point in points:
                    found[name].append(point)
                    print(name, json.dumps({k: round(v, 4) for k, v in point.items()}), flush=True)
    OUT.parent.mkdir(exist_ok=True)
    found = {**(json.loads(OUT.read_text()) if OUT.exists() else {}), **found}  # of the others what was measured last
    OUT.write_text(json.dumps(found))
    if found.keys() >= set(page.DIMENSIONS):
        page.write(found)


# --- what grows -----------------------------------------------------------------------------------------------------


def rows(platform: Platform) -> Iterator[dict[str, float]]:
    """Rows of 18 floats in one request to a network of 18-64-64-1, as JSON and as Arrow."""
    with platform.deployed([network([64, 64, 1])]) as pipeline:
        for count in ROWS:
            values = _floats(count, FEATURES)
            json_costs = platform.cost(pipeline, _json({"tensor": values}), RECORDS)
            arrow_costs = platform.cost(pipeline, _arrow({"tensor": _lists(values)}), ARROW)
            yield {"at": count, **_named("json", json_costs), **_named("arrow", arrow_costs)}


def columns(platform: Platform) -> Iterator[dict[str, float]]:
    """Columns of one float each to a model that adds them up: one row as JSON, 1,000 rows as Arrow."""
    for count in COLUMNS:
        with platform.deployed([adder(count)]) as pipeline:
            one, many = ({f"c{n}": _floats(rows) for n in range(count)} for rows in (1, 1_000))
            json_costs = platform.cost(pipeline, _json(one), RECORDS)
            arrow_costs = platform.cost(pipeline, _arrow(many), ARROW)
            yield {"at": count, **_named("json", json_costs), **_named("arrow", arrow_costs)}


def models(platform: Platform) -> Iterator[dict[str, float]]:
    """Models in a chain, each 18 floats to 18: one row as JSON, 1,000 rows as Arrow."""
    for count in MODELS:
        chain = [network([64, FEATURES], seed=n, ends=(f"x{n}", f"x{n + 1}")) for n in range(count)]
        with platform.deployed(chain) as pipeline:
            json_costs = platform.cost(pipeline, _json({"x0": _floats(1, FEATURES)}), RECORDS)
            arrow_costs = platform.cost(pipeline, _arrow({"x0": _lists(_floats(1_000, FEATURES))}), ARROW)
            yield {"at": count, **_named("json", json_costs), **_named("arrow", arrow_costs)}


def replicas(platform: Platform) -> Iterator[dict[str, float]]:
    """Replicas of one deployment, asked for one row each by 16 connections, and what they take of memory."""
    rest = main_job.pss_mb(main_job.ours(platform.home))
    body = _json({"tensor": _floats(1, FEATURES)})
    for count in REPLICAS:
        with platform.deployed([network([64, 64, 1])], replicas=count) as pipeline:
            figures = platform.cost(pipeline, body, RECORDS, connections=CONNECTIONS)
            yield {"at": count, **figures, "pss_mb": main_job.pss_mb(main_job.ours(platform.home)) - rest}


def pipelines(platform: Platform) -> Iterator[dict[str, float]]:
    """Pipelines that are deployed at once, one replica each, and at rest but for the one that is asked."""
    body = _json({"tensor": _floats(1, FEATURES)})
    rest = main_job.pss_mb(main_job.ours(platform.home))
    with contextlib.ExitStack() as stack:
        for count in range(1, PIPELINES[-1] + 1):
            began = time.perf_counter()
            pipeline = stack.enter_context(platform.deployed([network([64, 64, 1])]))
            deploy_s = time.perf_counter() - began
            if count in PIPELINES:
                time.sleep(2)  # let it come to rest; this is a measurement, not a test
                yield {
                    "at": count,
                    "deploy_s": deploy_s,
                    "pss_mb": main_job.pss_mb(main_job.ours(platform.home)) - rest,
                    "idle_cpu_percent": 100 * platform.idle_cpu(IDLE_S),
                    **platform.cost(pipeline, body, RECORDS),
                }


def log(most: int) -> Iterator[dict[str, float]]:
    """Rows in a log: reading the newest 100, a tenth of a day of ten, a sum over all by SQL, and the bytes."""
    for count in (0, *(n for n in (10_000, 100_000, 1_000_000) if n < most), most):
        with tempfile.TemporaryDirectory(prefix="bettong-growth-") as name:
            folder = Path(name)
            if count:
                log_growth.build(folder, count)
            size = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
            newest = log_growth.alone(log_growth.newest, folder, count)
            day = log_growth.alone(log_growth.a_day, folder, count)
            sql_s = log_growth.alone(log_growth.counted, folder, count)["s"] if count else 0.0
            yield {
                "at": count,
                "bytes": size,
                **{key: newest[key] for key in ("first_ms", "first_cpu_ms", "median_ms", "median_cpu_ms")},
                "day_s": day["s"],
                "day_peak_mib": day["peak_mib"],
                "sql_s": sql_s,
            }


# --- a platform and its callers -------------------------------------------------------------------------------------


class Platform:
    """A fresh platform, and how to ask it."""

    def __init__(self, home: Path, folder: Path) -> None:
        import wallaroo

        self.home, self._folder = home, folder
        self._client = wallaroo.Client()
        self._server = {process.pid for process in main_job.ours(home)}  # with its nursery
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def deployed(self, files: list[bytes], replicas: int = 1) -> Iterator[Any]:
        """A pipeline of these models, one after the other, for as long as the block lasts."""
        import wallaroo

        pipeline = self._client.build_pipeline(f"growth-{next(self._numbers)}")
        with contextlib.redirect_stdout(None):
            for data in files:
                path = self._folder / "model.onnx"
                path.write_bytes(data)
                model = self._client.upload_model(f"model-{next(self._numbers)}", str(path), Framework.ONNX)
                pipeline.add_model_step(model)
            config = wallaroo.DeploymentConfigBuilder().replica_count(replicas).cpus(1).build()
            pipeline.deploy(deployment_config=config)
        try:
            yield pipeline
        finally:
            with contextlib.redirect_stdout(None):
                pipeline.undeploy()

    def cost(self, pipeline: Any, body: bytes, form: str, connections: int = 1) -> dict[str, float]:
        """What one request costs: the least CPU and the median wall time of three turns, and where a replica's own time
        went, in ms."""
        url, token = urlsplit(pipeline.url()), self._client.auth.auth_header()["Authorization"]
        kinds = (
            f"Host: {url.netloc}\r\nContent-Type: {form}\r\nAuthorization: {token}\r\nContent-Length: {len(body)}\r\n"
        )

        def asked(query: str, accept: str) -> bytes:
            return f"POST {url.path}?{query} HTTP/1.1\r\n{kinds}Accept: {accept}\r\n\r\n".encode() + body

        request, stages = asked("dataset.exclude[]=in&dataset.exclude[]=metadata", form), asked(ELAPSED, RECORDS)
        with contextlib.ExitStack() as stack:
            sockets = [
                stack.enter_context(socket.create_connection((url.hostname, url.port))) for _ in range(connections)
            ]
            for connection in sockets:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _ask(sockets, request)
            turns = [self._turn(sockets, request) for _ in range(TURNS)]
            told = [json.loads(_ask(sockets[:1], stages))[0]["metadata"]["elapsed"] for _ in range(10)]
        parse_ms, *each_ms = (min(ns) / 1e6 for ns in zip(*told, strict=True))
        return {
            "cpu_ms": min(cpu for cpu, _, _ in turns),
            "wall_ms": statistics.median(wall for _, wall, _ in turns),
            "rps": max(rps for _, _, rps in turns),
            "parse_ms": parse_ms,
            "models_ms": sum(each_ms),
        }

    def _turn(self, sockets: list[socket.socket], request: bytes) -> tuple[float, float, float]:
        """CPU ms per request, the median of the wall ms, requests a second."""
        took: list[float] = []
        cpu, began = self.cpu_s(), time.perf_counter()
        while len(took) < 3 or time.perf_counter() - began < TURN_S:
            asked = time.perf_counter()
            _ask(sockets, request)
            took.append(time.perf_counter() - asked)
        wall = time.perf_counter() - began
        count = len(took) * len(sockets)
        return (self.cpu_s() - cpu) / count * 1e3, statistics.median(took) * 1e3, count / wall

    def cpu_s(self) -> float:
        """CPU seconds of all the platform's processes that run now."""
        return sum(_cpu_s(process) for process in main_job.ours(self.home))

    def idle_cpu(self, seconds: float) -> float:
        """Cores in use by the deployments while nobody asks."""
        processes = [process for process in main_job.ours(self.home) if process.pid not in self._server]
        began, cpu = time.perf_counter(), sum(map(_cpu_s, processes))
        time.sleep(seconds)
        return (sum(map(_cpu_s, processes)) - cpu) / (time.perf_counter() - began)


def _cpu_s(process: Any) -> float:
    """To the nanosecond where the kernel tells: a tick is 10 ms, a hundred small requests."""
    try:
        files = list(Path(f"/proc/{process.pid}/task").glob("*/schedstat"))
        return sum(int(file.read_text().split()[0]) for file in files) / 1e9
    except (OSError, ValueError, IndexError):
        times = process.cpu_times()
        return float(times.user + times.system)


def _ask(sockets: list[socket.socket], request: bytes) -> bytes:
    """A request on every connection, then all answers; the body of the last."""
    for connection in sockets:
        connection.sendall(request)
    for connection in sockets:
        data = bytearray(connection.recv(2**20))
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += connection.recv(2**20)
        size = end + 4 + int(data[:end].lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(data) < size:
            if not (piece := connection.recv(2**20)):
                raise SystemExit("The replica hung up.")
            data += piece
        if not data.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"A request failed: {bytes(data[:500])!r}")
    return bytes(data[end + 4 :])


# --- models and rows ------------------------------------------------------------------------------------------------


def network(layers: list[int], seed: int = 5, ends: tuple[str, str] = ("tensor", "variable")) -> bytes:
    """A fully connected network of single precision, 18 numbers wide at its beginning; `ends` are in and out."""
    rng = np.random.default_rng(seed)
    nodes, weights, last = [], [], ends[0]
    for at, shape in enumerate(itertools.pairwise([FEATURES, *layers])):
        final = at == len(layers) - 1
        weights.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32) / shape[0], f"w{at}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{at}"], [ends[1] if final else f"m{at}"]))
        if not final:
            nodes.append(helper.make_node("Relu", [f"m{at}"], [f"h{at}"]))
        last = f"h{at}"
    return _file(nodes, {ends[0]: ["rows", FEATURES]}, {ends[1]: ["rows", layers[-1]]}, weights)


def adder(columns: int) -> bytes:
    """`c0`, `c1`, … of one float each to their sum."""
    names = [f"c{n}" for n in range(columns)]
    return _file([helper.make_node("Sum", names, ["sum"])], {name: ["rows"] for name in names}, {"sum": ["rows"]}, [])


def _file(nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], weights: list[Any]) -> bytes:
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
        for side in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "grows", *ends, weights)
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return data


def _floats(*shape: int) -> Any:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def _json(columns: dict[str, Any]) -> bytes:
    cells = [[np.round(value, 6).tolist() for value in values.astype(np.float64)] for values in columns.values()]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]
    return json.dumps(rows, separators=(",", ":")).encode()


def _lists(values: Any) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _arrow(columns: dict[str, Any]) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _named(prefix: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in figures.items()}


if __name__ == "__main__":
    main()
