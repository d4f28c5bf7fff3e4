"""What follows in a host when something happens to its replicas: decided here, without a process, a socket or a clock.

A host keeps one `Fleet`. Every event goes through `step`, which returns the next fleet and the orders that the host
carries out. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0  # a replica that served this long starts its count of restarts anew
HANG_S = 15.0  # no heartbeat for this long: the replica hangs
MAX_LOAD_CRASHES = 3  # a new generation whose replica dies this often without a word does not load
LOAD_GRACE_S = 15.0  # beyond the models' own load time-outs, which give the better message
END_GRACE_S = 5.0  # beyond linger and drain: closing workers and the log
SUSPENDED_S = 5.0  # a host that was not run for this long cannot blame its replicas for silence

Phase = Literal["starting", "ready", "leaving"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the decisions need to know of one generation's deployment file."""

    generation: int
    replicas: int
    load_timeout_s: float = 120.0
    linger_s: float = 5.0
    drain_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica process. `restarts` counts its slot's; a leaving one is killed at `give_up_s`."""

    name: str
    generation: int
    index: int
    phase: Phase
    since_s: float  # of this phase
    beat_s: float
    restarts: int = 0
    reason: str | None = None
    give_up_s: float | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """A slot whose replica is gone and comes back at `until_s`. `name` and `reason` are those of the last one."""

    name: str
    generation: int
    index: int
    restarts: int
    until_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Fleet:
    """All that a host knows. `serving` is what new connections reach, `target` the newest generation asked for.

    `error` says why `target` does not serve and is not being loaded any more. `seed` makes replica names unique.
    """

    seed: str
    target: Plan
    serving: Plan | None = None
    error: str | None = None
    stopping: bool = False
    replicas: tuple[Replica, ...] = ()
    pauses: tuple[Pause, ...] = ()
    started: int = 0
    ticked_s: float = 0.0

    @property
    def takers(self) -> tuple[Replica, ...]:
        """The replicas that take new connections."""
        if self.serving is None or self.stopping:
            return ()
        return tuple(r for r in self.replicas if r.phase == "ready" and r.generation == self.serving.generation)

    @property
    def hopeless(self) -> bool:
        """Whether no replica will take connections unless somebody asks for another generation."""
        return self.stopping or (self.serving is None and self.error is not None)


# --- events and orders ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    name: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A replica said that it cannot load, and why; its exit follows."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Beat:
    name: str


@dataclass(frozen=True, slots=True)
class Exited:
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Roll:
    plan: Plan


@dataclass(frozen=True, slots=True)
class Stop:
    pass


@dataclass(frozen=True, slots=True)
class Tick:
    pass


Event = Ready | Refused | Beat | Exited | Roll | Stop | Tick


@dataclass(frozen=True, slots=True)
class Start:
    name: str
    generation: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Answer `Connection: close` for `linger_s`, finish what is in flight within `drain_s`, end."""

    name: str
    linger_s: float
    drain_s: float


@dataclass(frozen=True, slots=True)
class Kill:
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Serve:
    """New connections go to this generation from now on."""

    generation: int


@dataclass(frozen=True, slots=True)
class End:
    """Nothing runs any more: the host ends."""


Order = Start | Drain | Kill | Serve | End


# --- decisions ------------------------------------------------------------------------------------------------------


def begin(plan: Plan, seed: str, now_s: float) -> tuple[Fleet, list[Order]]:
    """A host's first generation."""
    return _start_all(Fleet(seed=seed, target=plan, ticked_s=now_s), plan, now_s)


def step(fleet: Fleet, event: Event, now_s: float) -> tuple[Fleet, list[Order]]:
    """What follows from `event`. An event about a replica that is gone changes nothing."""
    match event:
        case Roll(plan):
            return _roll(fleet, plan, now_s)
        case Stop():
            return _stop(fleet, now_s)
        case Tick():
            return _tick(fleet, now_s)
        case Ready(name) | Refused(name) | Beat(name) | Exited(name):
            replica = next((r for r in fleet.replicas if r.name == name), None)
            if replica is None:
                return fleet, []
    match event:
        case Ready():
            return _ready(fleet, replica, now_s)
        case Refused(_, reason):
            return _refused(fleet, replica, reason, now_s)
        case Beat():
            return _with(fleet, replace(replica, beat_s=now_s)), []
        case Exited(_, reason):
            return _exited(fleet, replica, reason, now_s)


