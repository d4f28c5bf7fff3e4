"""An hour at 80 % of what the machine can do: no error, flat memory, a log that keeps to its bytes."""

from __future__ import annotations

import itertools
import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import numpy as np
import onnx_models
import psutil
import pyarrow as pa
import pytest
from builders import python_model_zip
from platforms import processes_of
from spoiled_bodies import good

import wallaroo
from wallaroo.framework import Framework

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = float(os.environ.get("BETTONG_SOAK_S", "3600"))
CLIENTS = 8
SHARE = 0.8  # of the requests per second that the same clients reach when they do not wait
TOPIC_BYTES = 64 * 2**20
MB = 2**20

pytestmark = pytest.mark.soak


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request, and the status that it must get."""

    url: str
    headers: dict[str, str]
    body: bytes
    status: int = 200


@dataclass
class Load:
    """Clients that go through the kinds of requests in turn, each starting one every `pause_s`."""

    kinds: list[Kind]
    token: Callable[[], dict[str, str]]
    pause_s: float = 0.0
    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, seconds: float) -> float:
        """Requests per second over `seconds`."""
        before, began = self.answered, time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as pool:
            for ended in [pool.submit(self._client, at, began + seconds) for at in range(CLIENTS)]:
                ended.result()
        return (self.answered - before) / (time.monotonic() - began)

    def _client(self, at: int, until: float) -> None:
        with httpx.Client(timeout=60) as client:
            due = time.monotonic() + at * self.pause_s / CLIENTS
            for kind in itertools.islice(itertools.cycle(self.kinds), at, None):
                if (now := time.monotonic()) >= until:
                    return
                time.sleep(max(0.0, due - now))  # the load of an open door: requests come when they are due
                due = max(due + self.pause_s, now)
                answer = client.post(kind.url, content=kind.body, headers=kind.headers | self.token())
                with self.lock:
                    self.answered += 1
                    if answer.status_code != kind.status:
                        self.wrong.append(f"{answer.status_code} {answer.text[:200]}")


@pytest.mark.timeout(SECONDS + 600)
def test_mixed_load_leaves_memory_flat_the_log_bounded_and_no_error(own_home: Path, tmp_path: Path) -> None:
    with wallaroo.Client() as wl:
        load = Load(list(kinds(wl, tmp_path)), wl.auth.auth_header)
        load.pause_s = CLIENTS / (SHARE * load.run(min(20.0, SECONDS / 10)))
        samples: list[dict[str, float]] = []
        ended = threading.Event()
        watcher = threading.Thread(target=watch, args=(own_home, samples, ended, SECONDS / 100))
        watcher.start()
        rate = load.run(SECONDS)
        ended.set()
        watcher.join()

    assert load.wrong == []
    early, late = samples[len(samples) // 5 : 2 * len(samples) // 5], samples[-len(samples) // 5 :]
    told = {key: tuple(statistics.median(s[key] for s in part) for part in (early, late)) for key in early[0]}
    print(f"{load.answered} answers, {rate:.0f} a second; (then, at the end): {told}")
    assert told["memory_mb"][1] <= 1.05 * told["memory_mb"][0] + 10, told
    assert told["processes"][1] == told["processes"][0], told
    # a log is bounded every ten seconds: between two looks it grows beyond
    assert max(sample["log_mb"] for sample in samples) <= 3 * 1.5 * TOPIC_BYTES / MB, told


def kinds(wl: wallaroo.Client, folder: Path) -> Iterator[Kind]:
    """Rows as they come one by one and by the thousand, JSON and Arrow, native and in a worker, a few of them wrong."""
    rows = np.random.default_rng(5).normal(size=(1000, 18)).astype(np.float32)
    (folder / "mlp.onnx").write_bytes(onnx_models.mlp())
    native = wl.upload_model("mlp", str(folder / "mlp.onnx"), Framework.ONNX)
    houses = wl.build_pipeline("houses").add_model_step(native)
    houses.deploy(deployment_config=wallaroo.DeploymentConfigBuilder().replica_count(2).build())
    code = "def process_data(input_data: InferenceData) -> InferenceData:\n    return {'y': input_data['x'] * 2}\n"
    file = python_model_zip(folder / "double.zip", "from mac.types import InferenceData\n" + code)
    double = wl.upload_model(
        "double",
        str(file),
        Framework.PYTHON,
        input_schema=pa.schema([pa.field("x", pa.float64())]),
        output_schema=pa.schema([pa.field("y", pa.float64())]),
    )
    doubled = wl.build_pipeline("doubled").add_model_step(double)
    doubled.deploy()
    one, many = good(rows[:1]), good(rows)
    for _ in range(5):
        yield from (Kind(houses.url(), headers, body) for headers, body in one)
        yield Kind(doubled.url(), {"Content-Type": "application/json"}, b'[{"x": 1.5}]')
    yield from (Kind(houses.url(), headers, body) for headers, body in many)
    yield Kind(houses.url(), {"Content-Type": "application/json"}, b'[{"tensor": "no"}]', 400)


def watch(home: Path, samples: list[dict[str, float]], ended: threading.Event, every_s: float) -> None:
    """Note every `every_s` what the platform takes, until `ended`."""
    while not ended.wait(every_s):
        processes = processes_of(home)
        logged = sum(file.stat().st_size for file in (home / "logs").rglob("*") if file.is_file())
        samples.append({"memory_mb": pss_mb(processes), "processes": len(processes), "log_mb": round(logged / MB, 1)})


def pss_mb(processes: list[psutil.Process]) -> float:
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return round(total / MB, 1)
