"""The builder's dicts, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from unit.wallaroo.stub import model_version

from wallaroo import DeploymentConfigBuilder as B
from wallaroo.engine_config import Acceleration, Architecture
from wallaroo.model_version import ModelVersion

if TYPE_CHECKING:
    from collections.abc import Callable

    from wallaroo import Client


def both(**amounts: object) -> dict[str, Any]:
    names = {"nvidia": "nvidia.com/gpu", "intel": "gpu.intel.com/i915", "amd": "amd.com/gpu"}
    named = {names.get(name, name): amount for name, amount in amounts.items()}
    return {"limits": named, "requests": named}


ROWS: list[tuple[Callable[[B], B], dict[str, Any]]] = [
    (lambda b: b, {}),
    (
        lambda b: b.replica_count(1).cpus(0.5).memory("1Gi"),
        {"replicas": 1, "cpu": 0.5, "resources": both(cpu=0.5, memory="1Gi")},
    ),
    (
        lambda b: b.replica_autoscale_min_max(minimum=1, maximum=5).autoscale_cpu_utilization(75),
        {"autoscale": {"replica_min": 1, "replica_max": 5, "type": "cpu", "cpu_utilization": 75}},
    ),
    (lambda b: b.replica_count(-1), {"replicas": -1}),
    (
        lambda b: b.cpus(1).gpus(1).deployment_label("wallaroo.ai/accelerator:a100"),
        {
            "cpu": 1,
            "resources": both(cpu=1, nvidia=1),
            "gpu": 1,
            "node_selector": "wallaroo.ai/accelerator:a100",
        },
    ),
    (
        lambda b: b.accel(Acceleration.OpenVINO).gpus(1),
        {"accel": "openvino", "resources": both(intel=1), "gpu": 1},
    ),
    (lambda b: b.gpus(1).accel(Acceleration.ROCM), {"resources": both(amd=1), "gpu": 1, "accel": "rocm"}),
    (lambda b: b.accel(Acceleration.ROCM).gpus(1), {"accel": "rocm", "resources": both(amd=1), "gpu": 1}),
    (
        lambda b: b.arch(Architecture.X86).accel(Acceleration.Jetson),
        {"arch": "x86", "accel": "jetson"},
    ),
    (
        lambda b: (
            b.replica_autoscale_min_max(minimum=0, maximum=5)
            .scale_up_queue_depth(5)
            .scale_down_queue_depth(2)
            .autoscaling_window(120)
        ),
        {
            "autoscale": {
                "replica_min": 0,
                "replica_max": 5,
                "type": "queue",
                "scale_up_queue_depth": 5,
                "scale_down_queue_depth": 2,
                "autoscaling_window": 120,
            }
        },
    ),
    (
        lambda b: b.scale_up_queue_depth(5),
        {"autoscale": {"scale_up_queue_depth": 5, "type": "queue", "scale_down_queue_depth": 1}},
    ),
    (
        lambda b: b.scale_up_queue_depth(5).autoscaling_window(10),
        {
            "autoscale": {
                "scale_up_queue_depth": 5,
                "type": "queue",
                "scale_down_queue_depth": 1,
                "autoscaling_window": 10,
            }
        },
    ),
    (lambda b: b.replica_autoscale_min_max(2).disable_autoscale(), {}),
    (lambda b: b.python_load_timeout_secs(30), {"python": {"load_timeout_millis": 30000}}),
    (lambda b: b.image("x:1"), {"image": "x:1"}),
]


@pytest.mark.parametrize(("calls", "engine"), ROWS)
def test_the_engine_block_is_the_documented_one_in_the_documented_order(
    calls: Callable[[B], B], engine: dict[str, Any]
) -> None:
    built = calls(B()).build()

    assert built == {"engine": engine, "enginelb": {}, "engineAux": {"images": {}}}
    assert list(built["engine"]) == list(engine)
    assert isinstance(built, dict)


def test_the_workspace_stands_last() -> None:
    expected = {"engine": {}, "enginelb": {}, "engineAux": {"images": {}}, "workspace_id": 8}
    assert B(workspace_id=8).build() == expected
    assert B().build().guarantee_workspace_id(8) == expected
    assert B(workspace_id=7).build().guarantee_workspace_id(8)["workspace_id"] == 7


def test_load_balancer_resources() -> None:
    built = B().lb_cpus(0.25).lb_memory("256Mi").build()
    assert built["enginelb"] == {"resources": both(cpu=0.25, memory="256Mi")}


@pytest.mark.parametrize(
    ("calls", "kind", "text"),
    [
        (lambda b: b.replica_autoscale_min_max(minimum=6, maximum=5), RuntimeError, "minimum 6 .* maximum 5"),
        (lambda b: b.replica_autoscale_min_max(maximum=2).replica_count(3), RuntimeError, "count 3 .* maximum 2"),
        (lambda b: b.replica_count(3).replica_autoscale_min_max(maximum=2), RuntimeError, "maximum 2 .* replicas 3"),
        (lambda b: b.scale_down_queue_depth(5), ValueError, "only applicable when scale_up_queue_depth"),
        (lambda b: b.autoscaling_window(100), ValueError, "only applicable when scale_up_queue_depth"),
        (lambda b: b.sidekick_cpus("sim-model", 1), TypeError, "per ModelVersion"),
    ],
)
def test_contradictions_are_refused(calls: Callable[[B], B], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        calls(B())


def test_utilization_without_bounds_warns(capsys: pytest.CaptureFixture[str]) -> None:
    assert B().autoscale_cpu_utilization(75).build()["engine"] == {"autoscale": {"cpu_utilization": 75}}
    assert "replica_autoscale_min_max" in capsys.readouterr().out


def test_sidekicks_have_their_own_block_per_version(client: Client) -> None:
    version = ModelVersion(client, model_version("sim-model", id=7))

    built = (
        B()
        .sidekick_cpus(version, 2)
        .sidekick_memory(version, "4Gi")
        .sidekick_env(version, {"A": 1, "B": 2})
        .sidekick_gpus(version, 1)
        .deployment_label("k:v")
        .build()
    )
    arm = B().sidekick_arch(version, Architecture.ARM).sidekick_accel(version, Acceleration.Jetson).build()

    assert built["engineAux"]["images"] == {
        "sim-model-7": {
            "resources": both(cpu=2, memory="4Gi", nvidia=1),
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "node_selector": "k:v",
        }
    }
    assert arm["engineAux"]["images"] == {"sim-model-7": {"arch": "arm", "accel": "jetson"}}


def test_a_built_config_does_not_change_when_the_builder_goes_on() -> None:
    builder = B().cpus(1)
    built = builder.build()
    builder.cpus(2)
    assert built["engine"]["cpu"] == 1


def test_the_environment_may_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYMENT_CONFIG", '{"engine": {"cpu": 3}}')
    assert B().build()["engine"] == {"cpu": 3}
    monkeypatch.setenv("DEPLOYMENT_CONFIG", "cpu=3")
    with pytest.raises(ValueError, match="DEPLOYMENT_CONFIG is set, but is not a JSON object"):
        B()