def next_due_s(fleet: Fleet) -> float:
    """When the next `Tick` has something to decide; infinity for a fleet that waits for nothing."""
    due = [p.until_s for p in fleet.pauses]
    for replica in fleet.replicas:
        if replica.give_up_s is not None:
            due.append(replica.give_up_s)
        else:
            due.append(replica.beat_s + HANG_S)
    return min(due, default=float("inf"))


def pause_s(restarts: int) -> float:
    """Seconds before restart number `restarts` (from 0): 0.5, 1, 2, … up to 30."""
    return float(min(FIRST_PAUSE_S * 2 ** min(restarts, 16), LONGEST_PAUSE_S))


def _roll(fleet: Fleet, plan: Plan, now_s: float) -> tuple[Fleet, list[Order]]:
    """Load `plan` beside what serves. An older generation, or one that serves or is being loaded, changes nothing."""
    known = plan.generation < fleet.target.generation or (
        plan.generation == fleet.target.generation and fleet.error is None
    )
    if fleet.stopping or known:
        return fleet, []
    fleet, orders = _give_up_loading(fleet, now_s)
    fleet, starts = _start_all(replace(fleet, target=plan, error=None), plan, now_s)
    return fleet, [*orders, *starts]


def _ready(fleet: Fleet, replica: Replica, now_s: float) -> tuple[Fleet, list[Order]]:
    if replica.phase != "starting":
        return fleet, []
    fleet = _with(fleet, replace(replica, phase="ready", since_s=now_s, beat_s=now_s, give_up_s=None, reason=None))
    target = fleet.target
    if _is_serving(fleet, replica.generation) or replica.generation != target.generation:
        return fleet, []
    if sum(r.phase == "ready" and r.generation == target.generation for r in fleet.replicas) < target.replicas:
        return fleet, []
    old = [r for r in fleet.replicas if r.generation != target.generation and r.phase != "leaving"]
    linger_s, drain_s = (fleet.serving or target).linger_s, (fleet.serving or target).drain_s
    pauses = tuple(p for p in fleet.pauses if p.generation == target.generation)
    fleet, drains = _leave(replace(fleet, serving=target, pauses=pauses), old, linger_s, drain_s, now_s)
    return fleet, [Serve(target.generation), *drains]


def _refused(fleet: Fleet, replica: Replica, reason: str, now_s: float) -> tuple[Fleet, list[Order]]:
    if replica.phase == "leaving":
        return fleet, []
    fleet = _with(fleet, replace(replica, reason=reason))
    if _is_serving(fleet, replica.generation):
        return fleet, []  # its exit starts it again after a pause
    return _does_not_load(fleet, reason, now_s)


def _exited(fleet: Fleet, replica: Replica, reason: str, now_s: float) -> tuple[Fleet, list[Order]]:
    fleet = replace(fleet, replicas=tuple(r for r in fleet.replicas if r.name != replica.name))
    if replica.phase == "leaving":
        return fleet, [End()] if fleet.stopping and not fleet.replicas else []
    steady = replica.phase == "ready" and now_s - replica.since_s >= STEADY_S
    restarts = 0 if steady else replica.restarts
    reason = replica.reason or reason
    if not _is_serving(fleet, replica.generation) and restarts + 1 >= MAX_LOAD_CRASHES:
        return _does_not_load(fleet, reason, now_s)
    pause = Pause(replica.name, replica.generation, replica.index, restarts + 1, now_s + pause_s(restarts), reason)
    return replace(fleet, pauses=(*fleet.pauses, pause)), []


def _stop(fleet: Fleet, now_s: float) -> tuple[Fleet, list[Order]]:
    drain_s = (fleet.serving or fleet.target).drain_s
    fleet = replace(fleet, stopping=True, pauses=())
    if not fleet.replicas:
        return fleet, [End()]
    return _leave(fleet, list(fleet.replicas), 0.0, drain_s, now_s)


