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
    PYTORCH = "pytorch"
    KERAS = "keras"
    TENSORFLOW = "tensorflow"
    HUGGING_FACE_AUTOMATIC_SPEECH_RECOGNITION = "hugging-face-automatic-speech-recognition"
    HUGGING_FACE_FEATURE_EXTRACTION = "hugging-face-feature-extraction"
    HUGGING_FACE_IMAGE_CLASSIFICATION = "hugging-face-image-classification"
    HUGGING_FACE_IMAGE_SEGMENTATION = "hugging-face-image-segmentation"
    HUGGING_FACE_IMAGE_TO_TEXT = "hugging-face-image-to-text"
    HUGGING_FACE_OBJECT_DETECTION = "hugging-face-object-detection"
    HUGGING_FACE_QUESTION_ANSWERING = "hugging-face-question-answering"
    HUGGING_FACE_SENTIMENT_ANALYSIS = "hugging-face-sentiment-analysis"
    HUGGING_FACE_STABLE_DIFFUSION_TEXT_2_IMG = "hugging-face-stable-diffusion-text-2-img"
    HUGGING_FACE_SUMMARIZATION = "hugging-face-summarization"
    HUGGING_FACE_TEXT_CLASSIFICATION = "hugging-face-text-classification"
    HUGGING_FACE_TEXT_GENERATION = "hugging-face-text-generation"
    HUGGING_FACE_TRANSLATION = "hugging-face-translation"
    HUGGING_FACE_ZERO_SHOT_CLASSIFICATION = "hugging-face-zero-shot-classification"
    HUGGING_FACE_ZERO_SHOT_IMAGE_CLASSIFICATION = "hugging-face-zero-shot-image-classification"
    HUGGING_FACE_ZERO_SHOT_OBJECT_DETECTION = "hugging-face-zero-shot-object-detection"


ZIPS_ONLY = frozenset({Framework.PYTHON, Framework.CUSTOM, Framework.MLFLOW, Framework.TENSORFLOW}) | {
    framework for framework in Framework if framework.startswith("hugging-face-")
}
TRIED_AS_NATIVE = frozenset({Framework.SKLEARN, Framework.XGBOOST, Framework.PYTORCH, Framework.KERAS})


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


def says_its_schemas(framework: str) -> bool:
    """Whether a file of this framework tells what it takes and gives, so that an upload can leave the schemas out."""
    return framework in (Framework.ONNX, Framework.TENSORFLOW)


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
