"""What a host tells of Python steps behind it: requests that wait for a worker, and workers that were started again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from host_kit import DEADLINE_S, Client, Server, adder_spec, aside, local_runtime, serving, wait_until
from worker_builders import artifact, environment_of_this_python, model_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bettong.domain.metrics import DeploymentMetrics
    from bettong.runtimes.local import LocalRuntime

GATED = """
    import socket

    from mac.types import InferenceData

    def process_data(input_data: InferenceData) -> InferenceData:
        if (input_data["x"] == -7).any():
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
        if (input_data["x"] > 100).any():
            with socket.create_connection(("127.0.0.1", PORT)) as gate:
                gate.recv(1)
        return {"y": input_data["x"] + 1}
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[LocalRuntime]:
    with Server("python") as server, local_runtime(tmp_path, server) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_of_this_python(tmp_path_factory.mktemp("environment") / "venv")


async def metrics_when(runtime: LocalRuntime, holds: Callable[[DeploymentMetrics], bool]) -> DeploymentMetrics:
    """Look until `holds`. Each look asks a live replica, which is also what paces the looking."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            seen: DeploymentMetrics = await aside(runtime.metrics, 7, "adding-7")
            if holds(seen):
                return seen


def test_requests_that_wait_and_workers_that_come_back_are_told(
    runtime: LocalRuntime, tmp_path: Path, environment: Path
) -> None:
    async def go() -> None:
        opened = asyncio.Event()

        async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await opened.wait()
            writer.close()

        async with await asyncio.start_server(hold, "127.0.0.1", 0) as gate, AsyncExitStack() as closing:
            code = GATED.replace("PORT", str(gate.sockets[0].getsockname()[1]))
            model = model_spec(artifact(tmp_path / "model", code), environment, {"x": pa.int64()}, {"y": pa.int64()})
            runtime.deploy(adder_spec(tmp_path, 1, models=(model,)))
            port = (await aside(wait_until, runtime, serving(1))).port
            clients = [await closing.enter_async_context(Client(port)) for _ in range(3)]
            asked = [asyncio.create_task(client.add(x)) for x, client in enumerate(clients, 101)]

            busy = await metrics_when(runtime, lambda seen: seen.replicas[0].in_flight == 3)
            assert busy.replicas[0].waiting == 2, "one worker runs one request"
            assert busy.total.requests == {}

            opened.set()
            assert await asyncio.gather(*asked) == [102, 103, 104]
            with pytest.raises(RuntimeError, match="answered 500"):
                await clients[0].add(-7)
            back = await metrics_when(runtime, lambda seen: seen.total.worker_restarts == {"tried": 1})
            assert (back.total.requests, back.replica_restarts) == ({200: 3, 500: 1}, 0)
            assert (back.replicas[0].in_flight, back.replicas[0].waiting) == (0, 0)

    asyncio.run(go())