def _tick(fleet: Fleet, now_s: float) -> tuple[Fleet, list[Order]]:
    if now_s - fleet.ticked_s > HANG_S + SUSPENDED_S:  # next_due_s asks for a tick sooner: this host itself was halted
        fleet = replace(fleet, replicas=tuple(replace(r, beat_s=now_s) for r in fleet.replicas))
    fleet = replace(fleet, ticked_s=now_s)
    orders: list[Order] = []
    for replica in fleet.replicas:
        if (reason := _overdue(fleet, replica, now_s)) is not None:
            orders.append(Kill(replica.name, reason))
            # Asked for once: the next Kill, should this one be lost, is due only after another such while.
            late = None if replica.give_up_s is None else now_s + HANG_S
            fleet = _with(fleet, replace(replica, beat_s=now_s, give_up_s=late, reason=reason))
            timed_out = replica.phase == "starting" and replica.give_up_s is not None and now_s >= replica.give_up_s
            if timed_out and not _is_serving(fleet, replica.generation):
                fleet, others = _does_not_load(fleet, reason, now_s)
                orders += others
    for pause in [p for p in fleet.pauses if p.until_s <= now_s]:
        fleet = replace(fleet, pauses=tuple(p for p in fleet.pauses if p is not pause))
        fleet, start = _start(fleet, _plan_of(fleet, pause.generation), pause.index, pause.restarts, now_s)
        orders.append(start)
    return fleet, orders


def _overdue(fleet: Fleet, replica: Replica, now_s: float) -> str | None:
    """Why `replica` has to be killed now, if it has to."""
    if replica.give_up_s is not None and now_s >= replica.give_up_s:
        if replica.phase == "starting":
            return f"Did not load within {_plan_of(fleet, replica.generation).load_timeout_s:g} s."
        return "Did not end in time after it was told to."
    if replica.phase != "leaving" and now_s - replica.beat_s >= HANG_S:
        return f"Gave no sign of life for {HANG_S:g} s."
    return None


def _does_not_load(fleet: Fleet, reason: str, now_s: float) -> tuple[Fleet, list[Order]]:
    """Give the target up; what served before goes on."""
    fleet, orders = _give_up_loading(fleet, now_s)
    return replace(fleet, error=reason), orders


def _give_up_loading(fleet: Fleet, now_s: float) -> tuple[Fleet, list[Order]]:
    loading = [r for r in fleet.replicas if not _is_serving(fleet, r.generation) and r.phase != "leaving"]
    pauses = tuple(p for p in fleet.pauses if _is_serving(fleet, p.generation))
    return _leave(replace(fleet, pauses=pauses), loading, 0.0, 0.0, now_s)


def _start_all(fleet: Fleet, plan: Plan, now_s: float) -> tuple[Fleet, list[Order]]:
    orders: list[Order] = []
    for index in range(plan.replicas):
        fleet, start = _start(fleet, plan, index, 0, now_s)
        orders.append(start)
    return fleet, orders


def _start(fleet: Fleet, plan: Plan, index: int, restarts: int, now_s: float) -> tuple[Fleet, Start]:
    mark = hashlib.sha256(f"{fleet.seed}:{fleet.started}".encode()).hexdigest()[:6]
    name = f"engine-{plan.generation}-{mark}-{index}"
    give_up_s = now_s + plan.load_timeout_s + LOAD_GRACE_S
    replica = Replica(name, plan.generation, index, "starting", now_s, now_s, restarts, give_up_s=give_up_s)
    fleet = replace(fleet, replicas=(*fleet.replicas, replica), started=fleet.started + 1)
    return fleet, Start(name, plan.generation)


def _leave(
    fleet: Fleet, leaving: list[Replica], linger_s: float, drain_s: float, now_s: float
) -> tuple[Fleet, list[Order]]:
    orders: list[Order] = []
    for replica in leaving:
        give_up_s = now_s + linger_s + drain_s + END_GRACE_S
        if replica.phase == "leaving" and replica.give_up_s is not None:
            give_up_s = min(give_up_s, replica.give_up_s)
        fleet = _with(fleet, replace(replica, phase="leaving", since_s=now_s, give_up_s=give_up_s))
        orders.append(Drain(replica.name, linger_s, drain_s))
    return fleet, orders


def _is_serving(fleet: Fleet, generation: int) -> bool:
    return fleet.serving is not None and fleet.serving.generation == generation


def _plan_of(fleet: Fleet, generation: int) -> Plan:
    return fleet.serving if fleet.serving is not None and fleet.serving.generation == generation else fleet.target


def _with(fleet: Fleet, changed: Replica) -> Fleet:
    return replace(fleet, replicas=tuple(changed if r.name == changed.name else r for r in fleet.replicas))
