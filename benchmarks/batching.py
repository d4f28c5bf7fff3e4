"""Where it helps to gather requests of several callers, and where not: `python benchmarks/batching.py`.

Sixteen callers ask for one row each, again and again, or one caller does; with the model's requests gathered (a target
of 16 rows, a delay of 2 ms) and not. Everything of a replica but HTTP and the log; each figure is the best of three
short turns, taken by turns.
"""

from __future__ import annotations

import os

from bettong.engine.forking import SINGLE_THREADED

os.environ.update(SINGLE_THREADED)  # as replicas have it, before numpy is imported

import asyncio
import base64
import importlib
import itertools
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pyarrow as pa
import uvloop
from onnx import TensorProto, helper, numpy_helper

from bettong.domain.batching import DynamicBatching
from bettong.domain.deployments import ModelSpec
from bettong.engine.batching import Batching
from bettong.engine.runners.onnx import OnnxRunner
from bettong.engine.runners.python import PythonRunner
from bettong.engine.sessions import Sessions

if TYPE_CHECKING:
    from bettong.engine.runners.base import Runner

transport = importlib.import_module("worker_transport")  # beside this file
FLOATS = transport.FLOATS
CALLERS, TURN_S, TURNS = 16, 0.6, 3
RULE = DynamicBatching(max_batch_delay_ms=2, batch_size_target=CALLERS)
WIDTH = 18
STEP = """
import time
import numpy as np
from mac.types import InferenceData

WEIGHTS = np.ones(({width},), "f4")

def process_data(input_data: InferenceData) -> InferenceData:
    until = time.perf_counter() + {per_call} + {per_row} * len(input_data["x"])
    while time.perf_counter() < until:
        pass
    return {{"y": input_data["x"].reshape(-1, {width})[:, :1]}}
"""


def network(width: int, hidden: int, layers: int) -> bytes:
    """A fully connected network of single precision."""
    sizes = [width, *[hidden] * layers, 1]
    rng = np.random.default_rng(5)
    nodes, weights, last = [], [], "x"
    for at, shape in enumerate(itertools.pairwise(sizes)):
        weights.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32) / shape[0], f"w{at}"))
        out = "y" if at == layers else f"h{at}"
        nodes.append(helper.make_node("MatMul", [last, f"w{at}"], [out if at == layers else f"m{at}"]))
        if at < layers:
            nodes.append(helper.make_node("Relu", [f"m{at}"], [out]))
        last = out
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", w]) for n, w in (("x", width), ("y", 1))]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = made.SerializeToString()
    onnx.checker.check_model(made)
    return data


def spec(folder: Path, framework: str, environment: str = "") -> ModelSpec:
    schemas = [base64.b64encode(pa.schema([pa.field(name, FLOATS)]).serialize()).decode() for name in "xy"]
    return ModelSpec("m-1", 1, "m", "v", folder.name, framework, str(folder), environment, schemas[0], schemas[1])


async def rate(runner: Runner, row: pa.Table, callers: int) -> tuple[float, float]:
    """Requests a second, and milliseconds that half of them took at most."""
    took: list[float] = []
    end = time.perf_counter() + TURN_S

    async def caller() -> None:
        while (began := time.perf_counter()) < end:
            await runner.predict(row)
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0)  # as a caller over the network does: a runner that answers at once starves others

    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(took) / TURN_S, sorted(took)[len(took) // 2] * 1000


async def main() -> None:
    sessions = Sessions()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        venv = transport.environment(home / "venv")
        runners: dict[str, tuple[Runner, int]] = {}
        for title, width, hidden, layers in (
            ("ONNX, 18-64-64-1", 18, 64, 2),
            ("ONNX, 256-2048-2048-2048-1", 256, 2048, 3),
        ):
            folder = home / str(hidden)
            folder.mkdir()
            (folder / "model.onnx").write_bytes(network(width, hidden, layers))
            runners[title] = (OnnxRunner(spec(folder, "onnx"), sessions), width)
        for title, per_call, per_row in (
            ("Python, next to nothing", 0.0, 0.0),
            ("Python, 2 ms a call", 0.002, 0.0),
            ("Python, 2 ms a row", 0.0, 0.002),
        ):
            folder = home / title
            folder.mkdir()
            (folder / "step.py").write_text(STEP.format(width=WIDTH, per_call=per_call, per_row=per_row))
            runner = PythonRunner(
                spec(folder, "python", str(venv)),
                log_file=folder / "log",
                scratch=folder / "scratch",
                threads=1,
                warm_up=True,
            )
            runners[title] = (runner, WIDTH)
        print(f"{'requests/s, ms of the median':34}{'off, 1':>16}{'on, 1':>16}{'off, 16':>16}{'on, 16':>16}")
        for title, (plain, width) in runners.items():
            gathered = Batching(plain, RULE)
            await gathered.start()
            row = pa.table({"x": pa.array([np.ones(width, np.float32)], FLOATS)})
            best: dict[tuple[int, bool], tuple[float, float]] = {}
            for _ in range(TURNS):
                for callers in (1, CALLERS):
                    for on in (False, True):
                        found = await rate(gathered if on else plain, row, callers)
                        best[callers, on] = max(best.get((callers, on), (0.0, 0.0)), found)
            cells = (best[callers, on] for callers in (1, CALLERS) for on in (False, True))
            print(f"{title:34}" + "".join(f"{rps:8.0f} {ms:7.2f}" for rps, ms in cells))
            await gathered.close()
    sessions.close()


if __name__ == "__main__":
    uvloop.run(main())
