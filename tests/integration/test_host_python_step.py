"""A Python step behind a host: the real runner, its worker in an environment of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from host_kit import (
    DEADLINE_S,
    Client,
    Server,
    adder_spec,
    aside,
    is_alive,
    local_runtime,
    read_answer,
    serving,
    wait_gone,
    wait_until,
)
from worker_builders import artifact, environment_of_this_python, model_spec

from bettong.domain.batching import DynamicBatching
from bettong.domain.deployments import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bettong.domain.deployments import ModelSpec, Observed
    from bettong.runtimes.local import LocalRuntime


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_of_this_python(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[LocalRuntime]:
    with Server("python") as server, local_runtime(tmp_path, server) as runtime:
        yield runtime


def step(folder: Path, environment: Path, code: str) -> ModelSpec:
    return model_spec(artifact(folder, code), environment, {"x": pa.int64()}, {"y": pa.int64()})


def adding(folder: Path, environment: Path, plus: int) -> ModelSpec:
    code = f"""
        from mac.types import InferenceData

        def process_data(input_data: InferenceData) -> InferenceData:
            return {{"y": input_data["x"] + {plus}}}
    """
    return step(folder, environment, code)


def test_a_python_step_is_served_rolled_and_gone(runtime: LocalRuntime, tmp_path: Path, environment: Path) -> None:
    async def ask(port: int) -> int:
        async with Client(port) as client:
            return await client.add(40)

    one, two = (adding(tmp_path / f"model-{plus}", environment, plus) for plus in (1, 2))
    runtime.deploy(adder_spec(tmp_path, 1, models=(one,)))
    first = wait_until(runtime, serving(1))
    assert asyncio.run(ask(first.port)) == 41
    worker = first.replicas[0].workers[0]
    assert (worker.state, is_alive(worker.pid)) == (State.RUNNING, True)
    assert worker.pid != first.replicas[0].pid

    runtime.deploy(adder_spec(tmp_path, 2, models=(two,), linger_s=0.0))
    second = wait_until(runtime, serving(2))
    assert asyncio.run(ask(second.port)) == 42
    wait_gone(worker.pid)

    runtime.undeploy(7, "adding-7")
    assert not is_alive(second.replicas[0].workers[0].pid)
    assert not (tmp_path / "deployments" / "adding-7" / "scratch").exists()


def test_two_steps_run_in_their_order(runtime: LocalRuntime, tmp_path: Path, environment: Path) -> None:
    async def ask(port: int) -> int:
        async with Client(port) as client:
            return await client.add(4)

    code = """
        from mac.types import InferenceData

        def process_data(input_data: InferenceData) -> InferenceData:
            return {"y": input_data["y"] * 10}
    """
    second = model_spec(artifact(tmp_path / "second", code), environment, {"y": pa.int64()}, {"y": pa.int64()})
    models = (adding(tmp_path / "first", environment, 1), replace(second, uid="tried-2", id=2))
    runtime.deploy(adder_spec(tmp_path, 1, models=models))

    observed = wait_until(runtime, serving(1))

    assert [w.uid for w in observed.replicas[0].workers] == ["tried-1", "tried-2"]
    assert asyncio.run(ask(observed.port)) == 50


def test_a_step_that_does_not_load_says_so_in_its_own_words(
    runtime: LocalRuntime, tmp_path: Path, environment: Path
) -> None:
    broken = step(tmp_path / "broken", environment, "import nothing_of_that_name")
    runtime.deploy(adder_spec(tmp_path, 1, models=(broken,)))

    observed = wait_until(runtime, lambda o: o.error is not None)

    assert "nothing_of_that_name" in str(observed.error)


def test_the_worker_of_a_killed_replica_ends_and_another_pair_takes_over(
    runtime: LocalRuntime, tmp_path: Path, environment: Path
) -> None:
    async def go() -> int:
        models = (adding(tmp_path / "model", environment, 1),)
        await aside(runtime.deploy, adder_spec(tmp_path, 1, models=models))
        observed: Observed = await aside(wait_until, runtime, serving(1))
        os.kill(observed.replicas[0].pid, signal.SIGKILL)
        await aside(wait_gone, observed.replicas[0].pid, observed.replicas[0].workers[0].pid)
        async with asyncio.timeout(DEADLINE_S), Client(observed.port) as client:
            return await client.add(40)

    assert asyncio.run(go()) == 41


def test_undeploy_of_an_idle_python_step_takes_less_than_a_second(
    runtime: LocalRuntime, tmp_path: Path, environment: Path
) -> None:
    runtime.deploy(adder_spec(tmp_path, 1, models=(adding(tmp_path / "model", environment, 1),)))
    observed = wait_until(runtime, serving(1))

    async def go() -> None:
        async with asyncio.timeout(1.0):
            await aside(runtime.undeploy, 7, "adding-7")

    asyncio.run(go())
    assert not is_alive(observed.replicas[0].workers[0].pid)


def test_twenty_slow_requests_keep_nobody_from_being_answered(
    runtime: LocalRuntime, tmp_path: Path, environment: Path
) -> None:
    code = """
        import os, time
        from mac.types import InferenceData

        def process_data(input_data: InferenceData) -> InferenceData:
            while input_data["x"][0] > 1 and not os.path.exists("go"):
                time.sleep(0.005)
            return {"y": input_data["x"] + 1}
    """
    model = step(tmp_path / "model", environment, code)
    runtime.deploy(adder_spec(tmp_path, 1, models=(model,), max_queued_requests=20))
    port = wait_until(runtime, serving(1)).port

    async def slow(x: int) -> int:
        async with Client(port) as client:
            return await client.add(x)

    async def health() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        status, _, _ = await read_answer(reader)
        writer.close()
        await writer.wait_closed()
        return status

    async def go() -> None:
        requests = [asyncio.create_task(slow(x)) for x in range(10, 30)]
        in_flight = 0
        while in_flight < 20:
            in_flight = (await aside(wait_until, runtime, lambda _: True)).replicas[0].in_flight
        assert await health() == 200
        with pytest.raises(RuntimeError, match=r"answered 503: .*has 20 requests in hand, its limit"):
            await slow(40)
        assert not any(request.done() for request in requests)
        (tmp_path / "model" / "go").touch()
        assert await asyncio.gather(*requests) == list(range(11, 31))

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await go()

    asyncio.run(bounded())


def test_cpus_are_worker_processes_each_of_which_is_seen(
    runtime: LocalRuntime, tmp_path: Path, environment: Path
) -> None:
    wanted = min(2, len(os.sched_getaffinity(0)))
    runtime.deploy(adder_spec(tmp_path, 1, threads=2, models=(adding(tmp_path / "model", environment, 1),)))

    (replica,) = wait_until(runtime, serving(1)).replicas

    assert [w.uid for w in replica.workers] == ["tried-1"] * wanted
    assert len({w.pid for w in replica.workers}) == wanted


def test_requests_of_several_callers_go_through_a_step_together(
    runtime: LocalRuntime, tmp_path: Path, environment: Path
) -> None:
    code = """
        import numpy as np
        from mac.types import InferenceData

        def process_data(input_data: InferenceData) -> InferenceData:
            return {"y": np.full(len(input_data["x"]), len(input_data["x"]))}
    """
    model = replace(
        step(tmp_path / "model", environment, code),
        batching=DynamicBatching(max_batch_delay_ms=60_000, batch_size_target=4),
    )
    runtime.deploy(adder_spec(tmp_path, 1, models=(model,)))
    port = wait_until(runtime, serving(1)).port

    async def one(x: int) -> int:
        async with Client(port) as client:
            return await client.add(x)

    async def four() -> list[int]:
        async with asyncio.timeout(DEADLINE_S):
            return await asyncio.gather(*(one(x) for x in range(4)))

    assert asyncio.run(four()) == [4, 4, 4, 4]
