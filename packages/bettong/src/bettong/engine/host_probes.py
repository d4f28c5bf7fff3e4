"""What a host tells of its replicas: each is probed live, and one that does not answer in time shows as unknown."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bettong.domain.deployments import ObservedReplica, ObservedWorker, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bettong.domain.deployments import DeploymentSpec
    from bettong.engine import lifecycle
    from bettong.engine.host_replica import ReplicaHandle

PROBE_TIMEOUT_S = 2.0

Answers = dict[str, dict[str, Any]]  # by the replica's name; one that did not answer in time is not in it


@dataclass(slots=True)
class _Probe:
    """Replicas that were asked, the ones that have not answered yet, and who waits for it."""

    tell: Callable[[Answers], None]
    due_s: float
    missing: set[str]
    answers: Answers = field(default_factory=dict)


class Probes:
    """The probes that are under way. Each one tells its answers once: when all are in, or when it is due."""

    def __init__(self) -> None:
        self._probes: dict[int, _Probe] = {}
        self._started = 0

    def start(self, handles: Mapping[str, ReplicaHandle], tell: Callable[[Answers], None]) -> None:
        """Ask every replica; `tell` is called before this returns when there is none."""
        self._started += 1
        number = self._started
        probe = _Probe(tell, time.monotonic() + PROBE_TIMEOUT_S, set(handles))
        self._probes[number] = probe
        for handle in handles.values():
            handle.send({"do": "probe", "id": number})
        if not probe.missing:
            self._end(number)

    def on_answer(self, name: str, message: dict[str, Any]) -> None:
        number = message["id"]
        if (probe := self._probes.get(number)) is None:
            return  # it came too late
        probe.answers[name] = message
        self._no_longer_missing(number, name)

    def on_exit(self, name: str) -> None:
        """Nobody waits for a replica that is gone."""
        for number in list(self._probes):
            self._no_longer_missing(number, name)

    def next_due_s(self) -> float:
        return min((probe.due_s for probe in self._probes.values()), default=float("inf"))

    def on_time(self, now_s: float) -> None:
        for number in [n for n, probe in self._probes.items() if probe.due_s <= now_s]:
            self._end(number)

    def _no_longer_missing(self, number: int, name: str) -> None:
        probe = self._probes[number]
        probe.missing.discard(name)
        if not probe.missing:
            self._end(number)

    def _end(self, number: int) -> None:
        probe = self._probes.pop(number)
        probe.tell(probe.answers)


def observed_replicas(
    fleet: lifecycle.Fleet,
    specs: Mapping[int, DeploymentSpec],
    handles: Mapping[str, ReplicaHandle],
    answers: Answers,
) -> tuple[ObservedReplica, ...]:
    """What is known of each replica, those that are to come back included. `specs` are by generation."""
    alive = [
        _observed(known, handles[known.name].pid, specs[known.generation], answers.get(known.name))
        for known in fleet.replicas
    ]
    pausing = [
        ObservedReplica(
            name=pause.name,
            pid=0,
            state=State.FAILED,
            generation=pause.generation,
            pipeline_version=specs[pause.generation].pipeline_version,
            reason=pause.reason,
            restarts=pause.restarts,
        )
        for pause in fleet.pauses
    ]
    return (*alive, *pausing)


def _observed(
    known: lifecycle.Replica, pid: int, spec: DeploymentSpec, answer: dict[str, Any] | None
) -> ObservedReplica:
    reason: str | None
    if known.phase == "starting":
        state, reason = State.PENDING, "Loading."
    elif answer is None:
        state, reason = State.UNKNOWN, f"Did not answer a probe within {PROBE_TIMEOUT_S:g} s."
    else:
        state, reason = State.RUNNING, known.reason
    workers = (answer or {}).get("workers", [])
    return ObservedReplica(
        name=known.name,
        pid=pid,
        state=state,
        generation=known.generation,
        pipeline_version=spec.pipeline_version,
        reason=reason,
        draining=known.phase == "leaving",
        restarts=known.restarts,
        in_flight=(answer or {}).get("in_flight", 0),
        log_problem=(answer or {}).get("log_problem"),
        workers=tuple(ObservedWorker(**{**w, "state": State(w["state"])}) for w in workers),
    )
