"""Pipelines and the documents that define their versions (spec 5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bettong.errors import BadInput

if TYPE_CHECKING:
    from datetime import datetime

KNOWN_STEPS = ("ModelInference",)


@dataclass(frozen=True, slots=True)
class Pipeline:
    id: int
    name: str
    workspace_id: int
    owner_id: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class PipelineVersion:
    """A stored definition. `version` is a UUID text; `definition` is the document as it was sent."""

    id: int
    pipeline_id: int
    version: str
    definition: dict[str, Any]
    created_by: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ModelRef:
    name: str
    version: str
    sha: str


@dataclass(frozen=True, slots=True)
class ModelStep:
    """Run one model on the current rows."""

    model: ModelRef


def parse_steps(definition: dict[str, Any]) -> tuple[ModelStep, ...]:
    """The steps of a definition document, in order; () for an empty one.

    Raises:
        BadInput: the document is not of the form of spec 5.1, or names a step that this release does not run.
    """
    steps = definition.get("steps", [])
    if not isinstance(steps, list):
        raise BadInput("Pipeline definition has 'steps' that is not a list.", "Send a list of step objects.")
    return tuple(_parse_step(at, step) for at, step in enumerate(steps))


def _parse_step(at: int, step: object) -> ModelStep:
    if not isinstance(step, dict) or len(step) != 1:
        raise BadInput(
            f"Pipeline step {at} is not an object with exactly one key.", f"Its key is one of {KNOWN_STEPS}."
        )
    ((kind, body),) = step.items()
    if kind not in KNOWN_STEPS:
        raise BadInput(
            f"Pipeline step {at} is of kind '{kind}'.",
            f"This release runs {', '.join(KNOWN_STEPS)} steps with one model each.",
        )
    models = body.get("models") if isinstance(body, dict) else None
    if not isinstance(models, list) or len(models) != 1:
        found = len(models) if isinstance(models, list) else 0
        raise BadInput(f"Pipeline step {at} names {found} models.", "This release runs steps with exactly one model.")
    ref = models[0]
    if not isinstance(ref, dict) or not all(isinstance(ref.get(k), str) for k in ("name", "version", "sha")):
        raise BadInput(f"Pipeline step {at} has a model without 'name', 'version' and 'sha' texts.", "Send all three.")
    return ModelStep(ModelRef(ref["name"], ref["version"], ref["sha"]))
