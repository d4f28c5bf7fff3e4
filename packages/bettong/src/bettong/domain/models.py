"""Models, their versions, and what is known of how to run them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class Framework(StrEnum):
    """Frameworks this release can run. Later ones are added here and in `packaging`."""

    ONNX = "onnx"
    PYTHON = "python"


def is_native(framework: str) -> bool:
    """Whether models of this framework run in the replica itself: no environment, no worker, no image."""
    return framework == Framework.ONNX


def default_runtime(framework: str) -> str:
    """The `runtime` of a new version's first config (spec 1.5): what runs outside the replica is "flight"."""
    return framework if framework in ("onnx", "tensorflow") else "flight"


class ModelStatus(StrEnum):
    UPLOADING = "uploading"
    PENDING_LOAD_NATIVE = "pending_load_native"
    ATTEMPTING_LOAD_NATIVE = "attempting_load_native"
    PENDING_LOAD_CONTAINER = "pending_load_container"
    ATTEMPTING_LOAD_CONTAINER = "attempting_load_container"
    READY = "ready"
    ERROR = "error"

    @property
    def terminal(self) -> bool:
        return self in (ModelStatus.READY, ModelStatus.ERROR)


@dataclass(frozen=True, slots=True)
class Model:
    """The family of versions under one name in one workspace."""

    id: int
    name: str
    workspace_id: int
    owner_id: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewModelVersion:
    """What an upload says about itself. Schemas are serialised Arrow schemas."""

    name: str
    workspace_id: int
    visibility: str
    framework: str
    python_version: str
    requirements: tuple[str, ...]
    arch: str
    accel: str
    file_name: str
    file_size: int
    sha: str
    input_schema: bytes | None
    output_schema: bytes | None


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One uploaded file. `version` is a UUID text, `sha` the SHA-256 of the uploaded bytes.

    `environment` is the folder name of the built environment, None until there is one. `image_path` names the
    runtime of models that run in an environment of their own (spec 1.4); None for native ones.
    """

    id: int
    model_id: int
    name: str
    workspace_id: int
    version: str
    visibility: str
    status: ModelStatus
    error_summary: str | None
    framework: str
    python_version: str
    requirements: tuple[str, ...]
    arch: str
    accel: str
    file_name: str
    file_size: int
    sha: str
    image_path: str | None
    environment: str | None
    created_by: str
    created_at: datetime
    updated_at: datetime

    @property
    def uid(self) -> str:
        """The key of this version in deployment configs and logs."""
        return f"{self.name}-{self.id}"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """How a version is run; the newest one of a version counts. Schemas are serialised Arrow schemas."""

    id: int
    model_version_id: int
    runtime: str
    tensor_fields: tuple[str, ...] | None = None
    filter_threshold: float | None = None
    input_schema: bytes | None = None
    output_schema: bytes | None = None
    batch_config: str | None = None
