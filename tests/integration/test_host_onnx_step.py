"""An ONNX step behind a host: the real runner in a real replica."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_models
import psutil
import pyarrow as pa
import pytest
from host_kit import Client, Server, adder_spec, aside, local_runtime, serving, wait_gone, wait_until
from worker_builders import model_spec

from bettong.domain.deployments import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bettong.domain.deployments import ModelSpec
    from bettong.runtimes.local import LocalRuntime


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[LocalRuntime]:
    with Server("python") as server, local_runtime(tmp_path, server) as runtime:
        yield runtime


def adding(folder: Path, plus: int, *, takes: str = "x") -> ModelSpec:
    """A model whose answer is a plain number, as its config wants it."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes(onnx_models.plus(plus))
    made = model_spec(folder, folder, {takes: pa.int64()}, {"y": pa.int64()})
    return replace(made, framework="onnx", environment="", sha=f"{plus:064}")


async def ask(port: int, x: int) -> int:
    async with Client(port) as client:
        return await client.add(x)


def test_an_onnx_step_is_served_rolled_and_gone(runtime: LocalRuntime, tmp_path: Path) -> None:
    one, two = (adding(tmp_path / f"model-{plus}", plus) for plus in (1, 2))
    runtime.deploy(adder_spec(tmp_path, 1, models=(one,)))
    first = wait_until(runtime, serving(1))
    assert asyncio.run(ask(first.port, 40)) == 41
    (replica,) = first.replicas
    (seen,) = replica.workers
    assert (seen.pid, seen.state, seen.provider) == (replica.pid, State.RUNNING, "CPUExecutionProvider")
    assert psutil.Process(replica.pid).children() == []

    runtime.deploy(adder_spec(tmp_path, 2, models=(two,), linger_s=0.0))
    second = wait_until(runtime, serving(2))
    assert asyncio.run(ask(second.port, 40)) == 42

    runtime.undeploy(7, "adding-7")
    wait_gone(second.replicas[0].pid)


def test_steps_run_in_their_order_and_one_file_may_be_several_of_them(runtime: LocalRuntime, tmp_path: Path) -> None:
    first = adding(tmp_path / "model", 10)
    same = replace(first, uid="tried-2", id=2, input_schema=first.output_schema)
    runtime.deploy(adder_spec(tmp_path, 1, models=(first, same)))

    observed = wait_until(runtime, serving(1))

    assert [w.uid for w in observed.replicas[0].workers] == ["tried-1", "tried-2"]
    assert asyncio.run(ask(observed.port, 4)) == 24


def test_a_killed_replica_comes_back_with_its_model(runtime: LocalRuntime, tmp_path: Path) -> None:
    async def go() -> int:
        await aside(runtime.deploy, adder_spec(tmp_path, 1, models=(adding(tmp_path / "model", 1),)))
        observed = await aside(wait_until, runtime, serving(1))
        os.kill(observed.replicas[0].pid, signal.SIGKILL)
        await aside(wait_gone, observed.replicas[0].pid)
        return await ask(observed.port, 40)

    assert asyncio.run(go()) == 41


def test_a_file_that_does_not_load_says_so(runtime: LocalRuntime, tmp_path: Path) -> None:
    broken = adding(tmp_path / "model", 1)
    (tmp_path / "model" / "model.onnx").write_bytes(b"not a model")
    runtime.deploy(adder_spec(tmp_path, 1, models=(broken,)))

    observed = wait_until(runtime, lambda o: o.error is not None)

    assert "Model 'tried' does not load: " in str(observed.error)
