"""Deployments: what is wanted, handed to a runtime, and what is told of it."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bettong.errors import BadInput, BettongError, NotFound
from bettong.services.deployment_search import DeploymentSearch
from bettong.services.deployment_specs import binding
from bettong.services.deployment_status import compose_status, log_problems
from bettong.services.engine_configs import masked, sealed
from bettong.services.text_logs import tail
from bettong.services.workspaces import scope_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettong.domain.deployments import Deployment, Observed
    from bettong.domain.identity import Principal
    from bettong.domain.models import ModelConfig, ModelVersion
    from bettong.domain.pipelines import PipelineVersion
    from bettong.domain.ports import (
        DeploymentStore,
        Keyring,
        ModelStore,
        PipelineStore,
        Runtime,
        WorkspaceStore,
    )
    from bettong.services.deployment_specs import DeploymentSpecs, Place
    from bettong.services.usage import ModelUsage

log = logging.getLogger("bettong.deployments")


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """A deployment with what answers tell beside it. `models` are in step order, each once; `port` is 0 while it is not
    known."""

    deployment: Deployment
    pipeline_name: str
    pipeline_version: PipelineVersion | None
    models: tuple[ModelVersion, ...]
    configs: tuple[ModelConfig, ...]
    workspace_names: dict[int, str]  # by id, of the models' workspaces
    in_use: frozenset[str]  # model version UUIDs that some deployment runs
    host: str
    port: int


class DeploymentService:
    """One target per deployment at a time: deploy, undeploy and the watch of one wait for each other."""

    def __init__(
        self,
        rows: DeploymentStore,
        pipelines: PipelineStore,
        models: ModelStore,
        workspaces: WorkspaceStore,
        usage: ModelUsage,
        specs: DeploymentSpecs,
        runtime: Runtime,
        keyring: Keyring,
        place: Place,
    ) -> None:
        self._rows, self._pipelines, self._models, self._workspaces = rows, pipelines, models, workspaces
        self._search, self._usage = DeploymentSearch(rows, pipelines), usage
        self._specs, self._runtime, self._keyring, self._place = specs, runtime, keyring, place
        self._locks: defaultdict[int, threading.RLock] = defaultdict(threading.RLock)
        self._locks_guard = threading.Lock()
        self._log_problems: list[str] = []
        self._faults: dict[int, str] = {}  # why the last try to start a deployment failed, by its id

    # --- deploy and undeploy ----------------------------------------------------------------------------------------

    def deploy(
        self,
        principal: Principal,
        name: str,
        engine_config: dict[str, Any] | None = None,
        *,
        pipeline_version_id: int | None = None,
        pipeline_version: str | None = None,
        pipeline_id: int | None = None,
    ) -> tuple[Deployment, PipelineVersion]:
        """Ask for a pipeline version to run. It is under way when this returns; `status` tells when it serves.

        The version is the one given by id or UUID, else the newest of the pipeline given by id, else of the one
        pipeline of that name that the caller may see.

        Raises:
            NotFound: no such pipeline or version for this caller.
            BadInput: it has no steps, a model of it is not ready or for other machines, or the config does not hold.
            Unavailable: the runtime could not take it; nothing new was started.
        """
        pipeline, version = self._search.version(principal, name, pipeline_version_id, pipeline_version, pipeline_id)
        if name != pipeline.name:
            raise BadInput(
                f"Pipeline '{pipeline.name}' was asked to be deployed under another name.",
                "This release deploys each pipeline under its own name; leave pipeline_name out.",
            )
        config = engine_config or {}
        self._specs.check(pipeline.name, version, config)
        with self._lock(pipeline.id):
            before = self._rows.of_pipeline(pipeline.id)
            kept = sealed(config, before.engine_config if before else {}, self._keyring, binding(pipeline.id))
            row = self._rows.target(pipeline.id, name, pipeline.workspace_id, version.id, kept)
            self._pipelines.touch(pipeline.id)
            try:
                row = self._start(row)
            except Exception:
                if before is None or not before.deployed:
                    self._rows.set_undeployed(row.id)
                raise
        return row, version

    def undeploy(
        self, principal: Principal, *, pipeline_id: int | None = None, deployment_id: int | None = None
    ) -> None:
        """Stop a deployment; nothing of it runs when this returns. Harmless when nothing does.

        Raises:
            NotFound: no such pipeline or deployment for this caller.
        """
        if deployment_id is not None:
            row: Deployment | None = self._search.by_id(principal, deployment_id)
        elif pipeline_id is not None:
            row = self._rows.of_pipeline(self._search.pipeline(principal, pipeline_id).id)
        else:
            raise BadInput("Neither 'pipeline_id' nor 'deployment_id' was given.", "Send one of them.")
        if row is None:
            return
        with self._lock(row.pipeline_id):
            self._rows.set_undeployed(row.id)  # first: a server killed here stops it when it is back
            self._runtime.undeploy(row.id, row.label)
            self._faults.pop(row.id, None)
            self._pipelines.touch(row.pipeline_id)

    # --- keeping what is wanted -------------------------------------------------------------------------------------

    def recover(self) -> list[str]:
        """What a starting server does: stop what is not wanted any more, start what is and does not run.

        Returns the labels that were started. A deployment that does not start is logged and told by its status.
        """
        for row in self._rows.all(None):
            if not row.deployed:
                self._stop_leftover(row)
        return self.watch()

    def watch(self) -> list[str]:
        """Start again, on its old port, every wanted deployment of which nothing runs; the labels started."""
        started: list[str] = []
        told: dict[str, list[str]] = {}
        for row in self._rows.wanted():
            with self._lock(row.pipeline_id):
                current = self._rows.get(row.id)  # it may have been undeployed while we waited
                observed = self._observe(current) if current.deployed else None
                told[current.label] = log_problems(observed)
                if not current.deployed or observed is not None:
                    continue
                try:
                    self._start(current)
                except Exception as fault:
                    expected = isinstance(fault, BettongError)
                    log.warning("restart_failed deployment=%s", current.label, exc_info=None if expected else fault)
                    continue
                log.warning("restarted deployment=%s generation=%d", current.label, current.generation)
                started.append(current.label)
        self._log_problems = [f"{label}: {problem}" for label, problems in told.items() for problem in problems]
        return started

    def log_problems(self) -> list[str]:
        """What was wrong with inference logs when they were last watched, in words."""
        return list(self._log_problems)

    # --- reading ----------------------------------------------------------------------------------------------------

    def get(self, principal: Principal, deployment_id: int) -> DeploymentFacts:
        """Raises NotFound."""
        return self.facts(self._search.by_id(principal, deployment_id))

    def named(self, principal: Principal, name: str, workspace_id: int | None = None) -> DeploymentFacts:
        """The newest deployment of that name that the caller may see. Raises NotFound."""
        return self.facts(self._search.newest_named(principal, name, workspace_id))

    def all(self, principal: Principal) -> list[DeploymentFacts]:
        """All that the caller may see."""
        return [self.facts(row) for row in self._rows.all(scope_of(principal))]

    def running(self, principal: Principal) -> int:
        """How many deployments that the caller may see should be running."""
        return sum(principal.may_see(row.workspace_id) for row in self._rows.wanted())

    def labelled(self, principal: Principal, label: str) -> DeploymentFacts:
        """The deployment called `{name}-{id}`. Raises NotFound also when it is not deployed."""
        row = self._search.by_label(principal, label)
        if not row.deployed:
            raise NotFound(f"Deployment {label} is not deployed.", "Deploy its pipeline first.")
        return self.facts(row)

    def status(self, principal: Principal, label: str) -> dict[str, Any]:
        """How it really is, by live probes, in the form of spec 6.3 with a `target`. Raises NotFound as above."""
        facts = self.labelled(principal, label)
        row, observed = facts.deployment, self._observe(facts.deployment)
        if observed is not None and observed.port and observed.port != row.port:
            self._rows.set_port(row.id, observed.port)
        models = {facts.pipeline_version.version: facts.models} if facts.pipeline_version else {}
        for replica in observed.replicas if observed else ():
            if replica.pipeline_version not in models:
                old = self._pipelines.version_by_uuid(replica.pipeline_version)
                models[replica.pipeline_version] = self._specs.models_of(old)
        return compose_status(facts, observed, models, self._faults.get(row.id))

    def of_pipeline(self, principal: Principal, workspace_id: int, pipeline_name: str) -> DeploymentFacts:
        """The deployment of a pipeline by name. Raises NotFound, also before its first deployment."""
        pipeline = self._pipelines.by_name(workspace_id, pipeline_name) if principal.may_see(workspace_id) else None
        row = None if pipeline is None else self._rows.of_pipeline(pipeline.id)
        if row is None:
            raise NotFound(f"Pipeline {pipeline_name} is not deployed.", "Deploy it first.")
        return self.facts(row)

    def facts(self, row: Deployment) -> DeploymentFacts:
        """What answers tell of a row. Rights are the caller's of this method to check."""
        version = None if row.pipeline_version_id is None else self._pipelines.version(row.pipeline_version_id)
        models = self._specs.models_of(version)
        configs = self._models.configs([m.id for m in models])
        return DeploymentFacts(
            deployment=replace(row, engine_config=masked(row.engine_config)),
            pipeline_name=self._pipelines.get(row.pipeline_id).name,
            pipeline_version=version,
            models=models,
            configs=tuple(configs[m.id] for m in models),
            workspace_names={i: self._workspaces.get(i).name for i in {m.workspace_id for m in models}},
            in_use=self._usage.deployed() if models else frozenset(),
            host=self._place.settings.host,
            port=row.port if row.deployed else 0,
        )

    def worker_log(self, principal: Principal, workspace_id: int, pipeline: str, worker: str, limit: int) -> list[str]:
        """The last lines that a model worker printed. `worker` is a name that the status tells, or a model's uid.

        Raises:
            NotFound: no such deployment for this caller, or it has no such worker.
        """
        facts = self.of_pipeline(principal, workspace_id, pipeline)
        named = {m.uid: m for m in facts.models}
        uid = next((u for u in named if worker == u or worker.startswith(f"engine-sidekick-{u}-")), None)
        if uid is None:  # names of files come from our own rows alone
            raise NotFound(
                f"Pipeline {pipeline} has no model worker of that name.", f"Its workers are those of {sorted(named)}."
            )
        return tail(self._place.deployments_folder / facts.deployment.label / f"{uid}.log", limit)

    # --- helpers ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _lock(self, pipeline_id: int) -> Iterator[None]:
        with self._locks_guard:
            lock = self._locks[pipeline_id]
        with lock:
            yield

    def _start(self, row: Deployment) -> Deployment:
        """Hand a row to the runtime; the row with the port that it has now. The caller holds its lock."""
        try:
            self._runtime.deploy(self._specs.of(row))
            observed = self._observe(row)
        except Exception as fault:
            self._faults[row.id] = str(fault) if isinstance(fault, BettongError) else "an error inside the platform"
            raise
        self._faults.pop(row.id, None)
        if observed is not None and observed.port and observed.port != row.port:
            self._rows.set_port(row.id, observed.port)
            return self._rows.get(row.id)
        return row

    def _stop_leftover(self, row: Deployment) -> None:
        try:
            if self._observe(row) is not None:
                self._runtime.undeploy(row.id, row.label)
                log.warning("stopped_leftover deployment=%s", row.label)
        except BettongError as fault:
            log.warning("stop_failed deployment=%s reason=%s", row.label, fault)

    def _observe(self, row: Deployment) -> Observed | None:
        return self._runtime.observe(row.id, row.label)
