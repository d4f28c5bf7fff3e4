"""Deployments of jobs: each job has one of its own, which logs nothing and takes requests of nobody else."""

from __future__ import annotations

import logging
import os
import re
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bettong.domain.deployments import Deployment
from bettong.domain.identity import Principal
from bettong.domain.models import grows_by_processes
from bettong.errors import BettongError, ModelFailed
from bettong.services.deployment_status import healthy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from pathlib import Path
    from typing import Protocol

    from bettong.domain.deployments import DeploymentSpec
    from bettong.domain.jobs import Job
    from bettong.domain.ports import DeploymentStore, PipelineStore, Runtime
    from bettong.services.deployment_specs import DeploymentSpecs

    class TokensFor(Protocol):
        def mint(self, principal: Principal, now: datetime, *, audience: str) -> str: ...


log = logging.getLogger("bettong.jobs")

LOOPBACK = "127.0.0.1"
REQUEST_TIMEOUT_S = 600.0  # a batch of a slow model; nobody waits at a screen
DRAIN_S = 5.0
_LABEL = re.compile(r"job-[0-9a-f]{8}")
_GENERATION = 1


@dataclass(frozen=True, slots=True)
class Serving:
    """Where a job's deployment answers, and to how many requests at once."""

    url: str
    lanes: int


class PrivateDeployments:
    """They are no rows of the database: what runs is asked of the runtime, and what should run follows from the jobs.

    Args:
        folder: the runtime's, which has a folder for each label.
        tokens: makes access tokens; those of a job have an audience of their own, which its deployment alone takes.
    """

    def __init__(
        self,
        specs: DeploymentSpecs,
        rows: DeploymentStore,
        pipelines: PipelineStore,
        runtime: Runtime,
        tokens: TokensFor,
        folder: Path,
        clock: Callable[[], datetime],
    ) -> None:
        self._specs, self._rows, self._pipelines, self._runtime = specs, rows, pipelines, runtime
        self._tokens, self._folder, self._clock = tokens, folder, clock

    def start(self, job: Job) -> None:
        """Bring it up, unless it is: one that survived its server goes on. It is under way when this returns.

        Raises:
            NotFound: the pipeline, its version or a model of it is gone.
            BadInput: the pipeline's deployment config does not hold.
            Unavailable: the runtime could not take it.
        """
        self._runtime.deploy(self._spec(job))

    def serving(self, job: Job) -> Serving | None:
        """Where it serves; None while it does not yet, or not any more.

        Raises:
            ModelFailed: it will not: why it does not load is said.
            Unavailable: its host does not answer.
        """
        observed = self._runtime.observe(0, label_of(job.id))
        if observed is None:
            return None
        if not observed.serving and observed.error:
            raise ModelFailed(
                f"The pipeline version does not load: {observed.error}",
                "Deploy it to see more, then make the job anew.",
            )
        if not observed.serving or not healthy(observed):
            return None
        spec = self._spec(job)
        return Serving(f"http://{LOOPBACK}:{observed.port}/pipelines/{spec.name}", _lanes(spec))

    def token(self, job: Job) -> str:
        """A fresh access token for the job, good for 60 s at its deployment and nowhere else."""
        caller = Principal(job.created_by, "", False, frozenset({job.workspace_id}))
        return self._tokens.mint(caller, self._clock(), audience=_audience(job.id))

    def stop(self, job_id: str) -> None:
        """Nothing of it runs, and nothing of it is on disk, when this returns. No error when nothing was."""
        self._remove(label_of(job_id))

    def stop_leftovers(self, unended: Iterable[str]) -> list[str]:
        """Stop those of jobs that are not among these ids; their labels. One that does not stop is logged."""
        wanted = {label_of(job_id) for job_id in unended}
        stopped = []
        folders = self._folder.iterdir() if self._folder.is_dir() else ()
        for label in sorted(each.name for each in folders if _LABEL.fullmatch(each.name)):
            if label in wanted:
                continue
            try:
                self._remove(label)
            except BettongError as fault:
                log.warning("stop_failed deployment=%s reason=%s", label, fault)
            else:
                stopped.append(label)
        return stopped

    def _remove(self, label: str) -> None:
        self._runtime.undeploy(0, label)
        shutil.rmtree(self._folder / label, ignore_errors=True)

    def _spec(self, job: Job) -> DeploymentSpec:
        """The version that the job names, as the pipeline's own deployment runs it, out of everybody's reach."""
        pipeline = self._pipelines.get(job.request["pipeline_id"])
        version = self._pipelines.version_by_uuid(job.request["pipeline_version"])
        row = self._rows.of_pipeline(pipeline.id)
        made_up = Deployment(
            id=0,
            pipeline_id=pipeline.id,
            name=pipeline.name,
            workspace_id=pipeline.workspace_id,
            deployed=True,
            generation=_GENERATION,
            pipeline_version_id=None if version is None else version.id,
            engine_config={} if row is None else row.engine_config,
            port=0,
            created_at=job.created_at,
            updated_at=job.created_at,
        )
        return replace(
            self._specs.of(made_up),
            known_as=label_of(job.id),
            audience=_audience(job.id),
            log_folder="",
            host=LOOPBACK,
            hosts=(),
            request_timeout_s=REQUEST_TIMEOUT_S,
            linger_s=0.0,
            drain_s=DRAIN_S,
        )


def label_of(job_id: str) -> str:
    return f"job-{job_id.replace('-', '')[:8]}"


def _audience(job_id: str) -> str:
    return f"bettong-job/{job_id}"


def _lanes(spec: DeploymentSpec) -> int:
    """How many requests are worked on at once: one per replica, or per worker where a model has several."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = [m.cpus or spec.threads for m in spec.models if grows_by_processes(m.framework)]
    workers = max(1, min(min(asked, default=1), cores // spec.replicas))
    return spec.replicas * workers
