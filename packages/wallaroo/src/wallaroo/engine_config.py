"""Architectures and accelerations that models are built for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from wallaroo.object import InvalidAccelerationError


class Architecture(str, Enum):  # noqa: UP042 - StrEnum needs Python 3.11
    X86 = "x86"
    ARM = "arm"
    Power10 = "power10"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class QaicConfig:
    """Options of Qualcomm Cloud AI accelerators."""

    num_cores: int = 16
    num_devices: int = 1
    ctx_len: int = 128
    prefill_seq_len: int = 32
    full_batch_size: int = 8
    mxfp6_matmul: bool = False
    mxint8_kv_cache: bool = False
    aic_enable_depth_first: bool = False


class Acceleration(str, Enum):  # noqa: UP042 - StrEnum needs Python 3.11
    _None = "none"
    CUDA = "cuda"
    Jetson = "jetson"
    OpenVINO = "openvino"
    QAIC = "qaic"
    ROCM = "rocm"

    def __str__(self) -> str:
        return self.value

    def with_config(self, config: QaicConfig) -> AccelerationWithConfig:
        """This acceleration with options of its own.

        Raises:
            InvalidAccelerationError: only QAIC has any.
        """
        if self is not Acceleration.QAIC or not isinstance(config, QaicConfig):
            raise InvalidAccelerationError(
                f"Acceleration '{self}' takes no {type(config).__name__}. Only QAIC takes one, a QaicConfig."
            )
        return AccelerationWithConfig(self, config)


@dataclass(frozen=True)
class AccelerationWithConfig:
    accel: Acceleration
    config: QaicConfig

    def __str__(self) -> str:
        return str(self.accel)


AnyAcceleration = Acceleration | AccelerationWithConfig

_ONLY_ON = {
    Acceleration.Jetson: Architecture.ARM,
    Acceleration.OpenVINO: Architecture.X86,
    Acceleration.QAIC: Architecture.X86,
    Acceleration.ROCM: Architecture.X86,
}


def check_pair(arch: Architecture, accel: AnyAcceleration) -> None:
    """Raises InvalidAccelerationError when `accel` does not exist on `arch`."""
    needed = _ONLY_ON.get(plain(accel))
    if needed is not None and arch is not needed:
        raise InvalidAccelerationError(
            f"Acceleration '{accel}' does not exist on architecture '{arch}'. Use it with '{needed}', or leave it out."
        )


def plain(accel: AnyAcceleration) -> Acceleration:
    return accel.accel if isinstance(accel, AccelerationWithConfig) else accel


def to_wire(accel: AnyAcceleration) -> str | dict[str, Any]:
    if isinstance(accel, AccelerationWithConfig):
        return {accel.accel.value: asdict(accel.config)}
    return accel.value


def from_wire(value: str | dict[str, Any] | None) -> AnyAcceleration:
    """Raises ValueError for an acceleration that this release of the SDK does not know."""
    if isinstance(value, dict):
        ((name, config),) = value.items()
        return AccelerationWithConfig(Acceleration(name), QaicConfig(**config))
    return Acceleration(value or "none")
