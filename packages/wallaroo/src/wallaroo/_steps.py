"""Steps of a pipeline, as they are edited here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wallaroo.model_version import ModelVersion


@dataclass(frozen=True)
class ModelStep:
    """Run one model on the current rows."""

    model_version: ModelVersion

    def to_json(self) -> dict[str, Any]:
        version = self.model_version
        reference = {"name": version.name(), "version": version.version(), "sha": version.sha()}
        return {"ModelInference": {"models": [reference]}}

    def __repr__(self) -> str:
        return str(self.to_json())


def model_step(model_version: ModelVersion) -> ModelStep:
    """Raises TypeError for anything that is no ModelVersion."""
    if not isinstance(model_version, ModelVersion):
        raise TypeError(f"A model step takes a ModelVersion, not a {type(model_version).__name__}. See get_model().")
    return ModelStep(model_version)
