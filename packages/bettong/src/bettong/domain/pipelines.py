"""Pipelines and their versions. What a definition says is read in domain/steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime


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
