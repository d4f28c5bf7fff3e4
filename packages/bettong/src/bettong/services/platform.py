"""All use cases of one platform, and the facts of the running server. Built by compose, used by the floors above."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bettong.settings import LogRules

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.services.connection_use import ConnectionUse
    from bettong.services.connection_versions import ConnectionVersions
    from bettong.services.connections import ConnectionService
    from bettong.services.deployments import DeploymentService
    from bettong.services.identity import IdentityService
    from bettong.services.jobs import JobService
    from bettong.services.key_rotation import KeyRotation
    from bettong.services.log_queries import LogQueryService
    from bettong.services.logs import LogService
    from bettong.services.metrics import MetricsService
    from bettong.services.models import ModelService
    from bettong.services.pipelines import PipelineService
    from bettong.services.workspaces import WorkspaceService


@dataclass(frozen=True, slots=True)
class Services:
    identity: IdentityService
    workspaces: WorkspaceService
    connections: ConnectionService
    connection_use: ConnectionUse
    connection_versions: ConnectionVersions
    key_rotation: KeyRotation
    models: ModelService
    pipelines: PipelineService
    deployments: DeploymentService
    logs: LogService
    log_queries: LogQueryService
    metrics: MetricsService
    jobs: JobService


@dataclass(frozen=True, slots=True)
class PlatformFacts:
    """What a running server tells of itself.

    `instance` is a UUID made at each start, `started_at` ISO-8601, `arch` "x86" or "arm"; `sandbox` says in words what
    holds model code. `warnings` are computed when asked; `stop(keep_deployments)` makes the server end soon.
    """

    version: str
    instance: str
    url: str
    home: str
    started_at: str
    arch: str
    stop: Callable[[bool], None]
    features: tuple[str, ...] = ()
    sandbox: str = ""
    log: LogRules = field(default_factory=LogRules)
    warnings: Callable[[], list[str]] = field(default=list)
