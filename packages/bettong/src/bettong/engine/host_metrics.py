"""What a deployment has counted since its host began: by its living replicas, and by those that are gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bettong.domain.metrics import Counted, DeploymentMetrics, ReplicaMetrics

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from bettong.engine.host_replica import ReplicaHandle


class HostMetrics:
    """The counters of replicas that ended are kept, so that no sum ever gets smaller."""

    def __init__(self, label: str, pipeline: str) -> None:
        self._label, self._pipeline = label, pipeline
        self._since = datetime.now(UTC)
        self._gone = Counted()
        self._restarts = 0

    def on_exit(self, handle: ReplicaHandle, *, told: bool) -> None:
        """Keep what a replica that is gone has counted, however it ended; `told` is whether it had been asked to."""
        counted, _ = handle.counters.read()
        self._gone += counted
        self._restarts += not told

    def forget_steps(self, but: Collection[str]) -> None:
        """Drop the steps that no deployment file has any more: others come with every new model, for years."""
        self._gone = replace(
            self._gone,
            steps={name: each for name, each in self._gone.steps.items() if name in but},
            worker_restarts={name: n for name, n in self._gone.worker_restarts.items() if name in but},
        )

    def now(self, handles: Iterable[ReplicaHandle]) -> DeploymentMetrics:
        """Everything, `handles` being the living replicas."""
        replicas = []
        total = self._gone
        for handle in handles:
            counted, gauges = handle.counters.read()
            total += counted
            replicas.append(ReplicaMetrics(handle.name, handle.pid, gauges.in_flight, gauges.waiting, counted))
        return DeploymentMetrics(
            self._label, self._pipeline, self._since, datetime.now(UTC), self._restarts, total, tuple(replicas)
        )
