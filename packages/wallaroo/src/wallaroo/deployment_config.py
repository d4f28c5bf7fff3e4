"""What a deployment asks for: replicas, CPUs, memory, and the same per model."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wallaroo import engine_config
from wallaroo.engine_config import Acceleration, AnyAcceleration, Architecture

if TYPE_CHECKING:
    from wallaroo.model_version import ModelVersion

DEFAULT_AUTOSCALING_WINDOW_S = 300
_GPU = "(gpu)"  # stands in resources until build() knows the accelerator
_GPU_KEYS = {
    Acceleration.OpenVINO: "gpu.intel.com/i915",
    Acceleration.QAIC: "qualcomm.com/qaic",
    Acceleration.ROCM: "amd.com/gpu",
}


class DeploymentConfig(dict[str, Any]):
    """A deployment config as it goes over the wire."""

    def guarantee_workspace_id(self, workspace_id: int) -> DeploymentConfig:
        """The same config, with `workspace_id` set if it had none."""
        return DeploymentConfig({**self, "workspace_id": self.get("workspace_id", workspace_id)})


class DeploymentConfigBuilder:
    """Each method returns the builder, `build()` the config. The environment's DEPLOYMENT_CONFIG may preset it."""

    def __init__(self, workspace_id: int | None = None) -> None:
        self._config: dict[str, Any] = {"engine": {}, "enginelb": {}, "engineAux": {"images": {}}}
        self._merge_preset(os.environ.get("DEPLOYMENT_CONFIG"))
        if workspace_id is not None:
            self._config["workspace_id"] = workspace_id

    def __repr__(self) -> str:
        return f"DeploymentConfigBuilder: {self.build()}"

    def build(self) -> DeploymentConfig:
        """The config as it stands; the builder can go on afterwards without changing it."""
        config = copy.deepcopy(self._config)
        engine = config["engine"]
        _name_gpus(engine, engine.get("accel"))
        for image in config["engineAux"]["images"].values():
            _name_gpus(image, image.get("accel", engine.get("accel")))
            if "node_selector" in engine:
                image["node_selector"] = engine["node_selector"]
        return DeploymentConfig(config)

    def image(self, image: str) -> DeploymentConfigBuilder:
        self._engine["image"] = image
        return self

    def replica_count(self, count: int) -> DeploymentConfigBuilder:
        """Raises RuntimeError when `count` is above the maximum of replica_autoscale_min_max."""
        maximum = self._engine.get("autoscale", {}).get("replica_max")
        if maximum is not None and count > maximum:
            raise RuntimeError(f"Replica count {count} must be less than or equal to the replica maximum {maximum}.")
        self._engine["replicas"] = count
        return self

    def replica_autoscale_min_max(self, maximum: int, minimum: int = 0) -> DeploymentConfigBuilder:
        """Raises RuntimeError when minimum, maximum and replica_count contradict each other."""
        if minimum > maximum:
            raise RuntimeError(f"Replica minimum {minimum} must be less than or equal to the maximum {maximum}.")
        replicas = self._engine.get("replicas")
        if replicas is not None and replicas > maximum:
            raise RuntimeError(f"Replica maximum {maximum} must be greater than or equal to the replicas {replicas}.")
        autoscale = self._autoscale
        autoscale.update(replica_min=minimum, replica_max=maximum)
        autoscale.setdefault("type", "cpu")
        return self

    def autoscale_cpu_utilization(self, cpu_utilization_percentage: int) -> DeploymentConfigBuilder:
        if "replica_max" not in self._engine.get("autoscale", {}):
            sys.stdout.write(
                "Warning: autoscale_cpu_utilization has an effect once replica_autoscale_min_max is set.\n"
            )
        self._autoscale["cpu_utilization"] = cpu_utilization_percentage
        return self

    def disable_autoscale(self) -> DeploymentConfigBuilder:
        """Back to a fixed number of replicas."""
        self._engine.pop("autoscale", None)
        return self

    def scale_up_queue_depth(self, queue_depth: int) -> DeploymentConfigBuilder:
        autoscale = self._autoscale
        autoscale.update(scale_up_queue_depth=queue_depth, type="queue")
        autoscale.setdefault("scale_down_queue_depth", 1)
        return self

    def scale_down_queue_depth(self, queue_depth: int) -> DeploymentConfigBuilder:
        """Raises ValueError before scale_up_queue_depth."""
        self._needs_scale_up("scale_down_queue_depth")
        self._autoscale["scale_down_queue_depth"] = queue_depth
        return self

    def autoscaling_window(self, window_seconds: int = DEFAULT_AUTOSCALING_WINDOW_S) -> DeploymentConfigBuilder:
        """Raises ValueError before scale_up_queue_depth."""
        self._needs_scale_up("autoscaling_window")
        self._autoscale["autoscaling_window"] = window_seconds
        return self

    def cpus(self, core_count: int | float | str) -> DeploymentConfigBuilder:
        self._engine["cpu"] = core_count
        _set_resource(self._engine, "cpu", core_count)
        return self

    def memory(self, memory_spec: str) -> DeploymentConfigBuilder:
        """`memory_spec` is a quantity such as "512Mi" or "1.5Gi"."""
        _set_resource(self._engine, "memory", memory_spec)
        return self

    def shadow_wait(self, wait: bool) -> DeploymentConfigBuilder:
        """Whether an answer waits for the challengers of a shadow, as it does by default.

        With False the champion answers at once, without columns of challengers. They run afterwards, and what they give
        is read with `pipeline.challenger_logs()`.
        """
        self._engine["shadow_wait"] = bool(wait)
        return self

    def gpus(self, gpu_count: int) -> DeploymentConfigBuilder:
        _set_resource(self._engine, _GPU, gpu_count)
        self._engine["gpu"] = gpu_count
        return self

    def lb_cpus(self, core_count: int | float | str) -> DeploymentConfigBuilder:
        _set_resource(self._config["enginelb"], "cpu", core_count)
        return self

    def lb_memory(self, memory_spec: str) -> DeploymentConfigBuilder:
        _set_resource(self._config["enginelb"], "memory", memory_spec)
        return self

    def arch(self, arch: Architecture) -> DeploymentConfigBuilder:
        self._engine["arch"] = Architecture(arch).value
        return self

    def accel(self, accel: AnyAcceleration) -> DeploymentConfigBuilder:
        self._engine["accel"] = engine_config.to_wire(accel)
        return self

    def deployment_label(self, label: str) -> DeploymentConfigBuilder:
        self._engine["node_selector"] = label
        return self

    def python_load_timeout_secs(self, timeout_secs: int | float) -> DeploymentConfigBuilder:
        self._engine["python"] = {"load_timeout_millis": int(timeout_secs * 1000)}
        return self

    def sidekick_cpus(self, model_version: ModelVersion, core_count: int | float | str) -> DeploymentConfigBuilder:
        _set_resource(self._image(model_version), "cpu", core_count)
        return self

    def sidekick_memory(self, model_version: ModelVersion, memory_spec: str) -> DeploymentConfigBuilder:
        _set_resource(self._image(model_version), "memory", memory_spec)
        return self

    def sidekick_gpus(self, model_version: ModelVersion, gpu_count: int) -> DeploymentConfigBuilder:
        _set_resource(self._image(model_version), _GPU, gpu_count)
        return self

    def sidekick_env(self, model_version: ModelVersion, environment: Mapping[str, object]) -> DeploymentConfigBuilder:
        pairs = [{"name": name, "value": str(value)} for name, value in environment.items()]
        self._image(model_version)["env"] = pairs
        return self

    def sidekick_arch(self, model_version: ModelVersion, arch: Architecture) -> DeploymentConfigBuilder:
        self._image(model_version)["arch"] = Architecture(arch).value
        return self

    def sidekick_accel(self, model_version: ModelVersion, accel: AnyAcceleration) -> DeploymentConfigBuilder:
        self._image(model_version)["accel"] = engine_config.to_wire(accel)
        return self

    @property
    def _engine(self) -> dict[str, Any]:
        engine: dict[str, Any] = self._config["engine"]
        return engine

    @property
    def _autoscale(self) -> dict[str, Any]:
        autoscale: dict[str, Any] = self._engine.setdefault("autoscale", {})
        return autoscale

    def _image(self, model_version: ModelVersion) -> dict[str, Any]:
        from wallaroo.model_version import ModelVersion

        if not isinstance(model_version, ModelVersion):
            raise TypeError(f"Sidekick settings are per ModelVersion, not per {type(model_version).__name__}.")
        image: dict[str, Any] = self._config["engineAux"]["images"].setdefault(model_version.uid(), {})
        return image

    def _needs_scale_up(self, setting: str) -> None:
        if "scale_up_queue_depth" not in self._engine.get("autoscale", {}):
            raise ValueError(f"{setting} is only applicable when scale_up_queue_depth is configured. Call that first.")

    def _merge_preset(self, text: str | None) -> None:
        if not text:
            return
        try:
            preset = json.loads(text)
        except ValueError:
            preset = None
        if not isinstance(preset, dict):
            raise ValueError("DEPLOYMENT_CONFIG is set, but is not a JSON object. Correct it, or unset it.")
        self._config.update(preset)
        self._config["engineAux"].setdefault("images", {})


