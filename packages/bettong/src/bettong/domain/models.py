"""Models, their versions, and what is known of how to run them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from bettong.domain.batching import DynamicBatching


class Framework(StrEnum):
    """Frameworks this release can run. Later ones are added here, in `packaging.frameworks` and in `mac._loaders`."""

    ONNX = "onnx"
    PYTHON = "python"
    SKLEARN = "sklearn"
    XGBOOST = "xgboost"
    CUSTOM = "custom"
    MLFLOW = "mlflow"


ZIPS_ONLY = frozenset({Framework.PYTHON, Framework.CUSTOM, Framework.MLFLOW})
TRIED_AS_NATIVE = frozenset({Framework.SKLEARN, Framework.XGBOOST})


def is_native(framework: str) -> bool:
    """Whether models of this framework run in the replica itself: no environment, no worker, no image."""
    return framework == Framework.ONNX


def grows_by_processes(framework: str) -> bool:
    """Whether more CPUs for a model of this framework mean more worker processes, of one thread each.

    A Python step is as a rule held by the interpreter's lock. The libraries behind other frameworks have threads of
    their own, and their models are too large to be loaded several times unasked: theirs get one process, more threads.
    """
    return framework == Framework.PYTHON


def comes_as_zip(framework: str) -> bool:
    """Whether an upload of this framework has to be a zip; others may be single files."""
    return framework in ZIPS_ONLY


def first_status(framework: str) -> ModelStatus:
    """What a new version waits for (spec 4.5). Some frameworks pass through the statuses of native loading although
    nothing of them loads there in this release: people's scripts know them."""
    if is_native(framework) or framework in TRIED_AS_NATIVE:
        return ModelStatus.PENDING_LOAD_NATIVE
    return ModelStatus.PENDING_LOAD_CONTAINER


def default_runtime(framework: str) -> str:
    """The `runtime` of a new version's first config (spec 1.5): what runs outside the replica is "flight"."""
    return framework if framework in ("onnx", "tensorflow", "mlflow") else "flight"


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
    framework_config: Mapping[str, Any] = field(default_factory=dict)


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
    framework_config: Mapping[str, Any] = field(default_factory=dict)  # {"model_path": "./model/"}: for its loader

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
    dynamic_batching: DynamicBatching | None = None
