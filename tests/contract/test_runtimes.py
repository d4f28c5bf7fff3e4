"""What every runtime promises, whatever it starts engines with."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
from host_kit import Client, Server, adder, adder_spec, local_runtime, running, serving, wait_until

from bettong.domain.deployments import State
from bettong.domain.metrics import Counted
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bettong.domain.metrics import DeploymentMetrics
    from bettong.domain.ports import Runtime


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def local(tmp_path: Path, server: Server) -> Iterator[Runtime]:
    with local_runtime(tmp_path, server) as runtime:
        yield runtime


@pytest.fixture(params=["local"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return cast("Runtime", request.getfixturevalue(request.param))


def ask(port: int, x: int) -> int:
    async def go() -> int:
        async with Client(port) as client:
            return await client.add(x)

    return cast("int", running(go()))


def metrics_of(runtime: Runtime) -> DeploymentMetrics:
    counted = runtime.metrics(7, "adding-7")
    assert counted is not None
    return counted


def test_nothing_is_observed_of_what_was_never_deployed(runtime: Runtime) -> None:
    assert runtime.observe(7, "adding-7") is None


def test_a_deployment_comes_up_and_tells_its_replicas_and_workers(runtime: Runtime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1, replicas=2))

    observed = wait_until(runtime, serving(1, replicas=2))

    assert (observed.label, observed.target, observed.error) == ("adding-7", 1, None)
    assert {r.pipeline_version for r in observed.replicas} == {"version-1"}
    assert len({r.name for r in observed.replicas}) == 2
    assert [w.uid for r in observed.replicas for w in r.workers] == ["adder-1", "adder-1"]
    assert ask(observed.port, 40) == 41


def test_a_new_generation_takes_over_on_the_same_address(runtime: Runtime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1))
    before = wait_until(runtime, serving(1))

    runtime.deploy(adder_spec(tmp_path, 2, linger_s=0.0))
    after = wait_until(runtime, serving(2))

    assert (after.host, after.port) == (before.host, before.port)
    assert ask(after.port, 40) == 42


def test_a_generation_that_does_not_load_leaves_the_old_one_serving_and_says_why(
    runtime: Runtime, tmp_path: Path
) -> None:
    runtime.deploy(adder_spec(tmp_path, 1))
    wait_until(runtime, serving(1))

    runtime.deploy(adder_spec(tmp_path, 2, models=(adder(REFUSES="the file weights.bin is not there"),)))
    observed = wait_until(runtime, lambda seen: seen.error is not None and serving(1)(seen))

    assert (observed.serving, observed.target) == (1, 2)
    assert "the file weights.bin is not there" in str(observed.error)
    assert ask(observed.port, 40) == 41


def test_a_first_generation_that_does_not_load_says_why_and_the_next_deploy_mends_it(
    runtime: Runtime, tmp_path: Path
) -> None:
    runtime.deploy(adder_spec(tmp_path, 1, models=(adder(REFUSES="broken on purpose"),)))
    observed = wait_until(runtime, lambda seen: seen.error is not None)
    assert (observed.serving, observed.target) == (0, 1)
    assert "broken on purpose" in str(observed.error)

    runtime.deploy(adder_spec(tmp_path, 2))

    assert wait_until(runtime, serving(2)).error is None


def test_a_generation_that_did_not_load_is_tried_again_when_it_is_deployed_again(
    runtime: Runtime, tmp_path: Path
) -> None:
    runtime.deploy(adder_spec(tmp_path, 1, models=(adder(REFUSES="not yet"),)))
    wait_until(runtime, lambda seen: seen.error is not None)

    runtime.deploy(adder_spec(tmp_path, 1))

    assert wait_until(runtime, serving(1)).error is None


def test_deploying_what_serves_already_changes_nothing(runtime: Runtime, tmp_path: Path) -> None:
    spec = adder_spec(tmp_path, 1)
    runtime.deploy(spec)
    before = wait_until(runtime, serving(1))

    runtime.deploy(spec)

    after = wait_until(runtime, serving(1))
    assert (after.pid, [r.pid for r in after.replicas]) == (before.pid, [r.pid for r in before.replicas])


def test_deploys_from_several_threads_end_with_the_newest(runtime: Runtime, tmp_path: Path) -> None:
    specs = [adder_spec(tmp_path, generation, linger_s=0.0) for generation in (1, 2, 3, 4)]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(runtime.deploy, specs))

    observed = wait_until(runtime, serving(4))
    assert (observed.target, observed.error) == (4, None)
    assert ask(observed.port, 40) == 44


def test_undeploy_leaves_nothing_and_is_harmless_when_there_is_nothing(runtime: Runtime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1))
    wait_until(runtime, serving(1))

    runtime.undeploy(7, "adding-7")
    assert runtime.observe(7, "adding-7") is None
    runtime.undeploy(7, "adding-7")


def test_a_deployment_comes_back_after_an_undeploy_on_the_port_it_had(runtime: Runtime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1))
    port = wait_until(runtime, serving(1)).port
    runtime.undeploy(7, "adding-7")

    runtime.deploy(adder_spec(tmp_path, 2))

    assert wait_until(runtime, serving(2)).port == port


def test_undeploy_ends_a_deployment_that_is_still_rolling(runtime: Runtime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1))
    wait_until(runtime, serving(1))
    runtime.deploy(adder_spec(tmp_path, 2))

    runtime.undeploy(7, "adding-7")

    assert runtime.observe(7, "adding-7") is None


def test_two_deployments_do_not_touch_each_other(runtime: Runtime, tmp_path: Path) -> None:
    one = adder_spec(tmp_path, 1)
    other = replace(one, deployment_id=8, name="adding", models=(adder(PLUS="100"),))
    runtime.deploy(one)
    runtime.deploy(other)
    first, second = wait_until(runtime, serving(1)), wait_until(runtime, serving(1), label="adding-8")
    assert (ask(first.port, 1), ask(second.port, 1)) == (2, 101)

    runtime.undeploy(7, "adding-7")

    assert runtime.observe(7, "adding-7") is None
    still = runtime.observe(8, "adding-8")
    assert still is not None
    assert still.replicas[0].state is State.RUNNING


def test_nothing_is_counted_of_what_does_not_run(runtime: Runtime, tmp_path: Path) -> None:
    assert runtime.metrics(7, "adding-7") is None
    runtime.deploy(adder_spec(tmp_path, 1))
    wait_until(runtime, serving(1))
    runtime.undeploy(7, "adding-7")

    assert runtime.metrics(7, "adding-7") is None


def test_all_replicas_count_together_and_each_for_itself(runtime: Runtime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1, replicas=2))
    port = wait_until(runtime, serving(1, replicas=2)).port

    for x in range(6):  # a connection each
        ask(port, x)

    counted = metrics_of(runtime)
    assert (counted.label, counted.pipeline, counted.replica_restarts) == ("adding-7", "adding", 0)
    assert counted.total.requests == {200: 6}
    assert (counted.total.batch_rows.sum, counted.total.log_rows) == (6, 6)
    assert counted.total.steps.keys() == {"adder"}
    assert counted.total.steps["adder"].count == counted.total.duration.count == 6
    assert len(counted.replicas) == 2
    assert sum((replica.counted for replica in counted.replicas), Counted()) == counted.total
    assert [(r.in_flight, r.waiting) for r in counted.replicas] == [(0, 0), (0, 0)]


def test_what_a_killed_replica_has_counted_stays(runtime: Runtime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1, replicas=2))
    before = wait_until(runtime, serving(1, replicas=2))
    for x in range(6):
        ask(before.port, x)
    counted = metrics_of(runtime)
    assert all(replica.counted.requests for replica in counted.replicas)

    killed = before.replicas[0]
    os.kill(killed.pid, signal.SIGKILL)
    wait_until(runtime, lambda seen: serving(1, replicas=2)(seen) and killed.pid not in {r.pid for r in seen.replicas})

    after = metrics_of(runtime)
    assert after.total == counted.total
    assert after.replica_restarts == 1
    assert killed.name not in {r.name for r in after.replicas}
    assert ask(before.port, 40) == 41
    assert metrics_of(runtime).total.requests == {200: 7}


def test_a_new_generation_counts_on_where_the_old_one_ended(runtime: Runtime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1))
    ask(wait_until(runtime, serving(1)).port, 1)

    runtime.deploy(adder_spec(tmp_path, 2, models=(replace(adder(), name="another"),), linger_s=0.0))
    ask(wait_until(runtime, serving(2)).port, 1)

    counted = metrics_of(runtime)
    assert counted.total.requests == {200: 2}
    assert counted.total.steps["another"].count == 1
    assert counted.replica_restarts == 0


@pytest.mark.parametrize("label", ["../etc", "a/b", "", ".", "Upper-1", "a b"])
def test_a_label_that_is_no_name_reaches_no_file(runtime: Runtime, label: str) -> None:
    with pytest.raises(BadInput, match="label is not a name"):
        runtime.undeploy(7, label)
    with pytest.raises(BadInput, match="label is not a name"):
        runtime.observe(7, label)
    with pytest.raises(BadInput, match="label is not a name"):
        runtime.metrics(7, label)