def complete(config: Mapping[str, Any], arch: Architecture, accel: AnyAcceleration) -> DeploymentConfig:
    """The config with architecture and acceleration filled in where it has none.

    Raises:
        TypeError: `config` is no config, for instance a builder that was not built.
        InvalidAccelerationError: a pair that does not exist, in the engine or for a model.
    """
    if not isinstance(config, Mapping):
        hint = "Call its build()." if isinstance(config, DeploymentConfigBuilder) else "Make one with the builder."
        raise TypeError(f"deployment_config is a {type(config).__name__}, not a deployment config. {hint}")
    full = copy.deepcopy(dict(config))
    engine = full.setdefault("engine", {})
    _complete_pair(engine, arch, accel)
    for image in full.get("engineAux", {}).get("images", {}).values():
        _complete_pair(image, Architecture(engine["arch"]), engine_config.from_wire(engine["accel"]))
    return DeploymentConfig(full)


def _complete_pair(block: dict[str, Any], arch: Architecture, accel: AnyAcceleration) -> None:
    block.setdefault("arch", arch.value)
    block.setdefault("accel", engine_config.to_wire(accel))
    engine_config.check_pair(Architecture(block["arch"]), engine_config.from_wire(block["accel"]))


def _set_resource(block: dict[str, Any], key: str, value: object) -> None:
    resources = block.setdefault("resources", {"limits": {}, "requests": {}})
    resources["limits"][key] = value
    resources["requests"][key] = value


def _name_gpus(block: dict[str, Any], accel: str | dict[str, Any] | None) -> None:
    name = _GPU_KEYS.get(engine_config.plain(engine_config.from_wire(accel)), "nvidia.com/gpu")
    for kind, amounts in block.get("resources", {}).items():
        block["resources"][kind] = {name if key == _GPU else key: amount for key, amount in amounts.items()}
