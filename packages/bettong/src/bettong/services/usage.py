"""Which model versions running pipelines use."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from bettong.domain.steps import models_of, parse_steps

if TYPE_CHECKING:
    from bettong.domain.ports import DeploymentStore, PipelineStore


class ModelUsage:
    """Pipeline versions never change, so what one names is read once."""

    def __init__(self, deployments: DeploymentStore, pipelines: PipelineStore) -> None:
        self._deployments, self._pipelines = deployments, pipelines
        self._named_by = lru_cache(maxsize=4096)(self._read)

    def deployed(self) -> frozenset[str]:
        """The version UUIDs of the models of every deployment that should be running."""
        versions = [d.pipeline_version_id for d in self._deployments.wanted()]
        return frozenset().union(*(self._named_by(v) for v in versions if v is not None))

    def _read(self, pipeline_version_id: int) -> frozenset[str]:
        steps = parse_steps(self._pipelines.version(pipeline_version_id).definition)
        return frozenset(model.version for model in models_of(steps))
