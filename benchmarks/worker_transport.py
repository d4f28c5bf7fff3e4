"""What the way to a Python model's worker and back costs: `python benchmarks/worker_transport.py [--rounds 5]`.

A real worker in an environment of its own, on the event loop that replicas have, and beside it a plain socket pair over
which a child gets the same number of bytes and sends the same number back: what no transport over a socket can beat.
Models answer with ten numbers of each row. `wall` is the time of one request after the other, `replica` and `worker`
are CPU time of the two processes; each is the least of the rounds.
"""

from __future__ import annotations

import os

from bettong.engine.forking import SINGLE_THREADED

os.environ.update(SINGLE_THREADED)  # as replicas have it, before numpy is imported

import argparse
import base64
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import uvloop

from bettong.domain.deployments import ModelSpec
from bettong.engine.memory import keep_freed_memory
from bettong.engine.runners.python import PythonRunner
from bettong.engine.workers.frames import encode

if TYPE_CHECKING:
    from collections.abc import Callable

STEP = """
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    return {"y": input_data["x"][:, :10]}
"""
FLOATS = pa.list_(pa.float32())
ANSWERED = 10
CASES = {"one row of 18": (1, 18, 2000), "10,000 rows of 18": (10_000, 18, 150), "one of 150,528": (1, 150_528, 150)}


def environment(folder: Path) -> Path:
    """A virtual environment of this interpreter with numpy and `mac`, copied: a worker can read nothing outside."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    installed, mac = Path(np.__file__).parent, Path(__file__).parents[1] / "packages" / "mac" / "src" / "mac"
    for source in (installed, installed.parent / "numpy.libs", mac):
        if source.is_dir():
            shutil.copytree(source, packages / source.name, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    return folder


def model(folder: Path, environment: Path) -> ModelSpec:
    (folder / "artifact").mkdir()
    (folder / "artifact" / "step.py").write_text(STEP)
    schemas = [base64.b64encode(pa.schema([pa.field(name, FLOATS)]).serialize()).decode() for name in "xy"]
    return ModelSpec(
        "m-1", 1, "m", "v", "0" * 64, "python", str(folder / "artifact"), str(environment), schemas[0], schemas[1]
    )


def cpu_ns(pid: int) -> int:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


async def through_a_worker(runner: PythonRunner, rows: pa.Table, repeats: int) -> tuple[float, float, float]:
    """Microseconds per request: wall, CPU here, CPU of the worker."""
    pid = runner.observed().pid
    began = time.perf_counter_ns(), time.process_time_ns(), cpu_ns(pid)
    for _ in range(repeats):
        await runner.predict(rows)
    ended = time.perf_counter_ns(), time.process_time_ns(), cpu_ns(pid)
    wall, here, there = ((after - before) / repeats / 1000 for before, after in zip(began, ended, strict=True))
    return wall, here, there


def pump(there_bytes: int, back_bytes: int) -> tuple[Callable[[], None], int]:
    """A function that sends so many bytes to a child and waits for its answer; the child's pid."""
    ours, theirs = socket.socketpair()
    if (pid := os.fork()) == 0:
        ours.close()
        received, answer = memoryview(bytearray(there_bytes)), bytes(back_bytes)
        while True:
            have = 0
            while have < there_bytes:
                if not (got := theirs.recv_into(received[have:])):
                    os._exit(0)
                have += got
            theirs.sendall(answer)
    theirs.close()
    sent, received = bytes(there_bytes), memoryview(bytearray(back_bytes))

    def once() -> None:
        ours.sendall(sent)
        have = 0
        while have < back_bytes:
            have += ours.recv_into(received[have:])

    return once, pid


def through_a_pump(once: Callable[[], None], pid: int, repeats: int) -> tuple[float, float, float]:
    began = time.perf_counter_ns(), time.process_time_ns(), cpu_ns(pid)
    for _ in range(repeats):
        once()
    ended = time.perf_counter_ns(), time.process_time_ns(), cpu_ns(pid)
    wall, here, there = ((after - before) / repeats / 1000 for before, after in zip(began, ended, strict=True))
    return wall, here, there


async def measure(rounds: int, profile: str) -> None:
    rng = np.random.default_rng(11)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runner = PythonRunner(
            model(folder, environment(folder / "venv")), log_file=folder / "log", scratch=folder / "scratch", threads=1
        )
        await runner.start()
        print(f"{'':24}{'wall':>10}{'replica':>10}{'worker':>10}   µs per request")
        for case, (count, width, repeats) in CASES.items():
            values = rng.standard_normal((count, width)).astype(np.float32)
            rows = pa.table({"x": pa.array(list(values), FLOATS)})
            once, pid = pump(encode(rows).body_bytes, count * (ANSWERED * 4 + 8) + 8)
            found: dict[str, list[tuple[float, float, float]]] = {"worker": [], "plain socket pair": []}
            for _ in range(rounds):
                found["worker"].append(await through_a_worker(runner, rows, repeats))
                found["plain socket pair"].append(through_a_pump(once, pid, repeats))
            if profile:
                await profiled(runner, rows, repeats)
            for way, all_rounds in found.items():
                least = [min(column) for column in zip(*all_rounds, strict=True)]
                print(f"{case if way == 'worker' else '':20}{way[:5]:>5}" + "".join(f"{x:10.0f}" for x in least))
            os.kill(pid, signal.SIGKILL)
        await runner.close()


async def profiled(runner: PythonRunner, rows: Any, repeats: int) -> None:
    import cProfile
    import pstats

    with cProfile.Profile() as calls:
        await through_a_worker(runner, rows, repeats)
    pstats.Stats(calls).sort_stats("tottime").print_stats(18)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--profile", action="store_true", help="also say where this process spends its time")
    given = arguments.parse_args()
    keep_freed_memory()
    uvloop.run(measure(given.rounds, given.profile))
