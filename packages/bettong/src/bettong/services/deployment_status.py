"""From what was observed to what status() tells (spec 6.3). No I/O: the probe was made by the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bettong.domain.deployments import State, as_one

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bettong.domain.deployments import Observed, ObservedReplica, ObservedWorker
    from bettong.domain.models import ModelVersion
    from bettong.services.deployments import DeploymentFacts

_MODEL_WORDS = {State.RUNNING: "Running", State.FAILED: "Error", State.PENDING: "Loading", State.UNKNOWN: "Unknown"}


def compose_status(
    facts: DeploymentFacts,
    observed: Observed | None,
    models: Mapping[str, Sequence[ModelVersion]],
    fault: str | None,
) -> dict[str, Any]:
    """The status document.

    Args:
        observed: by a probe just now; None when nothing of the deployment runs.
        models: per pipeline version UUID that a replica runs, the models of its steps.
        fault: why the last try to start it failed, None when it did not.
    """
    row = facts.deployment
    serving = observed is not None and observed.serving == row.generation and healthy(observed)
    reason = fault or (observed.error if observed else None)
    if observed is None and reason is None:
        reason = "The host process of this deployment does not answer; it is started again."
    replicas = observed.replicas if observed else ()
    return {
        "status": top_status(observed, row.generation, fault),
        "details": [*([reason] if reason else []), *log_problems(observed)],
        "engines": [_engine(r, facts, observed, models.get(r.pipeline_version, ())) for r in replicas],
        "engine_lbs": [_host(observed, row.label)] if observed else [],
        "sidekicks": [_sidekick(w, observed) for r in replicas for w in r.workers if not w.native] if observed else [],
        "target": {
            "generation": row.generation,
            "pipeline_version": facts.pipeline_version.version if facts.pipeline_version else None,
            "serving": serving,
            "error": None if serving else reason,
        },
    }


def log_problems(observed: Observed | None) -> list[str]:
    """What is wrong with the inference logs of its replicas, in words."""
    return [f"{r.name}: {r.log_problem}" for r in observed.replicas if r.log_problem] if observed else []


def healthy(observed: Observed) -> bool:
    """Every replica of the serving generation answers, and so does every worker of each."""
    serving = [r for r in observed.replicas if r.generation == observed.serving and not r.draining]
    return bool(serving) and all(
        r.state is State.RUNNING and all(w.state is State.RUNNING for w in r.workers) for r in serving
    )


def top_status(observed: Observed | None, generation: int, fault: str | None) -> str:
    """`Running` while a whole generation serves, an older one included while the wanted one rolls in behind it."""
    if observed is None:
        return "Error" if fault else "Starting"
    if observed.serving and healthy(observed):
        return "Running"
    failed = any(r.state is State.FAILED for r in observed.replicas if not r.draining)
    broken = observed.error is not None and observed.target == generation
    return "Error" if failed or broken or fault else "Starting"


def _engine(
    replica: ObservedReplica, facts: DeploymentFacts, observed: Observed | None, models: Sequence[ModelVersion]
) -> dict[str, Any]:
    workers = {uid: as_one([w for w in replica.workers if w.uid == uid]) for uid in {w.uid for w in replica.workers}}
    return {
        "ip": observed.host if observed else None,
        "name": replica.name,
        "status": replica.state.value,
        "reason": replica.reason,
        "details": ["draining"] if replica.draining else [],
        "labels": {
            "pid": str(replica.pid),
            "generation": str(replica.generation),
            "restarts": str(replica.restarts),
            "in_flight": str(replica.in_flight),
        },
        "pipeline_statuses": {
            "pipelines": [
                {
                    "id": facts.pipeline_name,
                    "status": _MODEL_WORDS[replica.state],
                    "version": replica.pipeline_version,
                }
            ]
        },
        "model_statuses": {"models": [_model(m, workers.get(m.uid), replica.state) for m in models]},
    }


def _model(model: ModelVersion, worker: ObservedWorker | None, replica: State) -> dict[str, Any]:
    """A native model has one field more: what executes it."""
    told = {
        "model_version_id": model.id,
        "name": model.name,
        "sha": model.sha,
        "status": _MODEL_WORDS[worker.state if worker else replica],
        "version": model.version,
    }
    return {**told, "execution_provider": worker.provider} if worker and worker.native else told


def _host(observed: Observed, label: str) -> dict[str, Any]:
    return {
        "ip": observed.host,
        "name": f"engine-lb-{label}-{observed.pid}",
        "status": State.RUNNING.value,
        "reason": None,
        "details": [],
        "labels": {"pid": str(observed.pid), "port": str(observed.port)},
    }


def _sidekick(worker: ObservedWorker, observed: Observed) -> dict[str, Any]:
    return {
        "ip": observed.host,
        "name": f"engine-sidekick-{worker.uid}-{worker.pid}",
        "status": worker.state.value,
        "reason": worker.reason,
        "details": [],
        "labels": {"pid": str(worker.pid), "restarts": str(worker.restarts), "sandbox": worker.sandbox},
        "statuses": "\n",
    }
