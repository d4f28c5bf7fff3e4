"""Jobs: made after every check that can be made beforehand, looked at, cancelled, and equipped when they are run.

A job belongs to the workspace of its pipeline: whoever sees that sees the job, and may cancel it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bettong.domain.jobs import Job, JobKind, JobState
from bettong.domain.near_names import shown
from bettong.errors import BadInput, Forbidden, NotFound
from bettong.services.batch_orders import batch_order
from bettong.services.deployment_search import DeploymentSearch
from bettong.services.job_files import rows_of
from bettong.services.job_orders import ROLES, Ground
from bettong.services.replays import replay_order, version_to_replay
from bettong.services.stream_orders import shared_with, stream_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    import pyarrow as pa

    from bettong.domain.connections import Connection
    from bettong.domain.drivers import DriverInfo
    from bettong.domain.identity import Principal
    from bettong.domain.jobs import JobLine
    from bettong.domain.pipelines import Pipeline, PipelineVersion
    from bettong.domain.ports import DeploymentStore, JobStore, PipelineStore
    from bettong.services.connection_use import ConnectionUse
    from bettong.services.connections import ConnectionService
    from bettong.services.deployment_specs import DeploymentSpecs
    from bettong.services.identity import IdentityService
    from bettong.services.job_orders import OrderOf
    from bettong.services.logs import LogService
    from bettong.services.workspaces import WorkspaceService

USED = "connection.job"  # what the audit calls it
MOST_LISTED = 1000
ORDERS: Mapping[JobKind, OrderOf] = {
    JobKind.INFER_BATCH: batch_order,
    JobKind.INFER_STREAM: stream_order,
    JobKind.REPLAY: replay_order,
}


class JobService:
    """`folder` has a folder per job; `wake` tells whoever runs jobs that there is something new."""

    def __init__(
        self,
        jobs: JobStore,
        workspaces: WorkspaceService,
        pipelines: PipelineStore,
        deployments: DeploymentStore,
        specs: DeploymentSpecs,
        connections: ConnectionService,
        connection_use: ConnectionUse,
        logs: LogService,
        identity: IdentityService,
        folder: Path,
        clock: Callable[[], datetime],
        *,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._jobs, self._workspaces = jobs, workspaces
        self._pipelines, self._deployments, self._specs = pipelines, deployments, specs
        self._connections, self._use, self._logs, self._identity = connections, connection_use, logs, identity
        self._search = DeploymentSearch(deployments, pipelines)
        self._folder, self._clock, self._wake = folder, clock, wake

    # --- for people -------------------------------------------------------------------------------------------------

    def make(self, principal: Principal, kind: JobKind, asked: Mapping[str, Any]) -> Job:
        """A new job, which runs as soon as there is room. Each connection's use is audited.

        Without a `pipeline_version` it is the deployed one, or the newest where none is; for a replay the newest that
        is not the deployed one.

        Raises:
            NotFound: there is no such pipeline, version or connection for the caller.
            BadInput: a model of the version is not ready, a connection's driver lacks what is needed, or the request
                is otherwise none that can be done.
        """
        pipeline, version = self._version(principal, kind, asked)
        row = self._deployments.of_pipeline(pipeline.id)
        self._specs.check(pipeline.name, version, {} if row is None else row.engine_config)
        named = {role: self._connection(principal, asked, role) for role in ROLES if asked.get(role) is not None}
        job_id = str(uuid4())
        ground = Ground(
            principal,
            job_id,
            pipeline,
            version,
            {role: self._driver(role, connection) for role, connection in named.items()},
            self._specs,
            self._logs,
        )
        order = ORDERS[kind]({**asked, "pipeline_id": pipeline.id, "pipeline_version": version.version}, ground)
        warning = self._shared(principal, order.request["source"]) if kind is JobKind.INFER_STREAM else ""
        told = {"pipeline_name": pipeline.name, "guarantee": order.guarantee, "warning": warning}
        job = Job(
            id=job_id,
            kind=kind,
            workspace_id=pipeline.workspace_id,
            created_by=principal.user_id,
            request={**order.request, **told},
            state=JobState.PENDING,
            created_at=self._clock(),
            connection_ids=tuple(dict.fromkeys(connection.id for connection in named.values())),
        )
        for role, connection in named.items():
            self._connections.record(principal, USED, connection, f"{kind} job {job_id} was made, with it as {role}")
        self._jobs.add(job)
        if warning:
            self._jobs.append_log(job.id, [f"Warning: {warning}"])
        self._wake()
        return job

    def get(self, principal: Principal, job_id: str) -> Job:
        """Raises NotFound."""
        try:
            job = self._jobs.get(job_id)
        except NotFound:
            job = None
        if job is None or not principal.may_see(job.workspace_id):
            raise NotFound(
                f"There is no job {shown(job_id)} that you may see.", "List the jobs to see which there are."
            )
        return job

    def all(
        self,
        principal: Principal,
        workspace_id: int | None = None,
        *,
        kinds: frozenset[JobKind] | None = None,
        unended: bool = False,
        limit: int = 100,
        after: str | None = None,
    ) -> tuple[list[Job], bool]:
        """Of one workspace, or all that the caller may see, newest first: at most `limit`, from behind the one with the
        id `after`; and whether there are more.

        Raises:
            NotFound: the caller may not see the workspace, or the job `after`.
        """
        scope = self._workspaces.scope(principal, workspace_id, None)
        most = min(limit, MOST_LISTED)
        found = self._jobs.all(scope, kinds=kinds, unended=unended, limit=most + 1, after=after)
        return found[:most], len(found) > most

    def cancel(self, principal: Principal, job_id: str) -> Job:
        """Ask a job to end; one that ended stays as it is. Raises NotFound."""
        asked = self._jobs.ask_cancel(self.get(principal, job_id).id)
        self._wake()
        return asked

    def log(self, principal: Principal, job_id: str, *, after: int = 0, limit: int | None = None) -> list[JobLine]:
        """The last lines of those behind `after`, oldest first. Raises NotFound."""
        return self._jobs.log(self.get(principal, job_id).id, after=after, limit=limit)

    def rows(self, principal: Principal, job_id: str, what: str) -> AbstractContextManager[pa.RecordBatchReader]:
        """What the job has left so far as its `what`, rejects or result. Raises NotFound, also of rows that are
        kept no longer."""
        return rows_of(self._folder / self.get(principal, job_id).id, what)

    # --- for who runs it --------------------------------------------------------------------------------------------

    def standing(self, job: Job) -> Principal:
        """Whoever made the job, with the rights of now, which suffice for it. Cheap: it is asked while the job runs.

        Raises:
            Forbidden: that person is deactivated or gone, or no longer sees the workspace.
            NotFound: a connection is gone, or out of that person's sight.
        """
        principal = self._identity.acting_for(job.created_by, "job")
        if not principal.may_see(job.workspace_id):
            raise Forbidden(
                f"{principal.email}, with whose rights this job runs, is no longer a member of its workspace.",
                "Have a member make it anew.",
            )
        for role, end in _ends(job):
            try:
                self._connections.get_by_id(principal, end["connection_id"])
            except NotFound:
                raise NotFound(
                    f"The connection that this job has as its {role} was deleted, or is no longer linked to a "
                    f"workspace of {principal.email}, with whose rights the job runs.",
                    "Link it again, or make the job anew with another one.",
                ) from None
        return principal

    def equipment(self, job: Job) -> dict[str, tuple[str, dict[str, Any]]]:
        """Type and details of the connections that the job uses, by role; they go to its process and nowhere else.

        It has the rights that who made it has now. Each use is audited.

        Raises:
            Forbidden, NotFound: as `standing`.
            Unavailable: no key opens a connection's details.
        """
        principal = self.standing(job)
        opened = {}
        for role, end in _ends(job):
            purpose = f"{job.kind} job {job.id} runs, with it as {role} (attempt {job.attempts})"
            opened[role] = self._use.opened(principal, end["connection_id"], USED, purpose)
        return opened

    def titles(self, job: Job) -> dict[str, str]:
        """The names of the connections that it uses, by role, such as "REDIS 'broker'". Raises as `standing`."""
        principal = self.standing(job)
        used = {role: self._connections.get_by_id(principal, end["connection_id"]) for role, end in _ends(job)}
        return {role: f"{connection.type} '{connection.name}'" for role, connection in used.items()}

    def model_versions(self, job: Job) -> str:
        """The versions of the models of the job's pipeline version, in step order, separated by commas."""
        version = self._pipelines.version_by_uuid(job.request["pipeline_version"])
        return ",".join(model.version for model in self._specs.models_of(version))

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _version(
        self, principal: Principal, kind: JobKind, asked: Mapping[str, Any]
    ) -> tuple[Pipeline, PipelineVersion]:
        pipeline = self._search.pipeline(principal, asked["pipeline_id"])
        row = self._deployments.of_pipeline(pipeline.id)
        named = asked.get("pipeline_version")
        if kind is JobKind.REPLAY and named is None:
            deployed_id = None if row is None else row.pipeline_version_id
            return pipeline, version_to_replay(pipeline, self._pipelines.versions([pipeline.id]), deployed_id)
        deployed = row.pipeline_version_id if row is not None and row.deployed and named is None else None
        return self._search.version(principal, pipeline.name, deployed, named, pipeline.id)

    def _shared(self, principal: Principal, source: Mapping[str, Any]) -> str:
        """What to tell of other streams of this source, as far as the caller may see them."""
        scope, kinds = self._workspaces.scope(principal, None, None), frozenset({JobKind.INFER_STREAM})
        others = self._jobs.all(scope, kinds=kinds, unended=True, connection_id=source["connection_id"])
        return shared_with(source, others)

    def _connection(self, principal: Principal, asked: Mapping[str, Any], role: str) -> Connection:
        end = asked[role]
        connection_id = end.get("connection_id") if isinstance(end, dict) else None
        if not isinstance(connection_id, str):
            raise BadInput(f"The request's '{role}' names no connection.", "Send its 'connection_id'.")
        return self._connections.get_by_id(principal, connection_id)

    def _driver(self, role: str, connection: Connection) -> DriverInfo:
        driver = self._use.driver(connection.type)
        if driver is None:
            raise BadInput(
                f"The {role} is a connection of type {connection.type}, which is stored only: no driver knows it.",
                "Name one of a type that the platform can use: wl.drivers() lists them.",
            )
        if not driver.installed:
            raise BadInput(
                f"The {role} is a connection of type {connection.type}, whose libraries are not installed.",
                f'Have the operator run: pip install "bettong[{driver.extra}]"',
            )
        return driver


def _ends(job: Job) -> list[tuple[str, Mapping[str, Any]]]:
    """What a job reads and writes, by role."""
    return [(role, job.request[role]) for role in ROLES if job.request.get(role) is not None]
